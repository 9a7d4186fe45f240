"""The code of docs/sdk.md runs as written, block after block, on a small corpus."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from tests.support.texts import make_institutions  # noqa: E402

pytestmark = pytest.mark.torch

PAGE = Path(__file__).resolve().parents[2] / "docs" / "sdk.md"
CONSORTIUM = "## A whole consortium"


def blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A researcher's: a corpus, and conversations beside texts."""
    make_institutions(tmp_path, count=1, documents=8, words=150)["clinic"].rename(tmp_path / "corpus")
    talks = make_institutions(tmp_path, count=1, documents=40, words=60)["clinic"].rename(tmp_path / "talks")
    records = [{"prompt": f"How are you {number}?", "response": "Well."} for number in range(40)]
    (talks / "talks.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(threads)


def test_the_pages_code_runs_as_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert (
        len(blocks(page)) == len(blocks(page.partition(CONSORTIUM)[0])) + 1
    )  # tests/e2e/test_sdk.py runs the last one
    names: dict[str, Any] = {}
    for block in blocks(page.partition(CONSORTIUM)[0]):
        exec(compile(block, str(PAGE), "exec"), names)
    told = capsys.readouterr().out
    assert "perplexity=" in told
    assert "今天天气怎么样？" in told
    assert "llm_model.pt" in os.listdir(folder)
    assert names["history"][-1]["validation_loss"] > 0
    assert names["speaker"].task.type == "mixture"


def test_the_readme_begins_as_the_page_does() -> None:
    readme = (PAGE.parents[1] / "README.md").read_text(encoding="utf-8").partition("## As a library")[2]
    assert blocks(readme)[0].startswith(blocks(PAGE.read_text(encoding="utf-8"))[0])
