"""Metrics beside contributions: kept where the plan says so, shown as far as the plan says so."""

from __future__ import annotations

import pytest

from common.errors import BadCommitment, UnknownObject, UsageError
from common.verify.report import Outcome
from coordinator.ports import EvaluationView, Metrics
from coordinator.rounds.phases import LOSS_SCALE, EvaluationSums
from coordinator.tables import check_tables
from coordinator.watching.metrics import parse_metrics, visible
from tests.support.coordinators import Coordinator
from tests.support.participants import RUN, TOKENS

THREE = (EvaluationSums("east", 100, 10), EvaluationSums("north", 200, 20), EvaluationSums("south", 300, 30))
POOL = EvaluationView("pooled", 600, 60, 3)


@pytest.mark.parametrize(
    ("sums", "visibility", "shown"),
    [
        (THREE, "none", ()),
        (THREE, "pooled", (POOL,)),
        (THREE[:2], "pooled", ()),
        ((), "pooled", ()),
        ((*THREE[:2], EvaluationSums("south", 0, 0)), "pooled", ()),
        ((*THREE, EvaluationSums("west", 0, 0)), "pooled", (POOL,)),
        (THREE, "institution", (POOL, *(EvaluationView(e.institution, e.loss_sum_fixed, e.num_tokens, 1) for e in THREE))),
        (THREE[:1], "institution", (EvaluationView("pooled", 100, 10, 1), EvaluationView("east", 100, 10, 1))),
    ],
    ids=["none", "pooled", "two", "nobody", "two-and-one-without-data", "one-without-data", "institution", "alone"],
)  # fmt: skip
def test_visibility_is_the_plans(
    sums: tuple[EvaluationSums, ...], visibility: str, shown: tuple[EvaluationView, ...]
) -> None:
    assert visible(sums, visibility) == shown


def test_metrics_of_a_contribution_are_kept_in_its_transaction(coordinator: Coordinator) -> None:
    coordinator.open_round()
    north = coordinator["north"]
    north.contribute()
    digest = coordinator.run.rounds[0].contributions["north"].place.digest
    row = coordinator.database.metrics(RUN)[digest]
    assert Metrics(row.content, row.salt) == north.metrics()
    coordinator.restart()
    measured = coordinator.measurements.evaluations(RUN)[1]
    assert [(entry.institution, entry.num_tokens) for entry in measured] == [("north", TOKENS)]
    assert measured[0].perplexity == pytest.approx(100.0, rel=1e-6)


def test_where_the_plan_keeps_metrics_at_home_none_are_asked_for_and_none_are_kept(coordinator: Coordinator) -> None:
    coordinator.open_round(metrics_visibility="none", rounds=1)
    coordinator["east"].contribute()
    north = coordinator["north"]
    north.submit(north.contribution(north.send(north.delta()), metrics_commitment=None))
    assert coordinator.database.metrics(RUN) == {}
    assert coordinator.measurements.evaluations(RUN) == {}


def test_a_deleted_record_breaks_nothing(coordinator: Coordinator) -> None:
    coordinator.start_run(rounds=1)
    coordinator.play()
    with coordinator.database.transaction() as tx:
        tx._connection.exec_driver_sql("DELETE FROM metrics")
    coordinator.restart()
    assert coordinator.measurements.evaluations(RUN) == {}
    assert coordinator.views.runs()[0].end_reason == "rounds-done"


def test_measurements_are_in_the_order_of_names_by_round(coordinator: Coordinator) -> None:
    coordinator.start_run(rounds=1)
    coordinator.play()
    found = coordinator.measurements.evaluations(RUN)
    assert {number: [entry.institution for entry in entries] for number, entries in found.items()} == {
        1: ["east", "north", "south"],
        2: ["east", "north", "south"],
    }


def test_metrics_say_an_evaluation_and_perhaps_a_training_loss() -> None:
    parsed = parse_metrics(b'{"evaluation":{"loss_sum_fixed":65536,"num_tokens":2},"train_loss_fixed":3}')
    assert parsed.evaluation.loss_sum_fixed == LOSS_SCALE
    assert parsed.train_loss_fixed == 3


def test_metrics_have_one_spelling() -> None:
    with pytest.raises(BadCommitment, match=r"The metrics are not canonical JSON: sorted keys, no spaces\."):
        parse_metrics(b'{"evaluation": {"loss_sum_fixed":1,"num_tokens":1}}')


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b'{"evaluation":null}',
        b'{"evaluation":{"loss_sum_fixed":9007199254740992,"num_tokens":1}}',
        b'{"evaluation":{"loss_sum_fixed":1,"num_tokens":1099511627776}}',
        b'{"evaluation":{"loss_sum_fixed":"1","num_tokens":1}}',
        b'{"evaluation":{"loss_sum_fixed":true,"num_tokens":1}}',
        b'{"evaluation":{"loss_sum_fixed":1,"num_tokens":1},"evaluation":{"loss_sum_fixed":2,"num_tokens":1}}',
        b'{"evaluation":{"loss_sum_fixed":NaN,"num_tokens":1}}',
        b'{"a":{"b":{"c":{"d":{}}}}}',
    ],
)
def test_what_is_no_metrics_is_refused(content: bytes) -> None:
    with pytest.raises(BadCommitment, match=r"The metrics are not of the form that docs/protocol\.md#metrics gives\."):
        parse_metrics(content)


# --- deleting ---------------------------------------------------------------------------------------------------------


def ended(coordinator: Coordinator, **plan: object) -> Coordinator:
    coordinator.start_run(rounds=1, **plan)
    coordinator.play()
    return coordinator


def perplexities(coordinator: Coordinator) -> list[list[str]]:
    """By round: whose measurements an operator sees."""
    return [[entry.scope for entry in record.evaluations] for record in coordinator.views.runs()[0].rounds]


def test_metrics_of_a_run_are_deleted_and_commitments_stay(coordinator: Coordinator) -> None:
    ended(coordinator)
    assert perplexities(coordinator) == [["pooled"], ["pooled"]]
    envelopes = coordinator.envelopes()
    assert coordinator.desk.delete_metrics(RUN[:5], "") == 6
    assert coordinator.database.metrics(RUN) == {}
    assert perplexities(coordinator) == [[], []], "what was composed before is composed anew"
    assert coordinator.envelopes() == envelopes
    assert coordinator.run.rounds[0].contributions["north"].contribution.metrics_commitment is not None
    check = check_tables(coordinator.database, coordinator.state)
    assert (check.outcome, check.findings) == (Outcome.VERIFIED, ())
    assert coordinator.desk.delete_metrics(RUN, "") == 0
    coordinator.restart()
    assert coordinator.views.runs()[0].end_reason == "rounds-done"


def test_a_pool_that_lacks_a_deleted_measurement_is_not_shown(coordinator: Coordinator) -> None:
    """Four measured: the sum over four less the sum over three would be the fourth's."""
    coordinator.enrol("west")
    ended(coordinator)
    assert perplexities(coordinator) == [["pooled"], ["pooled"]]
    assert coordinator.desk.delete_metrics(RUN, "north") == 2
    assert len(coordinator.database.metrics(RUN)) == 6
    assert perplexities(coordinator) == [[], []]


def test_where_single_losses_are_shown_the_others_stay(coordinator: Coordinator) -> None:
    ended(coordinator, metrics_visibility="institution")
    assert coordinator.desk.delete_metrics(RUN, "north") == 2
    assert perplexities(coordinator) == [["pooled", "east", "south"]] * 2


def test_the_bytes_of_deleted_metrics_leave_the_disk(coordinator: Coordinator) -> None:
    ended(coordinator)
    rows = coordinator.database.metrics(RUN)
    salt = next(iter(rows.values())).salt
    files = [coordinator.layout.state.with_name(coordinator.layout.state.name + end) for end in ("", "-wal")]

    def found() -> bool:
        return any(salt in path.read_bytes() for path in files if path.exists())

    assert found()
    coordinator.desk.delete_metrics(RUN, "")
    assert not found()


def test_metrics_of_a_run_that_goes_on_are_not_deleted(coordinator: Coordinator) -> None:
    coordinator.open_round()
    coordinator["north"].contribute()
    with pytest.raises(UsageError, match=rf"Run {RUN} goes on: whether it stops depends on what was measured\."):
        coordinator.desk.delete_metrics(RUN, "")
    assert len(coordinator.database.metrics(RUN)) == 1


def test_who_contributed_nothing_has_nothing_to_delete(coordinator: Coordinator) -> None:
    ended(coordinator)
    with pytest.raises(UnknownObject, match=rf"court-auditor contributed nothing to {RUN}\."):
        coordinator.desk.delete_metrics(RUN, "court-auditor")
    with pytest.raises(UnknownObject, match="0 runs begin with 'other'"):
        coordinator.desk.delete_metrics("other", "")
