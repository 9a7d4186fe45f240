"""Plans as this institution sees them, and what a person decides about them. Needs no daemon, and disturbs none.

    with PlanDesk(home, SystemClock()) as desk:
        run = desk.find("tiny")                     # by a unique beginning of its id
        desk.checks(run.statement, run)             # each rule of the policy, kept or broken
        desk.accept(run, agreement="", despite_policy=False)

What is asked stands in the journal's copy of the ledger, which the daemon keeps. A decision is written into the journal; the
daemon signs and sends the answer, within seconds, or when it is started.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from common import strict_json
from common.clock import Clock, rfc3339
from common.errors import InvalidConfiguration, PolicyRefuses, SlotTaken, StorageFailure, UnknownObject, UsageError
from common.ledger.rules import start
from common.ledger.state import LedgerState, RunRecord
from common.statements.envelope import parse
from common.statements.kinds import Answer, PlanStatement
from participant.config import HomeLayout, load_config
from participant.memory.journal import Journal
from participant.memory.mirror import Mirror
from participant.memory.orders import Decision, Orders
from participant.memory.records import Records
from participant.policy import Check, Finding, LoadedPolicy, Usage, expected_usage, load_policy, usage_of, verdict
from participant.policy.rules import examine
from participant.tasks import answer_slot

DRAFT = "draft.json"
MAX_DRAFT_BYTES = 1024 * 1024
DECLINED = "institution-declines"


@dataclass(frozen=True, slots=True)
class Standing:
    """What this institution has said to a plan, or will say."""

    state: str
    """accepted, refused; sending (signed, not yet in the ledger); decided; or open."""
    accept: bool | None = None
    reasons: tuple[str, ...] = ()
    agreement: str = ""


class PlanDesk:
    """Over one home folder; a context manager.

    Raises:
        NotInitialised: the folder holds no participant.
        InvalidConfiguration, StorageFailure: its files are wrong; the message says which.
    """

    def __init__(self, home: Path, clock: Clock) -> None:
        self.layout = HomeLayout(home)
        self.institution = load_config(home).institution
        self._clock = clock
        self._journal = Journal(self.layout.journal)
        self._orders, self._records = Orders(self.layout.journal), Records(self.layout.journal)
        self.state = _ledger_state(self._journal, self.layout.genesis)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._journal.close()
        self._orders.close()
        self._records.close()

    @property
    def policy(self) -> LoadedPolicy:
        """As it stands in the home folder now."""
        return load_policy(self.layout.policy)

    def runs(self) -> tuple[RunRecord, ...]:
        """Every run of the consortium, oldest first."""
        return tuple(self.state.runs.values())

    def find(self, prefix: str) -> RunRecord:
        """
        Raises:
            UnknownObject: no run, or several, begin so.
        """
        names = [prefix] if prefix in self.state.runs else [name for name in self.state.runs if name.startswith(prefix)]
        if len(names) == 1:
            return self.state.runs[names[0]]
        found = f"{len(names)} runs begin with it: {', '.join(names[:4])}" if names else "no run begins so"
        raise UnknownObject(f"Expected a run's id or a unique beginning of it, got {prefix!r}: {found}.", _LIST)

    def checks(self, statement: PlanStatement, run: RunRecord | None = None) -> tuple[Check, ...]:
        """Each rule of the policy, kept or broken by that plan; `run`: it is one that may have used something already."""
        loaded = self.policy
        return examine(loaded.policy, statement, self.usage(statement, run), loaded.lines)

    def usage(self, statement: PlanStatement, run: RunRecord | None = None) -> Usage:
        """What is known of its hours and bytes here; where it never ran, scaled from what did."""
        used = Usage() if run is None else usage_of(run, self._records, self._journal)
        if used.seconds_per_round is not None:
            return used
        expected = expected_usage(statement, self.state.runs, self._records)
        return replace(expected, gpu_hours=used.gpu_hours, cpu_hours=used.cpu_hours, traffic_bytes=used.traffic_bytes)

    def standing(self, run: RunRecord) -> Standing:
        """Of this institution."""
        answered = run.answers.get(self.institution)
        if answered is not None:
            return _of_answer("accepted" if answered.answer.accept else "refused", answered.answer)
        signed = self._journal.signed(answer_slot(run))
        if signed is not None:
            answer = parse(signed.envelope).predicate
            if not isinstance(answer, Answer):
                raise TypeError(f"slot {signed.slot} holds a {type(answer).__name__}")
            return _of_answer("sending", answer)
        decision = self._orders.decision(run.place.digest)
        if decision is not None:
            return Standing("decided", decision.accept, decision.reasons, decision.agreement)
        return Standing("open")

    def accept(self, run: RunRecord, *, agreement: str, despite_policy: bool) -> Decision:
        """Decide to take part. `agreement`: SHA-256 of one, or empty for the policy's, if it names one.

        Raises:
            SlotTaken: the plan was answered before.
            PolicyRefuses: a rule is broken, and `despite_policy` is not set.
            UsageError: the run has ended.
        """
        self._check_open(run)
        checks = self.checks(run.statement, run)
        if not despite_policy:
            refuse_broken(run.run, tuple(check.finding for check in checks if not check.kept), _DESPITE)
        cited = agreement or self.policy.policy.agreement or ""
        return self._decide(Decision(run.place.digest, True, cited, (), rfc3339(self._clock.now())))

    def refuse(self, run: RunRecord, reason: str) -> Decision:
        """Decide not to take part, for a reason that the operator sees as a code.

        Raises:
            SlotTaken, UsageError: as `accept`.
        """
        self._check_open(run)
        return self._decide(Decision(run.place.digest, False, "", (reason,), rfc3339(self._clock.now())))

    def _decide(self, decision: Decision) -> Decision:
        self._orders.decide(decision)
        return decision

    def _check_open(self, run: RunRecord) -> None:
        standing = self.standing(run)
        if standing.state in {"accepted", "refused", "sending"}:
            word = "accepted" if standing.accept else "refused"
            raise SlotTaken(
                f"{run.run} awaits no answer: {self.institution} has {word} it, and an answer is signed once.",
                "To stop taking part: llmasos-participant pause, or leave."
                if standing.accept
                else "Ask the operator to start the run anew; its plan can then be answered again.",
            )
        if run.ended is not None:
            raise UsageError(f"{run.run} awaits no answer: it has ended ({run.ended.reason}).", _LIST)


_LIST = "See: llmasos-participant plan list."
_DESPITE = "Change policy.yaml, leave the plan refused, or accept it with --despite-policy."


def refuse_broken(name: str, findings: tuple[Finding, ...], fix: str | None = None) -> None:
    """
    Raises:
        PolicyRefuses: there are findings; the message names each with its line, wanted and got.
    """
    if findings:
        broken = "; ".join(
            f"{one.code}: {one.rule}{f' (line {one.line})' if one.line else ''} wanted {one.wanted}, got {one.got}"
            for one in findings
        )
        raise PolicyRefuses(f"The policy refuses {name}. {broken}.", fix)


def says(loaded: LoadedPolicy, checks: tuple[Check, ...]) -> str:
    """accept, refuse or ask: the verdict over checks."""
    return verdict(loaded.policy, tuple(check.finding for check in checks if not check.kept))


def read_draft(path: Path) -> PlanStatement:
    """The plan in a draft.json, or in the folder that `llmasos plan prepare` made.

    Raises:
        InvalidConfiguration: it is no draft; the message names the field.
        StorageFailure: it cannot be read.
    """
    file = path / DRAFT if path.is_dir() else path
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_DRAFT_BYTES + 1)
        return strict_json.validate(PlanStatement, strict_json.loads(content, max_bytes=MAX_DRAFT_BYTES))
    except OSError as err:
        raise StorageFailure(f"{file} could not be read: {err.strerror or err}.") from err
    except strict_json.StrictJsonError as err:
        raise InvalidConfiguration(
            f"{file}: expected the draft of a plan statement, got: {err}", "Ask the operator for the prepared folder."
        ) from err


def _of_answer(state: str, answer: Answer) -> Standing:
    return Standing(state, answer.accept, answer.reasons, answer.data_use_agreement or "")


def _ledger_state(journal: Journal, genesis: Path) -> LedgerState:
    """The fold of the journal's copy; before the daemon has read anything, what the genesis says alone."""
    try:
        envelope = genesis.read_bytes()
    except OSError as err:
        raise StorageFailure(f"{genesis} could not be read: {err.strerror or err}.") from err
    # A Mirror over an empty journal would write the genesis into it: that is the daemon's to do.
    return Mirror(journal, envelope).state if journal.ledger() else start(envelope).state
