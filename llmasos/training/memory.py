"""Too little memory for a batch at once: training goes on with smaller micro-batches, of the same batch a step.

    loss, size = within_memory(gradients, 8, machine.release_memory)        # gradients(8), else (4), (2), (1)

What torch raises for want of memory, and for a device that works no more, has many types and wordings; this module knows them.
"""

from __future__ import annotations

import gc
import logging
import re
from collections.abc import Callable
from typing import TypeVar

import torch

from common.errors import DeviceFailed, OutOfMemory

log = logging.getLogger(__name__)

SMALLER_MICRO_BATCH = "smaller-micro-batch"
"""Deviation code: memory was too little for the plan's micro-batch, so that a batch was taken in smaller parts."""

_NO_MEMORY = re.compile(
    r"out of memory|DefaultCPUAllocator: (can't allocate|not enough) memory|_STATUS_ALLOC_FAILED|std::bad_alloc"
)
_DEVICE = re.compile(r"(CUDA error|cuDNN error|CUBLAS_STATUS|CUSOLVER_STATUS|CUFFT_STATUS)[\w:, ()-]{0,80}", re.ASCII)

T = TypeVar("T")


def is_out_of_memory(err: BaseException) -> bool:
    """Whether memory, the device's or this machine's, was too little."""
    if isinstance(err, MemoryError | torch.OutOfMemoryError | OutOfMemory):
        return True
    return isinstance(err, RuntimeError) and _NO_MEMORY.search(str(err)) is not None


def as_known(err: BaseException, when: str) -> OutOfMemory | DeviceFailed | None:
    """What a library's error is, where it is of memory or of the device.

    Args:
        when: the rest of a sentence, such as "at train".
    """
    if isinstance(err, OutOfMemory | DeviceFailed):
        return err
    if is_out_of_memory(err):
        return OutOfMemory(f"The worker's memory was too little {when}.")
    found = _DEVICE.search(str(err)) if isinstance(err, RuntimeError) else None
    # The rest of what torch says may hold anything; these words are the driver's own.
    return DeviceFailed(f"The device failed {when}: {found[0].strip()}.") if found else None


def within_memory(work: Callable[[int], T], size: int, release: Callable[[], None]) -> tuple[T, int]:
    """`work(size)`; where memory is too little, all over again with half the size, down to 1.

    Args:
        work: computes the same from the same state each time; changes nothing before it has succeeded.
        release: gives memory that nothing uses back to the device.

    Returns:
        What work returned, and the size with which it did.

    Raises:
        OutOfMemory: memory is too little for size 1.
    """
    while True:
        try:
            return work(size), size
        except Exception as err:
            if not is_out_of_memory(err):
                raise
            if size == 1:
                raise OutOfMemory("Memory is too little for one sequence at a time, the smallest micro-batch.") from err
        # Out here the error is gone, and with its traceback the tensors that the failed try held.
        gc.collect()
        release()
        log.warning("memory was too little for micro-batches of %d: going on with %d", size, size // 2)
        size //= 2
