"""`llmasos simulate` and `llmasos demo`: the order of things, from folders of text to a report.

    options = SimulationOptions(plan=None, institutions=(InstitutionFolder("north", Path("texts/north")), …), out=Path("out/x"))
    exit_code = simulate(options)

Results go to standard output, progress to standard error.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Literal

from rich.console import Console

from common.errors import UsageError
from common.ledger.cohort import cohort_sizes
from common.names import check_name
from common.plan.load import load_plan, plan_yaml
from common.plan.model import Plan
from common.resources import config_path
from llmasos.flower.job import Resources
from llmasos.preparation import Prepared, prepare
from llmasos.simulation import final_model
from llmasos.simulation.baselines import BaselineSet, run_baselines
from llmasos.simulation.cores import usable_cores
from llmasos.simulation.counting import can_count, count
from llmasos.simulation.deployment import Commands, Deployment, InstitutionFolder
from llmasos.simulation.layout import Layout, claim
from llmasos.simulation.live import open_progress
from llmasos.simulation.monitor import Followed, follow
from llmasos.simulation.partition import SharedText
from llmasos.simulation.processes import Processes
from llmasos.simulation.progress import Progress
from llmasos.simulation.readme import write_readme
from llmasos.simulation.report_html import write_report_html
from llmasos.simulation.report_json import write_report_json
from llmasos.simulation.results import Results, Scores, Timing, final_scores
from llmasos.simulation.stdlib_corpus import GROUPS, copy_institution, copy_public_text
from llmasos.simulation.table import print_results
from llmasos.simulation.verification import Verification, verify_sides
from llmasos.simulation.versions import versions

Engine = Literal["processes", "flower"]
"""What carries the rounds: a real deployment's processes, or Flower's simulation engine."""

DEMO_PLAN, QUICK_PLAN = "plans/demo.yaml", "plans/tiny.yaml"
DEMO_PROMPT, DEFAULT_PROMPT = "import ", "The "
WIDTH_WITHOUT_TERMINAL = 80


@dataclass(frozen=True, slots=True)
class SimulationOptions:
    """What `llmasos simulate` was asked for."""

    institutions: tuple[InstitutionFolder, ...]
    out: Path
    plan: Path | None = None
    """A plan file; without one, the demo's plan, its tokenizer trained on the standard library's public text."""
    baselines: bool = True
    """Train each institution alone and pooled data too, to compare with."""
    threads: int = 1
    """Of each participant's training process."""
    prompt: str = DEFAULT_PROMPT
    """What the sample text begins with."""
    title: str = "Simulation"
    commands: Commands = field(default_factory=Commands)
    """The two programs; tests put others in their place."""
    shared: SharedText | None = None
    """One folder to be shared out among virtual institutions, in place of `institutions`."""
    engine: Engine = "processes"
    resources: Resources = field(default_factory=Resources)
    """Of the Flower engine."""
    seeds_from: Path | None = None
    """A finished simulation whose rounds the Flower engine plays again."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What `llmasos demo` was asked for."""

    out: Path = Path("out/demo")
    quick: bool = False
    """The tiny plan, and no baselines: about a minute."""
    commands: Commands = field(default_factory=Commands)


def simulate(options: SimulationOptions) -> int:
    """Train one model with the institutions' folders of text, as processes of a real deployment on this machine.

    Returns:
        The exit code: 0, or 1 if the run failed; then the report says how.

    Raises:
        LLMasOSError: wrong options, too little text, a daemon that died.
        KeyboardInterrupt: Ctrl-C, SIGTERM or SIGHUP; all processes are ended by then.
    """
    check_options(options)
    from llmasos.simulation.virtual import VirtualSimulation, begin  # here: it builds on this module

    replayed = begin(options)
    with claim(options.out) as layout:
        if options.plan is None and replayed is None:
            copy_public_text(layout.public)
        if replayed is None:
            write_plan(options.plan or config_path(DEMO_PLAN), layout, public=options.plan is None)
        if options.shared is not None:
            options = replace(options, institutions=options.shared.write(layout.data))
        if options.engine == "flower":
            return VirtualSimulation(options, layout, replayed).run()
        return Simulation(options, layout).run()


def demo(options: DemoOptions) -> int:
    """`simulate` on the standard library's sources as four institutions."""
    with claim(options.out) as layout:
        folders = tuple(InstitutionFolder(name, copy_institution(name, layout.data / name)) for name in GROUPS)
        copy_public_text(layout.public)
        write_plan(config_path(QUICK_PLAN if options.quick else DEMO_PLAN), layout, public=True)
        simulation = SimulationOptions(
            folders,
            options.out,
            baselines=not options.quick,
            prompt=DEMO_PROMPT,
            title="LLMasOS demo",
            commands=options.commands,
        )
        return Simulation(simulation, layout).run()


def check_options(options: SimulationOptions) -> None:
    """
    Raises:
        UsageError: no institutions, two of one name, or folders that lie in the output folder or around it.
        InvalidName: an institution's name is none.
    """
    names = [check_name(one.name) for one in options.institutions]
    twice = sorted({name for name in names if names.count(name) > 1})
    if names and options.shared is not None:
        raise UsageError("Expected institutions, or data with a partition, got both.")
    if (not names and options.shared is None) or twice:
        got = f"{', '.join(twice)} twice" if twice else "none"
        raise UsageError(f"Expected --institution NAME=DIR for each institution, got {got}.")
    out = options.out.resolve()
    inputs = [one.folder for one in options.institutions] + ([options.plan] if options.plan else [])
    inputs += [options.shared.folder] if options.shared else []
    inputs += [options.seeds_from] if options.seeds_from else []
    for path in (given.resolve() for given in inputs):
        if path.is_relative_to(out) or out.is_relative_to(path):
            raise UsageError(
                f"{path} and the output folder {out} lie in each other.",
                "Name an --out beside the text: the simulation clears its output folder before it begins.",
            )


def write_plan(source: Path, layout: Layout, *, public: bool) -> Plan:
    """Write OUT/plan.yaml, every default visible, its relative paths still leading where they did.

    Raises:
        InvalidConfiguration: file, line, field, expected and got.
    """
    plan = load_plan(source)
    tokenizer, weights = plan.tokenizer, plan.model.weights
    if weights is not None:
        folder = str(source.resolve().parent / weights)
        plan = plan.model_copy(update={"model": plan.model.model_copy(update={"weights": folder})})
    if tokenizer.type == "bpe":
        text = layout.public if public else source.resolve().parent / tokenizer.text
        plan = plan.model_copy(update={"tokenizer": tokenizer.model_copy(update={"text": str(text)})})
    elif tokenizer.type == "given":
        path = str(source.resolve().parent / tokenizer.path)
        plan = plan.model_copy(update={"tokenizer": tokenizer.model_copy(update={"path": path})})
    layout.plan.write_text(f"# From {source}, every default visible.\n\n{plan_yaml(plan)}", encoding="utf-8")
    return plan


class Simulation:
    """One simulation in a folder that is claimed and holds plan.yaml."""

    def __init__(
        self, options: SimulationOptions, layout: Layout, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.options = options
        self.layout = layout
        self._monotonic = monotonic
        self._start = monotonic()
        self._names = tuple(one.name for one in options.institutions)

    def elapsed(self) -> float:
        """Seconds since the simulation began."""
        return self._monotonic() - self._start

    def run(self) -> int:
        """Prepare, federate, compare, verify, tell."""
        with (
            interruptible(),
            Processes() as processes,
            open_progress(sys.stderr, self.elapsed, title=self.options.title) as show,
        ):
            prepared = self.prepare(show)
            prepared_at = self.elapsed()
            followed = self.federate(prepared, processes, show)
            federated_at = self.elapsed()
            results = Results(
                self.options.title, prepared.draft, self._names, followed.view, followed.succeeded, versions=versions()
            )
            if followed.succeeded:
                results = self.compare(results, prepared, processes, show)
            compared_at = self.elapsed()
            results = replace(results, verification=self.verify(show))
            parts = (prepared_at, federated_at - prepared_at, compared_at - federated_at, self.elapsed() - compared_at)
            results = replace(results, timing=Timing(*parts, self.elapsed()))
            show.stage("done")
            self.write(results)
        self.tell(results)
        return 0 if results.succeeded and results.trustworthy else 1

    def prepare(self, show: Progress) -> Prepared:
        """Initial weights, tokenizer and tensor manifest.

        Raises:
            UsageError: the plan needs more institutions than there are.
        """
        show.stage("preparing: initial weights, tokenizer, tensor manifest")
        prepared = prepare(self.layout.plan, self.layout.prepared)
        quorum = prepared.draft.plan.quorum
        if len(self._names) < quorum:
            raise UsageError(
                f"The plan's quorum is {quorum}, but only {len(self._names)} institutions are named.",
                "Name more institutions, or set a lower quorum in a copy of the plan.",
            )
        return prepared

    def federate(self, prepared: Prepared, processes: Processes, show: Progress) -> Followed:
        """The run, from `init` to the final model; all daemons have ended when it returns."""
        options, layout = self.options, self.layout
        adapted = prepared.draft.plan.adapter.type != "none"
        write_readme(layout, title=options.title, institutions=self._names, adapted=adapted)
        with Deployment(layout, processes, commands=options.commands) as deployment:
            show.stage("starting the coordinator")
            deployment.start_coordinator()
            for institution in options.institutions:
                show.stage(f"{institution.name} joins")
                deployment.join(institution, threads=options.threads)
                deployment.accept_runs(institution.name, prepared.draft.plan)
                deployment.start_participant(institution.name)
            show.stage("the run")
            run = deployment.start_run(prepared.folder)
            followed = follow(deployment, run, show, quorum=prepared.draft.plan.quorum)
            show.stage("stopping the participants")
            deployment.stop_participants()
            if followed.succeeded:
                deployment.export_model(run, layout.final_tensors)
        if followed.succeeded:
            show.stage("exporting the model")
            final_model.export_final(prepared, layout.final_tensors, layout.model, base=layout.base)
        return followed

    def compare(self, results: Results, prepared: Prepared, processes: Processes, show: Progress) -> Results:
        """The final model's scores, a sample of what it writes, and the baselines."""
        if prepared.draft.plan.task.head == "causal-lm":  # others do not go on with a text
            show.stage("sampling")
            text = final_model.sample(self.layout.model, self.options.prompt)
            results = replace(results, sample_prompt=self.options.prompt, sample_text=text)
        show.stage("measuring the model on each institution's held-out data")
        own = self.personal_layers(results, prepared)
        results = replace(results, federated=self.federated_scores(results, prepared, own))
        tensors = self.layout.final_tensors
        results = replace(results, measured=final_model.measure_more(prepared, tensors, self.options.institutions, own))
        if can_count(prepared.draft.plan):
            show.stage("counting n-grams, to compare with")
            results = replace(results, ngram=count(prepared, self.options.institutions, self.layout.tokens))
        if self.options.baselines and results.steps:
            show.stage("encoding text for the comparison")
            final_model.encode_texts(prepared, self.options.institutions, self.layout.tokens)
            show.stage("the same training without a federation")
            comparison = run_baselines(self.baseline_set(results), self.layout, processes, show)
            results = replace(results, comparison=comparison)
        return results

    def verify(self, show: Progress) -> Verification | None:
        """Every party's own verification; None where there is no ledger."""
        show.stage("verifying: every statement, and every round again, from every side")
        return verify_sides(self.layout, self.options.commands)

    def federated_scores(self, results: Results, prepared: Prepared, own: Callable[[str], tuple[Path, int]]) -> Scores:
        """As the run measured the final model; where the plan hides institutions' numbers, measured here once more."""
        scores = final_scores(results.view)
        if scores is not None and set(scores.institutions) == set(self._names):
            return scores
        return final_model.measure(
            prepared, self.layout.final_tensors, self.options.institutions, self.layout.tokens, own
        )

    def personal_layers(self, results: Results, prepared: Prepared) -> Callable[[str], tuple[Path, int]]:
        """Where an institution's personal layers are, and after which round they belong to the final model."""

        def own(name: str) -> tuple[Path, int]:
            used = (
                entry.round
                for entry in results.view.rounds
                if entry.task == "train" and entry.outcome == "committed" and name in entry.contributors
            )
            return self.layout.personal(name, prepared.draft.run), max(used, default=0)

        return own

    def baseline_set(self, results: Results) -> BaselineSet:
        """As many steps as were trained; the pooled batch is what a round's cohort took together."""
        plan = results.statement.plan
        cohort = cohort_sizes(plan, len(self._names)).enough
        return BaselineSet(self.options.institutions, results.steps, cohort, plan.seed, usable_cores())

    def write(self, results: Results) -> None:
        write_report_json(results, model=self.options.out / "model", file=self.layout.report_json)
        write_report_html(results, self.layout.report_html)

    def tell(self, results: Results) -> None:
        """The command's result on standard output."""
        width = None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL
        # Not Jupyter's way of its own, which goes past standard output: there the function's result shows itself.
        console = Console(file=sys.stdout, width=width, highlight=False, emoji=False, force_jupyter=False)
        print_results(results, self.options.out, console)


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP end the simulation as Ctrl-C does, in order; what is ignored (nohup) stays ignored.

    In a thread other than the main one, where Python takes no signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
