"""Token files say when they are damaged; batches are functions of seed and step."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest

from common.errors import StorageFailure, TooLittleData
from llmasos.datasets import tokens
from llmasos.datasets.text import Document
from llmasos.datasets.tokens import TokenFile, batches, held_out_windows, write_tokens
from llmasos.tokenizers import bytes_tokenizer, train_bpe
from tests.support.texts import make_text

pytestmark = pytest.mark.torch

END = 256


def written(path: Path, *texts: str) -> Path:
    write_tokens([Document(str(number), text) for number, text in enumerate(texts)], bytes_tokenizer(), path)
    return path


@pytest.fixture
def thousand(tmp_path: Path) -> Path:
    """999 bytes and an end of document."""
    return written(tmp_path / "train.tokens", "".join(chr(65 + number * 7 % 23) for number in range(999)))


def test_documents_follow_each_other_each_with_its_end(tmp_path: Path) -> None:
    with TokenFile.open(written(tmp_path / "a.tokens", "ab", "é", "x<|endoftext|>")) as file:
        assert (file.vocab_size, file.count) == (257, 21)
        assert file.read(0, file.count).tolist() == [97, 98, END, 0xC3, 0xA9, END, *b"x<|endoftext|>", END]
        assert file.read(21, 0).tolist() == []


def test_the_file_is_owner_only_and_leaves_no_temporary(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tokens", "text")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_vocabulary_beyond_sixteen_bits_takes_four_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "vocab_size_of", lambda _: 65_536)
    with TokenFile.open(written(tmp_path / "a.tokens", "abc")) as file:
        assert file.read(0, 4).tolist() == [97, 98, 99, END]
        assert file.path.stat().st_size == 32 + 4 * 4


@pytest.mark.parametrize("text", ["line one\nline two\n" * 40, "no line end at all " * 40], ids=["lines", "one line"])
def test_long_documents_are_encoded_in_pieces_without_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(tokens, "PIECE_CHARACTERS", 50)
    tokenizer = train_bpe([text], 300)
    count = write_tokens([Document("a", text), Document("b", "b")], tokenizer, tmp_path / "a.tokens")
    with TokenFile.open(tmp_path / "a.tokens") as file:
        assert file.count == count
        assert tokenizer.decode(file.read(0, count).tolist(), skip_special_tokens=True) == text + "b"
        assert (file.read(0, count) == 0).sum() == 2


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: data[:-1], r"has 2,031 bytes, its header gives 2,032: it was cut short"),
        (lambda data: data + b"\0\0", r"has 2,034 bytes, its header gives 2,032"),
        (lambda data: data[:20], r"has 20 bytes, too few for a token file"),
        (lambda data: b"x" + data[1:], r"is not a token file"),
        (lambda data: data[:8] + b"\2" + data[9:], r"is a token file of version 2, expected 1"),
    ],
    ids=["truncated", "longer", "no header", "other magic", "newer version"],
)
def test_a_damaged_file_is_refused(thousand: Path, spoil, message: str) -> None:  # type: ignore[no-untyped-def]
    thousand.write_bytes(spoil(thousand.read_bytes()))
    with pytest.raises(StorageFailure, match=message) as caught:
        TokenFile.open(thousand)
    assert "made again from the text" in str(caught.value)


def test_a_file_cut_short_in_use_is_an_error_not_a_crash(thousand: Path) -> None:
    with TokenFile.open(thousand) as file:
        with thousand.open("r+b") as other:
            other.truncate(100)
        with pytest.raises(StorageFailure, match="was cut short while in use"):
            file.read(0, 1000)


def test_tokens_outside_the_file_are_a_caller_s_mistake(thousand: Path) -> None:
    with TokenFile.open(thousand) as file, pytest.raises(IndexError, match="tokens 990 to 1009 of 1000"):
        file.read(990, 20)


def test_a_batch_is_a_function_of_seed_and_step(thousand: Path) -> None:
    with TokenFile.open(thousand) as file, TokenFile.open(thousand) as again:

        def batch(source: TokenFile, seed: int, step: int) -> list[list[int]]:
            return batches(source, seed=seed, step=step, batch_size=4, sequence_length=16).tolist()

        assert batch(file, 1, 7) == batch(again, 1, 7)
        assert batch(file, 1, 7) != batch(file, 1, 8)
        assert batch(file, 1, 7) != batch(file, 2, 7)


def test_batches_are_windows_of_the_file(thousand: Path) -> None:
    with TokenFile.open(thousand) as file:
        everything = file.read(0, file.count)
        batch = batches(file, seed=0, step=0, batch_size=32, sequence_length=16)
    assert batch.shape == (32, 17)
    assert batch.dtype == np.int64
    windows = np.lib.stride_tricks.sliding_window_view(everything, 17)
    assert all((windows == row).all(axis=1).any() for row in batch)


def test_the_stream_of_batches_is_the_documented_one(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tokens", "".join(chr(number) for number in range(128)))
    with TokenFile.open(path) as file:
        batch = batches(file, seed=5, step=9, batch_size=6, sequence_length=8)
    assert batch[:, 0].tolist() == [35, 11, 43, 69, 30, 56]


def test_every_window_can_be_drawn_including_the_only_one(tmp_path: Path) -> None:
    with TokenFile.open(written(tmp_path / "a.tokens", "abcdefgh")) as file:
        assert batches(file, seed=0, step=0, batch_size=2, sequence_length=8).tolist() == [[*b"abcdefgh", END]] * 2
        starts = {int(batches(file, seed=0, step=step, batch_size=1, sequence_length=6)[0, 0]) for step in range(50)}
    assert starts == set(b"abc")


def test_less_than_one_window_is_too_little_data(tmp_path: Path) -> None:
    with (
        TokenFile.open(written(tmp_path / "a.tokens", "abc")) as file,
        pytest.raises(TooLittleData, match=r"a\.tokens holds 4 tokens, one sequence needs 5\."),
    ):
        batches(file, seed=0, step=0, batch_size=1, sequence_length=4)


def test_held_out_windows_predict_every_token_once(thousand: Path) -> None:
    with TokenFile.open(thousand) as file:
        windows = list(held_out_windows(file, 64, 10_000))
        targets = np.concatenate([window[1:] for window in windows])
        assert targets.tolist() == file.read(1, 999).tolist()
    assert {window.size for window in windows[:-1]} == {65}


def test_held_out_windows_keep_the_limit_and_spread_over_the_file(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tokens", "".join(chr(number // 8) for number in range(1000)))
    with TokenFile.open(path) as file:
        windows = list(held_out_windows(file, 10, 100))
        assert sum(window.size - 1 for window in windows) == 100
        assert [int(window[0]) for window in windows] == [number * 100 // 8 for number in range(10)]
        assert [window.size for window in held_out_windows(file, 64, 7)] == [8]


def test_one_held_out_token_is_too_little(tmp_path: Path) -> None:
    with (
        TokenFile.open(written(tmp_path / "a.tokens", "")) as file,
        pytest.raises(TooLittleData, match="holds 1 held-out tokens, at least 2 are needed"),
    ):
        list(held_out_windows(file, 8, 100))


def test_the_same_text_gives_the_same_bytes(tmp_path: Path) -> None:
    text = make_text("bank", words=500, seed=1)
    assert written(tmp_path / "a", text).read_bytes() == written(tmp_path / "b", text).read_bytes()
