"""Search spaces: what a file says, and what a grid makes of it."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from common.errors import InvalidConfiguration
from llmasos.search.space import Choices, Range, from_json, parse_space, read_space


def test_a_file_names_fields_with_ranges_or_choices(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(
        "local.optimizer.learning_rate: {low: 1e-4, high: 1e-2, log: true}\n"
        "local.batch_size: {low: 4, high: 32, step: 4}\n"
        "model.n_layer: [2, 4, 2]\n"
        "server_optimizer: [{type: sgd}, {type: nesterov, learning_rate: 0.7}]\n"
    )
    found = read_space(file)
    assert found["local.optimizer.learning_rate"] == Range(1e-4, 1e-2, whole=False, log=True)
    assert found["local.batch_size"] == Range(4, 32, whole=True, step=4)
    assert found["model.n_layer"] == Choices(("2", "4"))
    nesterov = found["server_optimizer"].grid("server_optimizer")[1]
    assert from_json(nesterov) == {"type": "nesterov", "learning_rate": Decimal("0.7")}


@pytest.mark.parametrize(
    ("entry", "values"),
    [
        ({"low": 4, "high": 13, "step": 4}, [4, 8, 12]),
        ({"low": 1, "high": 3}, [1, 2, 3]),
        ({"low": 1e-4, "high": 1e-2, "log": True, "points": 3}, [1e-4, pytest.approx(1e-3), 1e-2]),
        ({"low": 0, "high": Decimal("0.5"), "points": 2}, [0, 0.5]),
        ({"low": Decimal("0.1"), "high": Decimal("0.5"), "step": Decimal("0.2")}, pytest.approx([0.1, 0.3, 0.5])),
        ({"low": 1, "high": 100, "log": True, "points": 3}, [1, 10, 100]),
    ],
)
def test_a_grid_holds_both_ends(entry: dict[str, Any], values: list[Any]) -> None:
    assert parse_space({"field": entry})["field"].grid("field") == values


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "holds no fields"),
        ([1], "holds no fields"),
        ({"a": 3}, r"a: expected \{low, high\} or a list of choices without null, got 3"),
        ({"a": []}, "without null"),
        ({"a": [1, None]}, "without null"),
        ({"a..b": [1]}, "expected a field of the plan"),
        ({"a": {"low": 1}}, "expected low and high, .* got only low"),
        ({"a": {"low": 1, "high": 2, "max": 3}}, "got also max"),
        ({"a": {"low": 2, "high": 1}}, "expected low < high"),
        ({"a": {"low": 0, "high": 1, "log": True}}, "above 0 with log"),
        ({"a": {"low": 1, "high": 9, "log": True, "step": 2}}, "a step above 0 and not with log"),
        ({"a": {"low": "x", "high": 1}}, "expected numbers"),
        ({"a": {"low": 0, "high": 1, "points": 1}}, "points is 1, expected 2 or more"),
    ],
)
def test_what_is_no_space_is_told_with_its_field(space: Any, message: str) -> None:
    with pytest.raises(InvalidConfiguration, match=message):
        parse_space(space)


def test_a_grid_of_fractions_needs_points() -> None:
    with pytest.raises(InvalidConfiguration, match=r"a grid needs `points` or `step` between 0.1 and 1"):
        parse_space({"a": {"low": Decimal("0.1"), "high": 1}})["a"].grid("a")
