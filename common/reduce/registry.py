"""From a plan's `type` to the code that does it. To add a rule or server optimizer: its module, its section in
common.plan.model, its row here, and a case in golden.json. A server optimizer has its formula in docs/protocol.md, text and
program, and a row in tests/contract/test_server_optimizers.py; golden.json takes it up by itself (selftest --write).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from common.plan import model as plan
from common.reduce.rule import Rule
from common.reduce.server_adagrad import ServerAdagradStep
from common.reduce.server_adam import ServerAdamStep, ServerAdamWStep
from common.reduce.server_optimizer import ServerOptimizer
from common.reduce.server_sgd import ServerMomentumStep, ServerNesterovStep, ServerSGDStep
from common.reduce.server_yogi import ServerYogiStep
from common.reduce.weighted_mean import WeightedMeanRule

RULES: dict[str, Callable[[plan.Rule, int], Rule]] = {
    "weighted-mean": lambda section, max_elements: WeightedMeanRule(max_elements),
}
"""By `rule.type`: from the plan's section and the most elements of a window."""

SERVER_OPTIMIZERS: dict[str, Callable[[Any], ServerOptimizer]] = {
    "sgd": ServerSGDStep,
    "momentum": ServerMomentumStep,
    "nesterov": ServerNesterovStep,
    "adam": ServerAdamStep,
    "adamw": ServerAdamWStep,
    "yogi": ServerYogiStep,
    "adagrad": ServerAdagradStep,
}
"""By `server_optimizer.type`: from the plan's section of that type."""


def rule_for(section: plan.Rule, *, max_elements: int) -> Rule:
    """The rule that a plan chose."""
    return RULES[section.type](section, max_elements)


def server_optimizer_for(section: plan.ServerOptimizer) -> ServerOptimizer:
    """The server optimizer that a plan chose."""
    return SERVER_OPTIMIZERS[section.type](section)
