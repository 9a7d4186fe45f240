"""Training and measuring, as a method of every model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from common.errors import UsageError
from llmasos.datasets.loading import Split
from llmasos.extras import require_train
from llmasos.language_model.asked import (
    check_optimizer,
    counted_text,
    split_of,
    steps_an_epoch,
    steps_of,
    task_of,
)
from llmasos.language_model.history import History, Row
from llmasos.language_model.planning import Settings, plan_of
from llmasos.language_model.weights import WithWeights
from llmasos.losses import Loss
from llmasos.optimizers import AdamW, Optimizer
from llmasos.training.tracking import LogTo, check_log_to, tracked

if TYPE_CHECKING:
    from llmasos.evaluation.measured import Evaluation
    from llmasos.language_model.fitting import Progress


class Trained(WithWeights):
    """A model that is trained on a split, and measured on one."""

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
        log_to: LogTo | None = None,
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
            log_to: where the history's rows go too: "tensorboard:DIR", "mlflow" or "mlflow:EXPERIMENT", "wandb" or
                "wandb:PROJECT", or a function as on_log. An open run of MLflow's or W&B's is used and stays open.

        Returns:
            The history: rows of step, tokens, loss (nats a target), learning rate, validation, seconds, tokens a second.

        Raises:
            UsageError: this model has another tokenizer, or fewer embeddings than the tokenizer has tokens.
            InvalidConfiguration: a setting is out of range; names it.
            TooLittleData: the split is empty, or shorter than a sequence.
            NonFiniteDelta: loss or gradient is no finite number any more: lower the learning rate.
            OutOfMemory: memory is too little for one sequence.
            MissingExtra: a package of the extra `train` is not installed, or what log_to needs.
            StorageFailure: TensorBoard's folder cannot be written.
        """
        require_train("torch", "transformers", "tokenizers", task="train a model")
        check_log_to(log_to)
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
        task = task_of(split_of(data, "fit"), loss, self.default_task)
        plan = plan_of(settings, model=self.section, task=task, adapter=self._adapter)
        check_optimizer(before, plan)
        for split in (data, *(() if validation is None else (split_of(validation, "fit's validation"),))):
            self._take(split.tokenizer, plan.task)
        an_epoch = steps_an_epoch(data, plan)
        total = steps_of(epochs, steps, an_epoch)
        plan = plan_of(replace(settings, steps=total), model=self.section, task=task, adapter=self._adapter)
        done = before.steps if before else 0
        bar = open_bar(total=total, done=done, what="fit", shown=progress_bar)
        telling = Telling(
            bar,
            logging_steps=logging_steps or max(1, total // ROWS),
            eval_steps=eval_steps or (an_epoch if steps is None else total),
            validation=validation,
        )
        settled = plan.model_dump(mode="json", include={"seed", "task", "model", "adapter", "local"})
        with machine_for(device) as machine, tracked(log_to, settled) as log:
            telling = replace(telling, on_log=tuple(one for one in (on_log, log) if one is not None))
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
            _say_interrupted(self._progress.steps, total)
        return fit.history

    def evaluate(
        self,
        data: Split,
        loss: Loss | None = None,
        *,
        batch_size: int = 8,
        sequence_length: int | None = None,
        ngram: Split | bool = False,
        texts: int = 0,
        seed: int = 0,
    ) -> Evaluation:
        """Measure the model on all of a split, in float32, on the device that it is on; as `llmasos evaluate` does.

        Text is predicted document by document, each from its beginning to its end (docs/sdk-evaluation.md).

        Args:
            data: `data.validation`, or `data.test` at the end.
            loss: as `fit`.
            batch_size: sequences at once.
            sequence_length: tokens that a prediction sees at most; by default as in fit.
            ngram: beside a causal language model, what counting reaches on the same tokens: of a split, `data.train` for a fair
                comparison; or True, of other parts of `data`.
            texts: of a seq2seq split, write so many targets and score them by BLEU, chrF and ROUGE; 0 writes none.
            seed: of the confidence intervals.

        Returns:
            loss (nats a target), perplexity, bits_per_byte, accuracy (0 to 1), tokens, seconds, tokens_per_second; scores, the
            task's own: macro_f1 and micro_f1 of labels, exact_match and f1 of answers, bleu, chrf and rouge_l of targets;
            languages and intervals.

        Raises:
            UsageError: it has no weights, or another tokenizer.
            InvalidConfiguration: a setting is out of range.
            TooLittleData: the split is empty.
            WorkerFailed: a loss is no finite number.
            MissingExtra: targets are to be written, and sacrebleu, which scores them, is not installed.
        """
        require_train("torch", "transformers", "tokenizers", task="measure a model")
        from llmasos.evaluation.answers import Writing
        from llmasos.evaluation.measure import MeasureOptions, measure

        module = self.module
        task = task_of(split_of(data, "evaluate"), loss, self.task or self.default_task)
        length = sequence_length or self._longest()
        settings = Settings(steps=1, batch_size=batch_size, sequence_length=length, optimizer=AdamW().section())
        plan = plan_of(settings, model=self.section, task=task, adapter=self._adapter)
        if (plan.task.head, plan.task.num_labels) != (self.head, self.num_labels):
            raise UsageError(
                f"This {type(self).__name__} ends in {self.head}, task {plan.task.type} needs {plan.task.head}.",
                "Fit it to that task first.",
            )
        self._take(data.tokenizer, plan.task)
        counted, writing = counted_text(ngram, plan.task), Writing(texts)
        return measure(module, data, plan, MeasureOptions(batch_size, seed, counted, writing))

    def _start(self, resume: bool) -> Progress | None:
        """Where to go on; None at the beginning."""
        if not resume:
            return None
        if self._progress is None:
            raise UsageError("There is no fit to resume: this model was not fitted, or saved without its optimizer.")
        return self._progress


def _say_interrupted(steps: int, total: int) -> None:
    print(
        f"Stopped by Ctrl-C after step {steps:,} of {total:,}: the model can be used as it is, and fit(…, resume=True) goes on "
        "from here.",
        file=sys.stderr,
    )
