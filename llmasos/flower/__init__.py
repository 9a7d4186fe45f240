"""LLMasOS in Flower's world: our rules and server optimizers as a Flower strategy, our training as a Flower ClientApp.

    strategy.py     Strategy: any Flower app's rounds, combined by common.reduce
    client.py       client_app: a ClientApp that trains on an institution's folder of text
    rounds.py       ReducedRounds: a round's arrays through the reducer; knows nothing of Flower

    from llmasos.flower import Strategy
    result = Strategy({"rule": {"type": "weighted-mean"}}).start(grid, initial_arrays, num_rounds=10)

Needs the extra: pip install 'llmasos[flower]'. It is looked for when a name is first used. Example: examples/flower.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from llmasos.extras import require_flower

if TYPE_CHECKING:
    from llmasos.flower.client import client_app
    from llmasos.flower.strategy import Strategy
    from llmasos.training.institution import Institution

_HOMES = {
    "Institution": "llmasos.training.institution",
    "Strategy": "llmasos.flower.strategy",
    "client_app": "llmasos.flower.client",
}

__all__ = ["Institution", "Strategy", "client_app"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    require_flower(task=f"use llmasos.flower.{name}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
