"""Text shared out: every document once, the same again with the same seed, skew by alpha, and what cannot be is told."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from common.errors import TooLittleData, UnreadableData, UsageError
from llmasos.datasets.text import Document, read_documents
from llmasos.simulation.partition import Partition, Parts, SharedText, key_of, parse_partition, share_out, write_parts

KEYS = ("cardiology", "neurology", "oncology", "surgery")


def documents(count: int) -> list[Document]:
    return [Document(f"{KEYS[i % 4]}/{i}.txt", f"text {i}") for i in range(count)]


def sizes(parts: Parts) -> list[int]:
    return [len(part) for part in parts.values()]


def of_one_key(parts: Parts) -> float:
    """Mean share of an institution's commonest key: 0.25 where all are alike, 1 where each has one."""
    shares = [max(Counter(map(key_of, part)).values()) / len(part) for part in parts.values()]
    return sum(shares) / len(shares)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("iid:1000", Partition("iid", 1000)),
        ("dirichlet:20:0.5", Partition("dirichlet", 20, 0.5)),
        ("key", Partition("key")),
    ],
)
def test_a_partition_is_read(text: str, expected: Partition) -> None:
    assert parse_partition(text) == expected


@pytest.mark.parametrize(
    "text", ["iid", "iid:0", "iid:x", "dirichlet:5", "dirichlet:5:0", "dirichlet:5:nan", "key:3", "", "shards:2"]
)
def test_another_form_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(UsageError, match="expected iid:COUNT, dirichlet:COUNT:ALPHA or key, got"):
        parse_partition(text)


@pytest.mark.parametrize("how", [Partition("iid", 7), Partition("dirichlet", 7, 1.0), Partition("key")])
def test_every_document_goes_to_one_institution_and_the_same_seed_gives_the_same(how: Partition) -> None:
    given = documents(400)
    parts = share_out(given, how, seed=3)
    assert sorted(one.name for part in parts.values() for one in part) == sorted(one.name for one in given)
    assert share_out(given, how, seed=3) == parts
    if how.kind != "key":
        assert share_out(given, how, seed=4) != parts


def test_iid_sizes_differ_by_one_at_most() -> None:
    assert sorted(set(sizes(share_out(documents(101), Partition("iid", 10), seed=0)))) == [10, 11]


def test_a_small_alpha_skews_and_a_large_one_does_not() -> None:
    shares = [of_one_key(share_out(documents(4000), Partition("dirichlet", 5, alpha), seed=1)) for alpha in (0.2, 1e4)]
    assert shares[0] > 0.5 > 0.3 > shares[1]


def test_by_key_each_institution_has_one_key() -> None:
    parts = share_out(documents(40), Partition("key"), seed=0)
    assert list(parts) == ["v1", "v2", "v3", "v4"]
    assert [{key_of(one) for one in part} for part in parts.values()] == [{key} for key in KEYS]


def test_too_few_documents_are_told_with_numbers() -> None:
    with pytest.raises(TooLittleData, match=r"19 documents are too few for 10 institutions with at least 2 each"):
        share_out(documents(19), Partition("iid", 10), seed=0)
    with pytest.raises(TooLittleData, match=r"dirichlet:100:0\.01 leaves at least \d+ of 100 institutions with fewer"):
        share_out(documents(400), Partition("dirichlet", 100, 0.01), seed=0)
    with pytest.raises(TooLittleData, match="1 of 2 institutions would have fewer than 2"):
        share_out([Document("a/1", "x"), Document("a/2", "x"), Document("b/1", "x")], Partition("key"), seed=0)


def test_parts_are_written_as_folders_that_any_engine_reads(tmp_path: Path) -> None:
    parts = share_out(documents(20), Partition("iid", 3), seed=0)
    folders = write_parts(parts, tmp_path / "data")
    assert [one.name for one in folders] == list(parts)
    for one in folders:
        assert [found.text for found in read_documents(one.folder)] == [part.text for part in parts[one.name]]
        assert one.folder.stat().st_mode & 0o077 == 0


def test_a_field_may_be_the_key(tmp_path: Path) -> None:
    lines = [{"text": f"text {i}", "ward": "north" if i % 3 else "south"} for i in range(9)]
    (tmp_path / "all.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    folders = SharedText(tmp_path, Partition("key"), key="ward").write(tmp_path / "out")
    assert [len(list(read_documents(one.folder))) for one in folders] == [6, 3]
    with pytest.raises(UnreadableData):
        SharedText(tmp_path / "all.jsonl", Partition("key"), key="clinic").write(tmp_path / "other")
