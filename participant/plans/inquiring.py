"""Operators' questions before a run: what would this institution's policy say to that draft? Codes only, binding nobody."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from hashlib import sha256

from common.errors import LLMasOSError
from common.ledger.state import LedgerState
from common.logs import get_logger
from common.statements.kinds import PlanStatement
from common.strict_json import loads, validate
from common.wire.convert import MAX_PLAN_BYTES, estimate_to_wire
from common.wire.messages import Estimate, Inquiry
from common.wire.session import Session
from participant.memory.mirror import Mirror
from participant.memory.records import Records
from participant.policy import expected_usage, judge, verdict
from participant.policy.source import PolicySource
from participant.sending import ESTIMATE, Outbox

log = get_logger(__name__)

REMEMBERED = 64


class Inquiring:
    """Answers each inquiry once; called on the follower's thread, and takes milliseconds besides the answer's call."""

    def __init__(
        self, session: Session, mirror: Mirror, outbox: Outbox, policy: PolicySource, records: Records
    ) -> None:
        self._session = session
        self._mirror = mirror
        self._outbox = outbox
        self._policy = policy
        self._records = records
        self._seen: deque[bytes] = deque(maxlen=REMEMBERED)

    def __call__(self, inquiries: Sequence[Inquiry]) -> bool:
        """Answer those that were not answered yet; whether there was one."""
        answered = False
        for inquiry in inquiries:
            if inquiry.id in self._seen:
                continue
            self._seen.append(inquiry.id)
            answered |= self._answer(inquiry)
        return answered

    def _answer(self, inquiry: Inquiry) -> bool:
        try:
            estimate = self.estimate(inquiry)
            if estimate is None:
                return False
            self._session.estimate(estimate)
        except (LLMasOSError, ValueError) as err:
            # Nobody is bound by an estimate, and who asks hears nothing rather than something wrong.
            log.warning("inquiry not answered", extra={"error": type(err).__name__})
            return False
        self._outbox.book(ESTIMATE, int(estimate_to_wire(estimate).ByteSize()), sha256(inquiry.plan_json).hexdigest())
        log.info("inquiry answered", extra={"verdict": estimate.verdict, "codes": list(estimate.codes)})
        return True

    def estimate(self, inquiry: Inquiry) -> Estimate | None:
        """What the policy says; None where it says that inquiries are not answered.

        Raises:
            LLMasOSError: there is no policy that can be read.
            ValueError: the draft is no plan.
        """
        policy = self._policy.current().policy
        if not policy.answer_inquiries:
            return None
        draft = validate(PlanStatement, loads(inquiry.plan_json, max_bytes=MAX_PLAN_BYTES))
        usage = expected_usage(draft, self._mirror.state.runs, self._records)
        findings = judge(policy, draft, usage)
        return Estimate(
            id=inquiry.id,
            verdict=verdict(policy, findings),
            codes=tuple(sorted({finding.code for finding in findings})),
            seconds_per_round=seconds_per_round(draft, self._mirror.state, self._records),
            availability=policy.windows,
        )


def seconds_per_round(draft: PlanStatement, state: LedgerState, records: Records) -> float:
    """Of the worker, for a training round of the newest run with as many parameters, measured here; 0: never measured."""
    size = _parameters(draft)
    for run in reversed(tuple(state.runs.values())):
        if _parameters(run.statement) != size:
            continue
        work = records.work(run.run)
        trained = {entry.round for entry in work if entry.tokens > 0}
        if trained:
            return round(sum(entry.seconds for entry in work if entry.round in trained) / len(trained), 3)
    return 0.0


def _parameters(statement: PlanStatement) -> int:
    return sum(tensor.elements for tensor in statement.manifest)
