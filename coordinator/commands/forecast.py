"""What a run would cost and meet, before it is started: pure arithmetic over the draft, answers to an inquiry, a measurement.

bytes       from the tensor list, exactly; tokens and statements are small beside them
disk        models and deltas that the plan's retention keeps, at the round that keeps most
memory      of the coordinator: constant; of a worker: measured, else weights, gradients and moments without activations
hours       rounds × the slowest institution, as each measured itself; else as this machine measured
hours open  whether a round that opens at a bad moment can be met within deadline_seconds by an institution's windows
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from common.clock import rfc3339
from common.ledger.cohort import cohort_sizes
from common.ledger.downlink import applied_delta_bytes, contribution_bytes, round_down_bytes, server_state_bytes
from common.plan.model import Plan
from common.statements.kinds import PlanStatement
from common.tensors import ELEMENT_BYTES, model_size, trainable_elements
from common.windows import Window, next_closing, next_opening
from coordinator.ports import EstimateView

COORDINATOR_MEMORY_BYTES = 300_000_000
"""The budget that docs/performance.md holds the coordinator to, for any model and cohort."""
LOOK_AHEAD = timedelta(days=7)
STARTS_TRIED = 60


@dataclass(frozen=True, slots=True)
class Measurement:
    """What `llmasos plan measure` found on this machine."""

    device: str
    seconds_per_round: float
    tokens_per_second: float
    peak_memory_bytes: int
    peak_device_bytes: int


@dataclass(frozen=True, slots=True)
class InstitutionForecast:
    """One institution's word and what follows from it.

    Args:
        seconds_per_round: as it measured, else as this machine did; 0 where nobody measured.
    """

    institution: str
    verdict: str
    codes: tuple[str, ...]
    availability: tuple[str, ...]
    seconds_per_round: float
    measured_there: bool


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes of blobs. `down` is what an institution fetches; `round_down` in a round after its first, which fetches all."""

    model: int
    delta: int
    tokenizer: int
    round_down: int
    round_up: int
    institution_down: int
    institution_up: int
    coordinator_down: int
    coordinator_up: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """All of a dry run. `seconds` is 0 where nobody measured."""

    run: str
    rounds: int
    quorum: int
    cohort: int
    institutions: tuple[InstitutionForecast, ...]
    accept: int
    ask: int
    traffic: Traffic
    disk_bytes: int
    disk_free_bytes: int
    coordinator_memory_bytes: int
    worker_memory_bytes: int
    worker_memory_measured: bool
    measurement: Measurement | None
    not_measured: str
    seconds_per_round: float
    seconds: float
    warnings: tuple[str, ...]

    @property
    def enough(self) -> bool:
        """Whether as many would accept, or ask a person, as a commit needs."""
        return self.accept + self.ask >= self.quorum


@dataclass(frozen=True, slots=True)
class Measuring:
    """A measurement, or why there is none."""

    result: Measurement | None = None
    reason: str = ""


def forecast(
    draft: PlanStatement, estimates: Sequence[EstimateView], measuring: Measuring, disk_free: int, now: datetime
) -> Forecast:
    """What the draft would cost and meet."""
    plan = draft.plan
    here = measuring.result.seconds_per_round if measuring.result else 0.0
    institutions = tuple(
        InstitutionForecast(
            each.institution,
            each.verdict,
            each.codes,
            each.availability,
            seconds_per_round=each.seconds_per_round or here,
            measured_there=each.seconds_per_round > 0,
        )
        for each in estimates
    )
    willing = [each for each in institutions if each.verdict in {"accept", "ask"}]
    accept = sum(each.verdict == "accept" for each in institutions)
    cohort = cohort_sizes(plan, max(len(willing), plan.quorum)).invited
    seconds = max((each.seconds_per_round for each in willing), default=here)
    traffic, disk = traffic_of(draft, cohort), disk_of(draft, cohort)
    measured = measuring.result
    return Forecast(
        run=draft.run,
        rounds=plan.rounds,
        quorum=plan.quorum,
        cohort=cohort,
        institutions=institutions,
        accept=accept,
        ask=len(willing) - accept,
        traffic=traffic,
        disk_bytes=disk,
        disk_free_bytes=disk_free,
        coordinator_memory_bytes=COORDINATOR_MEMORY_BYTES,
        worker_memory_bytes=measured.peak_memory_bytes if measured else _worker_memory(draft),
        worker_memory_measured=measured is not None,
        measurement=measured,
        not_measured=measuring.reason,
        seconds_per_round=seconds,
        seconds=seconds * plan.rounds,
        warnings=tuple(_warnings(plan, institutions, disk, disk_free, now)),
    )


def traffic_of(draft: PlanStatement, cohort: int) -> Traffic:
    """Each round every member of the cohort fetches the base model and sends a delta; the end fetches the final model.

    With SCAFFOLD `delta` counts a contribution's control too, and who fetches a model fetches the control variate.

    Who has the model of a round fetches of the next one what training changes, or with a downlink an applied delta if smaller.
    """
    model, delta = model_size(draft.manifest), contribution_bytes(draft)
    tokenizer, rounds = draft.initial.tokenizer.size, draft.plan.rounds
    later = round_down_bytes(draft, model)
    down, up = tokenizer + model + rounds * later, rounds * delta
    return Traffic(
        model=model,
        delta=delta,
        tokenizer=tokenizer,
        round_down=later,
        round_up=delta,
        institution_down=down,
        institution_up=up,
        coordinator_down=cohort * down,
        coordinator_up=cohort * up,
    )


def disk_of(draft: PlanStatement, cohort: int) -> int:
    """The most that the run's blobs take at the coordinator: initial and newest model, and of the rounds that retention
    keeps, and of the one that is open, base model and deltas; where rounds leave server_states also as many of these; with a
    downlink also applied deltas, which together have fewer bytes than a model, or are one.

    A bound in bytes keeps the most base models where rounds are small: then each has only as many deltas as a commit needs.
    """
    model, delta = model_size(draft.manifest), contribution_bytes(draft)
    rounds, retention = draft.plan.rounds, draft.plan.retention
    with_deltas = min(rounds, retention.rounds_kept(rounds, min(draft.plan.quorum, cohort) * delta) + 1)
    deltas = with_deltas * cohort * delta
    if retention.delta_bytes is not None:
        deltas = min(deltas, max(retention.delta_bytes, cohort * delta) + cohort * delta)
    models = min(rounds + 1, with_deltas + 2)
    states = min(rounds, with_deltas + 1) * (server_state_bytes(draft) or 0)
    applied = applied_delta_bytes(draft)
    beside = states + (0 if applied is None else max(model, applied))
    return models * model + deltas + beside + draft.initial.tokenizer.size


def _worker_memory(draft: PlanStatement) -> int:
    """Weights, and of what is trained gradients and the local optimizer's moments, in float32; what SCAFFOLD corrects by."""
    personal = sum(tensor.elements for tensor in draft.manifest if tensor.group == "personal")
    shared = trainable_elements(draft.manifest)
    each = 1 + draft.plan.local.optimizer.moments_a_weight
    numbers = personal + each * (shared + personal) + (shared if draft.plan.corrects else 0)
    return model_size(draft.manifest) + ELEMENT_BYTES * numbers


# --- what would go wrong -------------------------------------------------------------------------------------------------


def _warnings(
    plan: Plan, institutions: Sequence[InstitutionForecast], disk: int, disk_free: int, now: datetime
) -> list[str]:
    willing = [each for each in institutions if each.verdict in {"accept", "ask"}]
    accept = sum(each.verdict == "accept" for each in willing)
    found = []
    if len(willing) < plan.quorum:
        found.append(
            f"Quorum cannot be met: {len(willing)} of {len(institutions)} institutions would accept or ask, "
            f"the plan needs {plan.quorum}."
        )
    elif accept < plan.quorum:
        found.append(
            f"Quorum needs people: {accept} would accept by themselves, the plan needs {plan.quorum}; "
            f"{len(willing) - accept} would ask somebody."
        )
    if disk > disk_free:
        found.append(f"The coordinator's disk lacks room: {disk:,} bytes are needed, {disk_free:,} are free.")
    for each in willing:
        if 0 < plan.deadline_seconds < each.seconds_per_round:
            found.append(
                f"{each.institution} needs about {each.seconds_per_round:,.0f} s a round, more than "
                f"deadline_seconds, {plan.deadline_seconds:,}."
            )
        else:
            found += _hours_warning(each, plan.deadline_seconds, now)
    return found


def _hours_warning(each: InstitutionForecast, deadline_seconds: int, now: datetime) -> list[str]:
    """Whether the institution's windows let it meet the deadline of every round, of some, or of none."""
    try:
        windows = [Window.parse(text) for text in each.availability]
    except ValueError as err:
        return [f"{each.institution} states hours that this release cannot read: {err}."]
    if not windows:
        return []
    waits = [(finished(windows, start, each.seconds_per_round) - start, start) for start in _starts(windows, now)]
    (shortest, _), (longest, worst) = min(waits), max(waits)
    hours, limit = ", ".join(each.availability), timedelta(seconds=deadline_seconds)
    if shortest > limit:
        return [
            f"{each.institution} is available {hours} and cannot finish a round within deadline_seconds, "
            f"{deadline_seconds:,}: it takes {shortest.total_seconds():,.0f} s at best."
        ]
    if longest > limit:
        return [
            f"{each.institution} is available {hours}: of a round that opens at {rfc3339(worst)} it would miss the deadline; "
            f"all would be met with deadline_seconds {longest.total_seconds():,.0f}."
        ]
    return []


def _starts(windows: Sequence[Window], now: datetime) -> list[datetime]:
    """Moments of the next week at which a round may open: now, and each opening and closing, which are best and worst."""
    found, moment = [now], now
    while len(found) < STARTS_TRIED:
        following = next_opening(windows, moment) or next_closing(windows, moment)
        if following is None or following > now + LOOK_AHEAD:
            break
        found.append(following)
        moment = following
    return found


def finished(windows: Sequence[Window], start: datetime, work_seconds: float) -> datetime:
    """When so much work, which pauses outside the windows, is done if it may begin at `start`."""
    moment, left = start, timedelta(seconds=work_seconds)
    for _ in range(10_000):
        moment = next_opening(windows, moment) or moment
        until = next_closing(windows, moment)
        if until is None or moment + left <= until:
            return moment + left
        left -= until - moment
        moment = until
    return moment + left
