"""A growing read-only map from digest to place, cheap to extend: old values stay as they are, new ones share most of it.

A plain dict copied at each statement makes replay quadratic. Here only the newest few hundred entries are copied, and they are
folded into the large part when they are many.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

V = TypeVar("V")

FOLD_AT = 512


class Layered(Mapping[str, V]):
    """An immutable mapping in two layers."""

    __slots__ = ("_newest", "_settled")

    def __init__(self, settled: dict[str, V] | None = None, newest: dict[str, V] | None = None) -> None:
        self._settled = settled or {}
        self._newest = newest or {}

    def with_entry(self, key: str, value: V) -> Layered[V]:
        """This map with one entry more, or with another value for a key."""
        newest = {**self._newest, key: value}
        if len(newest) < FOLD_AT:
            return Layered(self._settled, newest)
        return Layered({**self._settled, **newest})

    def __getitem__(self, key: str) -> V:
        return self._newest[key] if key in self._newest else self._settled[key]

    def __iter__(self) -> Iterator[str]:
        yield from (key for key in self._settled if key not in self._newest)
        yield from self._newest

    def __len__(self) -> int:
        return len(self._settled) + sum(key not in self._settled for key in self._newest)
