"""Training and measuring, as a method of every model."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from common.errors import UsageError
from llmasos.datasets.loading import Split
from llmasos.extras import require_train
from llmasos.language_model.asked import (
    Watched,
    check_optimizer,
    counted_text,
    optimizer_of,
    settings_of,
    split_of,
    steps_an_epoch,
    steps_of,
    task_of,
)
from llmasos.language_model.history import History
from llmasos.language_model.planning import Settings, plan_of
from llmasos.language_model.settings import LoggingSettings, TrainingSettings
from llmasos.language_model.weights import WithWeights
from llmasos.losses import Loss
from llmasos.optimizers import AdamW, Optimizer
from llmasos.training.tracking import check_log_to

if TYPE_CHECKING:
    from common.plan.model import Plan
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
        seed: int | None = None,
        resume: bool = False,
        progress_bar: bool | None = None,
        training: TrainingSettings | None = None,
        logging: LoggingSettings | None = None,
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
            validation: measured in full after each epoch, or as `logging` says, and at the end.
            seed: batches and dropout follow from it; by default the model's, and another in each further fit.
            resume: go on where the last fit was interrupted, or the loaded one was saved: same arguments, same bits.
            progress_bar: True or False; by default only in a terminal or notebook.
            training: schedule, clipping, micro-batches, precision, device; llmasos.TrainingSettings() by default.
            logging: how often the history gets a row and the validation is measured, and who is told; LoggingSettings().

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
        training, logging = settings_of(training, logging)
        check_log_to(*logging.all_logs)
        before = self._start(resume)
        settings = Settings(
            steps=1,
            batch_size=batch_size,
            sequence_length=sequence_length or self._longest(),
            optimizer=optimizer_of(optimizer).section(),
            seed=before.seed if before else (self.seed + self._fits) % 2**32 if seed is None else seed,
            training=training,
        )
        task = task_of(split_of(data, "fit"), loss, made_for=self.default_task)
        plan = plan_of(settings, model=self.section, task=task, adapter=self._adapter)
        check_optimizer(before, plan)
        for split in (data, *(() if validation is None else (split_of(validation, "fit's validation"),))):
            self._take(split.tokenizer, plan.task)
        an_epoch = steps_an_epoch(data, plan)
        settings = replace(settings, steps=steps_of(epochs, steps, an_epoch))
        plan = plan_of(settings, model=self.section, task=task, adapter=self._adapter)
        watched = Watched(validation, logging, settings.steps if steps is not None else an_epoch, progress_bar)
        return self._run(plan, data, settings, watched, before)

    def _run(self, plan: Plan, data: Split, settings: Settings, watched: Watched, before: Progress | None) -> History:
        """The steps of a plan, from where a fit ended before."""
        from llmasos.language_model.fitting import Fit, Progress, machine_for, telling

        total, start = settings.steps, before or Progress()
        with machine_for(settings.training.device) as machine, telling(watched, plan, total, start.steps) as told:
            self._progress = None  # a fit that fails leaves nothing to go on from
            fit = Fit(plan, self.module, machine, steps=total, telling=told)
            try:
                self._progress = fit.run(data, start)
            finally:
                self._fits += before is None
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
        task = task_of(split_of(data, "evaluate"), loss, made_for=self.default_task, fitted=self.task)
        length = sequence_length or self._longest()
        settings = Settings(steps=1, batch_size=batch_size, sequence_length=length, optimizer=AdamW().section())
        plan = plan_of(settings, model=self.section, task=task, adapter=self._adapter, who="evaluate")
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
            raise UsageError(
                "There is no fit to resume: this model was not fitted, or saved without its optimizer.",
                "Leave resume out: a fit trains on from the weights as they are.",
            )
        return self._progress


def _say_interrupted(steps: int, total: int) -> None:
    print(
        f"Stopped by Ctrl-C after step {steps:,} of {total:,}: the model can be used as it is, and fit(…, resume=True) goes on "
        "from here.",
        file=sys.stderr,
    )
