"""Rosters and plans that institutions must approve: how many, which ones, and what needs none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from common.clock import rfc3339
from common.errors import RefusalError
from common.identity.authority import Authority
from common.identity.keys import EncryptionKey, SigningKey
from common.ledger.rulebook.approvals import approvals_needed, approvers, check_approvals
from common.ledger.rules import admit, start
from common.ledger.state import LedgerState
from common.statements.approvals import approval_signature, with_approvals
from common.statements.envelope import Parent, Statement, parse, sign, verify
from common.statements.kinds import Control, Kind, Member, Roster
from tests.support.statements import CONSORTIUM, NOW, a_plan_statement, sign_genesis


@dataclass
class Consortium:
    """A ledger that a test extends: the operator, then whoever joins."""

    approvals: dict[str, int]
    keys: dict[str, SigningKey] = field(default_factory=dict)
    coordinator: SigningKey = field(default_factory=SigningKey.generate)
    state: LedgerState = field(init=False)

    def __post_init__(self) -> None:
        authority = Authority.create(CONSORTIUM, now=NOW)
        genesis = sign_genesis(authority, self.coordinator, approvals=self.approvals)
        self.state = start(genesis.envelope).state

    @property
    def roster(self) -> Roster:
        return self.state.roster or Roster(version=1, members=())

    def member(self, name: str, *roles: str, **changes: Any) -> Member:
        key = self.keys.setdefault(name, SigningKey.generate())
        fields: dict[str, Any] = {"name": name, "signing_key": key.public, "roles": roles or ("trainer",)}
        return Member.model_validate(fields | changes)

    def changed(self, name: str, **changes: Any) -> Member:
        known = self.roster.member(name)
        assert known is not None
        return known.model_copy(update=changes)

    def roster_with(self, *members: Member) -> Statement:
        """The next roster, by the coordinator alone."""
        known = {member.name: member for member in self.roster.members} | {each.name: each for each in members}
        version = self.state.roster.version + 1 if self.state.roster else 1
        roster = Roster(version=version, members=tuple(known[name] for name in sorted(known)))
        return self.signed(roster)

    def signed(self, predicate: Any) -> Statement:
        place = self.state.roster_place or self.state.genesis_place
        return sign(predicate, parent=Parent(place.kind.value, place.digest), key=self.coordinator)

    def leave(self, name: str) -> None:
        place = self.state.roster_place
        assert place is not None
        said = Control(action="leave", issued_at=rfc3339(NOW), reason="institution-leaves", institution=name)
        self.admit(sign(said, parent=Parent(place.kind.value, place.digest), key=self.keys[name]))

    def admit(self, statement: Statement, by: Iterable[str] = ()) -> None:
        self.state = admit(self.state, self.approved(statement, by)).state

    def approved(self, statement: Statement, by: Iterable[str]) -> bytes:
        signatures = [approval_signature(statement.payload, self.keys[name]) for name in by]
        return with_approvals(statement.envelope, signatures)

    def refuses(self, statement: Statement, by: Sequence[str], code: str, message: str) -> None:
        before = self.state
        with pytest.raises(RefusalError, match=message) as caught:
            admit(before, self.approved(statement, by))
        assert caught.value.code == code
        assert self.state is before


def a_consortium(names: Sequence[str] = ("east", "north", "south"), **approvals: int) -> Consortium:
    """Who is named joined one after the other, each approved by as many as had to."""
    made = Consortium(approvals)
    made.admit(made.roster_with(made.member("operator", "operator")))
    for count, name in enumerate(names):
        made.admit(made.roster_with(made.member(name)), names[: min(approvals.get("roster", 0), count)])
    return made


# --- how many --------------------------------------------------------------------------------------------------------


def test_the_first_institutions_are_approved_by_as_many_as_are_there() -> None:
    made = Consortium({"roster": 2})
    made.admit(made.roster_with(made.member("operator", "operator")))
    made.admit(made.roster_with(made.member("east")))
    made.refuses(made.roster_with(made.member("north")), [], "not-enough-approvals", r"0 approvals, expected 1:")
    made.admit(made.roster_with(made.member("north")), ["east"])
    for by in ([], ["east"], ["north"]):
        made.refuses(
            made.roster_with(made.member("south")),
            by,
            "not-enough-approvals",
            r"expected 2: so many institutions of hospitals must approve a roster",
        )
    made.admit(made.roster_with(made.member("south")), ["north", "east"])
    assert [each.name for each in made.roster.members] == ["east", "north", "operator", "south"]
    made.admit(made.roster_with(made.member("west")), ["east", "north", "south"])  # more than needed do no harm


def test_without_a_word_in_genesis_nothing_is_asked_for() -> None:
    made = a_consortium()
    made.admit(made.roster_with(made.changed("north", status="revoked")))
    made.admit(made.signed(a_plan_statement()))
    assert approvals_needed(made.state, Kind.ROSTER, made.roster) == 0


def test_each_kind_has_its_own_number() -> None:
    made = a_consortium(plan=2)
    made.admit(made.roster_with(made.member("west")))
    plan = made.signed(a_plan_statement())
    made.refuses(plan, ["west"], "not-enough-approvals", r"This plan has 1 approval \(west\), expected 2")
    made.admit(plan, ["west", "east"])
    assert a_consortium(roster=2).state.genesis.approvals == {"roster": 2}


def test_a_plan_needs_no_more_than_there_are() -> None:
    made = a_consortium(("east",), plan=5)
    plan = made.signed(a_plan_statement())
    made.refuses(plan, [], "not-enough-approvals", r"expected 1")
    made.admit(plan, ["east"])


def test_whatever_is_approved_without_need_must_hold_all_the_same() -> None:
    made = a_consortium()
    made.keys["stranger"] = SigningKey.generate()
    statement = made.roster_with(made.member("west"))
    made.refuses(statement, ["north", "stranger"], "not-enough-approvals", "none of those of the 3 institutions")
    made.admit(statement, ["north"])


# --- whose -----------------------------------------------------------------------------------------------------------


def _rotated(made: Consortium) -> None:
    old = made.keys["north"]
    made.keys["north"] = SigningKey.generate()
    statement = made.roster_with(made.changed("north", signing_key=made.keys["north"].public))
    made.admit(statement, ["east", "south"])
    made.keys["north-before"] = old


WHO: dict[str, tuple[Callable[[Consortium], object], list[str], str, str]] = {
    "nobody": (lambda made: None, [], "not-enough-approvals", r"has 0 approvals, expected 2"),
    "too few": (lambda made: None, ["north"], "not-enough-approvals", r"has 1 approval \(north\), expected 2"),
    "a stranger": (
        lambda made: made.keys.update(stranger=SigningKey.generate()),
        ["north", "south", "stranger"],
        "not-enough-approvals",
        r"by key [0-9a-f]{16}…, which is none of those of the 3 institutions",
    ),
    "the operator": (lambda made: None, ["north", "operator"], "not-enough-approvals", "which is none of those of the 3"),
    "a viewer": (
        lambda made: made.admit(made.roster_with(made.member("watcher", "viewer")), ["east", "north"]),
        ["north", "watcher"],
        "not-enough-approvals",
        "which is none of those of the 3",
    ),
    "one who joins by this very roster": (
        lambda made: made.member("west"),
        ["north", "west"],
        "not-enough-approvals",
        "which is none of those of the 3",
    ),
    "one who was revoked": (
        lambda made: made.admit(made.roster_with(made.changed("south", status="revoked")), ["east", "north"]),
        ["north", "south"],
        "not-enough-approvals",
        "which is none of those of the 2",
    ),
    "one who said that it leaves": (
        lambda made: made.leave("south"),
        ["north", "south"],
        "not-enough-approvals",
        "which is none of those of the 2",
    ),
    "a key from before its rotation": (
        _rotated,
        ["north-before", "south"],
        "not-enough-approvals",
        "which is none of those of the 3",
    ),
}  # fmt: skip


@pytest.mark.parametrize("who", WHO)
def test_a_roster_is_refused_that_is_approved_by(who: str) -> None:
    prepare, by, code, message = WHO[who]
    made = a_consortium(roster=2)
    prepare(made)
    made.refuses(made.roster_with(made.member("west")), by, code, message)
    made.admit(made.roster_with(made.member("west")), ["east", "north"])


def test_one_institution_counts_once_and_cannot_sign_twice() -> None:
    made = a_consortium(roster=2)
    with pytest.raises(RefusalError, match="one key signs twice"):
        made.approved(made.roster_with(made.member("west")), ["north", "north"])


def test_an_approval_of_another_roster_is_refused() -> None:
    made = a_consortium(roster=2)
    meant, other = made.roster_with(made.member("west")), made.roster_with(made.member("zoo"))
    signatures = [approval_signature(meant.payload, made.keys[name]) for name in ("east", "north")]
    with pytest.raises(RefusalError, match="The approval by east is not a signature under this statement") as caught:
        admit(made.state, with_approvals(other.envelope, signatures[:1]))
    assert caught.value.code == "bad-signature"


def test_an_approval_is_for_one_place_in_the_ledger() -> None:
    """What was approved over one roster does not count over the next one, whatever it says."""
    made = a_consortium(roster=2)
    wanted = made.roster_with(made.member("west"))
    envelope = made.approved(wanted, ["east", "north"])
    made.admit(made.roster_with(made.member("zoo")), ["east", "north"])
    with pytest.raises(RefusalError, match="names roster") as caught:
        admit(made.state, envelope)
    assert caught.value.code == "wrong-parent"


def test_an_institution_that_also_operates_may_approve() -> None:
    made = a_consortium(("east",), roster=1)
    made.admit(made.roster_with(made.member("north", "operator", "auditor")), ["east"])
    assert set(approvers(made.state)) == {"east", "north"}
    made.admit(made.roster_with(made.member("south")), ["north"])


def test_a_kind_that_is_checked_elsewhere_says_how_many_it_needs() -> None:
    made = a_consortium(release=2)
    statement = verify(parse(made.approved(made.roster_with(made.member("west")), ["north"])), made.coordinator.public)
    assert check_approvals(made.state, statement) == ("north",)
    with pytest.raises(RefusalError, match=r"has 1 approval \(north\), expected 2"):
        check_approvals(made.state, statement, 2)


# --- what needs none -------------------------------------------------------------------------------------------------

CERTIFICATE = {"serial": "ab", "spki_sha256": "cd" * 32}


def test_a_renewed_certificate_needs_no_approval() -> None:
    made = a_consortium(roster=2)
    made.admit(made.roster_with(made.member("north", certificates=(CERTIFICATE,))))
    other = {"serial": "ef", "spki_sha256": "cd" * 32}
    made.admit(made.roster_with(made.member("north", certificates=(CERTIFICATE, other)), made.changed("south")))


def test_who_leaves_has_said_so_itself() -> None:
    made = a_consortium(roster=2)
    made.leave("south")
    made.admit(made.roster_with(made.changed("south", status="left")))
    assert made.roster.member("south") == made.changed("south", status="left")
    made.admit(made.roster_with(made.member("north", certificates=(CERTIFICATE,))))  # beside one who left long ago


NEEDED: dict[str, Callable[[Consortium], Statement]] = {
    "a new member": lambda made: made.roster_with(made.member("west")),
    "a new member beside a renewal": lambda made: made.roster_with(
        made.member("west"), made.member("north", certificates=(CERTIFICATE,))
    ),
    "a role more": lambda made: made.roster_with(made.changed("north", roles=("trainer", "auditor"))),
    "a role less": lambda made: made.roster_with(made.changed("north", roles=())),
    "another signing key": lambda made: made.roster_with(
        made.changed("north", signing_key=SigningKey.generate().public)
    ),
    "an encryption key": lambda made: made.roster_with(
        made.changed("north", encryption_key=EncryptionKey.generate().public)
    ),
    "a revocation": lambda made: made.roster_with(made.changed("south", status="revoked")),
    "one marked as left who did not say so": lambda made: made.roster_with(made.changed("south", status="left")),
    "a revocation of the operator": lambda made: made.roster_with(made.changed("operator", status="revoked")),
}


@pytest.mark.parametrize("change", NEEDED)
def test_approvals_are_needed_for(change: str) -> None:
    made = a_consortium(roster=2)
    statement = NEEDED[change](made)
    made.refuses(statement, [], "not-enough-approvals", r"This roster has 0 approvals, expected 2")
    made.refuses(statement, ["north"], "not-enough-approvals", r"\(north\), expected 2")
    made.admit(statement, ["north", "east"])


def test_one_who_leaves_is_not_revoked_without_approval() -> None:
    made = a_consortium(roster=2)
    made.leave("south")
    made.refuses(made.roster_with(made.changed("south", status="revoked")), [], "not-enough-approvals", "expected 2")


def test_another_change_beside_a_leave_needs_approval() -> None:
    made = a_consortium(roster=1)
    made.leave("south")
    both = made.roster_with(made.changed("south", status="left"), made.changed("north", roles=("auditor",)))
    made.refuses(both, [], "not-enough-approvals", "expected 1")
