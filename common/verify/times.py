"""Times: no entry claims one that its signed neighbours rule out. What nobody else dated, nobody can judge.

    the coordinator's own        genesis, openings, controls: they never go back along the index
    a majority of witnesses      had cosigned a tree with the entry at a time: it claims no later one
                                 had, at a time, seen none with the entry: it claims no earlier one

One witness, or one institution that leaves, may have a wrong clock, or lie. So witnesses count by majority, and a time under an
institution's signature can be doubted, but convicts nobody.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate

from common.clock import rfc3339
from common.ledger.witnesses import majority
from common.verify.changes import COORDINATOR, Changes, SignedTime
from common.verify.checkpoints import Cosigned
from common.verify.report import Check, Finding, Outcome

TOLERANCE_SECONDS = 600
"""Clocks that are right differ by less, and so do a statement's time and its place in the ledger."""


class _WitnessClock:
    """What one witness says: by when it had seen trees of which size."""

    def __init__(self, seen: Iterable[tuple[int, int]]) -> None:
        ordered = sorted(seen)
        self._sizes = [size for size, _ in ordered]
        self._latest_to = list(accumulate((at for _, at in ordered), max))
        self._earliest_from = list(accumulate((at for _, at in reversed(ordered)), min))[::-1]

    def without(self, index: int) -> int | None:
        """The latest time at which its newest tree was one without that entry."""
        at = bisect_right(self._sizes, index)
        return self._latest_to[at - 1] if at else None

    def with_entry(self, index: int) -> int | None:
        """The earliest time at which it had seen the entry."""
        at = bisect_right(self._sizes, index)
        return self._earliest_from[at] if at < len(self._sizes) else None


def check_times(changes: Changes, cosigned: Sequence[Cosigned]) -> Check:
    """Every signed time against those that stand around it, within TOLERANCE_SECONDS."""
    clocks = _clocks(cosigned)
    findings = [*_goes_back(changes.times), *_departures(changes.times)]
    bounded = 0
    for claimed in changes.times:
        names = [name for name in changes.witnesses(claimed.index + 1) if name in clocks]
        needed = majority(len(changes.witnesses(claimed.index + 1)))
        after = sorted(at for name in names if (at := clocks[name].without(claimed.index)) is not None)
        before = sorted(at for name in names if (at := clocks[name].with_entry(claimed.index)) is not None)
        not_before = after[-needed] if 0 < needed <= len(after) else None
        not_after = before[needed - 1] if 0 < needed <= len(before) else None
        bounded += not_before is not None or not_after is not None
        findings += _outside(claimed, not_before, not_after)
    question = "Is every time one that the signed times around it allow?"
    examined = f"{len(changes.times):,} entries carry a signed time; a majority of witnesses bounds {bounded:,} of them"
    return Check("times", question, examined, tuple(sorted(findings, key=lambda each: each.leaf or 0)))


def _clocks(cosigned: Sequence[Cosigned]) -> dict[str, _WitnessClock]:
    seen: dict[str, list[tuple[int, int]]] = {}
    for note in cosigned:
        for name, at in note.by.items():
            seen.setdefault(name, []).append((note.size, at))
    return {name: _WitnessClock(pairs) for name, pairs in seen.items()}


def _outside(claimed: SignedTime, not_before: int | None, not_after: int | None) -> list[Finding]:
    """What a majority of witnesses says against a claim. The k-th of their times: the honest one among k decides."""
    who = f"Entry {claimed.index} ({claimed.what})"
    if not_before is not None and claimed.seconds < not_before - TOLERANCE_SECONDS:
        text = f"{who} was dated back: a majority of witnesses had not seen it yet at a later time than it claims."
        return [_finding(claimed, text, f"not before {moment(not_before)}")]
    if not_after is not None and claimed.seconds > not_after + TOLERANCE_SECONDS:
        text = f"{who} was dated forward: a majority of witnesses had cosigned it before the time that it claims."
        return [_finding(claimed, text, f"not after {moment(not_after)}")]
    return []


def _goes_back(times: Sequence[SignedTime]) -> list[Finding]:
    """Once for each step back: after it, what stands there counts, so that one entry dated forward accuses one neighbour."""
    findings = []
    newest: SignedTime | None = None
    for claimed in times:
        if claimed.signer != COORDINATOR:
            continue
        if newest is None or claimed.seconds >= newest.seconds:
            newest = claimed
        elif claimed.seconds < newest.seconds - TOLERANCE_SECONDS:
            text = (
                f"The coordinator's time goes back: entry {claimed.index} ({claimed.what}) was dated back, or entry "
                f"{newest.index} ({newest.what}) forward."
            )
            findings.append(_finding(claimed, text, f"not before {moment(newest.seconds)}"))
            newest = claimed
    return findings


def _departures(times: Sequence[SignedTime]) -> list[Finding]:
    """An institution's time among the coordinator's: where they contradict each other, one of two clocks is wrong."""
    findings = []
    for position, claimed in enumerate(times):
        if claimed.signer == COORDINATOR:
            continue
        before = [each.seconds for each in times[:position] if each.signer == COORDINATOR]
        after = [each.seconds for each in times[position + 1 :] if each.signer == COORDINATOR]
        text = (
            f"The {claimed.what} of {claimed.signer} contradicts the coordinator's times: one of two clocks is wrong."
        )
        if before and claimed.seconds < max(before) - TOLERANCE_SECONDS:
            findings.append(_finding(claimed, text, f"not before {moment(max(before))}"))
        elif after and claimed.seconds > min(after) + TOLERANCE_SECONDS:
            findings.append(_finding(claimed, text, f"not after {moment(min(after))}"))
    return findings


def _finding(claimed: SignedTime, text: str, expected: str) -> Finding:
    outcome = Outcome.FAILED if claimed.signer == COORDINATOR else Outcome.GAPS
    within = f"{expected} (within {TOLERANCE_SECONDS} s)"
    return Finding(outcome, text, claimed.index, within, moment(claimed.seconds), claimed.signer)


def moment(seconds: float) -> str:
    """A time in words, also one that no calendar has."""
    try:
        return rfc3339(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds))
    except OverflowError:
        return f"{seconds:,.0f} s after 1970"
