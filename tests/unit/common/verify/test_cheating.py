"""A coordinator that rewrites its ledger and signs it anew with its real key: what gives it away, and what does not.

It can sign everything that is its own, and nothing of an institution. So a change is carried forward as far as it goes: each
later statement of the coordinator's names the new digests, each statement of an institution stays as it was signed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest

from common.identity.keys import SigningKey
from common.statements.envelope import Parent, UnverifiedStatement, parse, sign
from common.statements.kinds import Contribution, Predicate, Roster, RoundClosed, RoundOpened, signing_institution
from common.verify.material import Material, Own
from common.verify.report import Finding, Outcome
from common.verify.verify import verify
from tests.support.coordinators import Coordinator

Change = Callable[[UnverifiedStatement], Predicate | None]
"""What a statement says instead; None: it is left out."""


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coordinator]:
    coordinator = Coordinator(tmp_path_factory.mktemp("cheating") / "coordinator")
    coordinator.start_run(rounds=2, quorum=2)
    for participant in coordinator.participants.values():
        participant.answer()
    coordinator.play()
    yield coordinator
    coordinator.close()


def rewritten(coordinator: Coordinator, change: Change) -> list[bytes]:
    """The ledger with that change, carried forward by everything that the coordinator may sign."""
    key = SigningKey.load(coordinator.layout.statement_key)
    renamed: dict[str, str] = {}
    entries: list[bytes] = [coordinator.envelopes()[0]]
    for envelope in coordinator.envelopes()[1:]:
        statement = parse(envelope)
        said = change(statement)
        if said is None:
            continue
        if signing_institution(statement.predicate) is not None:
            entries.append(envelope)
            continue
        said = _with_new_names(said, renamed)
        parent = Parent(statement.parent.kind, renamed.get(statement.parent.digest, statement.parent.digest))
        made = sign(said, parent=parent, key=key)
        if made.digest != statement.digest:
            renamed[statement.digest] = made.digest
        entries.append(made.envelope)
    return entries


def _with_new_names(predicate: Predicate, renamed: dict[str, str]) -> Predicate:
    if isinstance(predicate, RoundOpened) and predicate.roster in renamed:
        return predicate.model_copy(update={"roster": renamed[predicate.roster]})
    return predicate


def failures(coordinator: Coordinator, entries: Sequence[bytes], own: Own | None = None) -> list[tuple[str, Finding]]:
    fingerprint = coordinator.state.genesis_place.digest
    report = verify(Material(entries, coordinator.blobs, fingerprint, own=own))
    return [
        (check.name, finding)
        for check in report.checks
        for finding in check.findings
        if finding.outcome is Outcome.FAILED
    ]


# --- changes ----------------------------------------------------------------------------------------------------------


def without_contribution(statement: UnverifiedStatement) -> Predicate | None:
    """North never contributed to round 1, says the ledger, and the round was committed without it."""
    said = statement.predicate
    if isinstance(said, Contribution) and (said.institution, said.round) == ("north", 1):
        return None
    if isinstance(said, RoundClosed) and said.round == 1:
        return said.model_copy(update={"inputs": tuple(each for each in said.inputs if each.institution != "north")})
    return said


def another_weight(statement: UnverifiedStatement) -> Predicate:
    said = statement.predicate
    if isinstance(said, RoundClosed) and said.round == 1:
        first = said.inputs[0].model_copy(update={"num_tokens": said.inputs[0].num_tokens + 1})
        return said.model_copy(update={"inputs": (first, *said.inputs[1:])})
    return said


def a_stranger_in_the_cohort(statement: UnverifiedStatement) -> Predicate:
    said = statement.predicate
    if isinstance(said, RoundOpened) and said.round == 2:
        return said.model_copy(update={"cohort": (*said.cohort, "stranger")})
    return said


def a_smaller_cohort(statement: UnverifiedStatement) -> Predicate:
    said = statement.predicate
    return said.model_copy(update={"cohort": said.cohort[:-1]}) if isinstance(said, RoundOpened) else said


def a_chosen_seed(statement: UnverifiedStatement) -> Predicate:
    said = statement.predicate
    return said.model_copy(update={"seed": 7}) if isinstance(said, RoundOpened) and said.round == 2 else said


def committed_without_quorum(statement: UnverifiedStatement) -> Predicate | None:
    said = statement.predicate
    if isinstance(said, Contribution) and said.round == 1 and said.institution != "north":
        return None
    if isinstance(said, RoundClosed) and said.round == 1:
        return said.model_copy(update={"inputs": tuple(each for each in said.inputs if each.institution == "north")})
    return said


def another_base_model(statement: UnverifiedStatement) -> Predicate:
    said = statement.predicate
    if isinstance(said, RoundOpened) and said.round == 2:
        stale = said.inputs.model.model_copy(update={"root": "77" * 32})
        return said.model_copy(update={"inputs": said.inputs.model_copy(update={"model": stale})})
    return said


def a_hidden_round(statement: UnverifiedStatement) -> Predicate | None:
    said = statement.predicate
    hidden = isinstance(said, RoundOpened | RoundClosed | Contribution) and said.round == 2
    return None if hidden else said


def a_member_struck_out(statement: UnverifiedStatement) -> Predicate:
    said = statement.predicate
    if isinstance(said, Roster) and said.version > 2:
        return said.model_copy(update={"members": tuple(each for each in said.members if each.name != "east")})
    return said


CHANGES: dict[str, tuple[Change, str]] = {
    "a contribution is left out of a round that others built on": (without_contribution, "names round-opened"),
    "a weight is changed": (another_weight, "not in the ledger"),
    "a stranger is put into the cohort": (a_stranger_in_the_cohort, "cohort is"),
    "an institution is left out of every cohort": (a_smaller_cohort, "cohort is"),
    "a round's seed is chosen": (a_chosen_seed, "seed is 7"),
    "a round is committed without quorum": (committed_without_quorum, "its quorum is 2"),
    "a round starts from another model": (another_base_model, "model is"),
    "a round is hidden": (a_hidden_round, "as its parent, expected round-closed"),
    "a member is struck out of the roster": (a_member_struck_out, "east was active and is absent"),
}


@pytest.mark.parametrize("claim", CHANGES)
def test_a_rewritten_ledger_fails_with_leaf_and_reason_though_every_signature_holds(
    honest: Coordinator, claim: str
) -> None:
    change, reason = CHANGES[claim]
    found = failures(honest, rewritten(honest, change))
    assert found, "nothing was found"
    name, finding = found[0]
    assert (name, finding.leaf is not None) == ("history", True)
    assert reason in finding.text


def test_carrying_nothing_forward_changes_nothing(honest: Coordinator) -> None:
    assert rewritten(honest, lambda statement: statement.predicate) == honest.envelopes()


def test_a_contribution_dropped_at_the_very_end_shows_to_its_owner_alone(honest: Coordinator) -> None:
    """The partition that nobody else can detect: the last round's own contributor holds what the ledger lacks."""
    last = honest.run.rounds[-1]

    def dropped(statement: UnverifiedStatement) -> Predicate | None:
        said = statement.predicate
        if isinstance(said, Contribution) and (said.institution, said.round) == ("north", last.number):
            return None
        if isinstance(said, RoundClosed) and said.round == last.number:
            return said.model_copy(
                update={"inputs": tuple(each for each in said.inputs if each.institution != "north")}
            )
        return said

    entries = rewritten(honest, dropped)
    assert failures(honest, entries) == []
    signed = {
        f"contribution/{record.place.digest}": record.contributions["north"].place.digest
        for record in honest.run.rounds
    }
    report = verify(Material(entries, honest.blobs, own=Own("north", signed)))
    (check,) = [each for each in report.checks if each.name == "own"]
    assert "is not in the ledger" in check.findings[0].text


def test_a_retired_key_signs_nothing_that_counts(honest: Coordinator) -> None:
    entries = honest.envelopes()
    index = next(i for i, each in enumerate(entries) if isinstance(parse(each).predicate, RoundClosed))
    statement = parse(entries[index])
    forged = sign(statement.predicate, parent=statement.parent, key=SigningKey.generate())
    ((name, finding), *_) = failures(honest, [*entries[:index], forged.envelope, *entries[index + 1 :]])
    assert (name, finding.leaf, finding.signer) == ("history", index, "coordinator")
