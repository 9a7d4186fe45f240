"""Snapshots beside training: copied at a step boundary, written by a thread, at most one at a time.

    with BackgroundWriter(folder, on_written) as writer:
        writer.begin(record, state, copied=True)        # False while the one before is being written
        …
        writer.finish()                                 # what was begun is on disk

Training waits for the copy alone. A crash in the middle leaves the snapshot before, which goes only when the new one is whole.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from types import TracebackType

import torch

from llmasos.training.memory import is_out_of_memory
from llmasos.training.snapshot import Record, Snapshot, SnapshotFolder, State

log = logging.getLogger(__name__)


class BackgroundWriter:
    """Used by one thread; `on_written` is called from the writer's own."""

    def __init__(self, folder: SnapshotFolder, on_written: Callable[[Snapshot], None]) -> None:
        self._folder = folder
        self._on_written = on_written
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None

    def __enter__(self) -> BackgroundWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for what was begun. What went wrong with it is told unless something else already is."""
        self._wait()
        if kind is None:
            self.finish()

    @property
    def busy(self) -> bool:
        """Whether a snapshot is being written."""
        return self._thread is not None and self._thread.is_alive()

    def begin(self, record: Record, state: State, *, copied: bool) -> bool:
        """Have a snapshot written; False: the one before is still being written, and this one is left out.

        Args:
            copied: keep a copy, since training goes on; else the state must not change before `finish`.

        Raises:
            StorageFailure: the snapshot before could not be written.
        """
        if self.busy:
            return False
        self.finish()
        try:
            kept = _copy(state) if copied else state
        except Exception as err:
            if not is_out_of_memory(err):
                raise
            log.warning("memory is too little for a copy of the state: training waits for its snapshot")
            self._write(record, state)
            return True
        self._thread = threading.Thread(target=self._write, args=(record, kept), name="snapshot", daemon=True)
        self._thread.start()
        return True

    def finish(self) -> None:
        """Wait for what was begun.

        Raises:
            StorageFailure: it could not be written.
        """
        self._wait()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _wait(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _write(self, record: Record, state: State) -> None:
        try:
            self._on_written(self._folder.write(record, state))
        except Exception as err:  # noqa: BLE001 - told by the next call: a thread has nobody to raise to
            self._failure = err


def _copy(state: State) -> State:
    """In this machine's memory, whatever device trains."""
    return State(_copies(state.weights), _copies(state.moments), state.parts)


def _copies(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.detach().to("cpu", copy=True) for name, value in tensors.items()}
