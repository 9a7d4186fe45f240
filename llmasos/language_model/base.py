"""What every model of llmasos.models can do: fit, evaluate, save, load, write text.

The weights are made at the first `fit`, when the tokenizer says how many tokens there are, or as soon as a tokenizer or a
vocab_size is given. Before and after that it is a value like any other: nothing is global, nothing is fetched.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from common.errors import InvalidConfiguration, TooLittleData, UsageError
from common.plan.architectures import Model
from common.plan.model import Plan
from llmasos.datasets.loading import Dataset, Split
from llmasos.extras import require_train
from llmasos.language_model.history import History, Row
from llmasos.language_model.planning import Settings, plan_of
from llmasos.losses import CrossEntropyLoss, Loss
from llmasos.optimizers import AdamW, Optimizer
from llmasos.tokenizers import as_tokenizer, vocab_size_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel

    from llmasos.language_model.fitting import Progress
    from llmasos.language_model.measuring import Evaluation

Self = TypeVar("Self", bound="LanguageModel")


class LanguageModel:
    """Base of the models: an architecture as a plan names it, and weights once there is a vocabulary."""

    default_task: ClassVar[str] = "causal-lm"
    """What the model is made to predict: the type of a plan's `task`."""

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
        self._vocab_size = vocab_size
        self._module: PreTrainedModel | None = None
        self._progress: Progress | None = None
        self._fits = 0
        if tokenizer is not None:
            self._take(as_tokenizer(tokenizer))

    # --- what it is -----------------------------------------------------------------------------------------------------

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
        sizes = ", ".join(f"{name}={value}" for name, value in self.section.model_dump(exclude={"type"}).items())
        size = "no weights yet" if self._module is None else f"{self.num_parameters():,} parameters"
        return f"{type(self).__name__}({sizes}; {size})"

    # --- training and measuring -----------------------------------------------------------------------------------------

    def fit(
        self,
        data: Split,
        optimizer: Optimizer | None = None,
        loss: Loss | None = None,
        *,
        epochs: float | None = None,
        steps: int | None = None,
        batch_size: int = 8,
        sequence_length: int | None = None,
        validation: Split | None = None,
        schedule: str | Mapping[str, Any] = "cosine",
        warmup_steps: int | None = None,
        max_grad_norm: float = 1.0,
        micro_batch_size: int | None = None,
        precision: str = "float32",
        seed: int | None = None,
        device: str | None = None,
        eval_steps: int | None = None,
        logging_steps: int | None = None,
        resume: bool = False,
        progress_bar: bool | None = None,
        on_log: Callable[[Row], None] | None = None,
    ) -> History:
        """Train on a split, by the loop that institutions train with in a federation.

        A step's batch is `batch_size` windows of `sequence_length` tokens, drawn from the split by seed and step. Ctrl-C ends
        the fit after the step at hand, with a model that can be used, saved and resumed; the history says so. Called again, it
        trains on from the weights as they are, with other batches and a new schedule.

        Args:
            data: what to train on, `data.train`.
            optimizer: of llmasos.optimizers; AdamW() by default.
            loss: of llmasos.losses; CrossEntropyLoss() by default: of what the model is made to predict.
            epochs: so many times the split's tokens, 1 by default; or
            steps: so many optimizer steps.
            batch_size: sequences a step.
            sequence_length: tokens a sequence, at least 8; by default the model's longest.
            validation: measured in full after each epoch, or every `eval_steps`, and at the end.
            schedule: of the learning rate, by its type in a plan's `local.schedule`: "cosine", "constant"; or a mapping with
                all of its fields.
            warmup_steps: until the learning rate is reached; by default a twentieth of the steps.
            max_grad_norm: longer gradients are scaled down to this L2 norm.
            micro_batch_size: sequences at once on the device, the rest accumulates; by default batch_size.
            precision: "float32", or "bfloat16" for autocast where the device has it.
            seed: batches and dropout follow from it; by default the model's, and another in each further fit.
            device: "cpu" or "cuda"; by default CUDA where there is one.
            eval_steps: steps between measurements of `validation`.
            logging_steps: steps between the history's rows; by default as many as make 200 rows.
            resume: go on where the last fit was interrupted, or the loaded one was saved: same arguments, same bits.
            progress_bar: True or False; by default only in a terminal or notebook.
            on_log: called with each row of the history, for a logger of your own.

        Returns:
            The history: rows of step, tokens, loss (nats a target), learning rate, validation, seconds, tokens a second.

        Raises:
            UsageError: this model has another tokenizer, or fewer embeddings than the tokenizer has tokens.
            InvalidConfiguration: a setting is out of range; names it.
            TooLittleData: the split is empty, or shorter than a sequence.
            NonFiniteDelta: loss or gradient is no finite number any more: lower the learning rate.
            OutOfMemory: memory is too little for one sequence.
            MissingExtra: a package of the extra `train` is not installed.
        """
        require_train("torch", "transformers", "tokenizers", task="train a model")
        from llmasos.language_model.bars import open_bar
        from llmasos.language_model.fitting import ROWS, Fit, Progress, Telling, machine_for

        self._take(_split(data, "fit").tokenizer)
        before = self._start(resume)
        length = sequence_length or self.context_tokens
        _check_length(data, length)
        an_epoch = math.ceil(data.num_tokens / max(1, batch_size * length))
        total = _steps(epochs, steps, an_epoch)
        settings = Settings(
            steps=total,
            batch_size=batch_size,
            sequence_length=length,
            optimizer=(optimizer or AdamW()).section(),
            schedule=schedule,
            warmup_steps=warmup_steps,
            max_grad_norm=max_grad_norm,
            micro_batch_size=micro_batch_size,
            precision=precision,
            seed=before.seed if before else (self.seed + self._fits) % 2**32 if seed is None else seed,
        )
        plan = self._plan(settings, loss)
        _check_optimizer(before, plan)
        if validation is not None:
            self._take(_split(validation, "fit's validation").tokenizer)
        done = before.steps if before else 0
        bar = open_bar(total=total, done=done, what="fit", shown=progress_bar)
        telling = Telling(
            bar,
            logging_steps=logging_steps or max(1, total // ROWS),
            eval_steps=eval_steps or (an_epoch if steps is None else total),
            validation=validation,
            on_log=on_log,
        )
        with machine_for(device) as machine:
            self._progress = None  # a fit that fails leaves nothing to go on from
            fit = Fit(plan, self.module, machine, steps=total, telling=telling)
            try:
                self._progress = fit.run(data, before or Progress())
            finally:
                bar.close()
                self._fits += not resume
                self.module.train(False)
        if fit.history.interrupted:
            print(
                f"Stopped by Ctrl-C after step {self._progress.steps:,} of {total:,}: the model can be used as it is, and "
                "fit(…, resume=True) goes on from here.",
                file=sys.stderr,
            )
        return fit.history

    def evaluate(
        self, data: Split, loss: Loss | None = None, *, batch_size: int = 8, sequence_length: int | None = None
    ) -> Evaluation:
        """Measure the model on all of a split, in float32, on the device that it is on.

        Args:
            data: `data.validation`, or `data.test` at the end.
            loss: as `fit`.
            batch_size: sequences at once.
            sequence_length: tokens that a prediction sees at most; by default the model's longest.

        Returns:
            loss (nats a target), perplexity, bits_per_byte, accuracy (0 to 1), tokens, seconds, tokens_per_second.

        Raises:
            UsageError: it has no weights, or another tokenizer.
            InvalidConfiguration: a setting is out of range.
            TooLittleData: the split is empty.
            WorkerFailed: a loss is no finite number.
        """
        require_train("torch", "transformers", "tokenizers", task="measure a model")
        from llmasos.language_model.measuring import measure

        module = self.module
        self._take(_split(data, "evaluate").tokenizer)
        length = sequence_length or self.context_tokens
        settings = Settings(steps=1, batch_size=batch_size, sequence_length=length, optimizer=AdamW().section())
        return measure(module, data, self._plan(settings, loss), batch_size=batch_size)

    def generate_text(
        self,
        prompt: str = "",
        *,
        max_new_tokens: int = 100,
        temperature: float = 0.8,
        top_k: int | None = None,
        seed: int = 0,
    ) -> str:
        """`prompt` and what the model writes after it, up to the end of a document or `max_new_tokens`.

        The same arguments give the same text on the same machine. Of a prompt longer than the model's context, it sees the end.

        Args:
            temperature: 0 takes the likeliest token; else one is drawn, the more evenly the higher it is.
            top_k: draw from so many of the likeliest; by default from all.

        Raises:
            UsageError: a setting is out of range, or the model has no weights or no tokenizer.
        """
        from llmasos.generation import Sampling, continue_text

        sampling = Sampling(temperature, top_k, seed)
        module, tokenizer = self.module, self._tokenizer("generate text")
        module.train(False)
        return continue_text(module, tokenizer, prompt, max_new_tokens=max_new_tokens, sampling=sampling)

    # --- on disk --------------------------------------------------------------------------------------------------------

    def save(self, path: str | Path, *, optimizer: bool = True) -> Path:
        """Write the model as a folder of that name, whole or not at all: safetensors and JSON, never pickle.

        transformers loads it, too. A name that ends in .pt or the like names a folder all the same; a note says so.

        Args:
            optimizer: with the optimizer's moments (twice the model's size for Adam), so that `fit(…, resume=True)` can go on.

        Raises:
            UsageError: the model has no weights or no tokenizer, or the path is something else than a model folder.
            StorageFailure: the disk is full or refuses.
        """
        from llmasos.language_model import storing

        folder, module, tokenizer = Path(path), self.module, self._tokenizer("save a model")
        progress = self._progress if optimizer else None
        storing.write(folder, module, tokenizer, kind=type(self).__name__, progress=progress)
        if folder.suffix.lower() in storing.PICKLES:
            print(
                f"{folder} is a folder with model.safetensors, not a pickle; {type(self).__name__}.load reads it.",
                file=sys.stderr,
            )
        return folder

    def save_pretrained(self, path: str | Path) -> Path:
        """`save` without the optimizer's moments: what transformers' from_pretrained loads, and what to give away."""
        return self.save(path, optimizer=False)

    @classmethod
    def load(cls: type[Self], path: str | Path) -> Self:
        """The model in a folder that `save`, `llmasos simulate`, `run export` or transformers wrote. Nothing of it is run.

        Raises:
            UsageError: no such folder, a part of a model, one of another class, or one that this release does not know.
            StorageFailure, UnreadableData: a file of it cannot be read.
        """
        from llmasos.language_model import families, storing

        stored = storing.read(Path(path))
        kind = families.kind_of(stored)
        if not issubclass(kind, cls):
            raise UsageError(
                f"{path} holds a {kind.__name__}, expected a {cls.__name__}.",
                f"Load it with llmasos.models.{kind.__name__}.load, or llmasos.models.load, which finds out.",
            )
        model = kind.__new__(kind)
        LanguageModel.__init__(model, stored.section, vocab_size=stored.vocab_size)
        model.module.load_state_dict(stored.module.state_dict())
        model.module.train(False)
        model._take(stored.tokenizer)
        model._progress = stored.progress
        return model

    @classmethod
    def from_pretrained(cls: type[Self], path: str | Path) -> Self:
        """`load` under transformers' name. A path, not the name of a model in a hub: nothing is fetched."""
        return cls.load(path)

    # --- inside ---------------------------------------------------------------------------------------------------------

    def _build(self, vocab_size: int) -> None:
        from llmasos.models.build import build_model

        module: Any = build_model(self.section, vocab_size=vocab_size, seed=self.seed)
        self._module, self._vocab_size = module, vocab_size

    def _plan(self, settings: Settings, loss: Loss | None) -> Plan:
        task = (loss or CrossEntropyLoss()).task(self.default_task)
        return plan_of(settings, model=self.section, task=task)

    def _take(self, tokenizer: Tokenizer) -> None:
        """Go on with this tokenizer; the first one stays the model's.

        Raises:
            UsageError: the model has another one, or too few embeddings.
        """
        if self.tokenizer is tokenizer:
            return
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
        self.tokenizer = tokenizer
        if self._module is None:
            self._build(self._vocab_size or tokens)

    def _tokenizer(self, task: str) -> Tokenizer:
        if self.tokenizer is None:
            raise UsageError(
                f"To {task}, the model needs a tokenizer, and has none.", "Fit it first, or make it with tokenizer=…"
            )
        return self.tokenizer

    def _start(self, resume: bool) -> Progress | None:
        """Where to go on; None at the beginning."""
        if not resume:
            return None
        if self._progress is None:
            raise UsageError("There is no fit to resume: this model was not fitted, or saved without its optimizer.")
        return self._progress


def _split(data: Any, who: str) -> Split:
    if isinstance(data, Split):
        return data
    what = "a whole dataset" if isinstance(data, Dataset) else f"a {type(data).__name__}"
    raise UsageError(f"{who} expects one split, got {what}.", "Name one, as in model.fit(data.train).")


def _check_length(data: Split, sequence_length: int) -> None:
    if data.num_tokens <= sequence_length:
        raise TooLittleData(
            f"The split {data.name} of {data.source} holds {data.num_tokens:,} tokens, one sequence needs "
            f"{sequence_length + 1:,}.",
            "Give fit a smaller sequence_length, or more text.",
        )


def _steps(epochs: float | None, steps: int | None, an_epoch: int) -> int:
    if epochs is not None and steps is not None:
        raise InvalidConfiguration("fit got both epochs and steps.", "Give one of the two.")
    wanted = steps if steps is not None else math.ceil((1 if epochs is None else epochs) * an_epoch)
    if wanted < 1:
        raise InvalidConfiguration(
            f"fit would train {wanted} steps, expected at least 1.", "Give more epochs or steps."
        )
    return wanted


def _check_optimizer(before: Progress | None, plan: Plan) -> None:
    if before is not None and before.optimizer != plan.local.optimizer.type:
        raise UsageError(
            f"The fit to resume trained with {before.optimizer}, now {plan.local.optimizer.type} was given.",
            "Resume with the same optimizer.",
        )
