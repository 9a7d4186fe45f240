"""Killed after any durable step, a coordinator goes on from disk and comes to the same model."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from common.blobs.reference import BlobRef
from common.errors import OperationError
from common.ledger.rules import admit, start
from coordinator.rounds.engine import Engine
from coordinator.rounds.ports import Step
from tests.support.coordinators import Coordinator, Crash, CrashAt
from tests.support.participants import RUN

STEPS = [
    *((step, number) for number in (1, 2) for step in Step if step is not Step.RUN_ENDED),
    (Step.ROUND_OPENED, 3),
    (Step.ROUND_SEALED, 3),
    (Step.ROUND_CLOSED, 3),
    (Step.RUN_ENDED, 3),
]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[BlobRef, int]:
    """The final model and the ledger's size of a run that nothing disturbed."""
    coordinator = Coordinator(tmp_path_factory.mktemp("undisturbed") / "home")
    coordinator.start_run(rounds=2)
    model = coordinator.play().model
    size = coordinator.state.size
    coordinator.close()
    return model, size


@pytest.mark.parametrize(("step", "number"), STEPS, ids=[f"{step}-{number}" for step, number in STEPS])
def test_a_crash_after_a_step_changes_nothing_in_the_end(
    tmp_path: Path, undisturbed: tuple[BlobRef, int], step: Step, number: int
) -> None:
    steps = CrashAt(step, number)
    coordinator = Coordinator(tmp_path / "home", steps=steps)
    try:
        coordinator.start_run(rounds=2)
        with pytest.raises(Crash, match=f"{step} of round {number}"):
            coordinator.play()
        size_at_crash = coordinator.state.size
        coordinator.restart()
        assert coordinator.state.size == size_at_crash, "what was visible was durable"
        run = coordinator.play()
        assert (run.model, coordinator.state.size) == undisturbed
        assert [record.number for record in run.rounds] == [1, 2, 3]
        assert run.ended is not None
        assert run.ended.reason == "rounds-done"
    finally:
        coordinator.close()


def test_a_crash_between_any_two_turns_loses_no_contribution(tmp_path: Path, undisturbed: tuple[BlobRef, int]) -> None:
    """Restarted after every single act of every participant."""
    coordinator = Coordinator(tmp_path / "home")
    try:
        coordinator.start_run(rounds=2)
        while coordinator.run.ended is None:
            coordinator.advance()
            for name in coordinator.participants:
                coordinator[name].act()
                before = coordinator.state
                coordinator.restart()
                assert coordinator.state == before
        assert (coordinator.run.model, coordinator.state.size) == undisturbed
    finally:
        coordinator.close()


def test_a_sealed_round_stays_sealed_after_a_crash(tmp_path: Path) -> None:
    """The seal was made at the deadline; the clock of the machine that restarts is set back before it."""
    coordinator = Coordinator(tmp_path / "home", steps=CrashAt(Step.ROUND_SEALED, 1))
    try:
        coordinator.open_round(quorum=2, rounds=1)
        for name in ("east", "north"):
            coordinator[name].contribute()
        ref = coordinator["south"].send(coordinator["south"].delta())
        coordinator.clock.advance(seconds=3600)
        with pytest.raises(Crash):
            coordinator.advance()
        coordinator.clock.advance(seconds=-1800)
        coordinator.restart()
        metrics = coordinator["south"].metrics()
        with pytest.raises(
            Exception, match=r"Round 1 of tiny-0a1b2c takes no more contributions: [a-z-]+\. \[round-not-open\]"
        ):
            coordinator["south"].submit(coordinator["south"].contribution(ref, metrics), metrics)
        coordinator.advance()
        closed = coordinator.run.rounds[0].closed
        assert closed is not None
        assert [entry.institution for entry in closed.inputs] == ["east", "north"]
        assert closed.reason == "deadline-passed"
    finally:
        coordinator.close()


def test_a_crash_in_the_middle_of_an_abort_does_not_undo_it(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path / "home", steps=CrashAt(Step.ROUND_CLOSED, 1))
    try:
        coordinator.open_round(rounds=5)
        with pytest.raises(Crash):
            coordinator.desk.control_run(RUN, "abort", "")
        assert coordinator.run.ended is None
        coordinator.restart()
        coordinator.advance()
        assert coordinator.run.ended is not None
        assert coordinator.run.ended.reason == "aborted"
        assert len(coordinator.run.rounds) == 1
    finally:
        coordinator.close()


def test_an_abort_of_a_paused_run_is_ended_after_a_crash_too(tmp_path: Path) -> None:
    """A pause keeps rounds from being opened, not an abort from being finished: nobody would resume a run to end it."""
    coordinator = Coordinator(tmp_path / "home", steps=CrashAt(Step.ROUND_CLOSED, 1))
    try:
        coordinator.open_round(rounds=5)
        coordinator.desk.control_run(RUN, "pause", "")
        with pytest.raises(Crash):
            coordinator.desk.control_run(RUN, "abort", "")
        coordinator.restart()
        coordinator.advance()
        assert coordinator.run.ended is not None
        assert coordinator.run.ended.reason == "aborted"
    finally:
        coordinator.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nobody_waits_for_an_engine_that_died(tmp_path: Path) -> None:
    """A bug ends the engine's thread: who waits for it, and who comes later, is told."""
    coordinator = Coordinator(tmp_path / "home")
    coordinator.restart(engine=Engine)
    begun, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        go_on.wait(30)

    def fail() -> None:
        raise Crash("a bug")

    coordinator.engine.advance_all = lambda: fail() if begun.is_set() else None  # type: ignore[method-assign]
    thread = threading.Thread(target=coordinator.engine.run)
    with ThreadPoolExecutor(2) as pool:
        thread.start()
        first = pool.submit(coordinator.engine.call, hold)
        assert begun.wait(30)
        second = pool.submit(coordinator.engine.call, lambda: None)
        go_on.set()
        first.result(30)
        with pytest.raises(OperationError, match=r"The coordinator is stopping\."):
            second.result(30)
    thread.join(30)
    with pytest.raises(OperationError, match=r"The coordinator is stopping\. .* Ask again when it runs\."):
        coordinator.engine.call(lambda: None)
    coordinator.close()


def test_the_ledger_on_disk_is_a_whole_one_at_every_step(tmp_path: Path) -> None:
    class Reader:
        """Reads the database as a verifier would, in the middle of everything."""

        sizes: list[int] = []  # noqa: RUF012  one test, one list

        def reached(self, step: Step, run: str, round_number: int) -> None:
            genesis, *rest = coordinator.envelopes()
            state = start(genesis).state
            for envelope in rest:
                state = admit(state, envelope).state
            self.sizes.append(state.size)

    coordinator = Coordinator(tmp_path / "home", steps=Reader())
    try:
        coordinator.start_run(rounds=1)
        coordinator.play()
        assert len(Reader.sizes) == 8
        assert Reader.sizes == sorted(Reader.sizes)
    finally:
        coordinator.close()
