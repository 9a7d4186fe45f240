"""Too little memory: half the micro-batch from the state before the step, the same batch, down to one sequence."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from common.errors import DeviceFailed, OutOfMemory  # noqa: E402
from llmasos.tasks import causal_lm  # noqa: E402
from llmasos.training.loop import RoundWork  # noqa: E402
from llmasos.training.memory import as_known, is_out_of_memory, within_memory  # noqa: E402
from tests.unit.llmasos.training.test_loop import bits  # noqa: E402

pytestmark = pytest.mark.torch

Make = Callable[..., Any]


class SmallMemory:
    """Stands where the loss is computed, and lets only so many sequences through; from `first_call` on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fits: int, *, first_call: int = 0) -> None:
        self._real, self._fits, self._first = causal_lm.next_token_nats, fits, first_call
        self.sizes: list[int] = []
        self.held: list[weakref.ref[torch.Tensor]] = []
        self.still_held = 0
        monkeypatch.setattr(causal_lm, "next_token_nats", self)

    def __call__(self, model: torch.nn.Module, tokens_MT: torch.Tensor) -> torch.Tensor:
        self.still_held += sum(each() is not None for each in self.held)
        self.sizes.append(tokens_MT.shape[0])
        if len(self.sizes) > self._first and tokens_MT.shape[0] > self._fits:
            activations = self._real(model, tokens_MT)
            self.held.append(weakref.ref(activations))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self._real(model, tokens_MT)


@pytest.mark.parametrize(("fits", "sizes"), [(2, [4, 2, 2]), (1, [4, 2, 1, 1, 1, 1])])
def test_the_round_has_the_bits_of_a_plan_with_the_micro_batch_that_fits(
    trainee: Make, monkeypatch: pytest.MonkeyPatch, fits: int, sizes: list[int]
) -> None:
    small = trainee(local={"micro_batch_size": fits})
    expected = small.training()
    small.run(expected)
    one = trainee()
    training = one.training()
    memory = SmallMemory(monkeypatch, fits)
    boundaries = one.run(training)
    assert memory.sizes[: len(sizes)] == sizes
    assert max(memory.sizes[len(sizes) :]) == fits, "what did not fit once is not tried again"
    assert (training.micro_batch, memory.still_held) == (fits, 0)
    assert boundaries[-1].sums.num_tokens == 6 * 4 * 32, "the batch of a step is the plan's"
    assert bits(training.weights()) == bits(expected.weights())
    assert bits(training.moments()) == bits(expected.moments())


def test_steps_before_keep_their_bits_and_the_step_begins_again(trainee: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps in one micro-batch of 4, then two of 2: what a training whose micro-batch is set by hand does."""
    one = trainee()
    expected, training = one.training(), one.training()
    first = expected.run_round(RoundWork(trained_rounds=0, seed=5, steps=2), one.draw)
    expected.micro_batch = 2
    expected.run_round(RoundWork(trained_rounds=0, seed=5, done=first), one.draw)
    SmallMemory(monkeypatch, 2, first_call=2)
    one.run(training)
    assert bits(training.weights()) == bits(expected.weights())


def test_too_little_for_one_sequence_is_a_clear_error(trainee: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    one = trainee()
    memory = SmallMemory(monkeypatch, 0)
    with pytest.raises(OutOfMemory, match=r"Memory is too little for one sequence at a time"):
        one.run(one.training())
    assert memory.sizes == [4, 2, 1]


def test_other_errors_are_not_tried_again() -> None:
    tried: list[int] = []

    def work(size: int) -> None:
        tried.append(size)
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal memory access"):
        within_memory(work, 8, lambda: None)
    assert tried == [8]


WANT = {
    "python": MemoryError(),
    "a CUDA allocation": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    "a CUDA call": RuntimeError("CUDA error: out of memory"),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "the CPU": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
        "4000000000000 bytes. Error code 12 (Cannot allocate memory)"
    ),
}


@pytest.mark.parametrize("claim", WANT)
def test_every_wording_of_too_little_memory_is_known(claim: str) -> None:
    assert is_out_of_memory(WANT[claim])
    known = as_known(WANT[claim], "at train")
    assert isinstance(known, OutOfMemory)
    assert known.message == "The worker's memory was too little at train."


def test_what_this_torch_says_on_the_cpu_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


BROKEN = {
    "CUDA error: device-side assert triggered\nCompile with `TORCH_USE_CUDA_DSA`": "CUDA error: device-side assert triggered",
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED": "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
}


@pytest.mark.parametrize("said", BROKEN)
def test_a_device_that_failed_is_named_by_its_drivers_words(said: str) -> None:
    known = as_known(RuntimeError(said), "at train")
    assert isinstance(known, DeviceFailed)
    assert known.message == f"The device failed at train: {BROKEN[said]}."


@pytest.mark.parametrize(
    "err", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("CUDA error: x")]
)
def test_other_errors_are_neither(err: Exception) -> None:
    assert as_known(err, "at train") is None
