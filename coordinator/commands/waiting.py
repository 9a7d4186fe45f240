"""`run wait`: block until a run came so far, for scripts."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Literal

from common.errors import RunFailed, UsageError, WaitTimedOut
from common.terminal import Terminal
from coordinator.api.client import OperatorSession
from coordinator.commands.following import views
from coordinator.commands.formats import duration_text
from coordinator.ports import RunView


@dataclass(frozen=True, slots=True)
class Goal:
    """What is waited for. `round` counts for `closed` only."""

    kind: Literal["accepted", "closed", "ended"]
    round: int = 0

    @classmethod
    def parse(cls, text: str) -> Goal:
        """
        Raises:
            UsageError: it is none of the three.
        """
        if text == "accepted":
            return cls("accepted")
        if text == "ended":
            return cls("ended")
        match = re.fullmatch(r"round=([1-9]\d{0,8})", text)
        if match is None:
            raise UsageError(f"--for is {text!r}, expected accepted, ended or round=N, such as round=10.")
        return cls("closed", int(match[1]))

    def reached(self, view: RunView) -> bool:
        """Whether the run came so far: enough institutions accepted, that round was closed, it ended."""
        match self.kind:
            case "ended":
                return view.phase == "ended"
            case "closed":
                return any(record.round >= self.round and record.outcome != "open" for record in view.rounds)
            case "accepted":
                return view.round > 0 or sum(each.state == "accepted" for each in view.participants) >= view.quorum

    def __str__(self) -> str:
        return {"accepted": "enough accepted", "closed": f"round {self.round} was closed", "ended": "it ended"}[
            self.kind
        ]


def wait_for(session: OperatorSession, run: str, goal: Goal, timeout: float | None, terminal: Terminal) -> RunView:
    """The view in which the goal was reached.

    Raises:
        WaitTimedOut: it was not in `timeout` seconds.
        RunFailed: the run ended before.
        UnknownObject: no run, or more than one, has this prefix.
    """
    until = None if timeout is None else time.monotonic() + timeout
    last: RunView | None = None
    for view in views(session, run, terminal.progress, until=until):
        last = view
        if goal.reached(view):
            return view
        if until is not None and time.monotonic() >= until:
            break
    if last is not None and last.phase == "ended":
        raise RunFailed(f"Run {last.run} ended before {goal}: {last.end_reason}, after round {last.round}.")
    stands = f"it stands at round {last.round}, {last.phase}" if last else "nothing was seen of it"
    raise WaitTimedOut(
        f"Run {last.run if last else run}: waited {duration_text(timeout or 0)} until {goal}, in vain; {stands}."
    )
