"""The institution's own view of its training: TensorBoard's event files, in a folder that participant.yaml names.

DIR/RUN/events.out.tfevents.…       loss (nats a target) and tokens_per_second, by steps of the whole run

They stay at the institution, and nothing reads them here. Where the folder refuses, the worker's log says so and the round
goes on without: a view is not worth a round.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import StorageFailure
from llmasos.evaluation.perplexity import LOSS_SCALE
from llmasos.training.loop import RoundSums, StepDone
from llmasos.training.tracking import TensorBoard

log = logging.getLogger(__name__)


class RoundTracking:
    """Writes one round's steps."""

    def __init__(
        self, folder: Path | None, *, steps_before: int, done: RoundSums, monotonic: Callable[[], float]
    ) -> None:
        """
        Args:
            folder: the run's; None: nothing is written.
            steps_before: of the run, trained in earlier rounds.
            done: of this round, before a restart. Points after it that stand there already are taken back.
            monotonic: seconds.
        """
        self._monotonic = monotonic
        self._before, self._tokens, self._since = steps_before, done.num_tokens, monotonic()
        self._board: TensorBoard | None = None
        if folder is not None:
            with self._forgiving():
                self._board = TensorBoard(folder, first_step=steps_before + done.steps + 1)

    def step(self, boundary: StepDone) -> None:
        """At a step's end."""
        if self._board is None:
            return
        now, tokens = self._monotonic(), boundary.sums.num_tokens
        seconds = now - self._since
        row = {
            "step": self._before + boundary.step,
            "loss": boundary.loss_fixed / LOSS_SCALE,
            "tokens_per_second": (tokens - self._tokens) / seconds if seconds > 0 else None,
        }
        self._tokens, self._since = tokens, now
        with self._forgiving():
            self._board.log(row)

    def close(self) -> None:
        if self._board is not None:
            with self._forgiving():
                self._board.close(True)

    @contextmanager
    def _forgiving(self) -> Iterator[None]:
        try:
            yield
        except (OSError, StorageFailure) as err:
            log.warning("no event files are written in the rest of this round: %s", err)
            self._board = None
