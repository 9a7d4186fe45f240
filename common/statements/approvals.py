"""Approvals: signatures of institutions under a statement that its author signed (docs/protocol.md#approvals).

    {payload, signatures: [author]} ── each approver signs the same payload ──▶ {payload, signatures: [author, a, b, …]}

approval = approval_signature(statement.payload, key)              # at an institution
envelope = with_approvals(statement.envelope, [approval, …])       # at the author: canonical, whatever the order they came in
verify_approvals(parse(envelope), {"clinic": key, …})              # at everybody: ("clinic",), by these keys alone

Who may approve, and how many must, are rules of the ledger (common.ledger.rulebook.approvals).
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping

from securesystemslib import dsse
from securesystemslib.exceptions import Error as SecureSystemsLibError
from securesystemslib.signer import Signature  # type: ignore[attr-defined]  # listed in no __all__

from common import strict_json
from common.errors import BadSignature, NotEnoughApprovals
from common.identity.keys import SigningKey, key_id, verifying_key
from common.statements.envelope import (
    MAX_ENVELOPE_BYTES,
    PAYLOAD_TYPE,
    Approval,
    Statement,
    UnverifiedStatement,
    parse,
)
from common.statements.kinds import PublicKey

APPROVAL_BYTES = 174
"""What one approval adds to an envelope: the key id, the signature, their names, a comma."""


def approval_signature(payload: bytes, key: SigningKey) -> Approval:
    """This key's signature under a payload: over its DSSE pre-authentication encoding, as the author's."""
    signature = dsse.Envelope(payload, PAYLOAD_TYPE, {}).sign(key.signer())
    return Approval(signature.keyid, bytes.fromhex(signature.signature))


def with_approvals(envelope: bytes, approvals: Iterable[Approval]) -> bytes:
    """The canonical envelope of the same statement with its author's signature and exactly these approvals.

    Raises:
        MalformedStatement: the kind takes none, a key signs twice, or there are too many for an envelope.
    """
    parse(envelope)
    value = strict_json.loads(envelope, max_bytes=MAX_ENVELOPE_BYTES)
    if not isinstance(value, dict) or not isinstance(value["signatures"], list):
        raise TypeError("an envelope that parses is an object with a list of signatures")
    added: list[strict_json.JsonValue] = [
        {"keyid": each.keyid, "sig": base64.b64encode(each.signature).decode()}
        for each in sorted(approvals, key=lambda each: each.keyid)
    ]
    written = strict_json.dumps({**value, "signatures": [value["signatures"][0], *added]})
    parse(written)  # what others would refuse to read is never made
    return written


def verify_approvals(statement: Statement | UnverifiedStatement, keys: Mapping[str, PublicKey]) -> tuple[str, ...]:
    """Names of the members that approved a statement, ascending.

    Args:
        keys: of all who may approve, by name; distinct.

    Raises:
        NotEnoughApprovals: somebody else's signature stands among the approvals.
        BadSignature: one that names a member's key is not by it.
    """
    holders = {key_id(key): name for name, key in keys.items()}
    names = []
    for approval in statement.approvals:
        name = holders.get(approval.keyid)
        if name is None:
            raise NotEnoughApprovals(
                f"This {statement.kind} statement bears an approval by key {approval.keyid[:16]}…, which is none of those "
                f"of the {len(keys)} institutions that may approve it."
            )
        verify_approval(statement.payload, approval, name, keys[name])
        names.append(name)
    return tuple(sorted(names))


def verify_approval(payload: bytes, approval: Approval, name: str, key: PublicKey) -> None:
    """
    Raises:
        BadSignature: `key`, which is the member's of that name, did not sign this payload.
    """
    alone = dsse.Envelope(payload, PAYLOAD_TYPE, {})
    alone.signatures[approval.keyid] = Signature(approval.keyid, approval.signature.hex())
    try:
        # Only this key: its id decides which signature the library tries.
        alone.verify([verifying_key(key)], threshold=1)
    except (SecureSystemsLibError, ValueError) as err:
        raise BadSignature(f"The approval by {name} is not a signature under this statement by its key.") from err
