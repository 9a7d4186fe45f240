"""Who gets in: the work listener knows its callers by certificate, the enrolment listener only their addresses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Protocol

from common.clock import Clock
from common.errors import CoordinatorRecovering, RoleMissing, UnknownCertificate
from common.identity.certificates import certificate_id, check_time, validity
from common.statements.kinds import CertificateId, Member, Role
from coordinator.api.calls import Call, Caller
from coordinator.api.limits import AddressLimiter, CallLimiter, peer_address
from coordinator.ports import Members, RecoveryDesk

FOLLOW = "/llmasos.v1.Work/Follow"
OPERATIONS = "/llmasos.v1.Operations/"
READING = frozenset({"ListInstitutions", "ListRuns", "WatchRun", "RunLogs", "Status"})
OPERATIONS_OF_ROLES: Mapping[Role, frozenset[str]] = {
    "operator": READING
    | {"Invite", "Revoke", "StartRun", "ControlRun", "Inquire", "WithdrawProposal", "DeleteMetrics"},
    "auditor": READING,
    "viewer": READING,
}
"""Methods of Operations by role. A method in no row is nobody's: a test holds this table and the service together."""
BLOB_STREAMS = frozenset({"/llmasos.v1.Blobs/Put", "/llmasos.v1.Blobs/Get"})


@dataclass(frozen=True, slots=True)
class Admitted:
    """A call that may begin, and how to give back what it holds; `leave` may be called more than once."""

    call: Call
    leave: Callable[[], None]


class Door(Protocol):
    """Lets a call in, before anything of its message is read."""

    def admit(self, method: str, context: Any) -> Admitted:
        """
        Raises:
            IdentityError: the caller may not make this call, or not now.
        """
        ...


class WorkDoor:
    """Mutual TLS proved a key; the roster says whose it is and what that member may do."""

    def __init__(
        self, members: Members, limiter: CallLimiter, clock: Clock, recovery: RecoveryDesk | None = None
    ) -> None:
        self._members, self._limiter, self._clock, self._recovery = members, limiter, clock, recovery

    def admit(self, method: str, context: Any) -> Admitted:
        spiffe_id, pem = presented(context)
        check_time(_validity(pem), now=self._clock.now(), what=f"The certificate of {spiffe_id}")
        certificate = _certificate_id(pem)
        find = self._members.follower_by_certificate if method == FOLLOW else self._members.by_certificate

        def member() -> Member:
            return find(certificate.serial, certificate.spki_sha256, spiffe_id)

        caller = Caller(member=self._known(member), still_active=member)
        leave = self._limiter.enter(caller.member.name, "blob" if method in BLOB_STREAMS else "control")
        try:
            if method.startswith(OPERATIONS):
                check_role(caller.member, method.removeprefix(OPERATIONS))
        except RoleMissing:
            leave()
            raise
        return Admitted(Call(context, self._clock, caller), leave)

    def _known(self, member: Callable[[], Member]) -> Member:
        """
        Raises:
            UnknownCertificate: no member's certificate.
            CoordinatorRecovering: the same, while the roster that names it may be among what is lacking.
        """
        try:
            return member()
        except UnknownCertificate as err:
            if self._recovery is not None and self._recovery.pending:
                raise CoordinatorRecovering(f"{err.message} The coordinator recovers: that may change.") from err
            raise


def check_role(member: Member, operation: str) -> None:
    """
    Raises:
        RoleMissing: none of the member's roles has this method of Operations.
    """
    needed = [role for role, operations in OPERATIONS_OF_ROLES.items() if operation in operations]
    if not set(needed) & set(member.roles):
        raise RoleMissing(
            f"{member.name} has the roles {', '.join(member.roles) or 'none'}; "
            f"{operation} needs the role {' or '.join(needed) or 'operator'}."
        )


class EnrolmentDoor:
    """Anybody, at a limited rate."""

    def __init__(self, limiter: AddressLimiter, clock: Clock) -> None:
        self._limiter, self._clock = limiter, clock

    def admit(self, method: str, context: Any) -> Admitted:
        leave = self._limiter.admit(peer_address(context.peer()))
        return Admitted(Call(context, self._clock, None), leave)


def presented(context: Any) -> tuple[str, bytes]:
    """The one SPIFFE ID of the peer's certificate, and the certificate as PEM.

    Raises:
        UnknownCertificate: there is not exactly one of each. The untyped list of alternative names is never looked at: a DNS
            name there may spell a SPIFFE ID.
    """
    identity = context.auth_context()
    spiffe_ids, certificates = identity.get("peer_spiffe_id", ()), identity.get("x509_pem_cert", ())
    if len(spiffe_ids) != 1 or len(certificates) != 1:
        raise UnknownCertificate(
            f"Expected a client certificate with exactly one SPIFFE ID, got {len(certificates)} certificates and "
            f"{len(spiffe_ids)} SPIFFE IDs."
        )
    return spiffe_ids[0].decode("utf-8", "replace"), bytes(certificates[0])


@lru_cache(maxsize=4096)
def _validity(pem: bytes) -> tuple[datetime, datetime]:
    return validity(pem, what="The caller's certificate")


@lru_cache(maxsize=4096)
def _certificate_id(pem: bytes) -> CertificateId:
    return certificate_id(pem)
