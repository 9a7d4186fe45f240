"""What stands for withheld entries: every head that must be computable is, and there is one way to write it."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.evidence.subtrees import Places, SparseNodes, withheld_subtrees
from common.ledger.heads import tree_of
from common.ledger.merkle import leaf_hash
from common.ledger.tree import MemoryNodes, StoredTree

ENTRIES = [b"entry %d" % index for index in range(80)]


def sparse(shown: list[bool], cuts: list[int]) -> tuple[SparseNodes, list[tuple[int, int]]]:
    """Nodes of a tree of which only what is shown, and subtrees for the rest, are known."""
    whole, found = MemoryNodes(), SparseNodes()
    tree = StoredTree(hashlib.sha256, whole)
    for entry in ENTRIES[: len(shown)]:
        tree.append(leaf_hash(hashlib.sha256, entry))
    hidden = list(
        withheld_subtrees([entry if here else None for entry, here in zip(ENTRIES, shown, strict=False)], cuts)
    )
    rest = iter(hidden)
    index = 0
    while index < len(shown):
        if shown[index]:
            found.add_leaf(leaf_hash(hashlib.sha256, ENTRIES[index]))
            index += 1
        else:
            level, position = next(rest)
            found.add_subtree(level, position, whole.get(level, position))
            index += 1 << level
    assert next(rest, None) is None
    return found, hidden


PATTERNS = st.lists(st.booleans(), min_size=1, max_size=80)


@given(PATTERNS, st.sets(st.integers(1, 80)))
def test_the_head_of_the_whole_and_of_every_cut_is_the_one_over_all_entries(shown: list[bool], cuts: set[int]) -> None:
    sizes = sorted(size for size in cuts if size <= len(shown))
    nodes, _ = sparse(shown, sizes)
    tree = StoredTree(hashlib.sha256, nodes, len(shown))
    for size in (*sizes, len(shown)):
        assert tree.head(size) == tree_of(ENTRIES[:size]).head()


@given(PATTERNS, st.sets(st.integers(1, 80)))
def test_no_two_subtrees_could_be_one(shown: list[bool], cuts: set[int]) -> None:
    _, hidden = sparse(shown, sorted(cuts))
    for (level, position), (other, following) in pairwise(hidden):
        siblings = level == other and position % 2 == 0 and following == position + 1
        assert not siblings or following << level in cuts


@given(PATTERNS)
def test_places_are_ranked_as_they_stand(shown: list[bool]) -> None:
    places = Places()
    for here in shown:
        if here:
            places.add()
        else:
            places.skip(1)
    ranks = iter(range(len(shown)))
    assert [places.rank(index) for index in range(len(shown) + 2)] == [
        next(ranks) if here else None for here in (*shown, False, False)
    ]
    assert (len(places), places.size) == (sum(shown), len(shown))


def test_what_lies_inside_a_subtree_is_not_known_and_the_tree_does_not_grow() -> None:
    nodes, hidden = sparse([True, True, False, False, True], [])
    assert hidden == [(1, 1)]
    assert nodes.stands(1, 1)
    with pytest.raises(KeyError, match="the hash of entry 2 is withheld"):
        StoredTree(hashlib.sha256, nodes, 5).head(3)
    with pytest.raises(TypeError, match="does not grow"):
        StoredTree(hashlib.sha256, nodes, 5).append(bytes(32))
    with pytest.raises(ValueError, match="subtree 1 7 where entry 5 comes next"):
        nodes.add_subtree(1, 7, bytes(32))


def test_large_trees_keep_what_they_computed() -> None:
    nodes = SparseNodes()
    for index in range(600):
        nodes.add_leaf(leaf_hash(hashlib.sha256, b"%d" % index))
    tree = StoredTree(hashlib.sha256, nodes, 600)
    expected = tree_of(b"%d" % index for index in range(600))
    assert [tree.head(size) for size in (600, 599, 512, 257)] == [expected.head(size) for size in (600, 599, 512, 257)]
