"""A delta is encoded by the plan's codec before it is signed; what that loses comes back in a later round: error feedback."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.codecs import CODECS
from common.errors import CoordinatorUnreachable, NonFiniteDelta, StorageFailure, WrongTensors
from common.ledger.state import RoundRecord
from common.statements.envelope import parse
from common.statements.kinds import Contribution
from common.tensors import trainable_header
from participant import encoding
from participant.bench.worker_protocol import EvaluationSums, Result
from tests.support.agents import Institution
from tests.support.blobs import delta_bytes, encoded_delta, random_arrays, read_blob, tensor_manifest
from tests.support.participants import MANIFEST, RUN

LOSSY = ["bfloat16", "int8", "int4"]
HEADER = trainable_header(MANIFEST)
RESULT = Result(
    round=1,
    task="train",
    evaluation=EvaluationSums(loss_sum_fixed=2**20, num_tokens=100),
    delta="delta.safetensors",
    num_tokens=20,
)


def trained(number: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """What the fake workbench trains in that round."""
    return np.frombuffer(delta_bytes(MANIFEST, random_arrays(MANIFEST, seed=number, scale=0.01))[len(HEADER) :], "<f4")


def decoded(blob: bytes, name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    codec = CODECS[name]
    encoded = memoryview(blob)[len(codec.header(MANIFEST)) :]
    into = np.empty(codec.elements(len(encoded)), dtype=np.float32)
    return codec.decode(encoded, into)[: len(trained(1))].copy()


def kept(north: Institution, number: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.frombuffer(north.residuals.path(RUN, number).read_bytes(), "<f4")


def files(north: Institution) -> list[str]:
    folder = north.folder / "residuals"
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def contributed(north: Institution, record: RoundRecord) -> Contribution:
    """What was signed for a round, by the journal."""
    signed = north.outbox.contributed(record)
    assert signed is not None
    predicate = parse(signed.envelope).predicate
    assert isinstance(predicate, Contribution)
    return predicate


def sent(north: Institution, record: RoundRecord) -> bytes:
    """The blob that was signed for a round."""
    return read_blob(north.blobs, contributed(north, record).blobs["delta"])


def work(north: Institution) -> RoundRecord:
    """The open round, done by north alone."""
    record = north.round
    north.agent.work(north.run, record)
    return record


def test_float32_goes_as_it_was_trained_and_leaves_nothing(north: Institution) -> None:
    record = north.open_round(codec={"type": "float32"})
    work(north)
    assert sent(north, record) == delta_bytes(MANIFEST, random_arrays(MANIFEST, seed=1, scale=0.01))
    assert files(north) == []


@pytest.mark.parametrize("name", LOSSY)
def test_what_the_first_delta_loses_is_kept_before_it_is_signed(
    north: Institution, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = north.open_round(codec={"type": name})
    sign, there = north.journal.sign, []

    def watched(entry: Any) -> None:
        there.append((files(north), len(list(north.blobs.list()))))
        sign(entry)

    monkeypatch.setattr(north.journal, "sign", watched)
    work(north)
    assert there == [(["tiny-0a1b2c/1.f32"], 3)]  # tokenizer, model, and the encoded delta
    blob = sent(north, record)
    assert len(blob) == CODECS[name].encoded_size(MANIFEST)
    assert np.array_equal(kept(north, 1), trained(1) - decoded(blob, name))
    assert np.any(kept(north, 1))
    assert not (north.workbench.job(RUN) / "delta.safetensors").exists()
    assert ("delta", len(blob)) in north.egress()


@pytest.mark.parametrize("name", LOSSY)
def test_what_was_lost_is_in_the_next_delta(north: Institution, name: str) -> None:
    north.open_round(codec={"type": name}, rounds=3)
    wanted = np.zeros_like(trained(1))
    for number in (1, 2, 3):
        record = work(north)
        wanted = trained(number) + wanted
        assert np.array_equal(wanted, decoded(sent(north, record), name) + kept(north, number))
        wanted = kept(north, number)
        assert contributed(north, record).deviations == ()
        north.others_act()
    north.agent._tidying.tidy()
    assert files(north) == ["tiny-0a1b2c/3.f32"]


def test_an_abandoned_round_is_as_if_it_had_never_been(north: Institution) -> None:
    north.open_round(codec={"type": "int8"}, rounds=4)
    work(north)
    north.others_act()
    record = work(north)
    north.agent._tidying.tidy()
    assert files(north) == ["tiny-0a1b2c/1.f32", "tiny-0a1b2c/2.f32"]  # nobody knows yet which one it will be
    north.coordinator.clock.advance(seconds=7200)
    north.coordinator.advance()
    north.coordinator.advance()
    north.session.catch_up()
    closed = north.run.rounds[record.number - 1].closed
    assert closed is not None
    assert closed.outcome == "abandoned"
    third = work(north)
    assert third.number == 3
    assert files(north) == ["tiny-0a1b2c/1.f32", "tiny-0a1b2c/3.f32"]
    assert np.array_equal(trained(3) + kept(north, 1), decoded(sent(north, third), "int8") + kept(north, 3))


def test_killed_before_it_signed_it_makes_the_very_blob_again(
    north: Institution, monkeypatch: pytest.MonkeyPatch
) -> None:
    north.open_round(codec={"type": "int4"}, rounds=3)
    work(north)
    north.others_act()
    record = north.round

    def killed(entry: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(north.journal, "sign", killed)
    with pytest.raises(KeyboardInterrupt):
        work(north)
    assert north.outbox.contributed(record) is None
    first = kept(north, 2).copy()
    made = {ref.root for ref, _ in north.blobs.list()}
    north.restart()
    work(north)
    assert contributed(north, record).blobs["delta"].root in made
    assert np.array_equal(kept(north, 2), first)
    assert files(north) == ["tiny-0a1b2c/1.f32", "tiny-0a1b2c/2.f32"]


@pytest.mark.parametrize("step", ["blob", "residual"])
def test_killed_in_the_middle_of_encoding_nothing_is_half_there(
    north: Institution, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    north.open_round(codec={"type": "int8"}, rounds=3)
    work(north)
    north.others_act()
    before, record = files(north), north.round
    from common.codecs import encoding as codecs

    encode = codecs.encode_delta

    def full(*_: Any) -> None:
        raise StorageFailure("The disk is full.")

    def failing(job: Any) -> None:
        changed = {"blob": {"write": full}, "residual": {"keep": full}}[step]
        encode(codecs.EncodeJob(**{name: getattr(job, name) for name in job.__slots__} | changed))

    with monkeypatch.context() as patched:
        patched.setattr(codecs, "encode_delta", failing)
        with pytest.raises(StorageFailure, match=r"The disk is full"):
            work(north)
    assert files(north) == before
    assert (north.workbench.job(RUN) / "delta.safetensors").exists()
    assert north.outbox.contributed(record) is None
    work(north)
    assert np.array_equal(trained(2) + kept(north, 1), decoded(sent(north, record), "int8") + kept(north, 2))


def test_what_was_signed_is_sent_as_it_is_and_not_encoded_again(
    north: Institution, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = north.open_round(codec={"type": "int8"})
    north.session.before_submit = cut
    with pytest.raises(CoordinatorUnreachable, match=r"The line is cut"):
        work(north)
    signed, blob = north.outbox.contributed(record), sent(north, record)
    assert signed is not None
    north.restart()
    north.residuals.path(RUN, 1).unlink()
    work(north)
    assert north.session.submitted == [signed.envelope]
    assert read_blob(north.coordinator.blobs, contributed(north, record).blobs["delta"]) == blob
    assert files(north) == []  # nothing was encoded again


def cut() -> None:
    raise CoordinatorUnreachable("The line is cut.")


@pytest.mark.parametrize("harm", ["deleted", "cut", "grown"])
def test_a_lost_residual_is_started_from_zeros_and_said(
    north: Institution, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    north.open_round(codec={"type": "int8"}, rounds=2)
    work(north)
    north.others_act()
    path = north.residuals.path(RUN, 1)
    if harm == "deleted":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-4] if harm == "cut" else path.read_bytes() + bytes(4))
    with caplog.at_level(logging.WARNING):
        record = work(north)
    assert contributed(north, record).deviations == (encoding.RESIDUAL_LOST,) == ("residual-lost",)
    as_if_first = encoded_delta(MANIFEST, HEADER + trained(2).tobytes(), north.run.statement.plan.codec)
    assert sent(north, record) == as_if_first
    assert [each.message for each in caplog.records if each.name.endswith("encoding")] == ["residual lost"]
    assert np.array_equal(kept(north, 2), trained(2) - decoded(as_if_first, "int8"))


OTHER = tensor_manifest(trainable={"embedding": (8, 4), "bias": (5,)})
WRONG = {
    "another header": (delta_bytes(OTHER, random_arrays(OTHER, seed=1)), WrongTensors, "'bias' has shape"),
    "cut": (HEADER + trained(1).tobytes()[:-4], WrongTensors, r"delta\.safetensors has 332 bytes, expected 336"),
    "grown": (HEADER + trained(1).tobytes() + bytes(4), WrongTensors, r"has 340 bytes, expected 336 for its tensors"),
    "nothing": (b"", WrongTensors, "ends after 0 bytes"),
    "infinite": (HEADER + trained(1).tobytes()[:-4] + np.float32(np.inf).tobytes(), NonFiniteDelta, "'bias' at 3"),
    "no number": (HEADER + trained(1).tobytes()[:-4] + np.float32(np.nan).tobytes(), NonFiniteDelta, "'bias' at 3"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_delta_of_this_plan_is_neither_encoded_nor_signed(
    north: Institution, tmp_path: Path, wrong: str
) -> None:
    content, error, message = WRONG[wrong]
    record = north.open_round(codec={"type": "int8"})
    blobs = len(list(north.blobs.list()))
    path = tmp_path / "delta.safetensors"
    path.write_bytes(content)
    with pytest.raises(error, match=message):
        north.outbox.sign_contribution(north.run, record, RESULT, path)
    assert north.outbox.contributed(record) is None
    assert (files(north), len(list(north.blobs.list()))) == ([], blobs)


def test_a_link_that_the_worker_left_is_not_followed(north: Institution, tmp_path: Path) -> None:
    record = north.open_round(codec={"type": "int8"})
    (tmp_path / "real").write_bytes(HEADER + trained(1).tobytes())
    (tmp_path / "delta.safetensors").symlink_to(tmp_path / "real")
    with pytest.raises(StorageFailure, match=r"delta\.safetensors"):
        north.outbox.sign_contribution(north.run, record, RESULT, tmp_path / "delta.safetensors")


def test_residuals_go_with_the_run_and_with_who_leaves(north: Institution) -> None:
    north.open_round(codec={"type": "int8"}, rounds=1)
    work(north)
    north.others_act()
    north.agent._tidying.tidy()
    assert files(north) == ["tiny-0a1b2c/1.f32"]
    north.agent._tidying.leave_nothing()
    assert files(north) == []
    with north.residuals.replace(RUN, 1) as new:
        new.commit()
    work(north)  # the last evaluation encodes nothing
    north.others_act()
    assert north.run.ended is not None
    north.agent._tidying.tidy()
    assert files(north) == []
