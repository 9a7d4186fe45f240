"""`simulate --engine flower`: the same plan, on Flower's simulation engine instead of a deployment's processes.

The engine is one process, `python -m llmasos.flower.engine JOB.json`, that starts Ray and says how far it is as `run watch`
does. Nothing is signed, there is no ledger, so nothing is verified; report, table and model are those of `simulate`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from common.errors import UsageError
from llmasos.extras import require_flower, require_train
from llmasos.flower.job import EngineJob, Turn, VirtualInstitution, check_playable
from llmasos.preparation import Prepared, load_prepared
from llmasos.simulation import final_model
from llmasos.simulation.app import Simulation, SimulationOptions
from llmasos.simulation.deployment import module_command
from llmasos.simulation.layout import Layout
from llmasos.simulation.monitor import Followed
from llmasos.simulation.processes import Lines, Processes, failed
from llmasos.simulation.progress import Progress
from llmasos.simulation.replay import check_same_institutions, finished_run, turns_of
from llmasos.simulation.verification import Verification
from llmasos.simulation.watch import RunView, parse_view

COMMAND = module_command("llmasos.flower.engine")
IDLE_SECONDS = 0.5
MANY = 32
"""In larger cohorts each tenth of the contributions is told, not each one."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """A finished simulation whose rounds are played again, from its very initial weights and tokenizer."""

    folder: Layout
    turns: tuple[Turn, ...]


def begin(options: SimulationOptions) -> Replayed | None:
    """Look at what the Flower engine needs before the output folder is cleared.

    Raises:
        MissingExtra: flwr, ray or torch is not installed.
        UsageError: --seeds-from without the engine or beside a plan; or that run had other institutions.
        OperationError: the ledger of --seeds-from does not follow.
    """
    if options.engine != "flower":
        if options.seeds_from is not None:
            raise UsageError(
                "--seeds-from (seeds_from) is for engine flower: a consortium's seeds follow from its keys."
            )
        return None
    require_flower("ray", task="simulate on the Flower engine")
    require_train("torch", "transformers", "tokenizers", task="simulate on the Flower engine")
    if options.seeds_from is None:
        return None
    if options.plan is not None or options.shared is not None:
        raise UsageError("--seeds-from takes the plan of that run; leave PLAN and --partition out.")
    turns = turns_of(finished_run(options.seeds_from, options.commands))
    check_same_institutions(turns, [one.name for one in options.institutions])
    return Replayed(Layout(options.seeds_from.resolve()), turns)


class VirtualSimulation(Simulation):
    """A simulation whose federation is the engine's."""

    def __init__(self, options: SimulationOptions, layout: Layout, replayed: Replayed | None = None) -> None:
        super().__init__(options, layout)
        self._replayed = replayed

    def prepare(self, show: Progress) -> Prepared:
        """The replayed run's own, or the plan's as ever.

        Raises:
            UsageError: the plan needs more institutions than there are, or asks for what the engine does not do.
        """
        prepared = super().prepare(show) if self._replayed is None else self._taken_over(self._replayed, show)
        check_playable(prepared.draft.plan, replayed=self._replayed is not None)
        return prepared

    def _taken_over(self, replayed: Replayed, show: Progress) -> Prepared:
        show.stage("taking over plan, initial weights and tokenizer of the finished run")
        shutil.copyfile(replayed.folder.plan, self.layout.plan)
        shutil.copytree(replayed.folder.prepared, self.layout.prepared)
        return load_prepared(self.layout.prepared)

    def federate(self, prepared: Prepared, processes: Processes, show: Progress) -> Followed:
        """All rounds; the engine and Ray have ended when it returns.

        Raises:
            OperationError: the engine failed; holds the end of its log.
        """
        scratch = Path(mkdtemp(prefix="lr", dir="/tmp"))  # Ray makes Unix sockets there, whose paths must be short
        try:
            show.stage("starting Ray: Flower's simulation engine")
            followed = self._follow(self._job(prepared, scratch), processes, show)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            shutil.rmtree(self.layout.virtual / "moments", ignore_errors=True)
        show.stage("exporting the model")
        final_model.export_final(prepared, self.layout.final_tensors, self.layout.model, base=self.layout.base)
        write_readme(self.layout, self.options)
        return followed

    def verify(self, show: Progress) -> Verification | None:
        """Nothing is signed."""
        return None

    def _job(self, prepared: Prepared, scratch: Path) -> EngineJob:
        return EngineJob(
            prepared=prepared.folder,
            institutions=tuple(
                VirtualInstitution(name=one.name, folder=one.folder.resolve(), text_column=one.text_column)
                for one in self.options.institutions
            ),
            home=self.layout.virtual,
            final=self.layout.final_tensors,
            scratch=scratch,
            turns=self._replayed.turns if self._replayed is not None else (),
            resources=self.options.resources,
        )

    def _follow(self, job: EngineJob, processes: Processes, show: Progress) -> Followed:
        file, log = self.layout.root / "engine.json", self.layout.log("engine")
        file.write_text(job.model_dump_json(indent=2), encoding="utf-8")
        child = processes.start("the Flower engine", (*COMMAND, str(file)), log=log, capture=True)
        lines, view, tell = Lines(), None, Tenths(show.event)
        lines.add(child)
        try:
            while lines.open:
                for _, line in lines.wait(IDLE_SECONDS):
                    view = parse_view(line)
                    show.run(view)
                    tell(view)
        finally:
            lines.close()
        if child.process.wait() != 0 or view is None or not view.ended:
            raise failed(child)
        return Followed(view, view.trained_rounds > 0)


class Tenths:
    """Tells each tenth of a large round's contributions."""

    def __init__(self, event: Callable[[str], None]) -> None:
        self._event = event
        self._told = (0, 0)

    def __call__(self, view: RunView) -> None:
        for entry in view.rounds[-1:]:
            tenth = 10 * len(entry.contributors) // max(1, len(entry.cohort))
            if len(entry.cohort) > MANY and entry.outcome == "open" and tenth and (entry.round, tenth) > self._told:
                self._told = (entry.round, tenth)
                self._event(f"round {entry.round}: {len(entry.contributors):,} of {len(entry.cohort):,} contributed")


README = """\
# {title}

{count:,} virtual institutions on Flower's simulation engine. Nothing here was signed and there is no ledger: the training is
that of a consortium, its protocol is not in it. For that, leave --engine flower out.

| where | what |
|---|---|
| `report.html`, `report.json` | results for people and for programs |
| `model/` | the final model in Hugging Face layout |
| `final.safetensors` | the same tensors: what would be the run's last model blob |
| `plan.yaml`, `prepared/` | the plan; initial weights, tokenizer and tensor manifest |
| `data/` | the virtual institutions' text, where one folder was shared out |
| `engine.json`, `logs/engine.log` | what the engine was told, and what it wrote |
| `virtual/` | encoded text, owner-only |

The next simulation with the same `--out` begins with removing all of this.
"""


def write_readme(layout: Layout, options: SimulationOptions) -> None:
    layout.readme.write_text(README.format(title=options.title, count=len(options.institutions)), encoding="utf-8")
