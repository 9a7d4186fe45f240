"""The history: every statement read once more by the rules, from the genesis on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from common.errors import RefusalError
from common.identity.keys import key_id
from common.ledger.rules import admit, pass_over, start
from common.ledger.state import LedgerState
from common.statements.envelope import parse
from common.statements.kinds import signing_institution
from common.verify.changes import COORDINATOR, Changes, is_key
from common.verify.report import Check, Finding, Outcome

OnEntry = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class History:
    """The state after the last entry that follows; `check` says whether that was the last one given."""

    state: LedgerState | None
    check: Check
    changes: Changes = field(default_factory=Changes)


def check_genesis(envelopes: Sequence[bytes | None], fingerprint: str | None) -> tuple[str, str, Check]:
    """Consortium, fingerprint, and whether the genesis is the one that the reader knows."""
    question = "Is this the ledger of the consortium that is meant?"
    if not envelopes:
        missing = Finding(Outcome.FAILED, "There is no ledger: not even a genesis.", expected="1 entry", got="0")
        return "", "", Check("genesis", question, "nothing", (missing,))
    try:
        admission = start(envelopes[0] or b"")
    except RefusalError as err:
        broken = Finding(Outcome.FAILED, f"Entry 0 is no genesis: {err.message}", leaf=0)
        return "", "", Check("genesis", question, "entry 0", (broken,))
    genesis, found = admission.state.genesis, admission.place.digest
    findings: tuple[Finding, ...] = ()
    if fingerprint is None:
        text = "The fingerprint was not compared with one that is known from elsewhere."
        findings = (Finding(Outcome.GAPS, text, leaf=0, got=found),)
    elif fingerprint != found:
        text = "This is another consortium's ledger, or another beginning of this one's."
        findings = (Finding(Outcome.FAILED, text, leaf=0, expected=fingerprint, got=found),)
    return genesis.consortium, found, Check("genesis", question, f"{genesis.consortium}, {found[:16]}…", findings)


def replay(envelopes: Sequence[bytes | None], on_entry: OnEntry) -> History:
    """Admit every entry in its order; the first that does not follow ends the history. Withheld entries are passed over."""
    question = "Is every statement signed by a key that the roster of its leaf allowed, and does it follow?"
    changes = Changes()
    try:
        admission = start(envelopes[0] or b"")
    except (IndexError, RefusalError):
        return History(None, Check("history", question, "nothing", (Finding(Outcome.FAILED, "It has no beginning."),)))
    changes.record(admission)
    state = admission.state
    for index, envelope in enumerate(envelopes[1:], start=1):
        if envelope is None:
            state = pass_over(state)
            continue
        try:
            admission = admit(state, envelope)
        except RefusalError as err:
            finding = Finding(
                Outcome.FAILED,
                f"{err.message} ({err.code})",
                index,
                "a statement that follows",
                _what(envelope),
                _signer(envelope),
            )
            examined = f"entries 0 to {index} of {len(envelopes)}"
            return History(state, Check("history", question, examined, (finding,)), changes)
        state = admission.state
        changes.record(admission)
        on_entry(index)
    withheld = sum(envelope is None for envelope in envelopes)
    if not withheld:
        return History(state, Check("history", question, f"{len(envelopes)} entries"), changes)
    text = f"{withheld:,} entries are withheld: only their hashes are shown."
    examined = f"{len(envelopes) - withheld:,} of {len(envelopes):,} entries"
    return History(state, Check("history", question, examined, (Finding(Outcome.GAPS, text),)), changes)


def check_pins(state: LedgerState, changes: Changes, pins: Mapping[str, str]) -> Check:
    """Whether the roster's keys are those that the reader knows of institutions: raw, or by their ids, hexadecimal."""
    question = "Are the institutions' keys the ones that are known from elsewhere?"
    findings = []
    for name, known in sorted(pins.items()):
        member = state.member(name)
        if member is None or not is_key(member.signing_key, known):
            leaf = changes.replaced_at(name, known)
            text = f"{name} has another key here." if leaf is None else f"{name} had this key until here, then another."
            found = member.signing_key.public if member else "no such member"
            findings.append(Finding(Outcome.FAILED, text, leaf, known, found, COORDINATOR))
    members = [member for member in (state.roster.members if state.roster else ()) if member.roles != ("operator",)]
    for member in members:
        if member.name not in pins:
            text = f"Keys that the operator calls {member.name}: they were not compared with one that is known."
            findings.append(Finding(Outcome.GAPS, text, got=key_id(member.signing_key)[:16]))
    return Check("keys", question, f"{len(pins)} of {len(members)} institutions", tuple(findings))


def _what(envelope: bytes) -> str:
    try:
        return f"{parse(envelope).kind}, {len(envelope):,} bytes"
    except RefusalError:
        return f"{len(envelope):,} bytes that are no statement"


def _signer(envelope: bytes) -> str:
    """Who should have signed it, as far as it can be read."""
    try:
        return signing_institution(parse(envelope).predicate) or COORDINATOR
    except RefusalError:
        return ""
