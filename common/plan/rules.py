"""The plan's `rule`: how the deltas of a round become one.

    rule: {type: krum, byzantine: 2}

`byzantine` is f: how many deltas of a round may be any numbers at all, made by who knows all the others. A rule *holds* where
what it gives stays bounded by the other deltas, whatever these f are. Its *breakdown point* is the share of a round's deltas
beyond which it does not: a plan with a quorum too small for its f is refused. Where this says *unweighted*, every institution
counts once, whatever its num_tokens, which it states itself; a rule that weighs by num_tokens breaks down by tokens, not by
heads.

To add one: its section here, in `Rule`; a module in common/reduce/rules; its row in common/reduce/registry.py; a row in
tests/contract/test_rules.py.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from common.plan.fields import Number, PlanSection

MOST_COMPARED = 1024
"""The most deltas of a round that are compared, number by number or each with each: half a million distances, 8 MB."""


class RuleSection(PlanSection):
    """Base of every rule's section."""

    type: str
    single_deltas: ClassVar[bool] = True
    """Whether the rule looks at single deltas; one that does not could be taken over masked sums."""
    most_deltas: ClassVar[int] = 100_000
    """The most deltas of a round that it takes."""
    outcome: ClassVar[str]
    """What it gives, in words that fit behind "base + learning rate ×"; `{weighting}` stands for what deltas weigh."""

    @property
    def least_deltas(self) -> int:
        """How many deltas of a round its guarantee needs."""
        return 1

    @property
    def why_least(self) -> str:
        """How `least_deltas` comes about."""
        return "any number"


class WeightedMean(RuleSection):
    """Mean of deltas weighted by num_tokens: FedAvg (arXiv:1602.05629). One wrong delta moves it anywhere."""

    single_deltas = False
    outcome = "mean of the deltas, weighted by {weighting}"

    type: Literal["weighted-mean"] = "weighted-mean"


class Withstands(RuleSection):
    """Base of every rule that holds whatever `byzantine` deltas are; most need a majority of others."""

    byzantine: Annotated[
        int,
        Field(ge=0, le=511, description="Deltas of a round that may be anything, which the rule must withstand."),
    ] = 1

    @property
    def least_deltas(self) -> int:
        return 2 * self.byzantine + 1

    @property
    def why_least(self) -> str:
        return "2 × byzantine + 1"


class Median(Withstands):
    """Median of each number over the deltas, unweighted (arXiv:1803.01498). Breakdown point 1/2."""

    most_deltas = MOST_COMPARED
    outcome = "median of the deltas, number by number"

    type: Literal["median"] = "median"


class TrimmedMean(Withstands):
    """Of each number, mean without the `byzantine` lowest and highest, unweighted (arXiv:1803.01498). Breakdown point f/n."""

    most_deltas = MOST_COMPARED
    outcome = "mean of the deltas, number by number, without the lowest and the highest"

    type: Literal["trimmed-mean"] = "trimmed-mean"


class GeometricMedian(Withstands):
    """RFA: the point whose distances to all deltas, weighted by num_tokens, sum to the least (arXiv:1912.13445).

    Breakdown point: half of the round's tokens.
    """

    most_deltas = MOST_COMPARED
    outcome = "geometric median of the deltas, weighted by {weighting}"

    type: Literal["geometric-median"] = "geometric-median"
    iterations: Annotated[
        int, Field(ge=1, le=1000, description="Steps of Weiszfeld's algorithm, from the weighted mean on.")
    ] = 100
    smoothing: Annotated[
        Number, Field(gt=0, description="Distances below it count as it; same unit as the weights.")
    ] = Decimal("0.000001")


class Krum(Withstands):
    """The delta closest to its n − f − 2 neighbours (Blanchard et al., NeurIPS 2017). Holds for n ≥ 2f + 3."""

    most_deltas = MOST_COMPARED
    outcome = "delta that is closest to its neighbours"

    type: Literal["krum"] = "krum"

    @property
    def least_deltas(self) -> int:
        return 2 * self.byzantine + 3

    @property
    def why_least(self) -> str:
        return "2 × byzantine + 3"


class MultiKrum(Withstands):
    """Mean of the `keep` deltas with Krum's best scores, unweighted (Blanchard et al., NeurIPS 2017). Holds for n ≥ 2f + 3."""

    most_deltas = MOST_COMPARED
    outcome = "mean of the deltas that are closest to their neighbours"

    type: Literal["multi-krum"] = "multi-krum"
    keep: Annotated[
        int | None, Field(ge=1, le=MOST_COMPARED, description="Deltas of the mean. Default: n − byzantine − 2.")
    ] = None

    @property
    def least_deltas(self) -> int:
        return max(2 * self.byzantine + 3, (self.keep or 1) + self.byzantine + 2)

    @property
    def why_least(self) -> str:
        return "2 × byzantine + 3, and keep + byzantine + 2"


class Bulyan(Withstands):
    """Of n − 2f deltas that Krum picks, mean of each number's n − 4f closest to their median (arXiv:1802.07927).

    Unweighted. Holds for n ≥ 4f + 3.
    """

    most_deltas = MOST_COMPARED
    outcome = "mean of what is closest to the median, number by number, of the deltas that Krum picks"

    type: Literal["bulyan"] = "bulyan"

    @property
    def least_deltas(self) -> int:
        return 4 * self.byzantine + 3

    @property
    def why_least(self) -> str:
        return "4 × byzantine + 3"


class NormClipping(RuleSection):
    """Mean weighted by num_tokens of deltas scaled down to an L2 norm of at most `max_l2` (arXiv:1911.07963).

    No breakdown point: one delta moves the mean by at most its share of tokens × max_l2, and all wrong ones add up.
    """

    outcome = "mean of the deltas, each scaled down to a norm of at most max_l2, weighted by {weighting}"

    type: Literal["norm-clipping"] = "norm-clipping"
    max_l2: Annotated[Number, Field(gt=0, description="Longer deltas are scaled down to it; same unit as the weights.")]


class NormBounding(Withstands):
    """As norm-clipping, with `factor` times the median of the round's own norms as the bound.

    The bound's breakdown point is 1/2. Within it, wrong deltas move the mean by at most their share of tokens × the bound.
    """

    outcome = "mean of the deltas, each scaled down to a bound by the median of their norms, weighted by {weighting}"

    type: Literal["norm-bounding"] = "norm-bounding"
    factor: Annotated[Number, Field(gt=0, le=1000, description="The bound, in medians of the round's norms.")] = (
        Decimal(1)
    )


class OperatorRule(RuleSection):
    """What the operator's configuration names combines deltas, such as a strategy of Flower. Nobody else can recompute a round:
    `verify` reports each as a gap. The server optimizer is the strategy's own.
    """

    outcome = "what the operator's own strategy makes of the deltas"

    type: Literal["operator"] = "operator"


Rule = Annotated[
    WeightedMean
    | OperatorRule
    | Median
    | TrimmedMean
    | GeometricMedian
    | Krum
    | MultiKrum
    | Bulyan
    | NormClipping
    | NormBounding,
    Field(discriminator="type"),
]


def unfit(rule: RuleSection, deltas: int) -> str | None:
    """Why so many deltas are none for this rule, in words that begin with its name; None if they are."""
    with_f = f" with byzantine {rule.byzantine}" if isinstance(rule, Withstands) else ""
    if deltas < rule.least_deltas:
        return f"{rule.type}{with_f} needs at least {rule.least_deltas:,} deltas a round ({rule.why_least}), not {deltas:,}"
    if deltas > rule.most_deltas:
        return f"{rule.type} compares at most {rule.most_deltas:,} deltas a round, not {deltas:,}"
    return None
