"""Attestations and releases: what may be said of a closed round, and one thing spoiled at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from common.errors import NotEnoughApprovals, SlotTaken
from common.identity.keys import SigningKey
from common.ledger.rules import admit
from common.statements.envelope import Parent, Statement, sign
from common.statements.kinds import Attestation, Member, Release, ReleasedFile
from tests.support.statements import NAMES, RUN, a_blob_ref, a_roster
from tests.support.story import Spoiled, Story, tell

MODEL_0, MODEL_1 = a_blob_ref("model 0"), a_blob_ref("model 1")
AUDITOR = SigningKey.generate()
CLERK = SigningKey.generate()
AUDITED = ("closed", "opened-2", "ended")


@pytest.fixture(scope="module")
def story() -> Story:
    """As everywhere, and after three of its stages a roster with an auditor, and with a member whose only role is viewer."""
    told = tell()
    trainers = a_roster(told.federation.institutions, version=2).members
    others = (
        Member(name="court-auditor", signing_key=AUDITOR.public, roles=("auditor",)),
        Member(name="clerk", signing_key=CLERK.public, roles=("viewer",)),
    )
    members = tuple(sorted((*trainers, *others), key=lambda member: member.name))
    roster = a_roster({}, version=2, members=members)
    for stage in AUDITED:
        told.tell(f"{stage}, audited", stage, told.federation.sign(roster, parent=told.said["roster"]))
    return told


def attestation(s: Story, *, parent: str = "closed", key: SigningKey = AUDITOR, **changes: Any) -> Statement:
    fields = {"institution": "court-auditor", "run": RUN, "round": 1, "result": "equal", "model": MODEL_1}
    said = s.said[parent]
    return sign(Attestation.model_validate(fields | changes), parent=Parent(said.kind, said.digest), key=key)


def release(s: Story, *, parent: str = "closed", **changes: Any) -> Statement:
    files = [{"path": "model.safetensors", "size": 1, "sha256": "ab" * 32}]
    fields = {"run": RUN, "round": 1, "model": MODEL_1, "files": files}
    return s.federation.sign(Release.model_validate(fields | changes), parent=s.said[parent])


@pytest.mark.parametrize("stage", AUDITED)
def test_an_auditor_attests_a_round_also_long_after_it_was_closed(story: Story, stage: str) -> None:
    admission = admit(story.at[f"{stage}, audited"], attestation(story).envelope)
    run = admission.state.runs[RUN]
    attested = run.rounds[0].attestations["court-auditor"]
    assert (attested.place, attested.attestation.result) == (admission.place, "equal")
    before = story.at[f"{stage}, audited"].runs[RUN]
    assert [record.number for record in run.rounds] == [record.number for record in before.rounds]
    assert run.rounds[1:] == before.rounds[1:]
    assert run.tip == before.tip, "nothing that follows hangs on it"


def test_an_auditor_may_disagree_and_names_the_model_that_it_found(story: Story) -> None:
    other = a_blob_ref("model 7")
    state = admit(story.at["closed, audited"], attestation(story, result="different", model=other).envelope).state
    assert state.runs[RUN].rounds[0].attestations["court-auditor"].attestation.model == other


def test_one_attestation_an_auditor_and_round(story: Story) -> None:
    state = admit(story.at["closed, audited"], attestation(story).envelope).state
    again = attestation(story, result="different", model=MODEL_0)
    with pytest.raises(SlotTaken, match=rf"court-auditor has attested round 1 of {RUN} already, at 12\."):
        admit(state, again.envelope)


@pytest.mark.parametrize("stage", ["closed", "opened-2", "ended"])
def test_the_model_of_a_committed_round_is_released(story: Story, stage: str) -> None:
    admission = admit(story.at[stage], release(story).envelope)
    (released,) = admission.state.runs[RUN].releases
    assert (released.place, released.release.files[0].path) == (admission.place, "model.safetensors")


def test_the_model_that_an_evaluation_measured_is_released(story: Story) -> None:
    state = admit(story.at["measured"], release(story, parent="measured", round=2).envelope).state
    assert state.runs[RUN].releases[0].release.round == 2


def test_a_release_needs_the_approvals_that_genesis_asks_for(story: Story) -> None:
    before = story.at["closed"]
    asking = replace(before, genesis=before.genesis.model_copy(update={"approvals": {"release": 2}}))
    with pytest.raises(NotEnoughApprovals, match="This release has 0 approvals, expected 2"):
        admit(asking, release(story).envelope)


def abandoned(s: Story) -> None:
    inputs = [
        {"institution": name, "contribution": s.said[name].digest, "num_tokens": 64, "status": "unused"}
        for name in NAMES
    ]
    fields = {"outcome": "abandoned", "reason": "no-quorum", "inputs": inputs, "outputs": {"model": MODEL_0}}
    s.tell("abandoned", "contributed", s.closed(**fields))
    roster = s.said["closed, audited"]
    s.tell("abandoned, audited", "abandoned", roster)


REFUSED = (
    Spoiled(
        "an attestation of a trainer",
        "closed, audited",
        lambda s: attestation(s, institution="north", key=s.federation.institutions["north"]),
        "wrong-signer",
        r"north has roles trainer; a round is attested by an institution with the role auditor\.",
    ),
    Spoiled(
        "an attestation of a viewer",
        "closed, audited",
        lambda s: attestation(s, institution="clerk", key=CLERK),
        "wrong-signer",
        r"clerk has roles viewer; a round is attested by",
    ),
    Spoiled(
        "an attestation of no member",
        "closed",
        attestation,
        "wrong-signer",
        r"court-auditor is no active member of hospitals\.",
    ),
    Spoiled(
        "an attestation under another's key",
        "closed, audited",
        lambda s: attestation(s, key=CLERK),
        "bad-signature",
        r"This attestation statement is signed by key",
    ),
    Spoiled(
        "an attestation about no run",
        "closed, audited",
        lambda s: attestation(s, run="other"),
        "wrong-parent",
        r"No run 'other' is in the ledger\.",
    ),
    Spoiled(
        "an attestation about a round that is not there",
        "closed, audited",
        lambda s: attestation(s, round=2),
        "wrong-parent",
        rf"Round 2 of {RUN} is not closed\.",
    ),
    Spoiled(
        "an attestation about a round that is open",
        "opened-2, audited",
        lambda s: attestation(s, round=2, parent="opened-2"),
        "wrong-parent",
        rf"Round 2 of {RUN} is not closed\.",
    ),
    Spoiled(
        "an attestation after the opening",
        "closed, audited",
        lambda s: attestation(s, parent="opened"),
        "wrong-parent",
        r"A attestation names round-opened [0-9a-f]{16}… as its parent, expected round-closed",
    ),
    Spoiled(
        "an attestation that says equal and names another model",
        "closed, audited",
        lambda s: attestation(s, model=MODEL_0),
        "ledger-conflict",
        rf"The attestation of round 1 of {RUN} says equal and names model .*; the round was committed with",
    ),
    Spoiled(
        "an attestation that says different and names the same model",
        "closed, audited",
        lambda s: attestation(s, result="different"),
        "ledger-conflict",
        rf"The attestation of round 1 of {RUN} says different and names model",
    ),
    Spoiled(
        "an attestation of an abandoned round",
        "abandoned, audited",
        lambda s: attestation(s, parent="abandoned", model=MODEL_0),
        "wrong-parent",
        rf"Round 1 of {RUN} \(abandoned, train\) made no model: there is nothing to recompute\.",
    ),
    Spoiled(
        "an attestation of an evaluation",
        "measured, audited",
        lambda s: attestation(s, parent="measured", round=2),
        "wrong-parent",
        rf"Round 2 of {RUN} \(abandoned, evaluate\) made no model",
    ),
    Spoiled(
        "a release of another model",
        "closed",
        lambda s: release(s, model=MODEL_0),
        "ledger-conflict",
        rf"The release names model .*; round 1 of {RUN} ended with",
    ),
    Spoiled(
        "a release of an abandoned round",
        "abandoned",
        lambda s: release(s, parent="abandoned", model=MODEL_0),
        "wrong-parent",
        rf"Round 1 of {RUN} was abandoned: no model of it can be released\.",
    ),
    Spoiled(
        "a release from an open round",
        "opened",
        lambda s: release(s, parent="opened"),
        "wrong-parent",
        rf"Round 1 of {RUN} is not closed\.",
    ),
    Spoiled(
        "a release of no run",
        "closed",
        lambda s: release(s, run="other"),
        "wrong-parent",
        r"No run 'other' is in the ledger\.",
    ),
    Spoiled(
        "a release after the plan",
        "closed",
        lambda s: release(s, parent="plan"),
        "wrong-parent",
        r"A release names plan [0-9a-f]{16}… as its parent, expected round-closed",
    ),
    Spoiled(
        "a release that a trainer signed",
        "closed",
        lambda s: sign(
            release(s).predicate,
            parent=Parent("round-closed", s.said["closed"].digest),
            key=s.federation.institutions["north"],
        ),
        "bad-signature",
        r"This release statement is signed by key",
    ),
)


@pytest.mark.parametrize("spoiled", REFUSED, ids=str)
def test_it_is_refused_and_nothing_changes(story: Story, spoiled: Spoiled) -> None:
    if "abandoned" not in story.at:
        abandoned(story)
        story.tell("measured, audited", "measured", story.said["closed, audited"])
    spoiled.check(story)


@pytest.mark.parametrize("path", ["../model.safetensors", "a/../../b", "./a", "a/.", ".."])
def test_a_released_file_stays_inside_its_folder(path: str) -> None:
    with pytest.raises(ValidationError, match=r"expected a path without \. and \.\."):
        ReleasedFile(path=path, size=1, sha256="00" * 32)
    assert ReleasedFile(path="model/weights..bin", size=1, sha256="00" * 32).path == "model/weights..bin"
