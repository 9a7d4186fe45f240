"""A model's weights and what they are made for: architecture, vocabulary, head, adapter.

The weights are made at the first `fit`, when the tokenizer says how many tokens there are, or as soon as a tokenizer or a
vocab_size is given. Before and after that it is a value like any other: nothing is global, nothing is fetched.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from common.errors import InvalidConfiguration, UsageError
from common.plan.adapter_checks import check_beside
from common.plan.adapters import Adapter
from common.plan.architectures import Model
from common.plan.tasks import Task, TaskSection
from llmasos.tokenizers import as_tokenizer, vocab_size_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel

    from llmasos.language_model.fitting import Progress

T = TypeVar("T", bound=TaskSection)

LONGEST_UNNAMED = 512
"""Tokens of a sequence, where a model reads longer ones and nobody says how long."""


class WithWeights:
    """An architecture as a plan names it, and weights once there is a vocabulary."""

    def __init__(
        self,
        section: Model,
        *,
        vocab_size: int | None = None,
        tokenizer: Tokenizer | str | Path | Any = None,
        seed: int = 0,
    ) -> None:
        """
        Args:
            section: a plan's `model`.
            vocab_size: rows of the embedding; by default as many as the tokenizer has tokens.
            tokenizer: what text is encoded with; by default the one of the data of the first fit.
            seed: initial weights follow from it, 0 to 2^32 - 1.
        """
        self.section = section
        self.seed = seed
        self.tokenizer: Tokenizer | None = None
        self.task: Task | None = None
        """What it was last fitted to."""
        self.head = section.heads[0]
        self.num_labels: int | None = None
        self._vocab_size = vocab_size
        self._module: PreTrainedModel | None = None
        self._adapter: Adapter | None = None
        self._progress: Progress | None = None
        self._fits = 0
        if tokenizer is not None:
            self._take(as_tokenizer(tokenizer))

    @property
    def module(self) -> PreTrainedModel:
        """The transformers model: a torch.nn.Module, float32.

        Raises:
            UsageError: it has no weights yet.
        """
        if self._module is None and self._vocab_size is not None:
            self._build(self._vocab_size)
        if self._module is None:
            raise UsageError(
                f"This {type(self).__name__} has no weights yet, since nobody said how many tokens there are.",
                "Call fit first, or give it a tokenizer or a vocab_size.",
            )
        return self._module

    @property
    def default_task(self) -> str:
        """What the model is made to predict, the type of a plan's `task`: what its architecture's first head is for."""
        return {"seq2seq-lm": "seq2seq"}.get(self.section.heads[0], self.section.heads[0])

    @property
    def vocab_size(self) -> int | None:
        """Rows of the embedding; None before there are weights."""
        return self._vocab_size

    @property
    def context_tokens(self) -> int:
        """The longest sequence that it can read."""
        return self.section.context_tokens

    def num_parameters(self) -> int:
        """Numbers that are trained, tied ones once."""
        return sum(weight.numel() for weight in self.module.parameters() if weight.requires_grad)

    def __repr__(self) -> str:
        sizes = ", ".join(
            f"{name}={value}"
            for name, value in self.section.model_dump(exclude={"type", "weights", "vocab_size"}).items()
        )
        size = "no weights yet" if self._module is None else f"{self.num_parameters():,} parameters"
        return f"{type(self).__name__}({sizes}; {size})"

    def add_adapter(self, adapter: Adapter) -> None:
        """Put an adapter beside the weights, which stay as they are from now on: fits train it alone (and a new head).

        Args:
            adapter: llmasos.adapters.LoRA(r=8, lora_alpha=16).

        Raises:
            UsageError: the model has no weights, or has an adapter already.
            InvalidConfiguration: the adapter does not go with the architecture or the head; it names layers that the model
                has not.
            MissingExtra: peft is not installed.
        """
        import torch

        from llmasos.models.adapters import add_adapter

        if self._adapter is not None:
            fix = (
                "Load the model without it."
                if self._adapter.virtual_tokens
                else "Save it, merged, and load it to add another."
            )
            raise UsageError("The model has an adapter already.", fix)
        try:
            check_beside(adapter, self.section, self.head)
        except ValueError as err:
            raise InvalidConfiguration(f"{err}.") from err
        with torch.random.fork_rng(devices=[]):
            add_adapter(self.module, self.section, adapter, seed=self.seed, head=self.head)
        self._adapter, self._progress = adapter, None

    def _build(self, vocab_size: int) -> None:
        """Initial weights; of a model that had weights and another head, those that both have are kept."""
        from llmasos.models.build import build_model
        from llmasos.tokenizers import pad_id

        pad = None if self.tokenizer is None else pad_id(self.tokenizer)
        module: Any = build_model(
            self.section,
            vocab_size=vocab_size,
            seed=self.seed,
            head=self.head,
            num_labels=self.num_labels,
            pad_token_id=pad,
        )
        if self._module is not None:
            mine = module.state_dict()
            kept = {name: value for name, value in self._module.state_dict().items() if name in mine}
            module.load_state_dict({**mine, **{name: v for name, v in kept.items() if v.shape == mine[name].shape}})
        self._module, self._vocab_size = module.train(False), vocab_size

    def _take(self, tokenizer: Tokenizer, task: Task | None = None) -> None:
        """Go on with this tokenizer, and the head that the task needs; the first tokenizer stays the model's.

        Raises:
            UsageError: the model has another tokenizer, or too few embeddings; or its adapter is beside another head.
        """
        tokens = vocab_size_of(tokenizer)
        if self._vocab_size is not None and tokens > self._vocab_size:
            raise UsageError(
                f"The tokenizer has {tokens:,} tokens, the model's embedding {self._vocab_size:,} rows.",
                "Use the tokenizer that the model was made with, or make a model with a larger vocab_size.",
            )
        if self.tokenizer is not None and self.tokenizer.get_vocab() != tokenizer.get_vocab():
            raise UsageError(
                "The data were loaded with another tokenizer than the model's, so that ids would mean other tokens.",
                "Load them with it: load_dataset(folder, tokenizer=model.tokenizer).",
            )
        self.tokenizer = self.tokenizer or tokenizer
        ending = (self.head, self.num_labels) if task is None else (task.head, task.num_labels)
        if self._module is not None and ending == (self.head, self.num_labels):
            return
        if self._adapter is not None:
            raise UsageError(f"The model has an adapter beside its head {self.head}, expected one for {ending[0]}.")
        self.head, self.num_labels = ending
        self._progress = None
        self._build(self._vocab_size or tokens)

    def _fitted_to(self, kind: type[T]) -> T:
        if not isinstance(self.task, kind):
            found = "nothing yet" if self.task is None else f"task {self.task.type}"
            wanted = kind.model_fields["type"].default
            raise UsageError(f"This {type(self).__name__} was fitted to {found}, expected task {wanted}.")
        return self.task

    def _longest(self) -> int:
        """The length of a sequence unless one is named. Relative positions have no end: then what training usually takes."""
        taken = 0 if self._adapter is None else self._adapter.virtual_tokens
        return min(self.context_tokens - taken, LONGEST_UNNAMED)

    def _tokenizer(self, task: str) -> Tokenizer:
        if self.tokenizer is None:
            raise UsageError(
                f"To {task}, the model needs a tokenizer, and has none.", "Fit it first, or make it with tokenizer=…"
            )
        return self.tokenizer
