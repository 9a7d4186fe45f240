"""The map from digest to place: it grows without changing what was there."""

from __future__ import annotations

from common.ledger.places import FOLD_AT, Layered


def test_a_longer_map_leaves_the_shorter_one_as_it_was() -> None:
    before: Layered[int] = Layered()
    maps = [before]
    for number in range(2 * FOLD_AT + 3):
        maps.append(maps[-1].with_entry(str(number), number))
    for size in (0, 1, FOLD_AT - 1, FOLD_AT, FOLD_AT + 1, 2 * FOLD_AT + 3):
        assert dict(maps[size]) == {str(number): number for number in range(size)}
        assert len(maps[size]) == size


def test_two_continuations_of_one_map_do_not_see_each_other() -> None:
    base = Layered({"a": 1})
    left, right = base.with_entry("b", 2), base.with_entry("c", 3)
    assert (dict(left), dict(right), dict(base)) == ({"a": 1, "b": 2}, {"a": 1, "c": 3}, {"a": 1})


def test_an_entry_can_be_replaced() -> None:
    changed = Layered({"a": 1}).with_entry("a", 2)
    assert (dict(changed), len(changed)) == ({"a": 2}, 1)
