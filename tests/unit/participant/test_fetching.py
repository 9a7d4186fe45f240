"""What is fetched for a round, in which order, why not, and that nothing of it stays."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from common.blobs.reference import BlobRef
from common.blobs.store import FolderBlobStore
from common.errors import (
    CorruptChunk,
    HomeLocked,
    LLMasOSError,
    MissingBlob,
    NotAuthorised,
    StorageFailure,
    TooManyRequests,
    UnknownCertificate,
)
from common.verify.rounds import Fetching
from common.wire.transfer import TransferOptions
from participant.fetching import FOLDER, NOT_ASKED, Fetched, folder_for_fetching
from tests.support.blobs import put_blob

MODEL, EAST, NORTH = b"the base model", b"the delta of east", b"the delta of north"


class Shelf:
    """A source over a folder; `refusals` by blob, for asking or for fetching."""

    def __init__(self, store: FolderBlobStore) -> None:
        self._store = store
        self.asking: dict[BlobRef, list[LLMasOSError]] = {}
        self.fetching: dict[BlobRef, list[LLMasOSError]] = {}
        self.asked: list[BlobRef] = []
        self.fetched: list[BlobRef] = []

    def expect_readable(self, ref: BlobRef) -> None:
        self.asked.append(ref)
        if self.asking.get(ref):
            raise self.asking[ref].pop(0)

    def download(
        self, ref: BlobRef, store: FolderBlobStore, owner: str, options: TransferOptions | None = None
    ) -> bool:
        if self.fetching.get(ref):
            raise self.fetching[ref].pop(0)
        self.fetched.append(ref)
        assert put_blob(store, self._store.path(ref).read_bytes()) == ref
        return True


class Scene:
    """Three blobs at a source; what is held here; what is fetched."""

    def __init__(self, folder: Path) -> None:
        self.there, self.held = FolderBlobStore(folder / "there"), FolderBlobStore(folder / "held")
        self.store = FolderBlobStore(folder / "fetched")
        self.model, self.east, self.north = (put_blob(self.there, content) for content in (MODEL, EAST, NORTH))
        self.round = [self.model, self.east, self.north]
        self.source, self.said, self.slept = Shelf(self.there), list[str](), list[float]()
        self.blobs = Fetched(self.held, self.source, self.store, "north", self.said.append, sleep=self.slept.append)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    for store in (made.there, made.held, made.store):
        store.close()


def test_all_inputs_come_deltas_asked_for_first_and_go_again(scene: Scene) -> None:
    assert isinstance(scene.blobs, Fetching)
    assert scene.blobs.bring(scene.round) == {}
    assert scene.source.asked == [scene.north, scene.east, scene.model]
    assert scene.said == ["fetching 3 blobs, 49 bytes"]
    with scene.blobs.open(scene.east) as reader:
        assert reader.ref == scene.east
    scene.blobs.let_go()
    assert [scene.blobs.contains(ref) for ref in scene.round] == [False] * 3


def test_what_is_held_is_neither_asked_for_nor_deleted(scene: Scene) -> None:
    put_blob(scene.held, MODEL)
    assert scene.blobs.bring(scene.round) == {}
    assert scene.source.fetched == [scene.north, scene.east]
    scene.blobs.let_go()
    assert [scene.blobs.contains(ref) for ref in scene.round] == [True, False, False]
    put_blob(scene.held, EAST)
    put_blob(scene.held, NORTH)
    scene.source.asked.clear()
    assert scene.blobs.bring(scene.round) == {}
    assert scene.source.asked == [], "nothing lacks"


@pytest.mark.parametrize(
    ("failure", "why"),
    [
        (NotAuthorised("No statement gives north that blob."), "not visible to north"),
        (MissingBlob("It is gone."), "not retained by the coordinator"),
        (CorruptChunk("Other bytes."), "not served as the ledger names it (corrupt-chunk)"),
    ],
    ids=["not-visible", "not-retained", "corrupt"],
)
def test_one_that_cannot_come_ends_the_asking_and_is_remembered(scene: Scene, failure: LLMasOSError, why: str) -> None:
    scene.source.asking[scene.east] = [failure]
    expected = {scene.north: NOT_ASKED, scene.east: why, scene.model: NOT_ASKED}
    assert scene.blobs.bring(scene.round) == expected
    assert scene.source.fetched == []
    scene.source.asked.clear()
    assert scene.blobs.bring(scene.round) == expected
    assert scene.source.asked == [scene.north], "what was answered is not asked again"


def test_what_is_gone_by_the_time_that_it_is_fetched_says_so(scene: Scene) -> None:
    scene.source.fetching[scene.model] = [MissingBlob("It is gone.")]
    assert scene.blobs.bring(scene.round)[scene.model] == "not retained by the coordinator"
    scene.blobs.let_go()
    assert list(scene.store.list()) == []


def test_a_coordinator_that_does_not_know_this_institution_any_more_is_asked_once(scene: Scene) -> None:
    scene.source.asking[scene.north] = [UnknownCertificate("No active member holds this certificate.")]
    why = "not held here, and the coordinator is not reached"
    for _ in range(2):
        assert set(scene.blobs.bring(scene.round).values()) == {why}
    assert scene.source.asked == [scene.north]
    assert scene.said == [
        "going on with what is held here: No active member holds this certificate. (unknown-certificate)"
    ]


def test_a_busy_coordinator_is_waited_for(scene: Scene) -> None:
    scene.source.asking[scene.north] = [TooManyRequests("Too many.")] * 3
    assert scene.blobs.bring(scene.round) == {}
    assert scene.slept == [0.5] * 3


def test_a_disk_without_room_is_an_error_and_nothing_is_fetched(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=100, used=60, free=40))
    with pytest.raises(
        StorageFailure, match=r"needs 49 bytes of models and deltas, 40 are free on this disk\."
    ) as caught:
        scene.blobs.bring(scene.round)
    assert "--no-fetch" in caught.value.fix
    assert scene.source.fetched == []


def test_what_a_killed_command_left_is_used_and_deleted(tmp_path: Path) -> None:
    left = FolderBlobStore(tmp_path / FOLDER / "blobs")
    ref = put_blob(left, EAST)
    left.close()
    with folder_for_fetching(tmp_path) as store:
        assert store.contains(ref)
    assert not (tmp_path / FOLDER / "blobs").exists()


def test_one_command_fetches_at_a_time(tmp_path: Path) -> None:
    def second() -> None:
        with folder_for_fetching(tmp_path):
            pass

    with folder_for_fetching(tmp_path) as store:
        ref = put_blob(store, EAST)
        with pytest.raises(HomeLocked):
            second()
        assert store.contains(ref)
    second()


def test_an_interrupted_command_leaves_nothing(tmp_path: Path) -> None:
    def interrupted(action: Callable[[FolderBlobStore], object]) -> None:
        with folder_for_fetching(tmp_path) as store:
            action(store)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted(lambda store: put_blob(store, EAST))
    assert list(tmp_path.rglob("*.blob")) == []
