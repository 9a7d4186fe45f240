from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.blobs.store import FolderBlobStore
from tests.support.api import WITH_BULK, Consortium, Scene, listening
from tests.support.api_fixtures import consortium
from tests.support.bulk import Contexts, count_calls

__all__ = ["consortium"]


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> Contexts:
    return Contexts(Consortium(tmp_path_factory.mktemp("contexts")))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    return count_calls(monkeypatch)


@pytest.fixture
def scene(consortium: Consortium, calls: Counter[tuple[str, str]]) -> Iterator[Scene]:
    """`north` and `ops` in the roster, all three listeners, Put and Get counted."""
    with listening(consortium, WITH_BULK) as (listeners, addresses):
        made = Scene(consortium, listeners, addresses)
        yield made
        for session in made.sessions:
            session.close()


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[FolderBlobStore]:
    store = FolderBlobStore(tmp_path / "ours")
    yield store
    store.close()
