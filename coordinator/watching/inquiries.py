"""Questions of operators to institutions: would you take part in this plan? In memory, answered by policies, binding nobody."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass, field

from common.clock import Clock
from common.errors import MalformedStatement, TooManyRequests, UnknownObject
from common.statements.kinds import Member, PlanStatement
from common.strict_json import StrictJsonError, loads, validate
from common.wire.convert import INQUIRY_ID_BYTES, MAX_INQUIRIES, MAX_PLAN_BYTES
from common.wire.messages import Estimate, Inquiry
from coordinator.ledger import Ledger
from coordinator.ports import EstimateView

POLL_SECONDS = 0.25


@dataclass(slots=True)
class _Open:
    inquiry: Inquiry
    asked: tuple[str, ...]
    answers: dict[str, Estimate] = field(default_factory=dict)


class InquiryDesk:
    """The Inquiries port. A question is open while its asker waits."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._changed = threading.Condition()
        self._open: dict[bytes, _Open] = {}

    def open_for(self, member: Member) -> tuple[Inquiry, ...]:
        """What this member has not answered yet."""
        with self._changed:
            return tuple(
                each.inquiry
                for each in self._open.values()
                if member.name in each.asked and member.name not in each.answers
            )

    def answer(self, member: Member, estimate: Estimate) -> None:
        """
        Raises:
            UnknownObject: no such inquiry is open to this member.
        """
        with self._changed:
            found = self._open.get(estimate.id)
            if found is None or member.name not in found.asked:
                raise UnknownObject("No such inquiry is open.", "Nothing is to be done: whoever asked waits no more.")
            found.answers[member.name] = estimate
            self._changed.notify_all()

    def ask(self, plan_json: bytes, wait_seconds: float) -> tuple[EstimateView, ...]:
        """What every active trainer says, ascending by name.

        Raises:
            MalformedStatement: the draft is no plan statement.
            TooManyRequests: MAX_INQUIRIES are open already.
        """
        _check_draft(plan_json)
        asked = self._ledger.state.active_trainers
        inquiry = Inquiry(secrets.token_bytes(INQUIRY_ID_BYTES), plan_json)
        found = _Open(inquiry, asked)
        until = self._clock.monotonic() + wait_seconds
        with self._changed:
            if len(self._open) >= MAX_INQUIRIES:
                raise TooManyRequests(f"{MAX_INQUIRIES} inquiries are open already.", "Ask again in a minute.")
            self._open[inquiry.id] = found
        try:
            with self._changed:
                while len(found.answers) < len(asked) and self._clock.monotonic() < until:
                    self._changed.wait(POLL_SECONDS)
        finally:
            with self._changed:
                del self._open[inquiry.id]
        return tuple(_view(name, found.answers.get(name)) for name in asked)


def _view(name: str, estimate: Estimate | None) -> EstimateView:
    if estimate is None:
        return EstimateView(name, "silent")
    return EstimateView(name, estimate.verdict, estimate.codes, estimate.seconds_per_round, estimate.availability)


def _check_draft(plan_json: bytes) -> None:
    try:
        validate(PlanStatement, loads(plan_json, max_bytes=MAX_PLAN_BYTES))
    except (StrictJsonError, ValueError) as err:
        raise MalformedStatement(
            f"The draft is no plan statement: {err}"[:400], "Prepare it with: llmasos plan prepare."
        ) from err
