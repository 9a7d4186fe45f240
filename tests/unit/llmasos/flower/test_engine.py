"""What the engine makes of a failure; the rest of it is in tests/e2e/test_flower_engine.py."""

from __future__ import annotations

import pytest

pytest.importorskip("flwr")
pytest.importorskip("torch")

from llmasos.flower.engine import failure_in

CARRIED = (
    "<class 'ray.exceptions.RayTaskError(ClientAppException)'>:<'ray::ClientAppActor.run() (pid=8333)\n  File ...\n"
    "Exception ClientAppException occurred. Message: text/c holds 6 tokens, the plan needs at least 33.'>"
)


def test_a_failure_is_told_without_the_traceback_that_carries_it() -> None:
    assert failure_in(CARRIED) == "text/c holds 6 tokens, the plan needs at least 33."
    assert failure_in("something else") == "something else"
