"""A history is rows, a table, a plot and a DataFrame."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from common.errors import MissingExtra
from llmasos import extras
from llmasos.language_model.history import COLUMNS, History


def a_history() -> History:
    def row(step: int, loss: float, validation: float | None) -> dict[str, object]:
        return dict(zip(COLUMNS, (step, step * 10, loss, 0.1, validation, None, 0.5, 20.0), strict=True))

    return History(4, [row(1, 5.0, None), row(2, 4.0, 4.5)], interrupted=True)


def test_a_history_is_a_sequence_of_rows_and_says_where_it_ended() -> None:
    history = a_history()
    assert [row["loss"] for row in history] == [5.0, 4.0]
    assert [row["step"] for row in history[:1]] == [1]
    assert repr(history) == "History(step 2 of 4: loss 4.0000, validation 4.5000, interrupted)"
    assert repr(History(4)) == "History(no steps of 4)"


def test_a_plot_is_an_svg_of_its_own(tmp_path: Path) -> None:
    path = a_history().plot().save(tmp_path / "loss.svg")
    root = ET.parse(path).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert {"training", "validation"} <= {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert "polyline.s0{stroke:#" in path.read_text()


def test_a_notebook_shows_plot_and_table() -> None:
    shown = a_history()._repr_html_()
    assert "<svg" in shown
    assert "<th>validation_loss</th>" in shown
    assert "Nothing to draw" in History(4).plot()._repr_html_()


def test_pandas_reads_it() -> None:
    pandas = pytest.importorskip("pandas")
    frame = a_history().to_pandas()
    assert list(frame.columns) == list(COLUMNS)
    assert frame["loss"].tolist() == [5.0, 4.0]
    assert pandas.DataFrame(a_history())["step"].tolist() == [1, 2]


def test_without_pandas_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda package: None)
    with pytest.raises(MissingExtra, match="To make a DataFrame, pandas must be installed") as caught:
        a_history().to_pandas()
    assert caught.value.fix == "Install them: pip install 'llmasos[notebook]'."
