"""Reading a bundle: what is taken encodes to the same bytes, and everything that has another spelling is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import MalformedStatement, StorageFailure
from common.evidence.bundle import Bundle
from common.evidence.format import END_BYTES, HEADER, Contents, Measured, claimed_head
from common.evidence.read import read_bundle
from common.evidence.select import Holdings, select
from common.ledger.notes import parse_note
from tests.support.evidence import MadeLedger, bundle, records, with_digest
from tests.support.mutations import mutated

Forge = Callable[[bytes], bytes]


@pytest.fixture(scope="module")
def data(ledger: MadeLedger) -> bytes:
    """A bundle about beta: alpha and gamma are withheld, two checkpoints cut."""
    notes = [ledger.checkpoint(9, "north"), ledger.checkpoint(ledger.size, "north", "south")]
    span = ledger.spans["beta"]
    return bundle(select(Holdings(ledger.entries, notes), span[0], span[-1]))


def read(data: bytes, folder: Path) -> Bundle:
    path = folder / "bundle.evidence"
    path.write_bytes(data)
    return read_bundle(path)


def test_what_is_read_is_written_again_byte_for_byte(ledger: MadeLedger, data: bytes, tmp_path: Path) -> None:
    with read(data, tmp_path) as found:
        assert bundle(found.contents()) == data
        assert found.digest == data[-65:-1].decode()
        assert found.tree.head() == ledger.head(ledger.size)
        assert found.tree.head(9) == ledger.head(9)
        shown = [index for index, envelope in enumerate(found.envelopes) if envelope is not None]
        assert shown == [0, 1, *ledger.spans["beta"]]
        assert [found.envelopes[index] for index in shown] == [ledger.entries[index] for index in shown]
        assert list(found.envelopes[13:15]) == ledger.entries[13:15]
        assert list(found.envelopes[10:20][3:5]) == ledger.entries[13:15]
        assert found.envelopes[-1] is None
        with pytest.raises(IndexError):
            found.envelopes[ledger.size]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(draw=st.data())
def test_every_range_with_every_checkpoints_goes_there_and_back(
    ledger: MadeLedger, tmp_path: Path, draw: st.DataObject
) -> None:
    first = draw.draw(st.integers(0, ledger.size - 1))
    last = draw.draw(st.integers(first, ledger.size - 1))
    sizes = draw.draw(st.sets(st.integers(1, ledger.size), max_size=6)) | {ledger.size}
    digest = "ab" * 32
    chosen = select(Holdings(ledger.entries, [ledger.checkpoint(size, "north") for size in sizes]), first, last)
    contents = Contents(
        chosen.contents.checkpoints,
        (),
        chosen.contents.envelopes,
        chosen.contents.nodes,
        (Measured(digest, bytes(32), draw.draw(st.binary(max_size=50))),),
    )
    written = bundle(contents)
    with read(written, tmp_path) as found:
        assert bundle(found.contents()) == written
        assert {found.tree.head(size) for size in sizes} == {ledger.head(size) for size in sizes}
        assert all(found.envelopes[index] == ledger.entries[index] for index in range(first, last + 1))


# --- refused ----------------------------------------------------------------------------------------------------------


def line(data: bytes, begins: bytes) -> tuple[int, int]:
    """Where the first record begins and ends whose line begins so."""
    return next((begin, end) for begin, end in records(data) if data[begin:].startswith(begins))


def without(begins: bytes) -> Forge:
    def forge(data: bytes) -> bytes:
        begin, end = line(data, begins)
        return with_digest(data[:begin] + data[end:])

    return forge


def twice(begins: bytes) -> Forge:
    def forge(data: bytes) -> bytes:
        begin, end = line(data, begins)
        return with_digest(data[:end] + data[begin:end] + data[end:])

    return forge


def moved_to_the_end(begins: bytes) -> Forge:
    def forge(data: bytes) -> bytes:
        begin, end = line(data, begins)
        return with_digest(data[:begin] + data[end:-END_BYTES] + data[begin:end] + data[-END_BYTES:])

    return forge


def copied_to_the_end(begins: bytes) -> Forge:
    def forge(data: bytes) -> bytes:
        begin, end = line(data, begins)
        return with_digest(data[:-END_BYTES] + data[begin:end] + data[-END_BYTES:])

    return forge


def of_another_size(size: bytes) -> Forge:
    """The last checkpoint says another size."""

    def forge(data: bytes) -> bytes:
        begin, end = [place for place in records(data) if data[place[0] :].startswith(b"checkpoint ")][-1]
        note = data[begin:end].split(b"\n", 1)[1][:-1].replace(b"\n35\n", b"\n%b\n" % size)
        return with_digest(data[:begin] + b"checkpoint %d\n%b\n" % (len(note), note) + data[end:])

    return forge


def replaced(old: bytes, new: bytes) -> Forge:
    def forge(data: bytes) -> bytes:
        assert old in data, old
        return with_digest(data.replace(old, new, 1))

    return forge


def added(record: bytes) -> Forge:
    return lambda data: with_digest(data[:-END_BYTES] + record + data[-END_BYTES:])


METRICS = b"metrics " + b"11" * 32 + b" " + b"22" * 32 + b" 2\n{}\n"
EMPTY = b"af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"

REFUSED: dict[str, tuple[Forge, str]] = {
    "nothing": (lambda data: b"", "at byte 0, it does not begin with llmasos.org/evidence@v1"),
    "another version": (replaced(b"evidence@v1", b"evidence@v2"), "at byte 0, it does not begin with"),
    "a byte after the end": (lambda data: data + b"\n", "it does not end in its digest"),
    "another file after the end": (lambda data: data + data, "it does not end in its digest|the digest is"),
    "a bit flipped": (lambda data: data[:900] + bytes([data[900] ^ 1]) + data[901:], "its bytes give .*it was changed"),
    "the digest in capitals": (lambda data: data[:-65] + data[-65:-1].upper() + b"\n", "does not end in its digest"),
    "no genesis": (without(b"entry 0"), "entry 1 stands where 0 comes next"),
    "an entry is left out": (without(b"entry 15"), "entry 16 stands where 15 comes next"),
    "an entry stands twice": (twice(b"entry 15"), "entry 15 stands where 16 comes next"),
    "an entry comes last": (moved_to_the_end(b"entry 15"), "entry 16 stands where 15 comes next"),
    "the last subtree is left out": (without(b"subtree 0 34"), "there are 34 entries, the largest checkpoint has 35"),
    "a subtree is left out": (without(b"subtree 2 1"), r"subtree 0 8 stands where entry 4 comes next"),
    "a subtree at another level": (
        replaced(b"subtree 2 1 ", b"subtree 1 2 "),
        "subtree 0 8 stands where entry 6 comes",
    ),
    "a subtree of a level beyond all": (
        replaced(b"subtree 2 1 ", b"subtree 900 0 "),
        "subtree 900 0 stands where entry 4",
    ),
    "a subtree over a checkpoint's end": (
        replaced(b"subtree 0 8 ", b"subtree 1 4 "),
        "goes over the end of a note's tree",
    ),
    "the genesis is withheld": (
        lambda data: with_digest(
            data.replace(data[slice(*line(data, b"entry 0"))], b"subtree 0 0 " + b"0" * 64 + b"\n")
        ),
        "entry 0 is withheld",
    ),
    "something is withheld that no checkpoint covers": (
        added(b"subtree 0 35 " + b"0" * 64 + b"\n"),
        "entries up to 35 are withheld, the largest checkpoint has 35",
    ),
    "a checkpoint after the entries": (
        copied_to_the_end(b"checkpoint"),
        "a checkpoint stands after what it comes before",
    ),
    "a checkpoint twice": (twice(b"checkpoint"), "a checkpoint does not come after the one before it"),
    "a checkpoint of more entries": (of_another_size(b"36"), "there are 35 entries, the largest checkpoint has 36"),
    "a checkpoint of too many entries": (
        of_another_size(b"16777217"),
        "a checkpoint of 16,777,217 entries, at most 16,777,216 allowed",
    ),
    "a checkpoint of none": (
        of_another_size(b"0"),
        "a checkpoint is none: A note's text is not an origin, a size above 0",
    ),
    "a checkpoint of fewer entries": (of_another_size(b"8"), "a checkpoint does not come after the one before it"),
    "a leading zero": (replaced(b"entry 1 ", b"entry 01 "), "a line is none that a record begins with"),
    "two spaces": (replaced(b"entry 1 ", b"entry  1 "), "a line is none that a record begins with"),
    "a length in other digits": (replaced(b"entry 1 ", b"entry \xd9\xa1 "), "a line is none that a record begins with"),
    "a line that ends in a return": (replaced(b"subtree 2 1", b"subtree 2 1\r"), "a line is none that a record"),
    "a hash in capitals": (added(METRICS.replace(b"11" * 32, b"AB" * 32)), "a line is none that a record begins with"),
    "another word": (added(b"comment 3\nabc\n"), "a line is none that a record begins with"),
    "a word alone": (added(b"end\n"), "a line is none that a record begins with"),
    "a line without an end": (added(b"metrics " + b"1" * 300), "no line ends within 256 bytes"),
    "an envelope beyond all": (
        lambda data: with_digest(data[:-END_BYTES] + b"entry 35 1048577\n" + data[-END_BYTES:]),
        "an entry of 1,048,577 bytes, at most 1,048,576 allowed",
    ),
    "an entry that ends beyond the file": (added(b"entry 35 90\n{}\n"), "an entry of 90 bytes, and only 3 follow"),
    "no newline after raw bytes": (added(b"entry 35 2\n{}}\n"), "expected a newline after raw bytes"),
    "metrics before entries": (
        lambda data: with_digest(data[: len(HEADER)] + METRICS + data[len(HEADER) :]),
        "a checkpoint stands after what it comes before",
    ),
    "metrics twice": (added(METRICS + METRICS), "a metrics does not come after the one before it"),
    "metrics that are too long": (
        added(METRICS.replace(b" 2\n", b" 65537\n")),
        "metrics of 65,537 bytes, at most 65,536",
    ),
    "a blob under another name": (
        added(b"blob blake3 1 " + EMPTY + b"\nx\n"),
        "a blob is not the one that it is called: its root is .*, expected af1349b9",
    ),
    "a blob in another algorithm": (
        added(b"blob md5 0 " + EMPTY + b"\n\n"),
        "a line is none that a record begins with",
    ),
    "a blob twice": (added((b"blob blake3 0 " + EMPTY + b"\n\n") * 2), "a blob does not come after the one before it"),
    "a blob larger than a reference can say": (
        added(b"blob blake3 17592186044417 " + EMPTY + b"\n\n"),
        "a blob of 17,592,186,044,417 bytes, at most 17,592,186,044,416 allowed",
    ),
    "a blob larger than the file": (
        added(b"blob blake3 400 " + EMPTY + b"\n\n"),
        "a blob of 400 bytes, and only 1 follow",
    ),
    "metrics after a blob": (
        added(b"blob blake3 0 " + EMPTY + b"\n\n" + METRICS),
        "a metrics stands after what it comes before",
    ),
    "a note that is none": (
        lambda data: with_digest(data[: len(HEADER)] + b"checkpoint 3\nabc\n" + data[len(HEADER) :]),
        "a checkpoint is none: A note has no text",
    ),
}


@pytest.mark.parametrize("claim", REFUSED)
def test_another_spelling_is_refused_with_its_place(data: bytes, tmp_path: Path, claim: str) -> None:
    forge, message = REFUSED[claim]
    with pytest.raises(MalformedStatement, match=message) as caught:
        read(forge(data), tmp_path)
    assert "is no evidence bundle: at byte " in caught.value.message
    assert caught.value.fix.startswith("Ask for the file again")


def test_two_subtrees_where_one_would_do_are_refused(ledger: MadeLedger, data: bytes, tmp_path: Path) -> None:
    begin, end = line(data, b"subtree 1 1 ")
    tree = [ledger.checkpoint(3), ledger.checkpoint(9), ledger.checkpoint(ledger.size)]
    cut = bundle(select(Holdings(ledger.entries, tree), ledger.spans["beta"][0], ledger.spans["beta"][-1]))
    halves = b"".join(cut[slice(*line(cut, b"subtree 0 %d " % index))] for index in (2, 3))
    with pytest.raises(MalformedStatement, match="subtree 0 3 and the one before it are written as two, expected one"):
        read(with_digest(data[:begin] + halves + data[end:]), tmp_path)


def test_a_bundle_cut_off_at_any_record_is_refused(data: bytes, tmp_path: Path) -> None:
    ends = [len(HEADER), *(end for _, end in records(data))]
    assert len(ends) > 20
    for at in ends:
        for cut in (data[:at], data[: at - 1], data[:at] + data[-END_BYTES:]):
            if cut != data:
                with pytest.raises(
                    MalformedStatement, match=r"does not end in its digest|it was changed|does not begin"
                ):
                    read(cut, tmp_path)
    for at in ends[:-1]:
        with pytest.raises(
            MalformedStatement, match=r"there are .* entries, the largest checkpoint has|holds no entry"
        ):
            read(with_digest(data[:at] + data[-END_BYTES:]), tmp_path)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(draw=st.data())
def test_whatever_is_taken_encodes_to_itself(data: bytes, tmp_path: Path, draw: st.DataObject) -> None:
    forged = with_digest(draw.draw(mutated(data[:-END_BYTES])) + data[-END_BYTES:])
    try:
        found = read(forged, tmp_path)
    except MalformedStatement:
        return
    with found:
        assert bundle(found.contents()) == forged


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageFailure, match=r"Could not open .*absent: No such file"):
        read_bundle(tmp_path / "absent")


def test_notes_name_trees_of_one_entry_at_least(ledger: MadeLedger) -> None:
    note = ledger.checkpoint(3)
    assert claimed_head(parse_note(note)) == ledger.head(3)
    for spoiled in (b"\n0\n", b"\n03\n", b"\nx\n"):
        with pytest.raises(MalformedStatement, match="an origin, a size above 0 and a root"):
            claimed_head(parse_note(note.replace(b"\n3\n", spoiled)))
    root = note.split(b"\n")[2]
    for other, message in ((b"AAAA", "root has 3 bytes, expected 32"), (b"A", "root is not base64")):
        with pytest.raises(MalformedStatement, match=message):
            claimed_head(parse_note(note.replace(root, other)))
