"""What tasks make of records: marks, padding, cutting, and one sentence where a record is of no use."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from common.errors import TooLittleData, UnreadableData, UsageError
from llmasos.tasks.encoding import NO_LABEL, pair_lengths
from llmasos.tokenizers import bytes_tokenizer, load
from llmasos.tokenizers.special import add_special, check_special, vocabulary_of
from tests.support.records import write_records

pytestmark = pytest.mark.torch

END, PAD, CLS, SEP = 256, 257, 258, 259
"""As they stand after the bytes and the end of a document."""
Make = Callable[..., Any]


def rows(one: Any) -> list[dict[str, list[int]]]:
    data = [one.corpus.train, one.corpus.held_out]
    found = [side._row(index, None) for side in data for index in range(side.file.count)]
    return [{name: values[0].tolist() for name, values in row.items()} for row in found]


def a_folder(root: Path, records: list[dict[str, Any]]) -> Path:
    (root / "data").mkdir()
    write_records(root / "data" / "a.jsonl", records)
    return root / "data"


def test_special_tokens_come_after_the_others_and_causal_vocabularies_stay() -> None:
    plain, tokenizer = bytes_tokenizer(), bytes_tokenizer()
    add_special(tokenizer, ())
    assert tokenizer.to_str() == plain.to_str()
    add_special(tokenizer, ("[PAD]", "[CLS]", "[SEP]"))
    add_special(tokenizer, ("[PAD]",))
    words = vocabulary_of(tokenizer)
    assert (words.size, words.end, words.pad, words.cls, words.sep, words.mask) == (260, END, PAD, CLS, SEP, END)
    assert words.ordinary.tolist() == list(range(256))
    assert tokenizer.encode("[PAD]", add_special_tokens=False).ids == list(b"[PAD]")


def test_a_given_tokenizer_without_a_special_token_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        check_special(bytes_tokenizer(), ("[CLS]", "[SEP]"), where="bert.json", task="masked-lm")
    assert caught.value.message == "bert.json has no token [CLS], [SEP], which task masked-lm needs."


def test_a_pair_is_a_source_and_a_target_one_step_behind_its_labels(tmp_path: Path, learner: Make) -> None:
    folder = a_folder(tmp_path, [{"source": "ab", "target": "xyz"}] * 2 + [{"source": "c", "target": "z"}])
    one = learner(folder, {"type": "seq2seq", "prefix": "> "}, local={"sequence_length": 8})
    row = next(row for row in rows(one) if row["labels"][0] == ord("x"))
    assert row["input_ids"] == [*b"> ab", END, PAD, PAD, PAD]
    assert row["attention_mask"] == [1] * 5 + [0] * 3
    assert row["labels"] == [*b"xyz", END] + [NO_LABEL] * 4
    assert row["decoder_input_ids"] == [PAD, *b"xyz"] + [PAD] * 4
    assert one.corpus.facts.shortened == 0


def test_what_is_too_long_is_cut_at_its_end_and_counted(tmp_path: Path, learner: Make) -> None:
    records = [{"source": "abcdefghij", "target": "x"}, {"source": "abcdefg", "target": "0123456789"}] * 2
    one = learner(a_folder(tmp_path, records), {"type": "seq2seq"}, local={"sequence_length": 8})
    assert one.corpus.facts.shortened == 4
    assert {tuple(row["input_ids"]) for row in rows(one)} == {(*b"abcdefg", END)}
    assert (*b"0123456", END) in {tuple(row["labels"]) for row in rows(one)}


def test_a_text_is_between_its_marks_and_a_pair_has_two_types(tmp_path: Path, learner: Make) -> None:
    task = {"type": "sequence-classification", "labels": ["no", "1"], "text_pair": "b"}
    folder = a_folder(tmp_path, [{"text": "abc", "b": "xy", "label": label} for label in ("no", 1, 1)])
    one = learner(folder, task, local={"sequence_length": 10})
    found = rows(one)
    assert {tuple(row["input_ids"]) for row in found} == {(CLS, *b"abc", SEP, *b"xy", SEP, PAD, PAD)}
    assert found[0]["token_type_ids"] == [0] * 5 + [1] * 3 + [0] * 2
    assert sorted(row["labels"] for row in found) == [0, 1, 1]


@pytest.mark.parametrize(
    ("lengths", "kept"),
    [((3, 4), (3, 4)), ((9, 4), (6, 4)), ((4, 9), (4, 6)), ((9, 9), (5, 5)), ((100, 0), (10, 0)), ((2, 50), (2, 8))],
)
def test_of_a_pair_the_longer_text_is_cut_first(lengths: tuple[int, int], kept: tuple[int, int]) -> None:
    assert pair_lengths(*lengths, 10) == kept


def test_an_unknown_label_is_told_by_file_and_line(tmp_path: Path, learner: Make) -> None:
    folder = a_folder(tmp_path, [{"text": "a", "label": "yes"}, {"text": "b", "label": "perhaps"}])
    with pytest.raises(UnreadableData) as caught:
        learner(folder, {"type": "sequence-classification", "labels": ["yes", "no"]})
    assert caught.value.message == (
        f"{folder}/a.jsonl:2 has a label in field 'label' that is none of the plan's 2: yes, no."
    )


def test_records_with_an_empty_field_are_passed_over(tmp_path: Path, learner: Make) -> None:
    whole, empty = {"source": "a", "target": "b"}, {"source": " ", "target": "b"}
    one = learner(a_folder(tmp_path, [whole] * 4 + [empty, {"source": "a", "target": None}]), {"type": "seq2seq"})
    facts = one.corpus.facts
    assert (facts.documents, facts.train_rows + facts.held_out_rows, facts.left_out) == (4, 4, 0)


def test_records_that_are_all_empty_are_no_data(tmp_path: Path, learner: Make) -> None:
    with pytest.raises(TooLittleData, match="data holds no text: 0 documents"):
        learner(a_folder(tmp_path, [{"source": "a", "target": ""}] * 3), {"type": "seq2seq"})


def test_one_record_alone_cannot_be_split(tmp_path: Path, learner: Make) -> None:
    with pytest.raises(TooLittleData, match="holds a single unit"):
        learner(a_folder(tmp_path, [{"source": "a", "target": "b"}]), {"type": "seq2seq"})


def test_no_unit_is_on_both_sides(tmp_path: Path, learner: Make) -> None:
    from llmasos.training.corpus import Source, prepare_corpus
    from tests.support.tasks import a_task_plan, tokenizer_for

    records = [{"source": f"s{n}", "target": f"t{n // 3}", "patient": n // 3} for n in range(60)]
    plan = a_task_plan({"type": "seq2seq"})
    source = Source(a_folder(tmp_path, records), unit_field="patient")
    tokenizer = tokenizer_for(plan, tmp_path / "t.json")
    with prepare_corpus([source], tokenizer, tmp_path / "tokens", plan) as corpus:
        sides: list[Any] = [corpus.train, corpus.held_out]
        seen = [{tuple(side.file.read(i)[1].tolist()) for i in range(side.file.count)} for side in sides]
    assert all(seen)
    assert not seen[0] & seen[1]


def test_damaged_rows_are_made_again_and_another_plan_makes_others(tmp_path: Path, learner: Make) -> None:
    folder = a_folder(tmp_path, [{"source": f"s{n}", "target": "t"} for n in range(9)])
    before = learner(folder, {"type": "seq2seq"})
    os.truncate(before.corpus.train.path, 30)
    after = learner(folder, {"type": "seq2seq"})
    assert after.corpus.facts == before.corpus.facts
    assert after.draw(0)["input_ids"].shape == (4, 32)
    learner(folder, {"type": "seq2seq", "prefix": "x"})
    learner(folder, {"type": "seq2seq"}, local={"sequence_length": 16})
    assert len(list((tmp_path / "tokens").iterdir())) == 3
    assert load(after.tokenizer).get_vocab_size() == 258
