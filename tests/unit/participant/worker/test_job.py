"""A job folder holds one copy of the text: the one that is trained on."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from common.errors import TooLittleData
from participant.bench.worker_protocol import DataSource, Prepare
from participant.worker.job import prepare_job
from tests.support.jobs import a_training_plan, make_job

pytestmark = pytest.mark.torch


@pytest.fixture
def place(tmp_path: Path) -> tuple[Path, Path]:
    return make_job(tmp_path, a_training_plan())


def prepare(job: Path, *folders: Path) -> Path:
    """The folder of its tokens."""
    data = tuple(DataSource(name=f"n{number}", folder=str(folder)) for number, folder in enumerate(folders))
    prepared = prepare_job(Prepare(job=str(job), data=data))
    prepared.close()
    return prepared.corpus.train.path.parent


def test_copies_of_text_that_was_changed_or_taken_out_are_removed(place: tuple[Path, Path]) -> None:
    job, data = place
    before = prepare(job, data)
    (job / "tokens" / ".unfinished-x").mkdir()
    (data / "0000.txt").unlink()
    after = prepare(job, data)
    assert before != after
    assert list((job / "tokens").iterdir()) == [after]
    assert prepare(job, data) == after


def test_without_a_data_set_it_is_said_what_to_do(place: tuple[Path, Path]) -> None:
    with pytest.raises(TooLittleData, match="names no data set") as caught:
        prepare(place[0])
    assert caught.value.fix == "Add one: llmasos-participant data add NAME DIR."
