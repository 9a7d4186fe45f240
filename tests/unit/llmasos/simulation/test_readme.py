"""The output folder explains itself, with commands that can be copied."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from llmasos.simulation.layout import OWNED, Layout
from llmasos.simulation.readme import text


def page(root: Path) -> str:
    return text(Layout(root), title="LLMasOS demo", institutions=("north", "south"))


def test_every_file_that_it_names_is_one_that_a_simulation_writes() -> None:
    cells = re.findall(r"^\| `(.*?)` \|", page(Path("/x")), re.MULTILINE)
    named = {name.split("/")[0] for cell in cells for name in cell.split("`, `")}
    assert named <= set(OWNED)
    assert {"report.html", "model", "coordinator", "participants", "logs"} <= named


def test_an_adapter_and_its_base_are_named_where_one_is_trained() -> None:
    adapted = text(Layout(Path("/x")), title="LLMasOS demo", institutions=("north",), adapted=True)
    assert "| `model/adapter/` |" in adapted
    assert "| `base/` |" in adapted
    assert {"base", "model"} <= set(OWNED)
    assert "model/adapter" not in page(Path("/x"))


def test_commands_survive_a_folder_with_spaces() -> None:
    line = next(line for line in page(Path("/my folder/out")).splitlines() if "participant start" in line)
    words = shlex.split(line)
    assert words[-2:] == ["--home", "/my folder/out/participants/south"]


def test_the_demos_text_is_named_only_where_it_is(tmp_path: Path) -> None:
    assert "`data/`" not in page(tmp_path)
    (tmp_path / "data").mkdir()
    assert "`data/`" in page(tmp_path)
