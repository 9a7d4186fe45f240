"""From a plan's `type` to the code that does it. To add a rule or server optimizer: its module, its section in
common.plan.model, its row here, and a case in golden.json.
"""

from __future__ import annotations

from collections.abc import Callable

from common.errors import InvalidConfiguration
from common.plan import model as plan
from common.reduce.rule import Rule, ServerOptimizer
from common.reduce.server_sgd import ServerSGDStep
from common.reduce.weighted_mean import WeightedMeanRule

RULES: dict[str, Callable[[plan.Rule, int], Rule]] = {
    "weighted-mean": lambda section, max_elements: WeightedMeanRule(max_elements),
}
"""By `rule.type`: from the plan's section and the most elements of a window."""

SERVER_OPTIMIZERS: dict[str, Callable[[plan.ServerOptimizer], ServerOptimizer]] = {
    "sgd": lambda section: ServerSGDStep(float(section.learning_rate)),
}
"""By `server_optimizer.type`: from the plan's section."""


def rule_for(section: plan.Rule, *, max_elements: int) -> Rule:
    """The rule that a plan chose.

    Raises:
        InvalidConfiguration: the plan leaves it to the operator.
    """
    if section.type == "operator":
        raise InvalidConfiguration(
            "The plan's rule is `operator`: what combines its deltas is named in its coordinator's configuration alone.",
            "Take another rule, or run the plan on a coordinator with aggregation.flower.",
        )
    return RULES[section.type](section, max_elements)


def server_optimizer_for(section: plan.ServerOptimizer) -> ServerOptimizer:
    """The server optimizer that a plan chose."""
    return SERVER_OPTIMIZERS[section.type](section)
