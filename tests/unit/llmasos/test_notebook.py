"""In a real Jupyter kernel the SDK's results show themselves, bars are seen, and nothing warns."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("pandas")
nbclient = pytest.importorskip("nbclient", reason="needs the dev extra: nbclient and ipykernel")
nbformat = pytest.importorskip("nbformat")

from llmasos.simulation.report_json import write_report_json  # noqa: E402
from tests.support.simulated import some_results  # noqa: E402
from tests.support.texts import make_institutions  # noqa: E402

pytestmark = pytest.mark.torch

ROOT = Path(__file__).resolve().parents[3]
FIT = """
import llmasos
tokenizer = llmasos.tokenizers.train("./corpus", vocab_size=400)
data = llmasos.datasets.load_dataset("./corpus", tokenizer=tokenizer)
model = llmasos.models.GPT(n_layer=1, n_head=2, n_embd=16, n_positions=16)
model.fit(data.train, llmasos.optimizers.Adam(lr=3e-4), llmasos.losses.CrossEntropyLoss(), steps=3)
"""
TABLE = """
import io
from contextlib import redirect_stdout
from pathlib import Path
from llmasos.simulation.app import Simulation, SimulationOptions
from llmasos.simulation.layout import Layout
from tests.support.simulated import some_results
with redirect_stdout(io.StringIO()) as table:
    Simulation(SimulationOptions((), Path(".")), Layout(Path("."))).tell(some_results())
"perplexity" in table.getvalue()
"""
CELLS = (
    FIT,
    "model.fit(data.train, steps=1, progress_bar=False).plot()",
    "model.evaluate(data.validation)",
    'result = llmasos.SimulationResult.load("./simulated")\nresult',
    "result.rounds",
    "result.plot()",
    'llmasos.simulate("plan.yaml", institutions={"a": "./absent"})',
    TABLE,
)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> list[list[Any]]:
    """What each cell put out."""
    folder = tmp_path_factory.mktemp("notebook")
    make_institutions(folder, count=1)["clinic"].rename(folder / "corpus")
    (folder / "simulated").mkdir()
    write_report_json(some_results(), model=folder / "model", file=folder / "simulated" / "report.json")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", ":".join([str(ROOT), *filter(None, sys.path)]))
        patched.setenv("OMP_NUM_THREADS", "1")
        for place in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):  # nobody's own
            patched.setenv(place, str(folder / place.lower()))
        nbclient.execute(notebook, cwd=str(folder), timeout=120, kernel_name="python3", allow_errors=True)
    return [cell.outputs for cell in notebook.cells]


def text(outputs: list[Any], kind: str) -> str:
    """All of a stream, or of the results in a form."""
    streams = [one.text for one in outputs if one.output_type == "stream" and one.name == kind]
    return "".join(streams + [one.data.get(kind, "") for one in outputs if "data" in one])


def test_a_fit_shows_a_bar_and_its_history_and_nothing_warns(shown: list[list[Any]]) -> None:
    assert "3/3" in text(shown[0], "stderr")
    assert "loss" in text(shown[0], "stderr")
    assert "Warning" not in text(shown[0], "stderr")
    assert text(shown[0], "stdout") == ""
    assert "History(step 3 of 3" in text(shown[0], "text/html")
    assert "<svg" in text(shown[0], "text/html")


def test_a_bar_that_is_not_wanted_is_not_shown(shown: list[list[Any]]) -> None:
    assert text(shown[1], "stderr") == text(shown[1], "stdout") == ""
    assert "<svg" in text(shown[1], "text/html")


def test_results_show_themselves(shown: list[list[Any]]) -> None:
    assert "perplexity" in text(shown[2], "text/html")
    assert "2 rounds by 3 institutions: perplexity 60.34" in text(shown[3], "text/html")
    assert "<svg" in text(shown[3], "text/html")
    assert "contributors" in text(shown[4], "text/html")
    assert "dataframe" in text(shown[4], "text/html")
    assert text(shown[5], "text/html").count("<svg") == 1


def test_the_commands_table_is_kept_back_as_anywhere(shown: list[list[Any]]) -> None:
    assert [one.data["text/plain"] for one in shown[7]] == ["True"]


def test_an_error_is_its_sentence(shown: list[list[Any]]) -> None:
    (error,) = [one for one in shown[6] if one.output_type == "error"]
    assert error.ename == "UsageError"
    assert error.evalue.startswith("Institution a: expected a folder of text, but absent is none.")
