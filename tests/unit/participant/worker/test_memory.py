"""A worker whose memory is too little, or whose device fails: what its contribution says, and what the agent hears."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("torch")
import torch

from llmasos.tasks import causal_lm
from participant.bench.worker_protocol import Evaluate, Prepare, SnapshotTaken, Stop, Train, WorkerError
from participant.worker.agent_side import StopRequested
from participant.worker.session import BROKEN_EXIT
from tests.unit.participant.worker.test_session import Desk, desk, machine, without_time

pytestmark = pytest.mark.torch

__all__ = ["desk", "machine"]

SMALLER = ("smaller-micro-batch",)
Make = Callable[..., Desk]


def let_fit(monkeypatch: pytest.MonkeyPatch, *, training: int = 99, measuring: int = 99) -> None:
    """From now on more sequences at once do not fit into memory."""
    monkeypatch.setattr(causal_lm, "next_token_nats", _limited(training, measuring))


def _limited(training: int, measuring: int, real: Any = causal_lm.next_token_nats) -> Any:
    def limited(model: torch.nn.Module, tokens_MT: torch.Tensor) -> torch.Tensor:
        if tokens_MT.shape[0] > (training if model.training else measuring):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return real(model, tokens_MT)  # type: ignore[no-any-return]

    return limited


def test_a_round_goes_on_with_what_fits_and_its_contribution_says_so(
    desk: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, one = desk(local={"micro_batch_size": 2}), desk()
    for each in (small, one):
        each.prepare()
    evaluated, expected = small.train()
    assert evaluated.deviations == ()
    let_fit(monkeypatch, training=2)
    result, delta = one.train()
    assert (result.deviations, delta == expected) == (SMALLER, True)
    let_fit(monkeypatch)
    assert one.train()[0].deviations == (), "the next round takes the plan's micro-batch again"


def test_a_resumed_round_keeps_the_smaller_size_and_its_bits(desk: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, broken = desk(), desk()
    for each in (whole, broken):
        each.prepare()
    with monkeypatch.context() as patch:
        let_fit(patch, training=2)
        expected = whole.train()
        broken.agent.stop_at_step = 1
        with pytest.raises(StopRequested):
            broken.train()
    assert broken.agent.heard[-1] == SnapshotTaken(round=1, step=1)
    broken.restart()
    broken.prepare()
    result, delta = broken.train(resume=True)  # memory is free again, and still
    assert (without_time(result), delta) == (without_time(expected[0]), expected[1])
    broken.restart()
    broken.prepare()
    assert broken.train(resume=True)[0].deviations == SMALLER, "a finished round that is asked for again says it, too"


def test_a_measurement_that_does_not_fit_is_made_anew_in_smaller_parts(
    desk: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, one = desk(local={"micro_batch_size": 1}), desk()
    for each in (small, one):
        each.prepare()
    message = Evaluate(round=1, base="base.safetensors")
    expected = small.ask(message)
    let_fit(monkeypatch, measuring=1)
    measured = one.ask(message)
    assert (measured.evaluation, measured.deviations) == (expected.evaluation, SMALLER)
    result, delta = one.train()
    assert (result.deviations, delta) == (SMALLER, small.train()[1])


def test_the_agent_may_ask_for_smaller_micro_batches_but_not_for_larger_ones(desk: Make) -> None:
    small, one = desk(local={"micro_batch_size": 2}), desk()
    for each in (small, one):
        each.prepare()
    expected = small.train()[1]
    result, delta = one.train(micro_batch=2)
    assert (result.deviations, delta) == (SMALLER, expected)
    result, delta = small.train(micro_batch=4)
    assert (result.deviations, delta) == ((), expected)
    assert one.ask(Evaluate(round=1, base="base.safetensors", micro_batch=2)).deviations == SMALLER


def test_too_little_memory_for_one_sequence_is_told_and_the_worker_stays_usable(
    desk: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = desk()
    one.prepare()
    with monkeypatch.context() as patch:
        let_fit(patch, training=0)
        answer = one.ask(Train(round=1, trained_rounds=0, seed=5, base="base.safetensors", delta="d"))
    assert (answer.code, answer.message) == (
        "out-of-memory",
        "Memory is too little for one sequence at a time, the smallest micro-batch.",
    )
    assert one.train()[0].deviations == ()


def test_a_worker_whose_device_failed_says_so_and_ends(desk: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    one = desk()
    one.prepare()

    def failed(*arguments: object) -> None:
        raise RuntimeError("CUDA error: unspecified launch failure\nthe rest may quote a patient")

    monkeypatch.setattr(causal_lm, "next_token_nats", failed)
    train = Train(round=1, trained_rounds=0, seed=5, base="base.safetensors", delta="d")
    waiting = [train, Prepare(job=str(one.job), data=()), Stop()]
    monkeypatch.setattr(one.agent, "receive", lambda: waiting.pop(0), raising=False)
    assert one.session.run() == BROKEN_EXIT
    answer = one.agent.heard[-1]
    assert isinstance(answer, WorkerError)
    assert (answer.code, answer.message) == (
        "device-failed",
        "The device failed at train: CUDA error: unspecified launch failure.",
    )
    assert len(waiting) == 2, "it takes no further message"
