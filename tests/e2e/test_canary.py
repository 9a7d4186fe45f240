"""Sentinels in the private text, every failure there is around data and worker, and no trace of them where none may be.

The federation is a real one: coordinator, three agents, real workers. What the worker is given it may keep in its job folders
and its own log, nowhere else; of names of files and folders nothing leaves the house, its own logs may hold them.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

from common.ledger.state import LedgerState
from llmasos.simulation.deployment import edit_line
from llmasos.simulation.processes import child_environment
from tests.support.canary import Canaries, find, find_in_text
from tests.support.drafts import reference
from tests.support.federations import COORDINATOR, PARTICIPANT, Draft, Federation, until

pytestmark = [pytest.mark.torch, pytest.mark.slow]

BIRDS = Canaries()
CLINIC, BANK, LABORATORY = "clinic", "bank", "laboratory"
LONG = {"steps": 1500, "schedule": {"type": "constant", "warmup_steps": 0}}
DIVERGING = {
    "steps": 60,
    "schedule": {"type": "constant", "warmup_steps": 0},
    "optimizer": {"learning_rate": 10, "weight_decay": 10},
}


class Story:
    """A federation, its private texts, and everything that its commands printed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.printed: list[tuple[str, str]] = []
        self.federation = Federation(folder / "federation", (BANK, CLINIC, LABORATORY), min_quorum=1, worker=None)

    # --- what people type ----------------------------------------------------------------------------------------------

    def at(self, name: str, *words: str, code: int | None = 0, debug: bool = False) -> str:
        """A command of an institution; its output."""
        return self._run(PARTICIPANT, name, self.federation.home(name), words, code, debug)

    def operator(self, *words: str, code: int | None = 0) -> str:
        """A command of the operator; its output."""
        return self._run(COORDINATOR, "operator", self.federation.coordinator_home, words, code, debug=False)

    def _run(
        self, program: tuple[str, ...], who: str, home: Path, words: tuple[str, ...], code: int | None, debug: bool
    ) -> str:
        environment = child_environment(os.environ) | ({"LLMASOS_DEBUG": "1"} if debug else {})
        done = subprocess.run(
            [*program, *words, "--home", str(home)],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=120,
            check=False,
        )
        output = (done.stdout + done.stderr).decode("utf-8", "surrogateescape")
        self.printed.append((f"{who}: {' '.join(words)}", output))
        assert code is None or done.returncode == code, f"{words}: {done.returncode}\n{output}"
        return output

    # --- private texts -------------------------------------------------------------------------------------------------

    def data(self, name: str) -> Path:
        return self.federation.data(name) / BIRDS.folder

    def write_good(self, name: str) -> None:
        """Records of ten units; letters besides sentinels, so that there is something to learn."""
        folder = self.data(name)
        folder.mkdir(parents=True)
        records = [
            {"note": f"{BIRDS.note} {number} " * 30, "patient_id": f"{BIRDS.unit}-{number % 10}"}
            for number in range(40)
        ]
        lines = "\n".join(json.dumps(record, ensure_ascii=False) for record in records)
        (folder / f"{BIRDS.file}.jsonl").write_text(lines)

    def write_bad(self, name: str) -> None:
        """One file for each way to break a format."""
        folder = self.data(name)
        folder.mkdir(parents=True, exist_ok=True)
        record, field, unit = BIRDS.record, BIRDS.field, BIRDS.unit
        for form, content in {
            "cut.jsonl": f'{{"note": "{record} {record} {record}", "patient_id": 1}}\n{{"note": "{record}',
            "list.jsonl": json.dumps({"note": [record], "patient_id": 1}),
            "unit.jsonl": json.dumps({"note": record, "patient_id": {unit: unit}}),
            "lone.jsonl": f'{{"note": "\\ud800 {record} \\udfff", "patient_id": "{unit}\\ud800"}}\n{{"{field}": 1}}',
            "missing.jsonl": json.dumps({"note": record}) + "\n" + json.dumps({"note": record, "patient_id": ""}),
            "column.csv": f"{field},{field}2\n{record},{unit}\n",
            "quotes.csv": f'patient_id,note\n{unit},"{record} {record}\n{unit},{record}\n',
            "more.csv": f"patient_id,note\n{unit},{record}, {record}, {record}\n",
        }.items():
            (folder / f"{BIRDS.file}-{form}").write_text(content)

    def remove_bad(self, name: str) -> None:
        for path in self.data(name).glob(f"{BIRDS.file}-*"):
            path.unlink()

    def write_single_unit(self, name: str) -> None:
        (self.data(name) / f"{BIRDS.file}.jsonl").write_text(json.dumps({"note": BIRDS.note, "patient_id": BIRDS.unit}))

    def name_data(self, name: str) -> None:
        self.at(name, "data", "remove", "default")
        words = ("--unit-field", "patient_id", "--text-column", "note", "--purpose", BIRDS.purpose)
        self.at(name, "data", "add", "notes", str(self.data(name)), *words)

    # --- what is waited for --------------------------------------------------------------------------------------------

    def activity(self, name: str) -> str:
        status = json.loads((self.federation.home(name) / "status.json").read_text())
        return str(status["activity"])

    def wait_for_activity(self, name: str, activity: str) -> None:
        until(lambda: self.activity(name) == activity, f"{name} says {activity!r}")

    def wait_for_log(self, name: str, *words: str) -> None:
        def said() -> bool:
            text = self.federation.log(name).read_text(errors="replace")
            return any(all(word in line for word in words) for line in text.splitlines())

        until(said, f"{name} logs {words}")

    def wait_for_answer(self, run: str, name: str) -> Any:
        def answered(state: LedgerState) -> Any:
            record = state.runs.get(run)
            return record and record.answers.get(name)

        return self.federation.wait_for(answered, f"{name} answers {run}").answer

    def worker_of(self, name: str) -> psutil.Process:
        """The institution's worker process."""

        def found() -> psutil.Process | None:
            with suppress(psutil.NoSuchProcess):
                agent = psutil.Process(self.federation.participants[name].pid)
                return next((each for each in agent.children() if "--lifeline-fd" in each.cmdline()), None)
            return None

        return until(found, f"{name} has a worker")

    # --- where nothing may be ------------------------------------------------------------------------------------------

    def outside(self) -> list[Path]:
        """What others have, or are given."""
        return [self.federation.coordinator_home, self.federation.log("coordinator"), *self.folder.glob("evidence-*")]

    def inside(self) -> list[Path]:
        """What an institution keeps besides data, job folders and the worker's log."""
        names = self.federation.names
        return [self.federation.home(name) for name in names] + [self.federation.log(name) for name in names]

    def excepted(self) -> list[Path]:
        homes = [self.federation.home(name) for name in self.federation.names]
        logs = [path for home in homes for path in home.glob("logs/worker.log*")]
        return [*(home / "jobs" for home in homes), *logs]

    def leaks(self) -> list[Any]:
        """Every sentinel where none may be."""
        found = find(BIRDS.all, self.outside()) + find(BIRDS.secret, self.inside(), without=self.excepted())
        for words, output in self.printed:
            sentinels = BIRDS.all if words.startswith("operator") else BIRDS.secret
            found += find_in_text(sentinels, output, words)
        return found


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    pytest.importorskip("torch")
    made = Story(tmp_path)
    with made.federation:
        yield made


def prepared(story: Story, name: str, **plan: Any) -> Draft:
    from llmasos.preparation import load_prepared
    from tests.support.jobs import a_training_plan, make_prepared

    fields: dict[str, Any] = {"name": name, "rounds": 1, "quorum": 1, "metrics_visibility": "institution"}
    found = load_prepared(make_prepared(story.folder / "plans" / name, a_training_plan(**(fields | plan))))
    return Draft(found.draft, found.folder)


def test_private_text_stays_with_worker_and_data_folder(story: Story) -> None:
    data_is_wrong_in_every_way(story)
    story.federation.start_participants()
    run = story.federation.start_run(prepared(story, "long", local=LONG))
    some_cannot_prepare(story, run)
    work_is_paused_crashed_and_restarted(story, run)
    ended = story.federation.wait_until_ended(run)
    assert ended.ended is not None
    assert ended.ended.reason == "rounds-done"
    training_diverges(story)
    a_plan_does_not_fit(story)
    everybody_looks(story, run)
    assert story.leaks() == []
    an_institution_leaves(story)
    assert story.leaks() == []
    the_search_would_have_noticed(story)


def data_is_wrong_in_every_way(story: Story) -> None:
    """`data check` tells all of it by file and line, also where it shows tracebacks."""
    from tests.support import quoting_worker

    for name in (CLINIC, BANK, LABORATORY):
        story.write_good(name)
        story.name_data(name)
    command = f"worker:\n  command: {json.dumps(list(quoting_worker.COMMAND))}"
    edit_line(story.federation.home(BANK) / "participant.yaml", r"worker:", command)
    for name in (CLINIC, LABORATORY):
        story.write_bad(name)
    told = story.at(CLINIC, "data", "check", code=2, debug=True)
    for problem in (
        "cut.jsonl:2 is not a line of JSON",
        "list.jsonl:1 holds something other than text in column 'note'",
        "unit.jsonl:1 holds something other than text or a number in column 'patient_id'",
        "lone.jsonl:2 has no column 'note'",
        "missing.jsonl:1 names no unit",
        "column.csv:1 has no column 'note'",
        "quotes.csv:3 is not a CSV record",
        "more.csv:2 has more fields than the header",
    ):
        assert problem in told
    story.remove_bad(CLINIC)


def some_cannot_prepare(story: Story, run: str) -> None:
    """One institution's data is unreadable, another's worker fails with the text in its mouth: both refuse with a code."""
    assert story.wait_for_answer(run, LABORATORY).reasons == ("unreadable-data",)
    assert story.wait_for_answer(run, BANK).reasons == ("worker-failed",)
    path = story.federation.home(BANK) / "logs" / "worker.log"
    assert [stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent)] == [0o600, 0o700]
    log = path.read_text()
    assert f'ValueError: cannot parse {{"note": "{BIRDS.note}' in log


def work_is_paused_crashed_and_restarted(story: Story, run: str) -> None:
    """A pause, a purge, a killed worker and a killed agent, all in the middle of training."""
    federation = story.federation
    story.wait_for_activity(CLINIC, "train round")
    worker = story.worker_of(CLINIC)
    worker.suspend()  # however quick this machine is, it is caught in the middle
    story.at(CLINIC, "data", "purge", run, code=2)
    story.at(CLINIC, "pause", "--now")
    worker.resume()
    story.wait_for_activity(CLINIC, "paused")
    assert "train.tokens" not in story.at(CLINIC, "data", "purge", run)
    assert not list((federation.home(CLINIC) / "jobs").rglob("*.tokens"))
    story.at(CLINIC, "resume")
    story.wait_for_activity(CLINIC, "train round")
    story.worker_of(CLINIC).kill()
    story.wait_for_log(CLINIC, "task failed", "worker-killed")
    story.wait_for_activity(CLINIC, "train round")
    federation.kill_participant(CLINIC)
    federation.start_participant(CLINIC)


def training_diverges(story: Story) -> None:
    """The bank's worker ends in the middle, the laboratory has one unit alone, the clinic's numbers leave the finite."""
    story.remove_bad(LABORATORY)
    story.write_single_unit(LABORATORY)
    run = story.federation.start_run(prepared(story, "diverging", local=DIVERGING))
    assert story.wait_for_answer(run, LABORATORY).reasons == ("too-little-data",)
    assert story.wait_for_answer(run, BANK).reasons == ("worker-failed",)
    story.wait_for_log(CLINIC, "non-finite-delta")
    story.operator("run", "abort", run)
    story.federation.wait_until_ended(run)


def a_plan_does_not_fit(story: Story) -> None:
    """A tokenizer that is none; and a policy that says no."""
    draft = prepared(story, "tokenizer")
    for name in (BANK, LABORATORY):
        edit_line(story.federation.home(name) / "policy.yaml", r"models: .*", "models: [llama]")
    broken = draft.folder / "tokenizer.json"
    broken.write_bytes(b'{"version":"1.0"}')
    initial = draft.statement.initial.model_copy(update={"tokenizer": reference(broken)})
    statement = draft.statement.model_copy(update={"initial": initial})
    (draft.folder / "draft.json").write_text(statement.model_dump_json())
    run = story.federation.start_run(Draft(statement, draft.folder))
    assert story.wait_for_answer(run, LABORATORY).reasons == ("model-not-listed",)
    assert story.wait_for_answer(run, CLINIC).reasons == ("invalid-configuration",)
    story.federation.wait_until_ended(run)
    story.at(LABORATORY, "plan", "check", run, code=3)


def everybody_looks(story: Story, run: str) -> None:
    """All that shows something, in the format that shows most; `doctor` and `run watch` may well say that all is not well."""
    for words in (
        ("status",),
        ("doctor",),
        ("egress",),
        ("log",),
        ("data", "list"),
        ("plan", "list"),
        ("plan", "show", run),
    ):
        story.at(CLINIC, *words, "--format", "json", code=None if words == ("doctor",) else 0)
    for words in (("run", "watch", run), ("run", "show", run), ("run", "logs", run), ("run", "list"), ("status",)):
        story.operator(*words, "--format", "json")
    story.operator("run", "watch", run)
    assert all(output.strip() for words, output in story.printed if "--format json" in words)


def an_institution_leaves(story: Story) -> None:
    story.at(CLINIC, "leave", "--now", "--yes", "--evidence", str(story.folder / "evidence-clinic"))
    story.federation.wait_for(
        lambda state: CLINIC in state.departures and not state.is_active(CLINIC), "the clinic left"
    )
    until((story.folder / "evidence-clinic" / "SHA256SUMS").exists, "evidence is there")


def the_search_would_have_noticed(story: Story) -> None:
    """The same search over the same places, with one sentinel in each of them."""
    federation = story.federation
    log = federation.log(CLINIC)
    with log.open("a") as file:
        file.write(f"ERROR worker said {BIRDS.note[:3]}{BIRDS.note[3:]}\n")
    status = federation.home(BANK) / "status.json"
    status.write_text(json.dumps({"activity": BIRDS.field}))
    (federation.coordinator_home / "notes.json").write_text(json.dumps({"path": f"/data/{BIRDS.file}.jsonl"}))
    story.printed.append(("operator: run watch", f"unreadable: {BIRDS.folder}"))
    assert {found.where for found in story.leaks()} == {
        str(log),
        str(status),
        str(federation.coordinator_home / "notes.json"),
        "operator: run watch",
    }
    # And where the text may be, it is: the search was one for what was there.
    assert find([BIRDS.note], [federation.home(BANK) / "logs" / "worker.log"])
    assert find([BIRDS.note, BIRDS.unit], [federation.data(CLINIC)])
