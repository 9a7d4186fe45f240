from __future__ import annotations

from common.newest import Newest


def test_only_the_newest_are_remembered() -> None:
    newest = Newest[str, int](2)
    newest["a"], newest["b"] = 1, 2
    assert newest.get("a") == 1
    newest["c"] = 3
    assert (newest.get("a"), newest.get("b"), newest.get("c"), len(newest)) == (1, None, 3, 2)


def test_an_entry_set_again_is_one() -> None:
    newest = Newest[str, int](2)
    newest["a"], newest["b"], newest["a"], newest["c"] = 1, 2, 3, 4
    assert (newest.get("a"), newest.get("b"), newest.get("c")) == (3, None, 4)
