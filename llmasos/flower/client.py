"""A Flower ClientApp that trains on an institution's folder of text, as our worker does.

    def institution(context: Context) -> Institution:
        return Institution("north", Path("prepared"), (Source(Path("/data/text")),), home=Path("/var/lib/llmasos-flower"))

    app = client_app(institution)

`train` answers with the trained arrays and how many tokens they come from, `evaluate` with the held-out loss.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from common.errors import UsageError
from common.ledger.cohort import round_seed
from llmasos.evaluation.perplexity import LOSS_SCALE, LossSums
from llmasos.extras import require_train
from llmasos.flower.strategy import INSTITUTION
from llmasos.preparation import load_prepared
from llmasos.training.institution import Institution, RoundTask, Trained, measure, train

Metrics = dict[str, int | float | list[int] | list[float]]

WhoAmI = Callable[[Context], Institution]
"""Which institution a node is, by Flower's context: `node_config` is the node's, `run_config` the app's."""


def client_app(institution: WhoAmI) -> ClientApp:
    """A ClientApp for `Strategy`, and for any of Flower's own.

    Args:
        institution: from a run's Context to the institution that this client is.

    Raises:
        MissingExtra: torch, transformers or tokenizers are not installed.
    """
    require_train("torch", "transformers", "tokenizers", task="train in a Flower app")
    app = ClientApp()

    @app.train()
    def train_round(message: Message, context: Context) -> Message:
        return answer_train(message, institution(context))

    @app.evaluate()
    def evaluate_round(message: Message, context: Context) -> Message:
        return answer_evaluate(message, institution(context))

    return app


def answer_train(message: Message, institution: Institution) -> Message:
    """One round of training."""
    trained = train(institution, _base(message), task_of(message, institution))
    content = RecordDict(
        {
            "arrays": ArrayRecord({name: Array(values) for name, values in trained.arrays.items()}),
            "metrics": MetricRecord(_training_metrics(trained)),
            "config": ConfigRecord({INSTITUTION: institution.name}),
        }
    )
    return Message(content=content, reply_to=message)


def answer_evaluate(message: Message, institution: Institution) -> Message:
    """The held-out loss of the model that came."""
    sums = measure(institution, _base(message))
    metrics = MetricRecord({"num-examples": sums.num_tokens, **_held_out(sums)})
    content = RecordDict({"metrics": metrics, "config": ConfigRecord({INSTITUTION: institution.name})})
    return Message(content=content, reply_to=message)


def task_of(message: Message, institution: Institution) -> RoundTask:
    """The round, as `Strategy` says it; of other strategies, which say its number alone, by the plan's own seed.

    Raises:
        UsageError: the message has no round number.
    """
    config = next(iter(message.content.config_records.values()), ConfigRecord())
    number = config.get("server-round")
    if not isinstance(number, int):
        raise UsageError(
            "The message has no whole number server-round in its config.",
            "Use a strategy that sends it, as FedAvg does.",
        )
    trained_rounds, seed = config.get("trained-rounds", number - 1), config.get("seed")
    if not isinstance(seed, int):
        seed = round_seed(str(load_prepared(institution.prepared).draft.plan.seed), number)
    return RoundTask(number, trained_rounds if isinstance(trained_rounds, int) else number - 1, seed)


def _base(message: Message) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    record = next(iter(message.content.array_records.values()))
    return {name: value.numpy() for name, value in record.items()}


def _training_metrics(trained: Trained) -> Metrics:
    return {
        "num-examples": trained.weight,
        "train-loss": (trained.sums.mean_loss_fixed or 0) / LOSS_SCALE,
        "seconds": trained.seconds,
        "training-seconds": trained.training_seconds,
        **_held_out(trained.evaluation),
    }


def _held_out(sums: LossSums) -> Metrics:
    """Of the model that came, before training."""
    mean = sums.loss_sum_fixed / LOSS_SCALE / max(1, sums.num_tokens)
    return {"held-out-loss": mean, "held-out-loss-fixed": sums.loss_sum_fixed, "held-out-tokens": sums.num_tokens}
