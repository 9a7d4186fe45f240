"""The whole path of approvals, in process: three institutions, two of which must approve who joins, whose key changes and who
is revoked; and a coordinator that goes past them, which nobody believes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.errors import ApprovalPending, LedgerConflict, RefusalError
from common.identity.keys import SigningKey
from common.ledger.rules import admit
from common.statements.approvals import approval_signature, with_approvals
from common.statements.envelope import Parent, Statement, sign
from common.statements.kinds import Member, Predicate
from common.verify.material import Material
from common.verify.report import Outcome
from common.verify.verify import verify
from coordinator.members.rosters import next_roster
from participant import joining as joining_module
from participant.identity import renewal as renewal_module
from participant.joining import Joining, Patience, join
from tests.support.approving import Homes, open_ids
from tests.support.coordinators import Coordinator
from tests.support.enrolling import Desk


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    made = Coordinator(tmp_path / "coordinator", approvals={"roster": 2, "plan": 1})
    yield made
    made.close()


@pytest.fixture
def homes(tmp_path: Path, coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Homes]:
    monkeypatch.setattr(renewal_module, "SEEN_SECONDS", 0.0)
    monkeypatch.delenv("LLMASOS_HOME", raising=False)
    made = Homes(tmp_path, coordinator, monkeypatch)
    yield made
    made.close()


def approve(homes: Homes, digest: str, *names: str) -> None:
    for name in names:
        assert homes[name].run("proposal", "approve", digest[:12], "--yes") == 0


def test_the_fourth_joins_rotates_and_revokes_only_with_the_others_word(
    tmp_path: Path, coordinator: Coordinator, homes: Homes, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, said, turns = Desk(coordinator), list[str](), iter(("north", "south"))
    monkeypatch.setattr(joining_module, "enrol", desk.enrol)

    def meanwhile(seconds: float) -> None:
        """While west waits, one institution approves; then another."""
        coordinator.clock.advance(seconds=seconds)
        assert coordinator.state.member("west") is None
        approve(homes, *open_ids(coordinator), next(turns))

    home = tmp_path / "west"
    patience = Patience(3600, said.append, meanwhile)
    joined = join(home, coordinator.invite("west"), Joining(), coordinator.clock, patience)
    assert joined.roster_index == coordinator.state.size - 1
    assert [line.split(": ")[1] for line in said] == [
        "0 of 2 institutions have approved.",
        "1 of 2 institutions have approved (north).",
    ]
    assert len(desk.requests) == 3
    homes.catch_up()

    north, before = homes["north"], homes["north"].keys.to_sign().public
    north.renewal.rotate()  # waits, and signs under the key in use
    assert north.keys.to_sign().public == before
    approve(homes, *open_ids(coordinator), "north", "east")
    homes.catch_up()
    north.renewal.tick()
    assert north.is_sound()
    assert north.keys.to_sign().public != before

    with pytest.raises(ApprovalPending):
        coordinator.desk.revoke("south", "operator")
    approve(homes, *open_ids(coordinator), "north", "east")
    assert not coordinator.state.is_active("south")
    homes.catch_up()
    assert all(home.mirror.state.roster == coordinator.state.roster for home in homes.values())
    assert verified(coordinator.envelopes(), coordinator) == []


def verified(envelopes: list[bytes], coordinator: Coordinator) -> list[tuple[str, int | None, str]]:
    """What fails of a history."""
    report = verify(Material(envelopes, fingerprint=coordinator.state.genesis_place.digest))
    return [
        (check.name, each.leaf, each.text)
        for check in report.checks
        for each in check.findings
        if each.outcome is Outcome.FAILED
    ]


# --- a coordinator that goes past them -------------------------------------------------------------------------------


def by_the_coordinator(coordinator: Coordinator, predicate: Predicate) -> Statement:
    place = coordinator.state.roster_place
    assert place is not None
    return sign(predicate, parent=Parent(place.kind.value, place.digest), key=coordinator.ledger._key)


def a_roster(coordinator: Coordinator, *changed: Member) -> Statement:
    return by_the_coordinator(coordinator, next_roster(coordinator.state, changed))


def stranger() -> Member:
    return Member(name="west", signing_key=SigningKey.generate().public, roles=("trainer",))


PAST: dict[str, tuple[Callable[[Coordinator], bytes], str]] = {
    "a member nobody approved": (
        lambda c: a_roster(c, stranger()).envelope,
        "This roster has 0 approvals, expected 2",
    ),
    "a member one approved": (
        lambda c: _approved(a_roster(c, stranger()), c["north"].key),
        r"This roster has 1 approval \(north\), expected 2",
    ),
    "a member approved by keys of the coordinator's own": (
        lambda c: _approved(a_roster(c, stranger()), SigningKey.generate(), SigningKey.generate()),
        "which is none of those of the 3 institutions",
    ),
    "another's key": (
        lambda c: (
            a_roster(c, c["north"].member.model_copy(update={"signing_key": SigningKey.generate().public})).envelope
        ),
        "This roster has 0 approvals, expected 2",
    ),
    "a revocation": (
        lambda c: a_roster(c, c["south"].member.model_copy(update={"status": "revoked"})).envelope,
        "This roster has 0 approvals, expected 2",
    ),
    "one who left without a word": (
        lambda c: a_roster(c, c["south"].member.model_copy(update={"status": "left"})).envelope,
        "This roster has 0 approvals, expected 2",
    ),
    "a plan nobody approved": (
        lambda c: by_the_coordinator(c, c.draft()).envelope,
        "This plan has 0 approvals, expected 1",
    ),
}


def _approved(statement: Statement, *keys: SigningKey) -> bytes:
    return with_approvals(statement.envelope, [approval_signature(statement.payload, key) for key in keys])


@pytest.mark.parametrize("what", PAST)
def test_what_was_not_approved_nobody_believes(coordinator: Coordinator, homes: Homes, what: str) -> None:
    forge, message = PAST[what]
    envelope, size = forge(coordinator), coordinator.state.size
    for home in homes.values():
        with pytest.raises(LedgerConflict, match=rf"Entry {size} of the ledger breaks a rule: .*{message}"):
            home.mirror.admit(size, [envelope])
        assert home.mirror.state.size == size
    ((check, leaf, text), *_) = verified([*coordinator.envelopes(), envelope], coordinator)
    assert (check, leaf) == ("history", size)
    assert text.startswith(("This roster", "This plan"))
    with pytest.raises(RefusalError, match=message):
        admit(coordinator.state, envelope)  # its own rules would have kept it from that
