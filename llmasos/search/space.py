"""A search space: fields of a plan, each with a range or a list of choices.

local.optimizer.learning_rate: {low: 1e-4, high: 1e-2, log: true}
local.batch_size: {low: 4, high: 32, step: 4}          # whole numbers, since both ends are
local.fedprox_mu: {low: 0, high: 0.1, points: 5}       # points: how many a grid has between the ends
model.n_layer: [2, 4]
server_optimizer: [{type: sgd}, {type: nesterov, learning_rate: 0.7, momentum: 0.9}]
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import strict_yaml
from common.errors import InvalidConfiguration
from common.strict_yaml import MAX_BYTES

if TYPE_CHECKING:
    import optuna

DIGITS = 6
"""Significant digits of a fraction in a plan: what a person would copy."""
_RANGE = {"low", "high", "log", "step", "points"}


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from `low` to `high`, both included; whole ones if `whole`."""

    low: float
    high: float
    whole: bool
    log: bool = False
    step: float | None = None
    points: int | None = None

    def suggest(self, trial: optuna.Trial, field: str) -> object:
        if self.whole:
            step = int(self.step or 1)
            return trial.suggest_int(field, int(self.low), int(self.high), step=step, log=self.log)
        return decimal(trial.suggest_float(field, self.low, self.high, step=self.step, log=self.log))

    def grid(self, field: str) -> list[Any]:
        """All values that a grid tries.

        Raises:
            InvalidConfiguration: a range of fractions without `points` or `step`.
        """
        if self.points is not None:
            found = [self._at(number / (self.points - 1)) for number in range(self.points)]
            return sorted({round(value) for value in found}) if self.whole else found
        if self.whole or self.step:
            step = self.step or 1.0
            count = int((self.high - self.low) / step + 1e-9) + 1
            values = [self.low + number * step for number in range(count)]
            return [int(value) for value in values] if self.whole else values
        raise InvalidConfiguration(f"{field}: a grid needs `points` or `step` between {self.low:g} and {self.high:g}.")

    def _at(self, share: float) -> float:
        if share in (0, 1):
            return self.low if share == 0 else self.high  # exactly
        if self.log:
            return float(self.low ** (1 - share) * self.high**share)
        return self.low + share * (self.high - self.low)


@dataclass(frozen=True, slots=True)
class Choices:
    """Some values, plain or whole sections, each as JSON: what optuna keeps."""

    values: tuple[str, ...]

    def suggest(self, trial: optuna.Trial, field: str) -> object:
        return from_json(trial.suggest_categorical(field, self.values))

    def grid(self, field: str) -> list[Any]:
        return list(self.values)


Space = Mapping[str, Range | Choices]


def read_space(path: Path) -> dict[str, Range | Choices]:
    """The search space in a YAML file.

    Raises:
        InvalidConfiguration: unreadable, not YAML, no field, or a field with neither a range nor choices.
    """
    try:
        text = path.read_bytes()[: MAX_BYTES + 1].decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as err:
        raise InvalidConfiguration(f"{path} could not be read as text: {err}.", "Name a YAML file.") from err
    return parse_space(strict_yaml.read(text, source=str(path)).value, source=str(path))


def parse_space(value: Any, *, source: str = "the search space") -> dict[str, Range | Choices]:
    """A search space from plain data: `{"local.steps": {"low": 5, "high": 50}, "model.n_layer": [2, 4]}`.

    Raises:
        InvalidConfiguration: as `read_space`.
    """
    if not isinstance(value, Mapping) or not value:
        raise InvalidConfiguration(
            f"{source} holds no fields, expected FIELD: {{low, high}} or FIELD: [CHOICES].",
            "Name at least one field of the plan, as in local.optimizer.learning_rate: {low: 1e-4, high: 1e-2, log: true}.",
        )
    return {str(field): _one(field, entry, f"{source}: {field}") for field, entry in value.items()}


def decimal(value: float) -> Decimal:
    """A fraction with DIGITS significant digits, as plans hold them."""
    return Decimal(f"{value:.{DIGITS}g}")


def from_json(text: str) -> Any:
    return json.loads(text, parse_float=Decimal)


def shown(value: object) -> str:
    """A value for people: of a choice what it stands for."""
    return f"{value:.{DIGITS}g}" if isinstance(value, float) else str(value)


def _one(field: object, entry: Any, place: str) -> Range | Choices:
    if not isinstance(field, str) or not field or "" in field.split("."):
        raise InvalidConfiguration(f"{place}: expected a field of the plan, as in local.batch_size.")
    if isinstance(entry, Mapping):
        return _range(entry, place)
    if not isinstance(entry, list | tuple) or not entry or any(one is None for one in entry):
        raise InvalidConfiguration(f"{place}: expected {{low, high}} or a list of choices without null, got {entry!r}.")
    return Choices(tuple(dict.fromkeys(json.dumps(one, default=_plain, sort_keys=True) for one in entry)))


def _range(entry: Mapping[Any, Any], place: str) -> Range:
    unknown = sorted(str(name) for name in entry.keys() - _RANGE)
    if unknown or not {"low", "high"} <= entry.keys():
        got = f"also {', '.join(unknown)}" if unknown else f"only {', '.join(map(str, entry)) or 'nothing'}"
        raise InvalidConfiguration(f"{place}: expected low and high, and if wanted log, step and points; got {got}.")
    low, high, step, points = (entry.get(name) for name in ("low", "high", "step", "points"))
    log = entry.get("log", False)
    if not isinstance(log, bool) or not all(_is_number(one) for one in (low, high, step or 1)):
        raise InvalidConfiguration(f"{place}: expected numbers for low, high and step, and true or false for log.")
    if points is not None and (not isinstance(points, int) or isinstance(points, bool) or points < 2):
        raise InvalidConfiguration(f"{place}: points is {points!r}, expected 2 or more.")
    whole = isinstance(low, int) and isinstance(high, int) and isinstance(step or 1, int)
    found = Range(float(low), float(high), whole, log, float(step) if step else None, points)  # type: ignore[arg-type]
    if not found.low < found.high or (log and found.low <= 0) or (found.step is not None and (log or found.step <= 0)):
        raise InvalidConfiguration(
            f"{place}: expected low < high, above 0 with log, and a step above 0 and not with log; got {dict(entry)}."
        )
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(f"{type(value).__name__} is no plain data")
