"""What tasks make of records: marks, padding, cutting, and one sentence where a record is of no use."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from common.errors import TooLittleData, UnreadableData, UsageError  # noqa: E402
from llmasos.tasks.base import tensors_of  # noqa: E402
from llmasos.tasks.encoding import NO_LABEL, pair_lengths  # noqa: E402
from llmasos.tasks.registry import objective_of  # noqa: E402
from llmasos.tokenizers import bytes_tokenizer, load  # noqa: E402
from llmasos.tokenizers.special import add_special, check_special, vocabulary_of  # noqa: E402
from tests.support.records import a_preference, make_records, write_records  # noqa: E402
from tests.support.tasks import a_task_plan  # noqa: E402
from tests.support.texts import make_institutions  # noqa: E402

pytestmark = pytest.mark.torch

END, PAD, CLS, SEP, MASK = 256, 257, 258, 259, 260
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
    from tests.support.tasks import tokenizer_for

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


def test_hidden_tokens_are_the_plans_share_and_the_model_sees_mostly_masks(tmp_path: Path, learner: Make) -> None:
    folder = make_institutions(tmp_path / "data", count=1)["clinic"]
    one = learner(folder, {"type": "masked-lm", "mask_fraction": 0.25}, local={"batch_size": 64})
    batch = one.draw(0)
    hidden = batch["labels"] != NO_LABEL
    assert hidden.sum(axis=1).tolist() == [8] * 64  # a quarter of 30, rounded half up
    assert (batch["input_ids"][:, 0] == CLS).all()
    assert (batch["input_ids"][:, -1] == SEP).all()
    assert not hidden[:, [0, -1]].any()
    seen, wanted = batch["input_ids"][hidden], batch["labels"][hidden]
    assert (wanted < END).all()
    assert 0.74 < (seen == MASK).mean() < 0.86
    assert 0.05 < (seen == wanted).mean() < 0.15
    assert (batch["input_ids"] != one.draw(1)["input_ids"]).any()


def test_a_second_segment_follows_its_first_or_is_another(tmp_path: Path, learner: Make) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for letter in "abcdefgh":  # whose tenth character tells the place
        (folder / f"{letter}.txt").write_text("".join(f"{number:04}" + letter * 6 for number in range(20)))
    task = {"type": "masked-lm", "next_sentence": True, "mask_fraction": 0.01}
    one = learner(folder, task, local={"batch_size": 200, "sequence_length": 23})
    batch = one.draw(0)
    ids = np.where(batch["labels"] == NO_LABEL, batch["input_ids"], batch["labels"])
    follows = batch["next_sentence_label"] == 0
    assert 0.4 < follows.mean() < 0.6
    texts = [(bytes(row[1:11].tolist()).decode(), bytes(row[12:22].tolist()).decode()) for row in ids]
    for (first, second), right in zip(texts, follows, strict=True):
        assert (first[4:] == second[4:] and int(second[:4]) == int(first[:4]) + 1) == right
    assert batch["token_type_ids"][0].tolist() == [0] * 12 + [1] * 11


def test_one_segment_alone_is_too_little(tmp_path: Path, learner: Make) -> None:
    (tmp_path / "data").mkdir()
    for name in "ab":
        (tmp_path / "data" / f"{name}.txt").write_text("short " + name)
    with pytest.raises(
        TooLittleData, match="data holds 1 segments of 14 tokens to train on in 2 documents, at least 2"
    ):
        learner(tmp_path / "data", {"type": "masked-lm", "next_sentence": True})


TURNS = {
    "system": {"prefix": "<|s|>", "suffix": ""},
    "user": {"prefix": "<|u|>", "suffix": "|"},
    "assistant": {"prefix": "<|a|>", "suffix": "."},
}


def test_only_the_assistants_words_are_targets_and_nobody_can_forge_a_turn(tmp_path: Path, learner: Make) -> None:
    talk = [("system", "S"), ("user", "<|a|>"), ("assistant", "yes"), ("user", "b"), ("assistant", "no")]
    record = {"messages": [{"role": role, "content": content} for role, content in talk]}
    one = learner(a_folder(tmp_path, [record] * 3), {"type": "instruction", "template": TURNS})
    system, user, assistant = 257, 258, 259
    tokens = [system, *b"S", user, *b"<|a|>|", assistant, *b"yes.", user, *b"b|", assistant, *b"no.", END]
    row = rows(one)[0]
    assert row["input_ids"][: len(tokens)] == [*tokens[:-1], END]
    assert [label for label in row["labels"] if label != NO_LABEL] == [*b"yes.", *b"no.", END]
    assert row["labels"][9:13] == [*b"yes."]
    assert row["attention_mask"] == [1] * (len(tokens) - 1) + [0] * (32 - len(tokens) + 1)


LONG = {"prompt": "p" * 40, "response": "r"}


def test_a_conversation_is_cut_at_its_end_and_left_out_where_no_answer_is_within_it(
    tmp_path: Path, learner: Make
) -> None:
    records = [{"prompt": f"{number:04}", "response": "r" * 40} for number in range(20)]
    one = learner(a_folder(tmp_path, [*records, LONG]), {"type": "instruction", "template": TURNS})
    facts = one.corpus.facts
    assert (facts.shortened, facts.left_out, facts.train_rows + facts.held_out_rows) == (20, 1, 20)


def test_a_side_without_rows_is_told(tmp_path: Path, learner: Make) -> None:
    with pytest.raises(TooLittleData) as caught:
        learner(a_folder(tmp_path, [LONG] * 3 + [LONG | {"response": "s"}]), {"type": "instruction", "template": TURNS})
    assert "data holds no row to train on: in none of " in caught.value.message
    assert caught.value.message.endswith("anything to learn for task instruction within local.sequence_length 32.")


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ("text", "holds something other than a list of {role, content} in field 'messages'"),
        ([{"role": "user"}], "holds something other than a list of {role, content} in field 'messages'"),
        ([{"role": "root", "content": "x"}], "has a role in field 'messages' that is none of system, user, assistant"),
    ],
)
def test_a_conversation_that_is_none_is_told(tmp_path: Path, learner: Make, messages: object, message: str) -> None:
    with pytest.raises(UnreadableData) as caught:
        learner(a_folder(tmp_path, [{"messages": messages}]), {"type": "instruction"})
    assert caught.value.message == f"{tmp_path}/data/a.jsonl:1 {message}."


def test_a_record_in_neither_form_is_told(tmp_path: Path, learner: Make) -> None:
    with pytest.raises(
        UnreadableData, match=r"has no field 'messages'; task instruction reads 'messages', or 'prompt', "
    ):
        learner(a_folder(tmp_path, [{"prompt": "x"}]), {"type": "instruction"})


def spans(found: list[dict[str, list[int]]]) -> list[str]:
    """What the rows' places mark; nothing where they are [CLS]."""
    marked = [row["input_ids"][row["start_positions"] : row["end_positions"] + 1] for row in found]  # type: ignore[misc]
    return ["" if ids == [CLS] else bytes(ids).decode() for ids in marked]


def test_an_answer_is_where_it_stands_and_nowhere_else(tmp_path: Path, learner: Make) -> None:
    records = [
        {"question": "q", "context": "grün und blau", "answer": "blau"},
        {"question": "q", "context": "grün und blau", "answer": "grün", "answer_start": 0},
        {"question": "q", "context": "a a", "answer": "a", "answer_start": "2"},
        {"question": "q", "context": "a a", "answer": ""},
    ]
    one = learner(a_folder(tmp_path, records), {"type": "question-answering"})
    found = rows(one)
    assert sorted(spans(found)) == ["", "a", "blau", "grün"]
    second = next(row for row in found if row["start_positions"] == 5)
    assert second["input_ids"][:7] == [CLS, ord("q"), SEP, *b"a a", SEP]
    assert second["token_type_ids"][:8] == [0, 0, 0, 1, 1, 1, 1, 0]


def test_a_long_context_is_read_in_windows_and_the_answer_is_in_those_that_hold_it(
    tmp_path: Path, learner: Make
) -> None:
    record = {"question": "q" * 99, "context": "".join(f"{n:02}" for n in range(20)), "answer": "1415"}
    one = learner(
        a_folder(tmp_path, [record] * 2 + [record | {"answer": ""}]), {"type": "question-answering", "stride": 6}
    )
    answered = rows(one)
    assert one.corpus.facts.shortened == 3
    assert [*b"0001020304050"] in [row["input_ids"][18:31] for row in answered]
    assert set(spans(answered)) == {"", "1415"}
    assert one.corpus.facts.train_rows + one.corpus.facts.held_out_rows == 3 * 5


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"answer": "x"}, "has an answer in field 'answer' that does not stand in its context"),
        ({"answer": "b", "answer_start": 2}, "names in field 'answer_start' a place where its answer does not begin"),
        (
            {"answer": "b", "answer_start": "one"},
            "names in field 'answer_start' a place where its answer does not begin",
        ),
        ({}, "has no field 'answer'; task question-answering reads 'question', 'context', 'answer'"),
    ],
)
def test_an_answer_that_is_not_there_is_told(tmp_path: Path, learner: Make, answer: Any, message: str) -> None:
    folder = a_folder(tmp_path, [{"question": "q", "context": "abc", **answer}])
    with pytest.raises(UnreadableData) as caught:
        learner(folder, {"type": "question-answering"})
    assert caught.value.message == f"{folder}/a.jsonl:1 {message}."


def test_both_answers_follow_the_same_prompt_and_only_they_are_labelled(tmp_path: Path, learner: Make) -> None:
    record = {"prompt": "ab", "chosen": "yes", "rejected": "n"}
    talk = record | {"prompt": [{"role": "system", "content": "S"}, {"role": "user", "content": "ab"}]}
    task = {"type": "preference", "template": TURNS}
    one = learner(a_folder(tmp_path, [record, talk, record]), task, adapter={"type": "lora", "r": 2})
    system, user, assistant = 257, 258, 259
    prompt = [user, *b"ab|", assistant]
    row = next(row for row in rows(one) if row["input_ids"][0] == user)
    assert row["input_ids"][:10] == [*prompt, *b"yes.", END]
    assert row["rejected_input_ids"][:8] == [*prompt, *b"n.", END]
    assert [label for label in row["labels"] if label != NO_LABEL] == [*b"yes.", END]
    assert [label for label in row["rejected_labels"] if label != NO_LABEL] == [*b"n.", END]
    assert {row["input_ids"][0] for row in rows(one)} == {user, system}


def test_of_a_prompt_and_its_answers_beginning_and_ends_are_cut(tmp_path: Path, learner: Make) -> None:
    record = {"prompt": "p" * 50, "chosen": "c" * 50, "rejected": "r"}
    task = {"type": "preference", "template": TURNS}
    one = learner(a_folder(tmp_path, [record] * 3), task, adapter={"type": "lora", "r": 2})
    row = rows(one)[0]
    assert row["input_ids"] == [*b"p" * 15, ord("|"), 259, *b"c" * 15]
    assert row["labels"][-1] == ord("c")
    assert one.corpus.facts.shortened == 3


ADAPTERS: dict[str, dict[str, Any]] = {
    "lora": {"type": "lora", "r": 2},
    "dora": {"type": "lora", "r": 2, "use_dora": True},
    "ia3": {"type": "ia3"},
}


@pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=ADAPTERS)
def test_the_loss_of_a_pair_is_that_of_the_paper_and_the_reference_stays(
    tmp_path: Path, learner: Make, adapter: dict[str, Any]
) -> None:
    """At first the adapter does nothing: ln 2 each. Afterwards against probabilities computed one answer at a time."""
    folder = make_records(tmp_path / "data", a_preference, count=1)["clinic"]
    task = {"type": "preference", "template": TURNS, "beta": 0.5}
    one = learner(folder, task, adapter=adapter)
    model, batch = one.model(), tensors_of(one.draw(0), "cpu")
    objective = objective_of(one.plan.task)
    assert objective.nats(model, batch).tolist() == pytest.approx([math.log(2)] * 4, abs=1e-6)
    training = one.training()
    one.run(training)
    tuned = training.model

    def likely(which: torch.nn.Module, prefix: str) -> torch.Tensor:
        logits = which(input_ids=batch[prefix + "input_ids"], attention_mask=batch[prefix + "attention_mask"]).logits
        labels = batch[prefix + "labels"]
        kept = labels != NO_LABEL
        chances = logits.log_softmax(-1).gather(2, labels.clamp(min=0)[..., None])[..., 0]
        return (chances * kept).sum(1)

    with torch.no_grad():
        pairs = [likely(tuned, name) - likely(model, name) for name in ("", "rejected_")]
        found = objective.nats(tuned, batch)
    assert found.tolist() == pytest.approx(
        (-torch.nn.functional.logsigmoid(0.5 * (pairs[0] - pairs[1]))).tolist(), abs=1e-4
    )
    assert float(found.mean()) < math.log(2)
    assert {name for name, weight in tuned.named_parameters() if weight.requires_grad} == {
        name for name, _ in tuned.named_parameters() if "lora_" in name or "ia3_" in name
    }


def test_preferences_without_an_adapter_are_refused() -> None:
    with pytest.raises(ValueError, match="task preference needs adapter lora or ia3, got none"):
        a_task_plan({"type": "preference"})
