"""Our rules and server optimizers as a strategy of Flower's message API, for anybody's Flower app.

    strategy = Strategy({"rule": {"type": "weighted-mean"}, "server_optimizer": {"type": "sgd", "learning_rate": 0.7}})
    result = strategy.start(grid=grid, initial_arrays=ArrayRecord(model.state_dict()), num_rounds=3)

Sampling, evaluation and metrics are FedAvg's. A round's arrays go through common.reduce, exactly: the same replies give
the same bits on any machine, in whatever order they come. Weights are whole numbers (`num-examples`).
"""

from __future__ import annotations

import logging
import math
import shutil
import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray
from pydantic import ValidationError

from common.errors import DeltaError, ImplausibleWeight, InvalidConfiguration, InvalidName, RefusalError, WrongTensors
from common.ledger.cohort import round_seed
from common.plan.model import Plan
from llmasos.flower.rounds import ReducedRounds

flower_log = logging.getLogger("flwr")
"""Where a Flower app's user looks."""

INSTITUTION = "institution"
"""Key in a reply's ConfigRecord: whose it is. Sums are taken in the order of these names."""


def plan_of(sections: Plan | Mapping[str, Any] | None) -> Plan:
    """A plan as it is, or one with these sections and every other default.

    Raises:
        InvalidConfiguration: a section is none; names field, expected and got.
    """
    if isinstance(sections, Plan):
        return _expect_uncorrected(sections)
    try:
        plan = Plan.model_validate({"apiVersion": "llmasos/v1", "name": "flower", **(sections or {})})
    except ValidationError as err:
        first = err.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidConfiguration(f"Strategy: {where or 'the plan'} is wrong: {first['msg']}.") from err
    return _expect_uncorrected(plan)


def _expect_uncorrected(plan: Plan) -> Plan:
    if plan.corrects:
        raise InvalidConfiguration(
            "Strategy: local.correction is scaffold, expected none: replies hold no control variates."
        )
    return plan


class Strategy(FedAvg):
    """FedAvg's rounds with a plan's codec, downlink, rule, server optimizer, quorum and max_delta_l2.

    A reply that the reducer refuses (other arrays, NaN, too long a delta, a weight out of range) is left out and told; a round
    with fewer than `quorum` good replies leaves the model as it was.
    """

    def __init__(
        self,
        plan: Plan | Mapping[str, Any] | None = None,
        *,
        folder: Path | None = None,
        seeds: Callable[[int], int] | None = None,
        **sampling: Any,
    ) -> None:
        """
        Args:
            plan: a plan, or some of its sections by name, such as {"rule": {"type": "weighted-mean"}, "quorum": 2}.
            folder: an empty folder for deltas and server_state; none: a temporary one.
            seeds: the seed that clients get for a round; none: from the plan's seed.
            sampling: FedAvg's arguments, as fraction_train. At least a quorum of nodes is trained on, unless told otherwise.

        Raises:
            InvalidConfiguration: the sections are no plan's.
        """
        self.plan = plan_of(plan)
        for name in ("min_train_nodes", "min_available_nodes"):
            sampling.setdefault(name, self.plan.quorum)
        super().__init__(**sampling)
        self._seeds = seeds or (lambda number: round_seed(str(self.plan.seed), number))
        if folder is None:
            folder = Path(mkdtemp(prefix="llmasos-flower-"))
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)  # a Flower app has no place to close it
        self._rounds = ReducedRounds(self.plan, folder)
        self.committed = 0
        """How many rounds changed the model."""
        self.refused: dict[int, dict[str, str]] = {}
        """By round: whose reply was left out, and why."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """FedAvg's, and `seed` and `trained-rounds` in the config."""
        self.begin(arrays)
        config["seed"], config["trained-rounds"] = self._seeds(server_round), self.committed
        messages: Iterable[Message] = super().configure_train(server_round, arrays, config, grid)
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The new arrays; None where the quorum was missed."""
        valid, _ = self._check_and_log_replies(replies, is_train=True)
        used = [reply for reply in valid if self.take(server_round, reply)]
        if not used:
            return None, None
        arrays = self.close_round(server_round)
        return arrays, self.train_metrics_aggr_fn([reply.content for reply in used], self.weighted_by_key)

    def begin(self, arrays: ArrayRecord) -> None:
        """A round starts from these arrays: for who sends messages in another way than `configure_train`.

        Raises:
            WrongTensors: an array is not float32, or they are not the last round's.
        """
        self._rounds.open({name: value.numpy() for name, value in arrays.items()})

    def take(self, server_round: int, reply: Message) -> bool:
        """Keep a reply's arrays for `close_round`; False where they are refused, for `refused[server_round]`."""
        name = institution_of(reply)
        try:
            weight = _weight(reply, self.weighted_by_key, name)
            self._rounds.take(name, weight, _arrays(reply))
        except (RefusalError, InvalidName) as err:
            flower_log.warning("round %d: the reply of %r is left out: %s", server_round, name, err.message)
            self.refused.setdefault(server_round, {})[name] = err.code
            return False
        return True

    def close_round(self, server_round: int) -> ArrayRecord | None:
        """What the replies of `server_round` come to; None where they are fewer than the quorum."""
        try:
            arrays = self._rounds.close()
        except DeltaError as err:
            flower_log.warning("round %d leaves the model as it was: %s", server_round, err.message)
            return None
        if arrays is None:
            taken, quorum = self._rounds.taken, self.plan.quorum
            flower_log.warning("round %d leaves the model as it was: %d deltas of %d", server_round, taken, quorum)
            return None
        self.committed += 1
        return ArrayRecord({name: Array(values) for name, values in arrays.items()})


def institution_of(reply: Message) -> str:
    """Whose a reply is: as it says in `institution`, else by its node's id, which is another one in each run."""
    for record in reply.content.config_records.values():
        if isinstance(name := record.get(INSTITUTION), str):
            return name
    return f"node-{reply.metadata.src_node_id}"


def _arrays(reply: Message) -> dict[str, NDArray[Any]]:
    record = next(iter(reply.content.array_records.values()))
    try:
        return {name: np.asarray(value.numpy()) for name, value in record.items()}
    except (ValueError, TypeError, OSError, EOFError) as err:  # bytes that are no array, by whoever wrote them
        raise WrongTensors(f"An array of the reply cannot be read: {type(err).__name__}.") from err


def _weight(reply: Message, key: str, name: str) -> int:
    value = next(iter(reply.content.metric_records.values()))[key]
    if not isinstance(value, int | float) or not math.isfinite(value) or value != int(value):
        raise ImplausibleWeight(f"{key} of {name} is {value}, expected a whole number.")
    return int(value)
