"""What a roster changes, in words: who joins, whose key changes, who is revoked. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from common.identity.keys import key_id
from common.statements.kinds import Member, Roster


def changes(before: Roster | None, after: Roster) -> tuple[str, ...]:
    """A sentence for each change from one roster to another, by name; keys by their ids, to compare them elsewhere."""
    known = {member.name: member for member in (before.members if before else ())}
    sentences: list[str] = []
    for member in after.members:
        sentences += _changed(known[member.name], member) if member.name in known else [_joins(member)]
    missing = sorted(set(known) - {member.name for member in after.members})
    sentences += [f"{name} is not named any more." for name in missing]
    return tuple(sentences) or ("It changes nothing.",)


def _joins(member: Member) -> str:
    roles = ", ".join(member.roles) or "no role"
    status = "" if member.status == "active" else f", at once {member.status}"
    return f"{member.name} joins{status}, as {roles}. The id of its signing key: {key_id(member.signing_key)}."


def _changed(before: Member, after: Member) -> Iterator[str]:
    name = after.name
    if before.status != after.status:
        said = {"revoked": "is revoked", "left": "has left"}.get(after.status, f"is {after.status} again")
        yield f"{name} {said}."
    if before.signing_key != after.signing_key:
        yield (
            f"The signing key of {name} changes. The id of its new key: {key_id(after.signing_key)}; "
            f"of the one before: {key_id(before.signing_key)}."
        )
    if before.encryption_key != after.encryption_key:
        yield f"The encryption key of {name} changes."
    if before.roles != after.roles:
        yield f"The roles of {name} change from {_roles(before)} to {_roles(after)}."
    if before.certificates != after.certificates:
        serials = {each.serial for each in before.certificates}
        new = [each.serial for each in after.certificates if each.serial not in serials]
        yield f"{name} gets a certificate: serial {new[0]}." if len(new) == 1 else f"The certificates of {name} change."


def _roles(member: Member) -> str:
    return ", ".join(member.roles) or "none"
