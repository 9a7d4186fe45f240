"""What tests of tasks share: learners of each task on small folders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from llmasos.training.device import Machine, set_up
from tests.support.tasks import Learner, a_learner, a_task_plan


@pytest.fixture(scope="session")
def machine() -> Machine:
    return set_up(1, allow_cuda=False)


@pytest.fixture
def learner(tmp_path: Path, machine: Machine) -> Iterator[Callable[..., Learner]]:
    """Makes learners of a folder, a task and `a_training_plan`'s arguments."""
    made: list[Learner] = []

    def make(folder: Path, task: dict[str, Any], **changes: Any) -> Learner:
        made.append(a_learner(tmp_path, folder, a_task_plan(task, **changes), machine))
        return made[-1]

    yield make
    for one in made:
        one.corpus.close()
