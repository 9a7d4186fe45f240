"""A mixture of tasks among institutions that hold data for some of them, or for none, or files that cannot be read.

Who can takes part; who cannot refuses with a reason, one sentence stands in that institution's log, and the run goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.terminal import exit_code_of
from coordinator.cli import app as operators_app
from participant.cli import app as institutions_app
from participant.config import HomeLayout
from participant.memory.records import Records
from tests.support.drafts import Draft
from tests.support.federations import NAMES, Federation
from tests.support.records import a_conversation, a_translation, write_records
from tests.support.texts import make_text

pytestmark = pytest.mark.torch

TASK = {
    "type": "mixture",
    "tasks": [
        {"weight": 1, "task": {"type": "causal-lm"}},
        {"weight": 3, "task": {"type": "instruction"}},
    ],
}
MODEL = {"type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 32, "n_positions": 64}


def texts(folder: Path, kind: str) -> Path:
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.txt").write_text(make_text(kind, words=60, seed=number), encoding="utf-8")
    return folder


def records(folder: Path, make: Callable[[str, int], dict[str, Any]]) -> Path:
    folder.mkdir()
    write_records(folder / "records.jsonl", [make("clinic", number) for number in range(30)])
    return folder


def half_written(folder: Path) -> Path:
    """As a copy that was interrupted leaves it."""
    path = records(folder, a_conversation) / "records.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    return folder


class Unlike(Federation):
    """Institutions with data sets of their own, beside none that `join` named."""

    def offer(self, name: str, data: str, folder: Path, *tasks: str) -> None:
        """`data add`."""
        chosen = [word for task in tasks for word in ("--task", task)]
        command = ["data", "add", data, str(folder), *chosen, "--home", str(self.home(name)), "--format", "quiet"]
        assert exit_code_of(institutions_app, command) == 0

    def join(self, name: str) -> None:
        super().join(name)
        assert exit_code_of(institutions_app, ["data", "remove", "default", "--home", str(self.home(name))]) == 0

    def trouble(self, name: str) -> str:
        """What `llmasos-participant log` tells about the data."""
        records = Records(HomeLayout(self.home(name)).journal)
        (said,) = [event.fields["error"] for event in records.events() if event.event == "data does not do"]
        records.close()
        return str(said)


def test_a_mixture_is_trained_by_those_who_have_data_for_a_task_of_it(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from llmasos.preparation import load_prepared
    from tests.support.jobs import a_training_plan, make_prepared

    local = {"steps": 2, "batch_size": 2, "sequence_length": 64}
    plan = a_training_plan(task=TASK, model=MODEL, local=local, rounds=1, quorum=3, evaluation={"max_tokens": 128})
    prepared = load_prepared(make_prepared(tmp_path / "plan", plan))
    unlike = ("archive", "depot", "office")
    with Unlike(tmp_path / "federation", (*NAMES, *unlike), worker=None) as federation:
        root = tmp_path / "data"
        root.mkdir()
        federation.offer("bank", "notes", texts(root / "notes", "bank"), "causal-lm")
        federation.offer("bank", "talks", records(root / "talks", a_conversation), "instruction")
        federation.offer("bank", "pairs", records(root / "pairs", a_translation), "seq2seq")
        federation.offer("clinic", "talks", records(root / "clinic", a_conversation))
        federation.offer("laboratory", "notes", texts(root / "laboratory", "laboratory"))
        federation.offer("archive", "pairs", records(root / "archive", a_translation), "seq2seq")
        federation.offer("depot", "talks", half_written(root / "depot"))
        federation.offer("office", "pairs", records(root / "office", a_translation))
        federation.start_participants()
        ended = federation.wait_until_ended(federation.start_run(Draft(prepared.draft, prepared.folder)))
        assert [record.closed.outcome for record in ended.rounds if record.closed] == ["committed"] * 2
        assert [sorted(record.contributions) for record in ended.rounds] == [sorted(NAMES)] * 2
        said = {name: (entry.answer.accept, entry.answer.reasons) for name, entry in ended.answers.items()}
        assert said == {
            **dict.fromkeys(NAMES, (True, ())),
            "archive": (False, ("no-data",)),
            "depot": (False, ("unreadable-data",)),
            "office": (False, ("unreadable-data",)),
        }
        told = {name: federation.trouble(name) for name in unlike}
        assert exit_code_of(operators_app, ["verify", ended.run, "--home", str(federation.coordinator_home)]) == 0
    assert told["archive"] == "No data set here is for the plan's task (causal-lm, instruction): pairs is for seq2seq."
    assert told["depot"] == f"{root}/depot/records.jsonl:30 is not a line of JSON."
    assert (
        "office/records.jsonl:1 has no field 'messages'; task mixture reads 'messages', or 'prompt'" in told["office"]
    )
