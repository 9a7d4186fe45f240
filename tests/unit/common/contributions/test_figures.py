"""Rows of real rounds against plain numpy; what is lacking is said; a round without one delta is the reducer's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from common.blobs.reader import BlobReader
from common.blobs.reference import BlobRef
from common.contributions.figures import round_figures
from common.contributions.left_out import expect_measurable, model_without, with_effects
from common.errors import CorruptChunk, UsageError, WrongDeltaCount
from common.ledger.state import RoundRecord, RunRecord
from common.tensors import model_header, trainable_header
from tests.support.blobs import read_blob
from tests.support.coordinators import Coordinator
from tests.support.participants import MANIFEST
from tests.support.plans import a_plan

NAMES = ("east", "north", "south")
Values = NDArray[np.float64]
TRAINABLE = sum(tensor.elements for tensor in MANIFEST if tensor.group == "trainable")


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    made = Coordinator(tmp_path / "coordinator")
    yield made
    made.close()


def played(coordinator: Coordinator, **plan: Any) -> tuple[RunRecord, RoundRecord]:
    """A finished run, and its newest training round."""
    coordinator.start_run(**{"rounds": 2, "contributions_visibility": "operator"} | plan)
    coordinator.play()
    return coordinator.run, coordinator.run.committed()[-1]


def weights_in(content: bytes) -> Values:
    return np.frombuffer(content, "<f4", count=TRAINABLE, offset=len(model_header(MANIFEST))).astype(np.float64)


def delta_of(coordinator: Coordinator, record: RoundRecord, name: str) -> Values:
    content = read_blob(coordinator.blobs, record.contributions[name].contribution.blobs["delta"])
    return np.frombuffer(content, "<f4", offset=len(trainable_header(MANIFEST))).astype(np.float64)


@pytest.mark.parametrize("plan", [{}, {"rule": {"type": "median"}}, {"server_optimizer": {"type": "adam"}}], ids=str)
def test_every_figure_is_numpys(coordinator: Coordinator, plan: dict[str, Any]) -> None:
    run, record = played(coordinator, **plan)
    assert record.closed is not None
    figures = round_figures(run, record, coordinator.blobs)
    before = weights_in(read_blob(coordinator.blobs, record.opened.inputs.model))
    step = weights_in(read_blob(coordinator.blobs, record.closed.outputs.model)) - before
    assert [row.institution for row in figures.rows] == list(NAMES)
    assert figures.step_l2 == pytest.approx(np.linalg.norm(step))
    tokens = {name: 10 + len(name) for name in NAMES}
    for row in figures.rows:
        delta = delta_of(coordinator, record, row.institution)
        assert (row.round, row.num_tokens, row.lacking) == (record.number, tokens[row.institution], "")
        assert row.share == pytest.approx(tokens[row.institution] / sum(tokens.values()))
        assert row.l2 == pytest.approx(np.linalg.norm(delta))
        assert row.cosine == pytest.approx(delta @ step / np.linalg.norm(delta) / np.linalg.norm(step))


def test_with_the_mean_the_cosine_is_the_one_to_the_mean_of_the_deltas(coordinator: Coordinator) -> None:
    run, record = played(coordinator)
    mean = sum((10 + len(name)) * delta_of(coordinator, record, name) for name in NAMES)
    for row in round_figures(run, record, coordinator.blobs).rows:
        delta = delta_of(coordinator, record, row.institution)
        assert row.cosine == pytest.approx(delta @ mean / np.linalg.norm(delta) / np.linalg.norm(mean), abs=1e-5)


def test_one_institutions_row_needs_nobody_elses_delta(coordinator: Coordinator) -> None:
    run, record = played(coordinator)
    (_, north, _) = round_figures(run, record, coordinator.blobs).rows
    for name in ("east", "south"):
        coordinator.blobs.delete(record.contributions[name].contribution.blobs["delta"])
    assert round_figures(run, record, coordinator.blobs, {"north"}).rows == (north,)


def test_a_row_whose_delta_is_gone_says_so_and_the_others_stay(coordinator: Coordinator) -> None:
    run, record = played(coordinator)
    whole = round_figures(run, record, coordinator.blobs)
    coordinator.blobs.delete(record.contributions["north"].contribution.blobs["delta"])
    east, north, south = round_figures(run, record, coordinator.blobs).rows
    assert (east, south) == (whole.rows[0], whole.rows[2])
    assert (north.l2, north.cosine, north.lacking) == (None, None, "delta not held here")
    assert north.share == whole.rows[1].share


def test_without_the_models_there_are_shares_alone(coordinator: Coordinator) -> None:
    run, record = played(coordinator)
    coordinator.blobs.delete(record.opened.inputs.model)
    figures = round_figures(run, record, coordinator.blobs)
    assert figures.step_l2 is None
    assert {row.lacking for row in figures.rows} == {"base model not held here"}


def test_retention_shows_in_the_rows(coordinator: Coordinator) -> None:
    run, _ = played(coordinator, retention={"delta_rounds": 2})
    first, second = run.committed()
    assert {row.lacking for row in round_figures(run, first, coordinator.blobs).rows} != {""}
    assert {row.lacking for row in round_figures(run, second, coordinator.blobs).rows} == {""}


class GivenUp:
    """The coordinator's blobs; when the delta of north is opened, retention gives it up and the file is written over."""

    def __init__(self, coordinator: Coordinator, ref: BlobRef, *, deleted: bool = True) -> None:
        self._blobs, self._ref, self._deleted = coordinator.blobs, ref, deleted

    def contains(self, ref: BlobRef) -> bool:
        return self._blobs.contains(ref)

    def open(self, ref: BlobRef) -> BlobReader:
        reader = self._blobs.open(ref)
        if ref == self._ref:
            path = self._blobs.path(ref)
            path.write_bytes(bytes(ref.size))
            if self._deleted:
                self._blobs.delete(ref)
        return reader


def test_what_is_given_up_while_it_is_read_is_lacking_and_what_came_to_harm_is_an_error(
    coordinator: Coordinator, tmp_path: Path
) -> None:
    run, record = played(coordinator)
    ref = record.contributions["north"].contribution.blobs["delta"]
    with pytest.raises(CorruptChunk):
        round_figures(run, record, GivenUp(coordinator, ref, deleted=False))
    figures = round_figures(run, record, GivenUp(coordinator, ref))
    assert {row.lacking for row in figures.rows} == {"given up while it was read"}


def test_an_effect_whose_delta_is_given_up_meanwhile_is_lacking(coordinator: Coordinator, tmp_path: Path) -> None:
    run, record = played(coordinator)
    figures = round_figures(run, record, coordinator.blobs)
    blobs = GivenUp(coordinator, record.contributions["north"].contribution.blobs["delta"])
    found = with_effects(run, record, figures, blobs, (first_weight, tmp_path / "model"))
    assert {row.effect_lacking for row in found.rows} == {"the delta of north not held here"}
    assert [row.cosine for row in found.rows] == [row.cosine for row in figures.rows]


# --- leaving one out -----------------------------------------------------------------------------------------------------


def first_weight(path: Path) -> float:
    """Stands for a loss: any number that depends on the model alone."""
    return float(weights_in(path.read_bytes())[0])


def test_the_effect_is_the_loss_of_the_others_model_minus_the_rounds(coordinator: Coordinator, tmp_path: Path) -> None:
    run, record = played(coordinator)
    assert record.closed is not None
    figures = with_effects(
        run,
        record,
        round_figures(run, record, coordinator.blobs),
        coordinator.blobs,
        (first_weight, tmp_path / "model"),
    )
    committed = weights_in(read_blob(coordinator.blobs, record.closed.outputs.model))
    base = weights_in(read_blob(coordinator.blobs, record.opened.inputs.model))
    assert figures.loss == committed[0]
    for row in figures.rows:
        others = [name for name in NAMES if name != row.institution]
        mean = sum((10 + len(name)) * delta_of(coordinator, record, name) for name in others)
        expected = base + mean / sum(10 + len(name) for name in others)
        model_without(run, record, coordinator.blobs, row.institution, tmp_path / "without")
        assert weights_in((tmp_path / "without").read_bytes()) == pytest.approx(expected, abs=1e-6)
        assert row.effect == pytest.approx(expected[0] - committed[0], abs=1e-6)
        assert row.effect != 0.0


@pytest.mark.parametrize(
    "plan",
    [{"downlink": {"type": "int8"}}, {"server_optimizer": {"type": "adam"}}, {"codec": {"type": "int8"}}],
    ids=str,
)
def test_leaving_nobody_out_gives_the_rounds_own_model(
    coordinator: Coordinator, tmp_path: Path, plan: dict[str, Any]
) -> None:
    run, record = played(coordinator, **plan)
    assert record.closed is not None
    model_without(run, record, coordinator.blobs, "nobody", tmp_path / "model")
    assert (tmp_path / "model").read_bytes() == read_blob(coordinator.blobs, record.closed.outputs.model)
    model_without(run, record, coordinator.blobs, "east", tmp_path / "model")
    assert (tmp_path / "model").read_bytes() != read_blob(coordinator.blobs, record.closed.outputs.model)


def test_a_rule_that_needs_them_all_says_so(coordinator: Coordinator, tmp_path: Path) -> None:
    run, record = played(coordinator, rule={"type": "median"})
    with pytest.raises(WrongDeltaCount, match="median with byzantine 1 needs at least 3 deltas"):
        model_without(run, record, coordinator.blobs, "east", tmp_path / "model")
    figures = round_figures(run, record, coordinator.blobs)
    rows = with_effects(run, record, figures, coordinator.blobs, (first_weight, tmp_path / "model")).rows
    assert {row.effect for row in rows} == {None}
    assert all("needs at least 3 deltas" in row.effect_lacking for row in rows)
    assert all(row.cosine is not None for row in rows)


def test_without_every_delta_there_is_no_effect(coordinator: Coordinator, tmp_path: Path) -> None:
    run, record = played(coordinator)
    coordinator.blobs.delete(record.contributions["north"].contribution.blobs["delta"])
    figures = round_figures(run, record, coordinator.blobs)
    found = with_effects(run, record, figures, coordinator.blobs, (first_weight, tmp_path / "model"))
    assert found.loss is None
    assert {row.effect_lacking for row in found.rows} == {"the delta of north not held here"}


@pytest.mark.parametrize(
    ("plan", "why"),
    [({"rule": {"type": "operator"}}, "the operator's own"), ({"personal": ["bias"]}, "keeps layers personal")],
)
def test_plans_whose_rounds_cannot_be_taken_without_one_delta_are_refused(
    coordinator: Coordinator, plan: dict[str, Any], why: str
) -> None:
    run, _ = played(coordinator)
    other = replace(run, statement=run.statement.model_copy(update={"plan": a_plan(**plan)}))
    with pytest.raises(UsageError, match=why):
        expect_measurable(other)
    expect_measurable(run)
