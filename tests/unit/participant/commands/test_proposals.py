"""llmasos-participant proposal and roster approve: what is shown, what is signed, and what is not."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common import strict_json
from common.errors import ApprovalPending, CoordinatorUnreachable
from common.identity.keys import SigningKey, key_id
from common.statements.envelope import Parent, parse, sign
from common.statements.kinds import Roster
from common.terminal import WIDTH
from participant.identity.keys import next_key_path
from participant.memory.rows import check_journal
from participant.roster_changes import changes
from tests.support.approving import Homes, open_ids
from tests.support.coordinators import Coordinator
from tests.support.participants import RUN, FakeParticipant
from tests.unit.coordinator.members.test_membership import an_offer

Output = pytest.CaptureFixture[str]


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    made = Coordinator(tmp_path / "coordinator", approvals={"roster": 2, "plan": 1})
    yield made
    made.close()


@pytest.fixture
def homes(tmp_path: Path, coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Homes]:
    monkeypatch.delenv("LLMASOS_HOME", raising=False)
    made = Homes(tmp_path, coordinator, monkeypatch)
    yield made
    made.close()


@pytest.fixture
def west(coordinator: Coordinator) -> FakeParticipant:
    """Wants to join."""
    participant = FakeParticipant(coordinator, "west")
    with pytest.raises(ApprovalPending):
        participant.join(coordinator.invite("west", ("trainer", "auditor")))
    return participant


def the_one(coordinator: Coordinator) -> str:
    (found,) = open_ids(coordinator)
    return found


# --- looking ---------------------------------------------------------------------------------------------------------


def test_without_proposals_it_says_so(homes: Homes, capsys: Output) -> None:
    assert homes["north"].run("proposal", "list") == 0
    assert capsys.readouterr().out == "Nothing awaits approval.\n"
    assert homes["north"].run("roster", "approve") == 2
    assert "Nothing of this kind awaits approval." in capsys.readouterr().err
    assert homes["north"].line.closed == 2


def test_the_list_names_change_and_approvals(coordinator: Coordinator, homes: Homes, west: Any, capsys: Output) -> None:
    coordinator["south"].approve(the_one(coordinator))
    assert homes["north"].run("proposal", "list") == 0
    header, line = capsys.readouterr().out.splitlines()[:2]
    assert header.split() == ["ID", "KIND", "CHANGE", "APPROVED"]
    assert line.startswith(the_one(coordinator)[:8])
    for word in ("roster", "west joins", "1 of 2: south"):
        assert word in line
    assert homes["north"].run("proposal", "list", "--format", "json") == 0
    (data,) = json.loads(capsys.readouterr().out)
    assert (data["proposal"], data["approved_by"], data["approvals_needed"]) == (the_one(coordinator), ["south"], 2)
    assert (data["approved_here"], data["refused"]) == (False, None)


def test_show_says_who_joins_with_which_roles_and_key(
    coordinator: Coordinator, homes: Homes, west: FakeParticipant, capsys: Output
) -> None:
    digest = the_one(coordinator)
    assert homes["north"].run("proposal", "show", digest[:6]) == 0
    out = capsys.readouterr().out
    told = " ".join(out.split())
    assert f"proposal {digest}" in told
    assert f"west joins, as trainer, auditor. The id of its signing key: {key_id(west.key.public)}." in told
    assert f"Next: llmasos-participant proposal approve {digest[:8]}" in told
    assert max(map(len, out.splitlines())) <= WIDTH


def test_show_says_whose_key_changes_and_who_is_revoked(coordinator: Coordinator, homes: Homes, capsys: Output) -> None:
    new = SigningKey.generate()
    with pytest.raises(ApprovalPending):
        coordinator.desk.renew(an_offer(coordinator, new_key=new))
    with pytest.raises(ApprovalPending):
        coordinator.desk.revoke("south", "operator")
    told = ""
    for digest in open_ids(coordinator):
        assert homes["east"].run("proposal", "show", digest) == 0
        told += " ".join(capsys.readouterr().out.split())
    assert f"The signing key of north changes. The id of its new key: {key_id(new.public)};" in told
    assert f"of the one before: {key_id(coordinator['north'].key.public)}." in told
    assert "- north gets a certificate: serial " in told
    assert "- south is revoked." in told


def test_show_explains_a_plan_as_plan_show_does(coordinator: Coordinator, homes: Homes, capsys: Output) -> None:
    with pytest.raises(ApprovalPending):
        coordinator.start_run()
    digest = the_one(coordinator)
    assert homes["north"].run("proposal", "show", digest) == 0
    shown = capsys.readouterr().out
    assert f"Run {RUN} starts, by the plan" in shown
    assert homes["north"].run("proposal", "approve", digest, "--yes") == 0
    homes.catch_up()
    capsys.readouterr()
    assert homes["north"].run("plan", "show", RUN) == 0
    explained = capsys.readouterr().out.split("\n\nNext:")[0].splitlines()
    assert set(explained[3:]) <= set(shown.splitlines())  # but for run, state and answer, word for word


def test_a_beginning_must_be_unique_and_what_is_in_the_ledger_is_said_to_be(
    coordinator: Coordinator, homes: Homes, west: Any, capsys: Output
) -> None:
    digest = the_one(coordinator)
    assert homes["north"].run("proposal", "show", "zz") == 2
    assert f"0 open proposals begin with 'zz'; open: {digest[:8]}." in capsys.readouterr().err
    for name in ("north", "south"):
        assert homes[name].run("proposal", "approve", digest, "--yes") == 0
    homes.catch_up()
    assert homes["east"].run("proposal", "approve", digest, "--yes") == 2
    assert f"{digest} awaits no approval any more: it stands in the ledger, at" in capsys.readouterr().err


# --- approving -------------------------------------------------------------------------------------------------------


def test_two_approve_and_the_second_hears_that_it_stands(
    coordinator: Coordinator, homes: Homes, west: Any, capsys: Output
) -> None:
    digest = the_one(coordinator)
    assert homes["north"].run("proposal", "approve", digest[:8], "--yes") == 0
    shown = capsys.readouterr()
    assert shown.out == "Approved: 1 of 2 institutions have.\n"
    assert "west joins" in shown.err  # what is signed is shown first
    assert homes["south"].run("roster", "approve", "--yes", "--format", "json") == 0
    data = json.loads(capsys.readouterr().out)
    index = coordinator.state.size - 1
    assert data == {"proposal": digest, "approvals_given": 2, "approvals_needed": 2, "ledger_index": index}
    assert coordinator.state.member("west") is not None


def test_what_was_signed_is_in_the_journal_and_in_what_left(
    coordinator: Coordinator, homes: Homes, west: Any, capsys: Output
) -> None:
    digest = the_one(coordinator)
    assert homes["north"].run("proposal", "approve", digest, "--yes") == 0
    signed = homes["north"].journal.signed(f"approval/{digest}")
    assert signed is not None
    assert parse(signed.envelope).digest == digest
    (left,) = homes["north"].journal.egress()
    assert (left.kind, left.bytes, left.digest, left.receiver) == ("approval", 64, digest, "memory")
    assert homes["north"].run("status") == 0  # which reads every signed statement
    assert homes["north"].run("egress") == 0
    assert "approval" in capsys.readouterr().out


def test_an_approval_in_the_journal_is_verified_and_fails_under_another_slot(
    coordinator: Coordinator, homes: Homes, west: Any
) -> None:
    """It is a signature under the coordinator's statement, which is no statement of the institution's own."""
    north, digest = homes["north"], the_one(coordinator)
    assert north.run("proposal", "approve", digest, "--yes") == 0
    assert check_journal(north.journal, "north", coordinator.state).findings == ()
    with closing(sqlite3.connect(north.layout.journal)) as other:
        other.execute("UPDATE signed SET slot = 'approval/' || substr(slot, 12) WHERE slot LIKE 'approval/%'")
        other.commit()
    (found,) = check_journal(north.journal, "north", coordinator.state).findings
    assert "was signed for another slot" in found.text


def test_a_lost_reply_is_asked_for_again(coordinator: Coordinator, homes: Homes, west: Any, capsys: Output) -> None:
    home, digest = homes["north"], the_one(coordinator)
    home.line.failure = CoordinatorUnreachable("The reply was lost.")
    assert home.run("proposal", "approve", digest, "--yes") == 1
    assert home.run("proposal", "approve", digest, "--yes") == 0
    assert "1 of 2" in capsys.readouterr().out


def test_it_asks_and_signs_nothing_without_a_yes(
    coordinator: Coordinator, homes: Homes, west: Any, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    assert homes["north"].run("proposal", "approve", the_one(coordinator)) != 0
    assert homes["north"].journal.all_signed() == []
    assert coordinator.desk.proposals()[0].approved_by == ()


def test_roster_approve_signs_no_plan(coordinator: Coordinator, homes: Homes, capsys: Output) -> None:
    with pytest.raises(ApprovalPending):
        coordinator.start_run()
    assert homes["north"].run("roster", "approve", the_one(coordinator), "--yes") == 2
    assert homes["north"].run("roster", "approve", "--yes") == 2
    assert homes["north"].journal.all_signed() == []
    assert homes["north"].run("proposal", "approve", the_one(coordinator)[:5], "--yes") == 0
    assert coordinator.start_run() == RUN


def test_a_copy_that_is_behind_signs_nothing_and_says_what_to_do(
    coordinator: Coordinator, homes: Homes, west: Any, capsys: Output
) -> None:
    coordinator.desk.renew(an_offer(coordinator, "east"))
    assert homes["north"].run("proposal", "approve", the_one(coordinator), "--yes") == 3
    error = " ".join(capsys.readouterr().err.split())
    assert (
        "error [wrong-parent]: It does not follow from this institution's copy of the ledger: A roster names" in error
    )
    assert "fix: Let the daemon follow the ledger (llmasos-participant start)" in error
    assert homes["north"].journal.all_signed() == []
    homes["north"].catch_up()
    assert homes["north"].run("proposal", "approve", the_one(coordinator), "--yes") == 0


def lie(coordinator: Coordinator, homes: Homes, **changed: Any) -> str:
    """North is shown a roster that differs from the draft in one thing; its id."""
    (proposal,) = coordinator.desk.proposals()
    value: Any = strict_json.loads(proposal.payload, max_bytes=2**20)
    value["predicate"].update(changed)
    payload = strict_json.dumps(value)
    homes["north"].line.shown = (replace(proposal, payload=payload),)
    return hashlib.sha256(payload).hexdigest()


@pytest.mark.parametrize("what", ["another version", "a member missing", "no statement"])
def test_what_does_not_follow_is_refused_whatever_the_coordinator_says(
    coordinator: Coordinator, homes: Homes, west: Any, what: str, capsys: Output
) -> None:
    roster = coordinator.state.roster
    assert roster is not None
    if what == "another version":
        digest, code, said = lie(coordinator, homes, version=99), "wrong-parent", "Roster version is 99, expected 5"
    elif what == "a member missing":
        digest, code, said = lie(coordinator, homes, members=[]), "ledger-conflict", "east was active and is absent"
    else:
        digest, code, said = lie(coordinator, homes, members=3), "malformed-statement", "members: Input should be"
    assert homes["north"].run("proposal", "show", digest) == 0
    assert f"({code})" in " ".join(capsys.readouterr().out.split())
    assert homes["north"].run("proposal", "list") == 0
    assert "CANNOT BE APPROVED" in " ".join(capsys.readouterr().out.split())
    assert homes["north"].run("proposal", "approve", digest, "--yes") == 3
    assert said in " ".join(capsys.readouterr().err.split())
    assert homes["north"].journal.all_signed() == []


def test_what_is_shown_is_what_the_payload_says(
    coordinator: Coordinator, homes: Homes, west: Any, capsys: Output
) -> None:
    """A coordinator that shows another member than the one it drafts gets a signature that it cannot use."""
    roster = Roster.model_validate(coordinator.state.roster)
    other = [each.model_dump(mode="json") for each in roster.members if each.name != "south"]
    south = next(each for each in roster.members if each.name == "south")
    other.append(south.model_copy(update={"status": "revoked"}).model_dump(mode="json"))
    digest = lie(coordinator, homes, members=sorted(other, key=lambda each: str(each["name"])))
    assert homes["north"].run("proposal", "show", digest) == 0
    assert "- south is revoked." in capsys.readouterr().out
    assert homes["north"].run("proposal", "approve", digest, "--yes") == 2  # the coordinator has no such draft
    assert coordinator.desk.proposals()[0].approved_by == ()


def test_after_the_roster_moved_on_it_says_to_approve_again(
    coordinator: Coordinator, homes: Homes, west: Any, capsys: Output
) -> None:
    assert homes["north"].run("proposal", "approve", the_one(coordinator), "--yes") == 0
    coordinator.desk.renew(an_offer(coordinator, "east"))
    homes.catch_up()
    for name, again in (("north", True), ("south", False)):
        capsys.readouterr()
        assert homes[name].run("proposal", "list", "--format", "json") == 0
        (data,) = json.loads(capsys.readouterr().out)
        assert (data["approved_here"], data["approved_here_before"]) == (False, again)
    assert homes["north"].run("proposal", "show", the_one(coordinator)) == 0
    assert re.search(r"0 of 2; approved here before, drafted again\s+since: approve again", capsys.readouterr().out)
    assert homes["north"].run("proposal", "approve", the_one(coordinator), "--yes") == 0


def test_an_institution_approves_while_its_own_new_key_waits(
    coordinator: Coordinator, homes: Homes, capsys: Output
) -> None:
    north = homes["north"]
    north.renewal.rotate()  # drafted
    assert next_key_path(north.layout.signing_key).exists()
    digest = the_one(coordinator)
    assert north.run("proposal", "approve", digest, "--yes") == 0
    assert homes["south"].run("proposal", "approve", digest, "--yes") == 0
    north.catch_up()
    with pytest.raises(ApprovalPending):
        coordinator.desk.revoke("south", "operator")
    assert (
        north.run("proposal", "approve", the_one(coordinator), "--yes") == 0
    )  # under the new key, which waits no more
    assert homes["east"].line.proposals()[0].approved_by == ("north",)


def test_an_institution_that_left_approves_nothing(
    coordinator: Coordinator, homes: Homes, west: Any, capsys: Output
) -> None:
    coordinator["north"].submit(_a_leave(coordinator))
    homes["north"].catch_up()
    assert homes["north"].run("proposal", "approve", the_one(coordinator), "--yes") == 3
    assert "only an active institution approves" in capsys.readouterr().err


def _a_leave(coordinator: Coordinator) -> Any:
    from tests.unit.coordinator.members.test_membership import a_leave

    return a_leave(coordinator)


# --- words -----------------------------------------------------------------------------------------------------------


def test_every_change_of_a_member_has_its_sentence(coordinator: Coordinator) -> None:
    roster = coordinator.state.roster
    assert roster is not None
    assert changes(roster, roster) == ("It changes nothing.",)
    north = coordinator["north"].member
    other = {
        "roles": ("auditor",),
        "status": "left",
        "encryption_key": None if north.encryption_key else {"scheme": "x25519", "public": "ab" * 32},
        "certificates": (),
    }
    member = type(north).model_validate(north.model_dump() | other)
    after = roster.model_copy(update={"members": tuple(member if e.name == "north" else e for e in roster.members)})
    assert changes(roster, after) == (
        "north has left.",
        "The encryption key of north changes.",
        "The roles of north change from trainer, evaluator to auditor.",
        "The certificates of north change.",
    )
    fewer = roster.model_copy(update={"members": roster.members[1:]})
    assert changes(roster, fewer) == ("east is not named any more.",)
    assert changes(None, roster)[0].startswith("east joins, as trainer, evaluator.")


def test_a_statement_of_a_kind_that_is_not_known_here_is_not_signed(
    coordinator: Coordinator, homes: Homes, west: Any, capsys: Output
) -> None:
    from tests.support.statements import an_answer

    (proposal,) = coordinator.desk.proposals()
    answer = sign(an_answer("north"), parent=Parent("plan", "ab" * 32), key=SigningKey.generate())
    homes["north"].line.shown = (replace(proposal, payload=answer.payload),)
    assert homes["north"].run("proposal", "approve", answer.digest, "--yes") == 3
    assert "A statement of kind answer is none that this release can approve" in capsys.readouterr().err
    assert homes["north"].journal.all_signed() == []
