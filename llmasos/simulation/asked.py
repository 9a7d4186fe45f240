"""What a simulation is asked for: the command's options and the function's arguments, which have the same names and meaning.

Asked(plan=Path("plan.yaml"), institutions=(InstitutionFolder("a", Path("./a")), …), out=Path("out/x")).options()
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from common.errors import UsageError
from llmasos.flower.job import Resources
from llmasos.language_model.planning import parsed
from llmasos.simulation.app import DEFAULT_PROMPT, Engine, SimulationOptions
from llmasos.simulation.cores import usable_cores
from llmasos.simulation.deployment import Commands, InstitutionFolder
from llmasos.simulation.partition import SharedText, parse_partition

DEFAULT_OUT = Path("out/simulation")
_FIX = "See `llmasos simulate --help`, or help(llmasos.simulate)."


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """As `llmasos.simulate` explains them; None where there is a default that depends on others."""

    plan: Path | None = None
    institutions: tuple[InstitutionFolder, ...] = ()
    out: Path = DEFAULT_OUT
    text_column: str | None = None
    baselines: bool = False
    data: Path | None = None
    partition: str | None = None
    key: str | None = None
    partition_seed: int = 0
    engine: str = "processes"
    seeds_from: Path | None = None
    cpus: float | None = None
    gpus: float | None = None
    ray_address: str | None = None
    threads: int = 1
    prompt: str = DEFAULT_PROMPT
    commands: Commands = field(default_factory=Commands)

    def options(self) -> SimulationOptions:
        """The same, checked and put together.

        Raises:
            UsageError: two that do not go together, or no such engine, partition or number.
        """
        if self.engine not in get_args(Engine):
            raise UsageError(f"engine is {self.engine!r}, expected {' or '.join(get_args(Engine))}.", _FIX)
        self._check_pairs()
        return SimulationOptions(
            institutions=self.institutions,
            out=self.out,
            plan=self.plan,
            baselines=self.baselines,
            threads=self.threads,
            prompt=self.prompt,
            commands=self.commands,
            shared=self._shared(),
            engine=self.engine,  # type: ignore[arg-type]  # looked at above
            resources=self._resources(),
            seeds_from=self.seeds_from,
        )

    def _check_pairs(self) -> None:
        if (self.data is None) != (self.partition is None):
            raise UsageError("data and partition go together: the text, and how it is shared out.", _FIX)
        if self.data is None and self.key is not None:
            raise UsageError(f"key is {self.key!r}, and goes with data and partition: what they share out by.", _FIX)
        named = {"cpus": self.cpus, "gpus": self.gpus, "ray_address": self.ray_address}
        if self.engine != "flower" and (given := [name for name, value in named.items() if value is not None]):
            raise UsageError(f"{', '.join(given)}: of engine flower, got engine {self.engine}.", _FIX)

    def _shared(self) -> SharedText | None:
        if self.data is None or self.partition is None:
            return None
        if self.partition_seed < 0:
            raise UsageError(f"partition_seed is {self.partition_seed}, expected at least 0.", _FIX)
        how = parse_partition(self.partition)
        return SharedText(self.data, how, self.partition_seed, self.text_column, self.key)

    def _resources(self) -> Resources:
        asked = {"cpus": self.cpus, "gpus": self.gpus, "ray_address": self.ray_address, "threads": self.threads}
        given = {name: value for name, value in asked.items() if value is not None}
        return parsed(Resources, {**given, "cores": usable_cores()}, "simulate", _FIX)
