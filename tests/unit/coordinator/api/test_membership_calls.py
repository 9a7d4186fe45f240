"""Who may call what, by role and by standing; over real listeners."""

from __future__ import annotations

from typing import Any

import pytest

from common.errors import RoleMissing, UnknownCertificate, UnknownObject
from common.identity.keys import SigningKey
from common.statements.kinds import Member
from common.wire.v1 import operations_pb2
from coordinator.api.doors import OPERATIONS_OF_ROLES, check_role
from tests.support.api import REPORT, Scene

METHODS = [method.name for method in operations_pb2.DESCRIPTOR.services_by_name["Operations"].methods]
READING = {"ListInstitutions", "ListRuns", "WatchRun", "RunLogs", "Status"}


def a_member(*roles: Any) -> Member:
    return Member(name="maria", signing_key=SigningKey.generate().public, roles=roles)


def test_every_method_of_operations_is_in_the_operators_row_and_no_other_is() -> None:
    assert OPERATIONS_OF_ROLES["operator"] == set(METHODS)
    assert all(set(methods) <= set(METHODS) for methods in OPERATIONS_OF_ROLES.values())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("role", ["viewer", "auditor", "operator", "trainer", "evaluator", "witness"])
def test_viewers_and_auditors_read_and_operators_do_everything(role: str, method: str) -> None:
    allowed = role == "operator" or (role in {"viewer", "auditor"} and method in READING)
    if allowed:
        check_role(a_member(role), method)
        return
    with pytest.raises(RoleMissing, match=rf"maria has the roles {role}; {method} needs the role operator"):
        check_role(a_member(role), method)


def test_a_method_that_nobody_has_is_refused() -> None:
    with pytest.raises(RoleMissing, match=r"Destroy needs the role operator\."):
        check_role(a_member("operator"), "Destroy")


def test_a_viewer_watches_and_changes_nothing(scene: Scene) -> None:
    scene.consortium.enrolled("maria", "viewer")
    maria = scene.session("maria")
    assert maria.institutions() == ()
    assert maria.runs() == ()
    with pytest.raises(UnknownObject):
        list(maria.watch("tiny"))
    for change in (
        lambda: maria.revoke("north", "operator"),
        lambda: maria.start_run(b"{}"),
        lambda: maria.invite("south", expires_hours=1, roles=["trainer"]),
        lambda: maria.inquire(b"{}", wait_seconds=0),
    ):
        with pytest.raises(RoleMissing, match="maria has the roles viewer"):
            change()


# --- who left --------------------------------------------------------------------------------------------------------


def test_who_left_follows_and_does_nothing_else(scene: Scene) -> None:
    for number in range(5):
        scene.ports.ledger.append(b"%d" % number)
    north = scene.session("north")
    assert len(north.follow(from_index=0, wait_seconds=0).envelopes) == 5
    scene.ports.members.leave("north")
    assert len(north.follow(from_index=0, wait_seconds=0).envelopes) == 5
    for call in (lambda: north.report(REPORT), lambda: north.submit(b"{}")):
        with pytest.raises(UnknownCertificate):
            call()


def test_who_left_reads_up_to_its_last_entry_and_waits_in_vain_for_more(scene: Scene) -> None:
    for number in range(5):
        scene.ports.ledger.append(b"%d" % number)
    scene.ports.members.leave("north")
    scene.ports.ledger.last_for["north"] = 2
    north = scene.session("north")
    found = north.follow(from_index=0, wait_seconds=0)
    assert (found.envelopes, found.ledger_size) == ((b"0", b"1", b"2"), 3)
    assert north.follow(from_index=2, wait_seconds=0).envelopes == (b"2",)
    later = north.follow(from_index=3, wait_seconds=0.05)
    assert (later.envelopes, later.ledger_size) == ((), 3)
