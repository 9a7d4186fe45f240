"""A model folder measured on a folder of text: what `llmasos evaluate` prints.

found = evaluate(Path("out/demo/model"), Path("held-out"))
found.whole.model.bits_per_byte, found.whole.ngram.bits_per_byte, found.bits_per_byte_interval
found.languages["de"].model.word_perplexity
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from common.errors import UsageError
from llmasos.evaluation.bootstrap import Interval, interval_of_ratio
from llmasos.evaluation.counted import Counting, count_crossed, count_other
from llmasos.evaluation.documents import TextSource, Window, read_source, sampled, windows_of
from llmasos.evaluation.metrics import Likelihood, exp_or_inf, likelihood
from llmasos.evaluation.ngram import Floats
from llmasos.extras import require_train
from llmasos.models.prompts import virtual_tokens
from llmasos.tokenizers import load, vocab_size_of

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

    from llmasos.evaluation.predicting import Predicted

FEW_DOCUMENTS = 10
"""Of fewer, intervals draw windows instead."""


@dataclass(frozen=True, slots=True)
class EvaluationOptions:
    """How text is measured."""

    text_column: str | None = None
    language_field: str | None = None
    """Field of .jsonl and .csv files; else the first folder in a file's path is its language."""
    sequence_length: int | None = None
    """Tokens a window; at most, and by default, the model's context."""
    max_tokens: int | None = None
    """Measure only documents with about so many tokens, drawn by `seed`."""
    batch_size: int = 16
    seed: int = 0
    threads: int = 1
    ngram: bool = True
    ngram_text: Path | None = None
    """Text for the n-gram model to count; without it, other parts of the measured text."""


@dataclass(frozen=True, slots=True)
class Scores:
    """One language's, or those of all text. `accuracy` is the share of tokens that the model held likeliest."""

    documents: int
    model: Likelihood
    accuracy: float
    ngram: Likelihood | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was measured. Intervals are None where there is a single unit to draw."""

    whole: Scores
    languages: Mapping[str, Scores]
    """By name; one entry, `all`, where documents name no language."""
    perplexity_interval: Interval | None
    bits_per_byte_interval: Interval | None
    accuracy_interval: Interval | None
    interval_unit: str
    """What the intervals draw anew: documents, or windows of few documents."""
    ngram_order: int | None
    ngram_tokens: int | None
    ngram_text: str | None
    """What was counted; None, as the two before, where there was too little of it."""
    tokens_per_second: float
    sequence_length: int
    device: str


def evaluate(model_dir: Path, data: Path, options: EvaluationOptions | None = None) -> Evaluation:
    """Measure the causal language model in `model_dir`, in Hugging Face layout, on all documents of `data`.

    Raises:
        UsageError: no such model or folder, or a setting out of range.
        TooLittleData, UnreadableData, StorageFailure: about the text.
        WorkerFailed: the model's loss is not finite.
        MissingExtra: torch, transformers or tokenizers are not installed.
    """
    require_train("torch", "transformers", "tokenizers", task="evaluate a model")
    from llmasos.generation import load_module
    from llmasos.training.device import set_up

    options = options or EvaluationOptions()
    machine = set_up(options.threads)
    model: Any = load_module(model_dir)
    tokenizer = load(model_dir / "tokenizer.json")
    source = TextSource(data, options.text_column, options.language_field)
    model.to(machine.device)
    return measure(model, tokenizer, source, options)


def measure(model: torch.nn.Module, tokenizer: Tokenizer, source: TextSource, options: EvaluationOptions) -> Evaluation:
    """As `evaluate`, of a loaded model with its tokenizer, on the device where it lies."""
    from llmasos.evaluation.predicting import predict

    length = _window_length(model, tokenizer, options)
    vocab_size = vocab_size_of(tokenizer)
    documents = sampled(read_source(source), tokenizer, options.max_tokens, options.seed)
    windows = list(windows_of(documents, tokenizer, length))
    found = predict(model, windows, vocab_size=vocab_size, batch_size=options.batch_size)
    counting = _count(windows, tokenizer, options) if options.ngram else None
    everywhere = list(range(len(windows)))
    by_language = {
        name: _scores(windows, [index for index in everywhere if windows[index].language == name], found, counting)
        for name in sorted({window.language for window in windows})
    }
    whole = _scores(windows, everywhere, found, counting)
    few = len(documents) < FEW_DOCUMENTS
    perplexity, bits, accuracy = _intervals(windows, found, by_windows=few, seed=options.seed)
    return Evaluation(
        whole=whole,
        languages=by_language,
        perplexity_interval=perplexity,
        bits_per_byte_interval=bits,
        accuracy_interval=accuracy,
        interval_unit="windows" if few else "documents",
        ngram_order=counting.order if counting else None,
        ngram_tokens=counting.num_tokens if counting else None,
        ngram_text=_counted_text(counting, options),
        tokens_per_second=whole.model.tokens / max(found.seconds, 1e-9),
        sequence_length=length,
        device=str(next(model.parameters()).device.type),
    )


def _window_length(model: torch.nn.Module, tokenizer: Tokenizer, options: EvaluationOptions) -> int:
    config: Any = model.config
    context, rows = int(config.max_position_embeddings) - virtual_tokens(model), int(config.vocab_size)
    if vocab_size_of(tokenizer) > rows:
        raise UsageError(
            f"The tokenizer has {vocab_size_of(tokenizer)} tokens, the model's embedding {rows}.",
            "Name a folder whose tokenizer.json is the one that the model was trained with.",
        )
    length = context if options.sequence_length is None else options.sequence_length
    if not 1 <= length <= context:
        raise UsageError(f"sequence_length is {length}, expected 1 to {context}, the model's context.")
    if options.batch_size < 1:
        raise UsageError(f"batch_size is {options.batch_size}, expected 1 or more.")
    return length


def _count(windows: Sequence[Window], tokenizer: Tokenizer, options: EvaluationOptions) -> Counting | None:
    vocab_size = vocab_size_of(tokenizer)
    if options.ngram_text is None:
        return count_crossed(windows, vocab_size)
    documents = read_source(TextSource(options.ngram_text, options.text_column))
    return count_other(windows, documents, tokenizer, vocab_size)


def _counted_text(counting: Counting | None, options: EvaluationOptions) -> str | None:
    if counting is None:
        return None
    return "the other four fifths of the same text" if counting.crossed else str(options.ngram_text)


def _scores(windows: Sequence[Window], chosen: list[int], found: Predicted, counting: Counting | None) -> Scores:
    own = [windows[index] for index in chosen]
    tokens = sum(len(window.tokens) - 1 for window in own)
    return Scores(
        documents=len({window.document for window in own}),
        model=_likelihood(own, found.nats[chosen]),
        accuracy=float(found.hits[chosen].sum()) / tokens,
        ngram=None if counting is None else _likelihood(own, counting.nats[chosen]),
    )


def _likelihood(windows: Sequence[Window], nats: Floats) -> Likelihood:
    return likelihood(
        nats=math.fsum(nats),
        tokens=sum(len(window.tokens) - 1 for window in windows),
        words=sum(window.words for window in windows),
        text_bytes=sum(window.text_bytes for window in windows),
    )


def _intervals(
    windows: Sequence[Window], found: Predicted, *, by_windows: bool, seed: int
) -> tuple[Interval | None, Interval | None, Interval | None]:
    """Of perplexity a token, bits a byte, and accuracy."""
    unit = np.arange(len(windows)) if by_windows else np.asarray([window.document for window in windows])

    def by_unit(values: Iterable[float]) -> Floats:
        return np.asarray(np.bincount(unit, weights=np.fromiter(values, np.float64)), np.float64)

    tokens = by_unit(len(window.tokens) - 1 for window in windows)
    text_bytes = by_unit(window.text_bytes for window in windows)
    nats, hits = by_unit(found.nats), by_unit(found.hits)
    loss = interval_of_ratio(nats, tokens, seed=seed)
    bits = interval_of_ratio(nats / math.log(2), text_bytes, seed=seed)
    perplexity = Interval(exp_or_inf(loss.low), exp_or_inf(loss.high), loss.confidence, loss.samples) if loss else None
    return perplexity, bits, interval_of_ratio(hits, tokens, seed=seed)
