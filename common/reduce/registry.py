"""From a plan's `type` to the code that does it. To add a rule or server optimizer: its module, its section in
common.plan, its row here, and what the golden file and the contract suite hold of it. A server optimizer has its formula in
docs/protocol.md, text and program, and a row in tests/contract/test_server_optimizers.py; golden.json takes up both by
itself (selftest --write).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from common.errors import InvalidConfiguration
from common.plan import server_optimizers as plan
from common.plan.rules import RuleSection
from common.reduce.rule import Rule
from common.reduce.rules.bulyan import bulyan
from common.reduce.rules.geometric_median import geometric_median
from common.reduce.rules.krum import krum, multi_krum
from common.reduce.rules.median import median
from common.reduce.rules.norm_bounding import norm_bounding
from common.reduce.rules.norm_clipping import norm_clipping
from common.reduce.rules.trimmed_mean import trimmed_mean
from common.reduce.rules.weighted_mean import weighted_mean
from common.reduce.server_adagrad import ServerAdagradStep
from common.reduce.server_adam import ServerAdamStep, ServerAdamWStep
from common.reduce.server_optimizer import ServerOptimizer
from common.reduce.server_sgd import ServerMomentumStep, ServerNesterovStep, ServerSGDStep
from common.reduce.server_yogi import ServerYogiStep

RULES: dict[str, Rule] = {
    "weighted-mean": Rule("nothing", weighted_mean),
    "median": Rule("nothing", median),
    "trimmed-mean": Rule("nothing", trimmed_mean),
    "geometric-median": Rule("distances", geometric_median),
    "krum": Rule("distances", krum),
    "multi-krum": Rule("distances", multi_krum),
    "bulyan": Rule("distances", bulyan),
    "norm-clipping": Rule("norms", norm_clipping),
    "norm-bounding": Rule("norms", norm_bounding),
}
"""By `rule.type`."""

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


def rule_for(section: RuleSection) -> Rule:
    """The rule that a plan chose.

    Raises:
        InvalidConfiguration: the plan leaves it to the operator.
    """
    if section.type == "operator":
        raise InvalidConfiguration(
            "The plan's rule is `operator`: what combines its deltas is named in its coordinator's configuration alone.",
            "Take another rule, or run the plan on a coordinator with aggregation.flower.",
        )
    return RULES[section.type]


def server_optimizer_for(section: plan.ServerOptimizer) -> ServerOptimizer:
    """The server optimizer that a plan chose."""
    return SERVER_OPTIMIZERS[section.type](section)
