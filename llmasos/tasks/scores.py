"""What a model gets right, in a task's own measures: for people beside the loss, by which tasks are trained and compared.

scores(plan.task, model, corpus.held_out_rows(), tokenizer)      # {"accuracy": 0.91, "macro_f1": 0.88, …}
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import torch

from common.errors import UsageError
from common.plan.tasks import (
    CausalLM,
    Mixture,
    Plugin,
    Preference,
    QuestionAnswering,
    Seq2Seq,
    SequenceClassification,
    Task,
)
from llmasos.evaluation.metrics import accuracy, f1, squad
from llmasos.tasks.base import Batch, Tensors, stacked, tensors_of
from llmasos.tasks.causal_lm import TOKENS
from llmasos.tasks.encoding import INPUTS, LABELS, NO_LABEL, seen
from llmasos.tasks.preference import margins
from llmasos.tasks.question_answering import END, START, span_logits
from llmasos.tasks.seq2seq import DECODER

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def scores(
    task: Task, model: torch.nn.Module, rows: Iterable[Batch], tokenizer: Tokenizer, *, batch_size: int = 8
) -> dict[str, float]:
    """Measure `model`, in evaluation mode, on all rows. Shares of 1:

        sequence-classification   accuracy, macro_f1, micro_f1 (which is accuracy where each text has one label)
        question-answering        exact_match, f1: of each row's likeliest span, as SQuAD compares texts
        preference                accuracy: the better answer gained more on the reference than the worse one
        others                    accuracy: of the tokens to predict, those that are likeliest; a target's given those before it

    Args:
        rows: batches of one row each.

    Raises:
        UsageError: no rows, or a mixture or a plugin, which have no measures of their own.
    """
    if isinstance(task, Mixture | Plugin):
        raise UsageError(f"Task {task.type} has no scores of its own.", "Measure its loss, or one of its tasks.")
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    with torch.no_grad():
        found = [tensors_of(batch, device) for batch in stacked(rows, batch_size)]
        pairs = [pair for batch in found for pair in _answers(task, model, batch)]
    model.train(was_training)
    said, wanted = [one for one, _ in pairs], [other for _, other in pairs]
    if isinstance(task, QuestionAnswering):
        texts = [[tokenizer.decode([*ids]) for ids in side if isinstance(ids, tuple)] for side in (said, wanted)]
        answers = squad(texts[0], [[text] for text in texts[1]])
        return {"exact_match": answers.exact_match, "f1": answers.f1}
    share = accuracy(said, wanted)
    result = {"accuracy": share.correct / share.total}
    if isinstance(task, SequenceClassification):
        labels = f1(said, wanted)
        result |= {"macro_f1": labels.macro, "micro_f1": labels.micro}
    return result


Answer = int | tuple[int, ...]


def _answers(task: Task, model: torch.nn.Module, batch: Tensors) -> Iterator[tuple[Answer, Answer]]:
    """What the model says and what was wanted, of each target; of a question the tokens of the answer."""
    if isinstance(task, Preference):
        yield from ((int(margin > 0), 1) for margin in margins(model, batch).tolist())
    elif isinstance(task, QuestionAnswering):
        yield from _spans(model, batch)
    elif isinstance(task, SequenceClassification):
        yield from zip(model(**seen(model, batch)).logits.argmax(1).tolist(), batch[LABELS].tolist(), strict=True)
    else:
        logits_BLV, labels_BL = _token_logits(task, model, batch)
        wanted_BL = labels_BL != NO_LABEL
        yield from zip(logits_BLV.argmax(2)[wanted_BL].tolist(), labels_BL[wanted_BL].tolist(), strict=True)


def _token_logits(task: Task, model: torch.nn.Module, batch: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
    if isinstance(task, CausalLM):
        tokens_BT = batch[TOKENS]
        return model(input_ids=tokens_BT[:, :-1]).logits, tokens_BT[:, 1:]
    more = {DECODER: batch[DECODER]} if isinstance(task, Seq2Seq) else {}
    found = model(**seen(model, batch), **more)
    logits_BLV: torch.Tensor = found.prediction_logits if hasattr(found, "prediction_logits") else found.logits
    return logits_BLV, batch[LABELS]


def _spans(model: torch.nn.Module, batch: Tensors) -> Iterator[tuple[Answer, Answer]]:
    """The likeliest span of each row whose end is not before its beginning; at [CLS], no tokens: there is no answer."""
    starts_BL, ends_BL = span_logits(model, batch)
    lengths = ends_BL.shape[1]
    for row, ids in enumerate(batch[INPUTS].tolist()):
        together_LL = starts_BL[row][:, None] + ends_BL[row][None, :]
        allowed_LL = torch.ones_like(together_LL, dtype=torch.bool).triu()
        best = int(together_LL.masked_fill(~allowed_LL, -torch.inf).argmax())
        wanted = int(batch[START][row]), int(batch[END][row])
        said, right = ((begin, end) if begin else (1, 0) for begin, end in (divmod(best, lengths), wanted))
        yield tuple(ids[said[0] : said[1] + 1]), tuple(ids[right[0] : right[1] + 1])
