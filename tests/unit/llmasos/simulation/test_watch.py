"""Run views are parsed into types, and nothing else passes."""

from __future__ import annotations

import json
import math

import pytest

from common.errors import OperationError
from llmasos.simulation.watch import parse_view, perplexity
from tests.support.fake_daemons import a_view


def test_a_view_is_parsed_with_all_its_parts() -> None:
    view = parse_view(json.dumps(a_view()).encode())
    assert view.ended
    assert [entry.task for entry in view.rounds] == ["train", "train", "evaluate"]
    assert view.participants[0].loss == 4.0
    assert view.model is not None
    assert view.model.root == "ab" * 32
    final = view.final_round
    assert final is not None
    assert final.pooled == pytest.approx(math.exp(4.1), rel=1e-6)


def test_a_run_that_goes_on_has_no_final_round() -> None:
    assert parse_view(json.dumps(a_view(ended=False)).encode()).final_round is None


def test_fields_of_a_newer_release_are_passed_over() -> None:
    assert parse_view(json.dumps(a_view() | {"weather": "fine"}).encode()).run == "tiny-abc123"


def test_a_line_that_is_no_view_is_quoted() -> None:
    with pytest.raises(OperationError, match=r"`run watch` printed a line that is no run view") as caught:
        parse_view(b"Traceback (most recent call last):")
    assert "Traceback" in caught.value.message
    assert "same release" in caught.value.fix


def test_a_missing_field_is_named() -> None:
    view = a_view()
    del view["phase"]
    with pytest.raises(OperationError, match="phase: Field required"):
        parse_view(json.dumps(view).encode())


def test_perplexity_of_nothing_and_of_too_much_is_infinite() -> None:
    assert perplexity(0, 0) == math.inf
    assert perplexity(2**52, 1) == math.inf
    assert perplexity(2**16, 1) == pytest.approx(math.e)
