"""Bits flipped in a bundle with deltas, seeded: none of the damaged files verifies, nor one whose digest was made anew."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.evidence.format import END_BYTES, Measured
from common.evidence.select import Holdings, select
from common.identity.keys import SigningKey
from common.ledger.heads import signed_checkpoint, tree_of
from common.ledger.notes import cosign
from common.verify.report import Outcome
from tests.support.coordinators import Coordinator
from tests.support.evidence import bundle, failures, records, report_on, with_digest

FLIPS, UNDER_A_NEW_DIGEST = 5000, 500
WITNESSES = ("east", "north", "south")


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coordinator]:
    """A finished run of one round; everybody is a witness."""
    coordinator = Coordinator(tmp_path_factory.mktemp("flips") / "coordinator", names=())
    for name in WITNESSES:
        coordinator.enrol(name, roles=("trainer", "evaluator", "witness"))
    coordinator.start_run(rounds=1)
    for participant in coordinator.participants.values():
        participant.answer()
    coordinator.play()
    yield coordinator
    coordinator.close()


@pytest.fixture(scope="module")
def data(federation: Coordinator) -> bytes:
    """With everything that a bundle can hold but a proof of two histories; the run up to its round's commit."""
    entries, genesis = federation.envelopes(), federation.state.genesis
    note = signed_checkpoint(tree_of(entries), genesis, SigningKey.load(federation.layout.log_key))
    seconds = int(federation.clock.now().timestamp())
    for name in WITNESSES:
        note = cosign(note, f"{genesis.consortium}.llmasos/{name}", federation[name].key, seconds=seconds)
    (record, *_) = federation.run.rounds
    assert record.closed_place is not None
    digest = record.contributions["north"].place.digest
    row = federation.database.metrics(federation.run.run)[digest]
    metrics = {digest: Measured(digest, row.salt, row.content)}
    holdings = Holdings(entries, [note.encode()], metrics=metrics, blobs=federation.blobs)
    return bundle(select(holdings, 0, record.closed_place.index))


def pins(federation: Coordinator) -> dict[str, str]:
    return {name: each.key.public.public for name, each in federation.participants.items()}


def outcome(federation: Coordinator, path: Path, data: bytes) -> Outcome:
    path.write_bytes(data)
    return report_on(path, federation.state.genesis_place.digest, pins(federation)).outcome


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_the_bundle_verifies_but_for_what_is_withheld(federation: Coordinator, data: bytes, tmp_path: Path) -> None:
    words = [data[begin:].split(b" ", 1)[0] for begin, _ in records(data)]
    assert set(words) == {b"checkpoint", b"entry", b"subtree", b"metrics", b"blob"}
    (tmp_path / "bundle").write_bytes(data)
    report = report_on(tmp_path / "bundle", federation.state.genesis_place.digest, pins(federation))
    assert failures(report) == []
    rounds = next(check for check in report.checks if check.name == "rounds")
    assert (rounds.examined, rounds.outcome) == ("1 of 1 recomputed here, equal in every bit", Outcome.VERIFIED)


def test_no_flipped_bit_passes(federation: Coordinator, data: bytes, tmp_path: Path) -> None:
    chosen, path = random.Random(4), tmp_path / "bundle"
    for _ in range(FLIPS):
        bit = chosen.randrange(len(data) * 8)
        assert outcome(federation, path, flipped(data, bit)) is Outcome.FAILED, bit


def test_no_flipped_bit_passes_under_a_digest_made_anew(federation: Coordinator, data: bytes, tmp_path: Path) -> None:
    """Half of them where a bit is one of many in text and hashes, half anywhere, deltas included."""
    chosen, path = random.Random(5), tmp_path / "bundle"
    end = len(data) - END_BYTES
    first_blob = next(begin for begin, _ in records(data) if data[begin:].startswith(b"blob "))
    for index in range(UNDER_A_NEW_DIGEST):
        bit = chosen.randrange((end if index % 2 else first_blob) * 8)
        assert outcome(federation, path, with_digest(flipped(data, bit))) is Outcome.FAILED, bit


def test_no_bit_of_a_records_first_line_passes_under_a_digest_made_anew(
    federation: Coordinator, data: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "bundle"
    lines = [(begin, data.index(b"\n", begin)) for begin, _ in records(data)]
    bits = [bit for begin, end in lines for bit in range(begin * 8, (end + 1) * 8)]
    for bit in random.Random(6).sample(bits, UNDER_A_NEW_DIGEST):
        assert outcome(federation, path, with_digest(flipped(data, bit))) is Outcome.FAILED, bit
