"""llmasos-participant plan: what the consortium asks of this institution, and its answer."""

from __future__ import annotations

import hashlib
import re
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from common.clock import SystemClock
from common.errors import UsageError
from common.ledger.state import LedgerState, RunRecord
from common.plan.explain import adapter_text, explain
from common.plan.rounds import Retention
from common.statements.kinds import PlanStatement
from common.terminal import (
    WIDTH,
    FormatOption,
    HomeOption,
    OutputFormat,
    Terminal,
    new_app,
    printable,
    resolve_home,
    table,
)
from participant.config import HomeLayout
from participant.memory.orders import Decision
from participant.plans.deciding import DECLINED, PlanDesk, Standing, read_draft, refuse_broken, says
from participant.policy import Check, Usage, estimate
from participant.policy.estimates import GB
from participant.status import read_status

app = new_app("plan", "Plans of runs: what they ask of this institution, and its answer.")

RunArgument = Annotated[str, typer.Argument(help="The run's id, or a unique beginning of it.", show_default=False)]
_CODE = re.compile(r"[a-z][a-z0-9-]{0,62}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


@app.command("list")
def list_plans(home: HomeOption = None, output: FormatOption = OutputFormat.HUMAN) -> None:
    """Every run that the consortium was asked for, and what this institution said."""
    with PlanDesk(resolve_home(home, "participant"), SystemClock()) as desk:
        rows = [(run, state_of(run, desk.state), desk.standing(run)) for run in desk.runs()]
    Terminal(output).result(
        table(
            ["RUN", "STATE", "HERE"],
            [[run.run, state, _here(standing, run)] for run, state, standing in rows],
        )
        if rows
        else "No plan has come yet.",
        data=[
            {"run": run.run, "plan": run.statement.plan.name, "state": state} | {"here": asdict(standing)}
            for run, state, standing in rows
        ],
        quiet="\n".join(run.run for run, _, _ in rows) or None,
    )


@app.command()
def show(run: RunArgument, home: HomeOption = None, output: FormatOption = OutputFormat.HUMAN) -> None:
    """Say what a plan asks, in words and numbers."""
    with PlanDesk(resolve_home(home, "participant"), SystemClock()) as desk:
        found = desk.find(run)
        state, standing = state_of(found, desk.state), desk.standing(found)
        usage = desk.usage(found.statement, found)
    rows = [("run", found.run), ("state", state), ("here", _here(standing, found)), *plan_rows(found.statement, usage)]
    lines = [line for label, text in rows for line in _row(label, text)]
    lines += ["", "What happens in a round"]
    for position, sentence in enumerate(explain(found.statement.plan).prose, start=1):
        lines += textwrap.wrap(sentence, WIDTH, initial_indent=f"  {position}. ", subsequent_indent="     ")
    lines += ["", f"Next: llmasos-participant plan check {found.run}"]
    data = {
        "run": found.run,
        "state": state,
        "here": asdict(standing),
        "estimate": asdict(estimate(found.statement)),
        "usage": asdict(usage),
        "plan": found.statement.plan.model_dump(mode="json"),
    }
    Terminal(output).result(printable("\n".join(lines)), data=data, quiet=state)


@app.command()
def check(
    plan: Annotated[
        str,
        typer.Argument(help="A run's id or its beginning, a prepared folder, or a draft.json.", show_default=False),
    ],
    explain_rules: Annotated[bool, typer.Option("--explain", help="Say of each rule why it is there.")] = False,
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Hold a plan against policy.yaml, rule by rule; exit 3 if it would be refused."""
    with PlanDesk(resolve_home(home, "participant"), SystemClock()) as desk:
        statement, run = _plan_of(desk, plan)
        checks = desk.checks(statement, run)
        answer = says(desk.policy, checks)
        policy_file = desk.layout.policy
    terminal = Terminal(output)
    data = {
        "run": statement.run,
        "verdict": answer,
        "policy": str(policy_file),
        "rules": [asdict(one) for one in checks],
    }
    terminal.result(_checks_table(checks), data=data, quiet=answer)
    if output is OutputFormat.HUMAN:
        if explain_rules:
            lines = [line for one in checks for line in ["", f"{one.rule}  [{one.code}]", *_indented(one.why)]]
            terminal.result("\n".join(lines), data=None)
        if answer != "refuse":
            terminal.result("\n" + textwrap.fill(f"{statement.run}: {_VERDICTS[answer]}", WIDTH), data=None)
    refuse_broken(statement.run, tuple(one.finding for one in checks if not one.kept))


@app.command()
def accept(
    run: RunArgument,
    agreement: Annotated[
        Path | None, typer.Option(help="A data-use agreement; its SHA-256 is cited, nothing else of it leaves.")
    ] = None,
    agreement_sha256: Annotated[str | None, typer.Option(help="The same, by its SHA-256: 64 digits.")] = None,
    despite_policy: Annotated[bool, typer.Option(help="Accept although a rule of the policy is broken.")] = False,
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Decide to take part in a run; the daemon signs and sends the answer."""
    cited = _agreement(agreement, agreement_sha256)
    with PlanDesk(resolve_home(home, "participant"), SystemClock()) as desk:
        found = desk.find(run)
        decision = desk.accept(found, agreement=cited, despite_policy=despite_policy)
        _decided(Terminal(output), found, decision, desk.layout)


@app.command()
def refuse(
    run: RunArgument,
    reason: Annotated[str, typer.Option(help="A code, which the operator sees.")] = DECLINED,
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Decide not to take part in a run; the daemon signs and sends the answer."""
    if not _CODE.match(reason):
        raise UsageError(f"--reason expected a code of lower-case letters, digits and hyphens, got {reason!r}.")
    with PlanDesk(resolve_home(home, "participant"), SystemClock()) as desk:
        found = desk.find(run)
        decision = desk.refuse(found, reason)
        _decided(Terminal(output), found, decision, desk.layout)


# --- words -----------------------------------------------------------------------------------------------------------

_VERDICTS = {
    "accept": "the policy accepts it without asking anybody.",
    "ask": "no rule is broken, and the policy asks a person: plan accept, or plan refuse.",
}
_LABEL = 12


def state_of(run: RunRecord, state: LedgerState) -> str:
    """Where a run stands, in a few words."""
    if run.ended is not None:
        return f"ended: {run.ended.reason}"
    if run.paused:
        return "paused by the operator"
    if run.open_round is not None:
        return f"running, round {run.open_round.number} of {run.rounds_planned}"
    if run.rounds:
        return f"between rounds, {len(run.rounds)} done"
    answered = f"{len(run.answers)} of {len(state.active_trainers)} answered"
    return f"asked for {_duration(run.statement.plan.deadline_seconds)}; {answered}"


def plan_rows(statement: PlanStatement, usage: Usage) -> list[tuple[str, str]]:
    """What a plan asks, a line a subject. Purposes of the data stand in its data sets: `data list`."""
    plan, costs = statement.plan, estimate(statement)
    audience = ", ".join(plan.delta_audience)
    losses = {"none": "nobody", "pooled": "only as sums over 3 or more institutions", "institution": "one by one"}
    compared = {
        "none": "their effect on the model is shown to nobody",
        "own": "their effect on the model is shown to you alone",
        "operator": "their effect on the model is shown to the operator, and to auditors",
    }[plan.contributions_visibility]
    hours = usage.expected_hours(plan.rounds, gpu=usage.on_gpu)
    where = "a GPU" if usage.on_gpu else "the CPU"
    training = "" if plan.adapter.type == "none" else f" ({costs.trained_parameters:,} trained: {adapter_text(plan)})"
    first = statement.initial.model.size
    once = f"; {_gb(first)} in the first" if costs.down_bytes_per_round < first else ""
    return [
        ("plan", f"{plan.name}{': ' + plan.description if plan.description else ''}"),
        ("model", f"{plan.model.type}, {costs.parameters:,} parameters{training}; tokenizer: {plan.tokenizer.type}"),
        ("rounds", f"{plan.rounds:,}, each of up to {costs.tokens_per_round:,} tokens of own text and at most "
                   f"{_duration(plan.deadline_seconds)}"),
        ("quorum", f"{plan.quorum} contributors to each new model"),
        ("losses", f"shown: {losses[plan.metrics_visibility]}"),
        ("deltas", f"read by the coordinator{' and ' + audience if audience else ' alone'}; {_kept(plan.retention)}; "
                   f"{compared}"),
        ("traffic", f"about {_gb(costs.traffic_bytes)} in all; a round {_gb(costs.down_bytes_per_round)} in, "
                    f"{_gb(costs.up_bytes_per_round)} out{once}"),
        ("disk", f"about {_gb(costs.disk_bytes)}, and the token files of the data"),
        ("memory", f"about {_gb(costs.memory_bytes)} in training"),
        ("hours", "not known before the worker has trained here" if hours is None else f"about {hours:.2g} on {where}"),
    ]  # fmt: skip


def _kept(retention: Retention) -> str:
    """How long the coordinator keeps deltas."""
    if retention.delta_rounds is None and retention.delta_bytes is None:
        return "kept of every round"
    rounds = "" if retention.delta_rounds is None else f" {retention.delta_rounds:,}"
    limit = "" if retention.delta_bytes is None else f", at most {_gb(retention.delta_bytes)} of them"
    return f"kept of the newest{rounds} rounds{limit}"


def _here(standing: Standing, run: RunRecord) -> str:
    if standing.state == "open":
        return "not answered" if run.ended is None else "-"
    word = "accept" if standing.accept else "refuse"
    text = {"sending": f"{word}ed, being sent" if standing.accept else "refused, being sent"}.get(
        standing.state, f"to {word}" if standing.state == "decided" else standing.state
    )
    cited = f", agreement {standing.agreement[:12]}…" if standing.agreement else ""
    return text + (f": {', '.join(standing.reasons)}" if standing.reasons else cited)


def _checks_table(checks: tuple[Check, ...]) -> Table:
    rows = [
        ["kept" if one.kept else "BROKEN", "-" if one.line is None else str(one.line), one.rule, one.wanted, one.got]
        for one in checks
    ]
    return table(["", "LINE", "RULE", "WANTED", "GOT"], rows, right=frozenset({"LINE"}))


def _decided(terminal: Terminal, run: RunRecord, decision: Decision, layout: HomeLayout) -> None:
    running = bool(read_status(layout.status)["running"])
    when = (
        "The daemon signs and sends it within seconds: plan list shows when it did."
        if running
        else "The daemon is not running; it signs and sends it when it is started."
    )
    what = "acceptance" if decision.accept else f"refusal ({', '.join(decision.reasons)})"
    cited = f"It cites the agreement sha256 {decision.agreement}.\n" if decision.agreement else ""
    word = "accept" if decision.accept else "refuse"
    terminal.result(
        f"The {what} of {run.run} is noted.\n{cited}{when}",
        data={"run": run.run, "decision": word, "daemon_running": running}
        | {"agreement": decision.agreement, "reasons": list(decision.reasons)},
        quiet=word,
    )


def _plan_of(desk: PlanDesk, text: str) -> tuple[PlanStatement, RunRecord | None]:
    """A run of the ledger, or else a draft on disk."""
    path = Path(text)
    known = any(name.startswith(text) for name in desk.state.runs)
    if not known and path.exists():
        return read_draft(path), None
    run = desk.find(text)
    return run.statement, run


def _agreement(file: Path | None, digest: str | None) -> str:
    if file is not None and digest is not None:
        raise UsageError("--agreement and --agreement-sha256 say the same thing; expected one of the two, got both.")
    if digest is not None and not _SHA256.match(digest):
        raise UsageError(f"--agreement-sha256 expected 64 lower-case hexadecimal digits, got {digest!r}.")
    if file is None:
        return digest or ""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as err:
        raise UsageError(f"--agreement {file}: expected a file to read, got: {err.strerror or err}.") from err


def _row(label: str, text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=f"{label:<{_LABEL}}", subsequent_indent=" " * _LABEL) or [label]


def _indented(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="  ")


def _gb(count: float) -> str:
    """In the unit that leaves one to three digits before the point."""
    value: Any = count
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{count / GB:,.3g} GB"


def _duration(seconds: int) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds} s"
