"""What a model writes after prompts, scored against references: BLEU, chrF, ROUGE, exact match.

{"prompt": "en: the house\nde:", "reference": "das Haus"}              a line each; `source` is as good as `prompt`
{"source": "Where is Rome?", "reference": ["Italy", "in Italy"]}       several references, as many on each line
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import StorageFailure, UnreadableData, UsageError
from llmasos.evaluation.metrics import Squad, squad
from llmasos.evaluation.overlap import BleuTokenizer, CorpusScore, Rouge, bleu, chrf, rouge
from llmasos.extras import require_extra, require_train
from llmasos.tokenizers import end_of_document_id, load

PROMPTS = ("prompt", "source")


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt, and what could rightly follow it."""

    prompt: str
    references: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WritingOptions:
    """How text is written: the likeliest token each time, up to the end of a document or `max_new_tokens`."""

    max_new_tokens: int = 64
    first_line: bool = False
    """Only the first line of what is written counts, as where prompts show examples, a line each."""
    bleu_tokenizer: BleuTokenizer = "13a"
    threads: int = 1


@dataclass(frozen=True, slots=True)
class ReferenceScores:
    """Scores of all examples; `texts` is what was written, in their order."""

    examples: int
    bleu: CorpusScore
    chrf: CorpusScore
    rouge: Rouge
    answers: Squad
    texts: tuple[str, ...]


def read_examples(path: Path) -> list[Example]:
    """
    Raises:
        StorageFailure: the file cannot be read.
        UnreadableData: a line is no object with a prompt and a reference, or has more or fewer references than the first.
        UsageError: the file holds no example.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as err:
        raise StorageFailure(f"{path} could not be read: {err.strerror or err}.") from err
    except UnicodeDecodeError as err:
        raise UnreadableData(f"{path} is not UTF-8 text.") from err
    found = [_example(line, f"{path}:{number}") for number, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise UsageError(f"{path} holds no example.", 'Each line is {"prompt": TEXT, "reference": TEXT}.')
    for place, example in enumerate(found, start=1):
        if len(example.references) != len(found[0].references):
            raise UnreadableData(
                f"{path}: example {place} has {len(example.references)} references, the first {len(found[0].references)}."
            )
    return found


def score_texts(
    texts: Sequence[str], examples: Sequence[Example], *, tokenize: BleuTokenizer = "13a"
) -> ReferenceScores:
    """Scores of texts that exist already, one an example.

    Raises:
        UsageError: not as many texts as examples, or none.
        MissingExtra: sacrebleu is not installed.
    """
    references = [example.references for example in examples]
    return ReferenceScores(
        len(examples),
        bleu(texts, references, tokenize=tokenize),
        chrf(texts, references),
        rouge(texts, references),
        squad(texts, references),
        tuple(texts),
    )


def evaluate_references(
    model_dir: Path,
    examples: Sequence[Example],
    options: WritingOptions | None = None,
    *,
    on_text: Callable[[int], None] = lambda done: None,
) -> ReferenceScores:
    """Let the model in `model_dir` go on after each prompt, and score what it writes; `on_text` hears how many are done.

    Raises:
        UsageError: no such model, no example, or a setting out of range.
        MissingExtra: torch, transformers, tokenizers or sacrebleu is not installed.
    """
    require_train("torch", "transformers", "tokenizers", task="evaluate a model")
    require_extra("evaluate", "sacrebleu", task="compare with references")
    options = options or WritingOptions()
    if options.max_new_tokens < 1:
        raise UsageError(f"max_new_tokens is {options.max_new_tokens}, expected 1 or more.")
    write = _writer(model_dir, options)
    texts = []
    for example in examples:
        texts.append(write(example.prompt))
        on_text(len(texts))
    return score_texts(texts, examples, tokenize=options.bleu_tokenizer)


def _writer(model_dir: Path, options: WritingOptions) -> Callable[[str], str]:
    """What the model writes after a prompt, or for a source, without white space around it."""
    from llmasos.generation import SEQ2SEQ_LM, WRITING, Sampling, continue_ids, head_in, load_module, write_target
    from llmasos.training.device import set_up

    head = head_in(model_dir)
    if head not in WRITING:
        raise UsageError(
            f"{model_dir} holds a model that ends in {head}, which writes no text to compare with references."
        )
    set_up(options.threads, allow_cuda=False)
    model, tokenizer = load_module(model_dir, head), load(model_dir / "tokenizer.json")
    end, likeliest, most = end_of_document_id(tokenizer), Sampling(temperature=0), options.max_new_tokens

    def write(prompt: str) -> str:
        if head == SEQ2SEQ_LM:
            text = write_target(model, tokenizer, prompt, max_new_tokens=most, sampling=likeliest)
        else:
            ids = tokenizer.encode(prompt, add_special_tokens=False).ids or [end]
            text = continue_ids(model, tokenizer, ids, end, max_new_tokens=most, sampling=likeliest)
        text = text.strip()
        return text.split("\n", 1)[0].strip() if options.first_line else text

    return write


def _example(line: str, place: str) -> Example:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        # Without its cause: the decoder's error carries the line itself.
        raise UnreadableData(f"{place} is not a line of JSON.") from None
    if not isinstance(record, dict):
        raise UnreadableData(f"{place} is not a JSON object.")
    prompts = [record[name] for name in PROMPTS if name in record]
    if len(prompts) != 1 or not isinstance(prompts[0], str):
        raise UnreadableData(f"{place} has no text in `prompt` or `source`, or in both, expected one of them.")
    return Example(prompts[0], _references(record.get("reference"), place))


def _references(value: Any, place: str) -> tuple[str, ...]:
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list) or not given or not all(isinstance(one, str) for one in given):
        raise UnreadableData(f"{place} has no text and no list of texts in `reference`.")
    return tuple(given)
