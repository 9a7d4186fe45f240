"""Who speaks is not who may speak."""

from __future__ import annotations

from common.errors.base import Status
from common.errors.statements import RefusalError


class IdentityError(RefusalError):
    """Base of what can be wrong with who speaks."""

    code = "identity"
    status = Status.UNAUTHENTICATED


class UnknownCertificate(IdentityError):
    """The TLS certificate is not one that the newest roster names."""

    code = "unknown-certificate"
    default_fix = "Join with a fresh invitation; revoked and superseded certificates stay refused."


class CertificateExpired(IdentityError):
    """A certificate is outside its time of validity."""

    code = "certificate-expired"
    default_fix = (
        "Check this machine's clock; if it is right, renew: llmasos-participant identity renew, or start the daemon."
    )


class WrongFingerprint(IdentityError):
    """Another consortium than the one that was expected: its genesis has another SHA-256."""

    code = "wrong-fingerprint"
    default_fix = (
        "Compare the fingerprint with the operator over a channel that you trust; do not go on until they agree."
    )


class RoleMissing(IdentityError):
    """The caller's roster entry lacks the role that this call needs."""

    code = "role-missing"
    status = Status.PERMISSION_DENIED
    default_fix = "Use the operator's home folder, or ask the operator for the role."


class NotAuthorised(IdentityError):
    """No statement gives the caller this blob, or these figures."""

    code = "not-authorised"
    status = Status.PERMISSION_DENIED
    default_fix = "Blobs are readable by those whom a plan or round names."


class InvalidInvitation(IdentityError):
    """An invitation is unreadable, unknown, or its secret is wrong."""

    code = "invalid-invitation"
    default_fix = "Copy the whole invitation, with its first and last line, or ask the operator for a new one."


class InvitationExpired(IdentityError):
    """An invitation is past its time."""

    code = "invitation-expired"
    default_fix = "Ask the operator for a new one: llmasos-coordinator institution invite NAME."


class InvitationUsed(IdentityError):
    """An invitation was redeemed with other keys."""

    code = "invitation-used"
    status = Status.ALREADY_EXISTS
    default_fix = "If it was not you, tell the operator at once; else ask for a new one."


class TooManyRequests(IdentityError):
    """A rate or count limit of this caller is reached."""

    code = "too-many-requests"
    status = Status.RESOURCE_EXHAUSTED
    default_fix = "Wait a moment; limits are the coordinator's settings."
