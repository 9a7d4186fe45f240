"""A federation in one process: local training and the exact reducer of a deployment, without daemons, ledger and network.

    consortium = Consortium(plan, texts, machine, tokens)
    federated(consortium, plan, watch)      each institution by itself, rounds combined by common.reduce
    central(consortium, plan, watch)        one machine with all the text: in each step the very batches of all institutions
    alone(consortium, plan, name, watch)    one institution without the others

Deltas are float32(after − before) in files, encoded by the plan's codec, and the server optimizer's state goes from round to
round, as in a deployment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from common.ledger.cohort import local_seed, round_seed
from common.plan.model import Plan
from llmasos.evaluation.perplexity import LossSums, evaluate
from llmasos.flower.rounds import ReducedRounds
from llmasos.models.build import build_model
from llmasos.tasks.base import Batch, together
from llmasos.tasks.registry import objective_of
from llmasos.tokenizers import bytes_tokenizer, save, vocab_size_of
from llmasos.training.corpus import Corpus, Source, prepare_corpus
from llmasos.training.device import Machine
from llmasos.training.loop import LocalTraining, RoundWork

Losses = Mapping[str, LossSums]
"""Held-out sums by institution."""
Watch = Callable[[int, Callable[[], Losses]], object]
"""Called after each round with its number and a way to measure the model of then."""

EVALUATION_ROWS = 16


class Consortium:
    """Institutions' text as tokens, opened once for several trainings of the same seed. A context manager."""

    def __init__(self, plan: Plan, texts: Mapping[str, Path], machine: Machine, tokens: Path) -> None:
        """
        Args:
            plan: whose seed and evaluation split each text; its tokenizer is bytes.
            texts: a folder of text by institution.
            tokens: where encoded text lies.
        """
        self.machine = machine
        self._stack = ExitStack()
        tokens.mkdir(parents=True, exist_ok=True)
        tokenizer = bytes_tokenizer()
        self.vocab_size = vocab_size_of(tokenizer)
        save(tokenizer, tokens / "tokenizer.json")
        self.corpora: dict[str, Corpus] = {
            name: self._stack.enter_context(prepare_corpus([Source(folder)], tokens / "tokenizer.json", tokens, plan))
            for name, folder in sorted(texts.items())
        }

    def __enter__(self) -> Consortium:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def training(self, plan: Plan) -> LocalTraining:
        """From the plan's initial weights."""
        model = build_model(plan.model, adapter=plan.adapter, vocab_size=self.vocab_size, seed=plan.seed)
        return LocalTraining(plan, model, self.machine)

    def batch(self, seed: int, name: str, index: int, step: int) -> Batch:
        """What an institution trains on in a step of round `index`, from 0, of a run with that seed."""
        return self.corpora[name].batch(seed=_seed(seed, name, index), step=step)

    def losses(self, plan: Plan, model: torch.nn.Module) -> Losses:
        """Of a model on each institution's held-out text."""
        objective = objective_of(plan.task)
        return {
            name: evaluate(model, objective, corpus.held_out_rows(), batch_size=EVALUATION_ROWS)
            for name, corpus in self.corpora.items()
        }


def federated(consortium: Consortium, plan: Plan, watch: Watch) -> None:
    """All rounds of the plan, every institution in each of them.

    Raises:
        DeltaError, NonFiniteDelta: training diverged.
    """
    trainings = {name: consortium.training(plan) for name in consortium.corpora}
    shared = consortium.training(plan)
    with TemporaryDirectory(prefix="llmasos-rounds-") as folder:
        rounds = ReducedRounds(plan, Path(folder))
        for index in range(plan.rounds):
            base = {name: value.numpy() for name, value in shared.weights().items()}
            rounds.open(base)
            for name, training in trainings.items():
                num_tokens = _round(consortium, plan, training, shared, name, index)
                after = {key: value.numpy() for key, value in training.weights().items()}
                rounds.take(name, num_tokens, after)
            model = rounds.close()
            assert model is not None, "every institution is in every round"
            shared.load_weights({name: torch.from_numpy(values) for name, values in model.items()})
            watch(index + 1, lambda: consortium.losses(plan, shared.model))


def _round(
    consortium: Consortium, plan: Plan, training: LocalTraining, shared: LocalTraining, name: str, index: int
) -> int:
    """One institution's, from the shared weights; how many tokens it trained on."""
    training.load_weights(shared.weights())
    training.anchor(training.weights().keys())
    if plan.local.optimizer_state == "reset":
        training.load_moments({})
    work = RoundWork(trained_rounds=index, seed=_seed(plan.seed, name, index))
    return training.run_round(work, lambda step: consortium.batch(plan.seed, name, index, step)).num_tokens


def central(consortium: Consortium, plan: Plan, watch: Watch) -> None:
    """The same tokens on one machine: each step's batch is what all institutions train on in that step, together.

    Raises:
        NonFiniteDelta: training diverged.
    """
    _together(consortium, plan, list(consortium.corpora), watch)


def alone(consortium: Consortium, plan: Plan, name: str, watch: Watch) -> None:
    """One institution's own tokens, on the very batches that it gives the federation.

    Raises:
        NonFiniteDelta: training diverged.
    """
    _together(consortium, plan, [name], watch)


def _together(consortium: Consortium, plan: Plan, names: list[str], watch: Watch) -> None:
    training = consortium.training(plan)
    training.micro_batch *= len(names)
    for index in range(plan.rounds):

        def draw(step: int, index: int = index) -> Batch:
            return together([consortium.batch(plan.seed, name, index, step) for name in names])

        training.run_round(RoundWork(trained_rounds=index, seed=_seed(plan.seed, names[0], index)), draw)
        watch(index + 1, lambda: consortium.losses(plan, training.model))


def _seed(seed: int, name: str, index: int) -> int:
    """An institution's in a round, as its participant derives it."""
    return local_seed(round_seed(str(seed), index + 1), name)


def parameters(plan: Plan) -> int:
    """How many numbers the plan's model has, on bytes."""
    model = build_model(plan.model, adapter=plan.adapter, vocab_size=vocab_size_of(bytes_tokenizer()), seed=plan.seed)
    return sum(weight.numel() for weight in model.parameters())
