"""Which statement may come next: the rules that a ledger's history makes. The tables of refusals stand beside this file."""

from __future__ import annotations

from dataclasses import replace

import pytest

from common.errors import BadSignature, LedgerConflict, MalformedStatement, RefusalError, WrongSigner
from common.identity.keys import SigningKey
from common.ledger.rules import admit, admit_verified, signer_key, start
from common.statements.envelope import Parent, parse, sign
from tests.support.statements import NAMES, RUN, a_blob_ref, a_contribution, a_roster
from tests.support.story import Story

MODEL_1 = a_blob_ref("model 1")


def test_a_story_without_a_fault_is_admitted_whole(story: Story) -> None:
    assert story.at["contributed"].size == 1 + 1 + 1 + 3 + 1 + 3
    assert story.at["ended"].runs[RUN].ended is not None
    assert [story.at["closed"].places[story.said[name].digest].index for name in NAMES] == [7, 8, 9]


def test_a_refusal_hangs_on_the_round_the_plan_or_the_roster(story: Story) -> None:
    state = story.at["opened"]
    for refusal in (
        story.refusal(parent=story.said["opened"]),
        story.refusal(parent=story.said["plan"], round=None),
        story.refusal(parent=story.said["roster"], run=None, round=None),
    ):
        state = admit(state, refusal.envelope).state
    assert [refusal.round for _, refusal in state.refusal_list] == [1, None, None]


def test_one_refusal_an_institution_round_and_code(story: Story) -> None:
    state = admit(story.at["opened"], story.refusal(parent=story.said["opened"]).envelope).state
    with pytest.raises(RefusalError, match=r"A refusal non-finite-delta of north is recorded for this round") as caught:
        admit(state, story.refusal(parent=story.said["opened"], refused_sha256="cd" * 32).envelope)
    assert caught.value.code == "slot-taken"
    for other in ({"code": "delta-too-long"}, {"institution": "south"}):
        state = admit(state, story.refusal(parent=story.said["opened"], **other).envelope).state


def test_a_late_contribution_may_be_refused_in_the_ledger_after_the_run_ended(story: Story) -> None:
    refusal = story.refusal(parent=story.said["opened"], code="round-not-open")
    assert admit(story.at["ended"], refusal.envelope).state.refusal_list[-1][1].code == "round-not-open"


def test_an_evaluation_commits_with_the_model_that_it_measured(story: Story) -> None:
    fields = {"round": 2, "blobs": {}, "weight": {"mode": "clear", "num_tokens": 0}}
    measured = story.contribution("north", parent=story.said["evaluating"], **fields)
    state = admit(story.at["evaluating"], measured.envelope).state
    inputs = [{"institution": "north", "contribution": measured.digest, "num_tokens": 0, "status": "used"}]
    state = admit(state, story.closed_evaluation(inputs=inputs).envelope).state
    assert state.runs[RUN].model == MODEL_1
    assert len(state.runs[RUN].committed("evaluate")) == 1


def test_whoever_is_not_in_the_cohort_is_refused(story: Story) -> None:
    """A member that joined after the round was opened."""
    keys = {**story.federation.institutions, "west": SigningKey.generate()}
    roster = story.federation.sign(a_roster(keys, version=2), parent=story.said["roster"])
    state = admit(story.at["opened"], roster.envelope).state
    late = sign(a_contribution("west"), parent=Parent("round-opened", story.said["opened"].digest), key=keys["west"])
    with pytest.raises(RefusalError, match=rf"west is not in the cohort of round 1 of {RUN}\.") as caught:
        admit(state, late.envelope)
    assert caught.value.code == "not-in-cohort"


def test_a_revoked_member_says_nothing_more(story: Story) -> None:
    roster = a_roster(story.federation.institutions, version=2)
    revoked = tuple(
        member.model_copy(update={"status": "revoked"}) if member.name == "north" else member
        for member in roster.members
    )
    statement = story.federation.sign(roster.model_copy(update={"members": revoked}), parent=story.said["roster"])
    state = admit(story.at["opened"], statement.envelope).state
    with pytest.raises(WrongSigner, match=r"north is no active member of hospitals\."):
        admit(state, story.said["north"].envelope)
    assert admit(state, story.said["south"].envelope).state.size == state.size + 1


def test_a_rotated_key_counts_from_its_roster_on(story: Story) -> None:
    keys = {**story.federation.institutions, "north": SigningKey.generate()}
    roster = story.federation.sign(a_roster(keys, version=2), parent=story.said["roster"])
    state = admit(story.at["opened"], roster.envelope).state
    with pytest.raises(BadSignature, match=r"expected key"):
        admit(state, story.said["north"].envelope)
    renewed = sign(a_contribution("north"), parent=story.said["north"].parent, key=keys["north"])
    assert admit(state, renewed.envelope).state.size == state.size + 1


def test_only_a_genesis_that_its_own_key_signed_starts_a_ledger(story: Story) -> None:
    foreign = sign(
        a_roster(story.federation.institutions),
        parent=Parent("genesis", story.said["genesis"].digest),
        key=story.federation.coordinator,
    )
    with pytest.raises(MalformedStatement, match="genesis"):
        start(foreign.envelope)


def test_a_flipped_byte_is_never_admitted(story: Story) -> None:
    envelope = bytearray(story.said["north"].envelope)
    for position in range(0, len(envelope), 97):
        spoiled = bytes(envelope[:position]) + bytes([envelope[position] ^ 1]) + bytes(envelope[position + 1 :])
        with pytest.raises(RefusalError) as caught:
            admit(story.at["opened"], spoiled)
        assert caught.value.code in {"malformed-statement", "bad-signature", "wrong-signer"}


def test_the_signer_is_the_coordinator_for_all_that_institutions_do_not_say(story: Story) -> None:
    state = story.at["opened"]
    for stage in ("roster", "plan", "opened", "closed", "ended"):
        assert signer_key(state, parse(story.said[stage].envelope)) == story.federation.coordinator.public
    assert signer_key(state, parse(story.said["north"].envelope)) == story.federation.institutions["north"].public


def test_a_verified_statement_is_not_verified_twice_but_held_to_every_other_rule(story: Story) -> None:
    assert admit_verified(story.at["opened"], story.said["north"]).place.index == 7
    with pytest.raises(LedgerConflict, match="by rule median"):
        admit_verified(story.at["contributed"], story.closed(rule="median"))


def test_states_are_values(story: Story) -> None:
    state = story.at["opened"]
    after = admit(state, story.said["north"].envelope).state
    assert state.runs[RUN].rounds[0].contributions == {}
    assert list(after.runs[RUN].rounds[0].contributions) == ["north"]
    assert replace(state) == state
