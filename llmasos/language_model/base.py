"""What every model of llmasos.models can do: fit, evaluate, save, load, write text.

The weights are made at the first `fit`, when the tokenizer says how many tokens there are, or as soon as a tokenizer or a
vocab_size is given. Before and after that it is a value like any other: nothing is global, nothing is fetched.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from common.errors import InvalidConfiguration, TooLittleData, UsageError
from common.plan.adapters import Adapter
from common.plan.architectures import Model
from common.plan.model import Plan
from common.plan.tasks import Instruction, QuestionAnswering, Seq2Seq, SequenceClassification, Task, TaskSection
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
    from llmasos.language_model.storing import Card

T = TypeVar("T", bound=TaskSection)
Self = TypeVar("Self", bound="LanguageModel")

LONGEST_UNNAMED = 512
"""Tokens of a sequence, where a model reads longer ones and nobody says how long."""


class LanguageModel:
    """Base of the models: an architecture as a plan names it, and weights once there is a vocabulary."""

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
        gradient_checkpointing: bool = False,
        compile: bool = False,
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
            epochs: so many times the split's tokens or records, 1 by default; or
            steps: so many optimizer steps.
            batch_size: sequences a step.
            sequence_length: tokens a sequence, at least 8; by default the model's longest, at most 512.
            validation: measured in full after each epoch, or every `eval_steps`, and at the end.
            schedule: of the learning rate, by its type in a plan's `local.schedule`: "cosine", "constant", "linear",
                "warmup-stable-decay", "inverse-sqrt", "noam"; or a mapping with its fields.
            warmup_steps: until the learning rate is reached; by default a twentieth of the steps.
            max_grad_norm: longer gradients are scaled down to this L2 norm.
            micro_batch_size: sequences at once on the device, the rest accumulates; by default batch_size.
            precision: "float32", or "bfloat16" for autocast where the device has it.
            gradient_checkpointing: less memory for a third more time, and the same numbers.
            compile: train through torch.compile where the machine can; the history says where it cannot.
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

        before = self._start(resume)
        settings = Settings(
            steps=1,
            batch_size=batch_size,
            sequence_length=sequence_length or self._longest(),
            optimizer=(optimizer or AdamW()).section(),
            schedule=schedule,
            warmup_steps=warmup_steps,
            max_grad_norm=max_grad_norm,
            micro_batch_size=micro_batch_size,
            precision=precision,
            gradient_checkpointing=gradient_checkpointing,
            compile=compile,
            seed=before.seed if before else (self.seed + self._fits) % 2**32 if seed is None else seed,
        )
        task = _task_of(_split(data, "fit"), loss, self.default_task)
        plan = plan_of(settings, model=self.section, task=task, adapter=self._adapter)
        _check_optimizer(before, plan)
        for split in (data, *(() if validation is None else (_split(validation, "fit's validation"),))):
            self._take(split.tokenizer, plan.task)
        an_epoch = _steps_an_epoch(data, plan)
        total = _steps(epochs, steps, an_epoch)
        plan = plan_of(replace(settings, steps=total), model=self.section, task=task, adapter=self._adapter)
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
                self.task = plan.task
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
            sequence_length: tokens that a prediction sees at most; by default as in fit.

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
        task = _task_of(_split(data, "evaluate"), loss, self.task or self.default_task)
        length = sequence_length or self._longest()
        settings = Settings(steps=1, batch_size=batch_size, sequence_length=length, optimizer=AdamW().section())
        plan = plan_of(settings, model=self.section, task=task, adapter=self._adapter)
        if (plan.task.head, plan.task.num_labels) != (self.head, self.num_labels):
            raise UsageError(
                f"This {type(self).__name__} ends in {self.head}, task {plan.task.type} needs {plan.task.head}.",
                "Fit it to that task first.",
            )
        self._take(data.tokenizer, plan.task)
        return measure(module, data, plan, batch_size=batch_size)

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

        Of an encoder-decoder, `prompt` is the source, and what comes is the target alone. The same arguments give the same text
        on the same machine. Of a prompt longer than the model's context, it sees the end; of a source, the beginning.

        Args:
            temperature: 0 takes the likeliest token; else one is drawn, the more evenly the higher it is.
            top_k: draw from so many of the likeliest; by default from all.

        Raises:
            UsageError: a setting is out of range, or the model has no weights or no tokenizer.
        """
        from llmasos.generation import WRITING, Sampling, continue_text, write_target

        sampling = Sampling(temperature, top_k, seed)
        module, tokenizer = self.module, self._tokenizer("generate text")
        if self.head not in WRITING:
            raise UsageError(f"This {type(self).__name__} ends in {self.head}, which writes no text.")
        module.train(False)
        if self.head == "causal-lm":
            return continue_text(module, tokenizer, prompt, max_new_tokens=max_new_tokens, sampling=sampling)
        source = (self.task.prefix if isinstance(self.task, Seq2Seq) else "") + prompt
        return write_target(module, tokenizer, source, max_new_tokens=max_new_tokens, sampling=sampling)

    def classify(self, text: str, text_pair: str | None = None) -> dict[str, float]:
        """The probability of each label of the task that the model was fitted to, the likeliest first.

        Raises:
            UsageError: it was fitted to another task.
        """
        from llmasos.language_model.using import label_of

        task = self._fitted_to(SequenceClassification)
        texts = (text,) if text_pair is None else (text, text_pair)
        return label_of(self.module.train(False), self._tokenizer("classify"), task, self._longest(), texts)

    def answer(self, question: str, context: str) -> str:
        """The likeliest answer that stands in `context`, word for word; empty where the model finds none.

        Raises:
            UsageError: it was fitted to another task than question-answering.
        """
        from llmasos.language_model.using import answer_to

        task = self._fitted_to(QuestionAnswering)
        tokenizer = self._tokenizer("answer")
        return answer_to(self.module.train(False), tokenizer, task, self._longest(), question, context)

    def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        max_new_tokens: int = 100,
        temperature: float = 0.8,
        top_k: int | None = None,
        seed: int = 0,
    ) -> str:
        """What the assistant says next.

        Args:
            messages: [{"role": "user", "content": "…"}, …], roles system, user and assistant.
            max_new_tokens, temperature, top_k, seed: as generate_text.

        Raises:
            UsageError: it was fitted to another task than instruction, or a message is none.
        """
        from llmasos.generation import Sampling, continue_ids
        from llmasos.language_model.using import turn_ids

        task, tokenizer = self._fitted_to(Instruction), self._tokenizer("chat")
        ids, end = turn_ids(tokenizer, task, messages)
        sampling, module = Sampling(temperature, top_k, seed), self.module.train(False)
        return continue_ids(module, tokenizer, ids, end, max_new_tokens=max_new_tokens, sampling=sampling)

    def add_adapter(self, adapter: Adapter) -> None:
        """Put an adapter beside the weights, which stay as they are from now on: fits train it alone (and a new head).

        Args:
            adapter: llmasos.adapters.LoRA(r=8, lora_alpha=16).

        Raises:
            UsageError: the model has no weights, or has an adapter already.
            InvalidConfiguration: the adapter names layers that the model has not.
            MissingExtra: peft is not installed.
        """
        import torch

        from llmasos.models.adapters import add_adapter

        if self._adapter is not None:
            raise UsageError("The model has an adapter already.", "Save it, merged, and load it to add another.")
        if unknown := getattr(adapter, "unknown", lambda model: ())(self.section):
            raise InvalidConfiguration(
                f"target_modules names {', '.join(unknown)}; the linear layers are {', '.join(self.section.linear_layers)}."
            )
        with torch.random.fork_rng(devices=[]):
            add_adapter(self.module, self.section, adapter, seed=self.seed, head=self.head)
        self._adapter, self._progress = adapter, None

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
        progress = self._progress if optimizer and self._adapter is None else None
        storing.write(folder, self._card(), module, tokenizer, progress)
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
        from llmasos.models.pretrained import fill_from_folder

        stored = storing.read(Path(path))
        kind = families.kind_of(stored)
        if not issubclass(kind, cls):
            raise UsageError(
                f"{path} holds a {kind.__name__}, expected a {cls.__name__}.",
                f"Load it with llmasos.models.{kind.__name__}.load, or llmasos.models.load, which finds out.",
            )
        model = kind.__new__(kind)
        LanguageModel.__init__(model, stored.section, vocab_size=stored.vocab_size)
        model.head, model.num_labels, model.task = stored.head, stored.num_labels, stored.card.task
        model.tokenizer = stored.tokenizer
        fill_from_folder(model.module, model.section, stored.folder)
        model.module.train(False)
        model._progress = stored.progress
        return model

    @classmethod
    def from_pretrained(cls: type[Self], path: str | Path) -> Self:
        """`load` under transformers' name. A path, not the name of a model in a hub: nothing is fetched."""
        return cls.load(path)

    # --- inside ---------------------------------------------------------------------------------------------------------

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
        return min(self.context_tokens, LONGEST_UNNAMED)

    def _card(self) -> Card:
        from llmasos.language_model.storing import Card

        return Card(
            kind=type(self).__name__, model=self.section, head=self.head, num_labels=self.num_labels, task=self.task
        )

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


def _task_of(data: Split, loss: Loss | None, default: str | Task) -> dict[str, Any]:
    """The fields of a plan's `task`: the data's if they were loaded for one, else the loss's.

    Raises:
        UsageError: the loss is for another task than the data.
    """
    general = default if isinstance(default, str) else default.type
    asked = dict((loss or CrossEntropyLoss()).task(general))
    if data.task is None:
        return default.model_dump(mode="json") if not isinstance(default, str) and asked == {"type": general} else asked
    if asked["type"] not in (general, data.task.type):
        raise UsageError(
            f"The data were loaded for task {data.task.type}, the loss is for {asked['type']}.",
            "Leave the loss out, or load the data for its task.",
        )
    return data.task.model_dump(mode="json")


def _steps_an_epoch(data: Split, plan: Plan) -> int:
    """Steps in which as many tokens are trained on as the split's text has, or as many rows as its records became.

    Raises:
        TooLittleData: there is less than one sequence, or nothing to learn in any record.
    """
    found, local = data.written(plan), plan.local
    if plan.task.field_names:
        if not found.rows:
            raise TooLittleData(
                f"None of the {len(data):,} records of the split {data.name} of {data.source} holds anything to learn for "
                f"task {plan.task.type} within a sequence_length of {local.sequence_length:,}.",
                "Give fit a longer sequence_length, or more records.",
            )
        return math.ceil(found.rows / local.batch_size)
    if found.tokens <= local.sequence_length:
        raise TooLittleData(
            f"The split {data.name} of {data.source} holds {found.tokens:,} tokens, one sequence needs "
            f"{local.sequence_length + 1:,}.",
            "Give fit a smaller sequence_length, or more text.",
        )
    return math.ceil(found.tokens / (local.batch_size * local.sequence_length))


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
