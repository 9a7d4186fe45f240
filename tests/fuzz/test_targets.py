"""Every fuzz target for a second or two, without a fuzzer: seeds, what once broke something, and mutations, ever the same."""

from __future__ import annotations

from itertools import islice

import pytest

from common.errors import InternalError
from tests.fuzz.__main__ import main
from tests.fuzz.harness import Target, attempt, load, mutations, stored
from tests.fuzz.names import NAMES

TRIES = {"evidence": 300, "statements": 2_000}
USUALLY = 4_000


@pytest.mark.parametrize("name", NAMES)
def test_seeds_and_what_once_broke_something_are_read_or_refused(name: str) -> None:
    target = load(name)
    taken = [attempt(target, seed) for seed in target.seeds]
    assert any(taken), "no seed gets past the first check: mutations of them will not either"
    for data in stored("found", name):
        attempt(target, data)


@pytest.mark.parametrize("name", NAMES)
def test_mutated_seeds_are_read_or_refused(name: str) -> None:
    target = load(name)
    verdicts = {attempt(target, data) for data in islice(mutations(target, seed=5), TRIES.get(name, USUALLY))}
    assert False in verdicts


def test_mutations_are_the_same_every_time_and_of_every_seed() -> None:
    target = Target(bytes, [b"one seed", b"and another one"])
    assert list(islice(mutations(target, 1), 50)) == list(islice(mutations(target, 1), 50))
    assert list(islice(mutations(target, 1), 50)) != list(islice(mutations(target, 2), 50))


@pytest.mark.parametrize("error", [ValueError("x"), InternalError("x"), RecursionError("x"), AssertionError("x")])
def test_what_is_no_refusal_is_found(error: Exception) -> None:
    def entry(data: bytes) -> None:
        raise error

    with pytest.raises(type(error)):
        attempt(Target(entry, [b""]), b"anything")


def test_there_are_targets_for_all_that_others_send() -> None:
    assert set(NAMES) == {"blobs", "codecs", "evidence", "headers", "invitations", "notes", "statements", "wire"}


def test_without_the_fuzzer_it_is_said_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["wire"]) == 2
    assert "pip install -e '.[fuzz]'" in capsys.readouterr().err
