"""A base model made from the one that is here: the coordinator's very bits, or what is lacking is fetched."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common import tensors
from common.blobs.reader import BlobReader
from common.blobs.reference import CHUNK_BYTES, BlobRef
from common.blobs.store import FolderBlobStore
from common.blobs.upload import Upload
from common.errors import CoordinatorUnreachable, LLMasOSError, MissingBlob, NotAuthorised
from common.ledger.downlink import useful_deltas, way_to
from common.ledger.state import Contributed, Place, RoundRecord, RunRecord
from common.statements.kinds import (
    Contribution,
    InitialBlobs,
    Kind,
    PlanStatement,
    RoundClosed,
    RoundInputs,
    RoundOpened,
    SealedInput,
    Tensor,
)
from common.wire.transfer import TransferOptions
from coordinator.aggregation import Aggregation
from participant.downlink import Downlink
from participant.policy.estimates import estimate
from tests.support import null_worker
from tests.support.blobs import leaves_and_ref, put_blob, read_blob, tensor_manifest
from tests.support.encoded import encoded_blob
from tests.support.plans import a_plan
from tests.support.statements import a_blob_ref

MANIFEST = tensor_manifest(trainable={"w": (3 * CHUNK_BYTES // 4 + 77,), "s": ()}, frozen={"f": (5,)})
"""Four chunks."""
ADAPTED = tensor_manifest(trainable={"a": (CHUNK_BYTES // 4,)}, frozen={"f": (3 * CHUNK_BYTES // 4,)})
"""Two chunks that hold an adapter's numbers, and three more."""
DIGEST = "ab" * 32
NAME = "north"


class Scene:
    """A run of some committed rounds at a coordinator, by its own aggregation, and an institution's folder."""

    def __init__(
        self, folder: Path, *, rounds: int, downlink: str = "int8", manifest: tuple[Tensor, ...] = MANIFEST
    ) -> None:
        self.there, self.here = FolderBlobStore(folder / "there"), FolderBlobStore(folder / "here")
        self.manifest = manifest
        elements = sum(tensor.elements for tensor in manifest)
        base = tensors.model_header(manifest) + null_worker.values(1, 0, elements).tobytes()
        initial = InitialBlobs(model=put_blob(self.there, base), tokenizer=put_blob(self.there, b"{}"))
        statement = PlanStatement(
            run="tiny-1", plan=a_plan(downlink={"type": downlink}), manifest=manifest, initial=initial
        )
        self.run = RunRecord(place(0, Kind.PLAN), statement)
        self.models = [initial.model]
        for number in range(1, rounds + 1):
            self._commit(number)
        self.asked: list[BlobRef] = []
        self.failures: dict[BlobRef, LLMasOSError] = {}
        self.downlink = Downlink(NAME, self.here, self)

    def _commit(self, number: int) -> None:
        values = null_worker.values(100 + number, 0, tensors.trainable_elements(self.manifest))
        delta = put_blob(self.there, encoded_blob("float32", self.manifest, values))
        opened = RoundOpened.model_validate(
            {
                "run": "tiny-1",
                "round": number,
                "task": "train",
                "inputs": RoundInputs(model=self.run.model, server_state=self.run.server_state),
                "cohort": (NAME,),
                "roster": DIGEST,
                "seed": 1,
                "stages": ({"name": "collect", "deadline": "2026-11-22T00:00:00.000Z"},),
            }
        )
        contribution = Contribution.model_validate(
            {
                "institution": NAME,
                "run": "tiny-1",
                "round": number,
                "blobs": {"delta": delta},
                "weight": {"mode": "clear", "num_tokens": 7},
            }
        )
        record = RoundRecord(
            place(number, Kind.ROUND_OPENED),
            opened,
            {NAME: Contributed(place(number, Kind.CONTRIBUTION), contribution)},
        )
        sealed = SealedInput(institution=NAME, contribution=DIGEST, num_tokens=7, status="used")
        outputs = Aggregation(self.there).aggregate(self.run, record, (sealed,))
        closed = RoundClosed(
            run="tiny-1", round=number, outcome="committed", reason="x", rule="x", inputs=(sealed,), outputs=outputs
        )
        done = RoundRecord(record.place, opened, record.contributions, closed, place(number, Kind.ROUND_CLOSED))
        self.run = self.run.with_round(done)
        self.models.append(outputs.model)

    @property
    def applied(self) -> list[BlobRef]:
        """Applied deltas by round, from 1."""
        found = [record.closed.outputs.applied_delta for record in self.run.rounds if record.closed]
        return [ref for ref in found if ref is not None]

    def hold(self, ref: BlobRef) -> None:
        assert put_blob(self.here, read_blob(self.there, ref)) == ref

    # --- as a Source --------------------------------------------------------------------------------------------------

    def leaves(self, ref: BlobRef) -> bytes:
        self._fail(ref)
        return self.there.leaves(ref)

    def download(
        self, ref: BlobRef, store: FolderBlobStore, owner: str, options: TransferOptions | None = None
    ) -> bool:
        """As the real one: what is missing, chunk by chunk."""
        assert store is self.here
        self._fail(ref)
        if store.contains(ref):
            return True
        content = read_blob(self.there, ref)
        given = options or TransferOptions()
        upload = store.begin(
            ref, self.there.leaves(ref), owner=owner, durable=given.durable, instead_of=given.instead_of
        )
        for first, count in upload.missing():
            for chunk in range(first, first + count):
                upload.write(chunk, content[chunk * CHUNK_BYTES : (chunk + 1) * CHUNK_BYTES])
                given.on_bytes(ref.chunk_size(chunk))
        self.asked.append(ref)
        return upload.finish()

    def _fail(self, ref: BlobRef) -> None:
        if ref in self.failures:
            raise self.failures[ref]

    # --- as the agent -------------------------------------------------------------------------------------------------

    def fetch(self, model: BlobRef) -> int:
        """What an agent does for a round from that model; how many bytes of blobs came."""
        came: list[int] = []
        options = TransferOptions(on_bytes=came.append, durable=False, instead_of=self.models[0])
        self.downlink.bring(self.run, model, options)
        assert self.download(model, self.here, NAME, options)
        assert read_blob(self.here, model) == read_blob(self.there, model)
        return sum(came)

    def restart(self) -> None:
        """As after kill -9: nothing but the folder is left."""
        self.here.close()
        self.here = FolderBlobStore(self.here._root)
        self.downlink = Downlink(NAME, self.here, self)


def place(index: int, kind: Kind) -> Place:
    return Place(index, hashlib.sha256(f"{kind}{index}".encode()).hexdigest(), kind)


Make = Callable[..., Scene]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Scene] = []

    def new(**changes: Any) -> Scene:
        made.append(Scene(tmp_path / str(len(made)), **changes))
        return made[-1]

    yield new
    for scene in made:
        scene.here.close()
        scene.there.close()


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "participant.downlink"]


def test_who_holds_the_model_before_gets_the_next_by_its_applied_delta_over_the_same_file(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    scene = make(rounds=2)
    first, second, third = scene.models
    scene.hold(first)
    file = scene.here.path(first).stat().st_ino
    assert scene.fetch(second) == scene.applied[0].size < 0.26 * second.size
    assert scene.fetch(third) == scene.applied[1].size
    assert scene.here.path(third).stat().st_ino == file
    assert not scene.here.contains(second)
    assert events(caplog) == ["model brought forward"] * 2
    assert scene.fetch(third) == 0


@pytest.mark.parametrize(("downlink", "most"), [("int8", 3), ("int4", 7), ("bfloat16", 2), ("float32", 1)])
def test_missed_rounds_are_made_good_by_as_many_deltas_as_are_smaller_than_the_model(
    make: Make, downlink: str, most: int
) -> None:
    scene = make(rounds=most + 1, downlink=downlink)
    scene.hold(scene.models[0])
    whole = scene.models[-1].size
    assert most * scene.applied[0].size < whole <= (most + 1) * scene.applied[0].size
    assert scene.fetch(scene.models[most]) == sum(ref.size for ref in scene.applied[:most])
    scene.here.delete(scene.models[most])
    scene.hold(scene.models[0])
    assert scene.fetch(scene.models[-1]) == whole


def test_of_an_adapted_model_deltas_come_only_as_long_as_they_are_smaller_than_the_chunks_that_change(
    make: Make,
) -> None:
    scene = make(rounds=4, downlink="bfloat16", manifest=ADAPTED)
    first, size = scene.models[0], scene.applied[0].size
    assert (first.chunks, tensors.changing_bytes(ADAPTED)) == (5, 2 * CHUNK_BYTES)
    assert 3 * size < 2 * CHUNK_BYTES < 4 * size < first.size
    scene.hold(first)
    assert scene.fetch(scene.models[3]) == 3 * size
    scene.here.delete(scene.models[3])
    scene.hold(first)
    assert scene.fetch(scene.models[4]) == 2 * CHUNK_BYTES
    assert useful_deltas(scene.run) == tuple(reversed(scene.applied))[:3]


def test_of_an_adapted_model_what_is_frozen_is_not_read(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    scene, read = make(rounds=1, manifest=ADAPTED), list[tuple[BlobRef, int]]()
    first, second = scene.models
    scene.hold(first)
    real = BlobReader.read_chunk

    def watched(reader: BlobReader, index: int, into: memoryview) -> memoryview:
        read.append((reader.ref, index))
        return real(reader, index, into)

    monkeypatch.setattr(BlobReader, "read_chunk", watched)
    scene.downlink.bring(scene.run, second, TransferOptions(durable=False))
    assert [index for ref, index in read if ref == first] == [0, 1]
    assert read_blob(scene.here, second) == read_blob(scene.there, second)


def test_the_newest_held_model_is_the_start(make: Make) -> None:
    scene = make(rounds=3)
    scene.hold(scene.models[0])
    scene.hold(scene.models[2])
    assert scene.fetch(scene.models[3]) == scene.applied[2].size
    assert scene.here.contains(scene.models[0])
    assert way_to(scene.run, a_blob_ref("no model of it"), lambda ref: True) is None


def test_a_newcomer_fetches_the_model(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    scene = make(rounds=1)
    assert scene.fetch(scene.models[1]) == scene.models[1].size
    assert scene.asked == [scene.models[1]]
    assert events(caplog) == []


@pytest.mark.parametrize("failure", [MissingBlob("gone"), NotAuthorised("not yours")], ids=lambda err: err.code)
@pytest.mark.parametrize("what", ["delta", "leaves"])
def test_what_the_coordinator_does_not_give_is_done_without(
    make: Make, failure: LLMasOSError, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    scene = make(rounds=1)
    scene.hold(scene.models[0])
    scene.failures[scene.applied[0] if what == "delta" else scene.models[1]] = failure
    scene.downlink.bring(scene.run, scene.models[1], TransferOptions())
    assert events(caplog) == ["applied delta not used"]
    assert scene.here.contains(scene.models[0])
    scene.failures.clear()


def test_a_coordinator_that_is_not_reached_is_asked_again_later(make: Make) -> None:
    scene = make(rounds=1)
    scene.hold(scene.models[0])
    scene.failures[scene.applied[0]] = CoordinatorUnreachable("No answer from there.")
    with pytest.raises(CoordinatorUnreachable):
        scene.fetch(scene.models[1])
    scene.failures.clear()
    assert scene.fetch(scene.models[1]) == scene.applied[0].size


@pytest.mark.parametrize("killed_at", [0, 1, 3])
def test_killed_in_the_middle_it_fetches_what_is_lacking_and_no_more(
    make: Make, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    class Killed(BaseException):
        pass

    scene = make(rounds=1)
    first, second = scene.models
    scene.hold(first)
    write = Upload.write

    def dies(upload: Upload, chunk: int, data: Any) -> None:
        if upload.ref == second and chunk == killed_at:
            raise Killed
        write(upload, chunk, data)

    monkeypatch.setattr(Upload, "write", dies)
    with pytest.raises(Killed):
        scene.fetch(second)
    monkeypatch.undo()
    scene.restart()
    lacking = sum(second.chunk_size(index) for index in range(killed_at, second.chunks))
    assert scene.fetch(second) == lacking


def test_a_chunk_that_was_torn_when_it_was_written_is_found_and_fetched(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power failure: half of a chunk is the new model's, half the old one's."""

    class Killed(BaseException):
        pass

    scene = make(rounds=1)
    first, second = scene.models
    scene.hold(first)
    monkeypatch.setattr(Upload, "finish", lambda upload: (_ for _ in ()).throw(Killed()) if upload.ref == second else 1)
    scene.hold(scene.applied[0])
    with pytest.raises(Killed):
        scene.fetch(second)
    monkeypatch.undo()
    (partial,) = scene.here._partial.rglob("*.part")
    content = bytearray(partial.read_bytes())
    half = CHUNK_BYTES // 2
    content[half:CHUNK_BYTES] = read_blob(scene.there, first)[half:CHUNK_BYTES]
    partial.write_bytes(content)
    scene.restart()
    assert scene.fetch(second) == CHUNK_BYTES


def test_who_computes_other_bits_fetches_those_chunks_and_says_so(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scene = make(rounds=1)
    scene.hold(scene.models[0])
    write = Upload.write

    def computed_otherwise(upload: Upload, chunk: int, data: Any) -> None:
        content = bytearray(data)
        if upload.ref == scene.models[1] and chunk == 2 and not scene.asked[1:]:
            content[100] ^= 1
            scene.asked.append(upload.ref)
        write(upload, chunk, content)

    monkeypatch.setattr(Upload, "write", computed_otherwise)
    assert scene.fetch(scene.models[1]) == scene.applied[0].size + CHUNK_BYTES
    assert events(caplog) == ["model differs here"]
    (record,) = [each for each in caplog.records if each.name == "participant.downlink"]
    assert record.chunks == 1  # type: ignore[attr-defined]


def test_a_held_model_that_came_to_harm_leads_nowhere_and_the_model_is_fetched(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    scene = make(rounds=1)
    first, second = scene.models
    scene.hold(first)
    path = scene.here.path(first)
    content = bytearray(path.read_bytes())
    content[2 * CHUNK_BYTES + 5] ^= 1
    path.write_bytes(content)
    lacking = sum(second.chunk_size(index) for index in (2, 3))
    assert scene.fetch(second) == scene.applied[0].size + lacking
    assert events(caplog) == ["applied delta not used"]


def test_a_model_whose_file_somebody_else_reads_stays_as_it_is(make: Make, tmp_path: Path) -> None:
    scene = make(rounds=1)
    first, second = scene.models
    scene.hold(first)
    other = tmp_path / "other-name"
    other.hardlink_to(scene.here.path(first))
    assert scene.fetch(second) == scene.applied[0].size
    assert leaves_and_ref(other.read_bytes())[1] == first
    assert scene.here.contains(first)


def test_a_plan_says_what_its_rounds_cost() -> None:
    initial = InitialBlobs(model=a_blob_ref("m", size=50_000), tokenizer=a_blob_ref("t", size=300))
    manifest = tensor_manifest(trainable={"w": (12_000,)})

    def costs(downlink: str | None) -> tuple[int, int]:
        plan = a_plan(downlink=None if downlink is None else {"type": downlink}, rounds=10)
        found = estimate(PlanStatement(run="tiny-1", plan=plan, manifest=manifest, initial=initial))
        return found.down_bytes_per_round, found.traffic_bytes - 10 * found.up_bytes_per_round

    int8 = 128 + -(-12_000 // 124) * 128
    assert costs(None) == (50_000, 300 + 11 * 50_000)
    assert costs("int8") == (int8, 300 + 50_000 + 10 * int8)
    assert costs("float32")[0] < 50_000
    manifest = tensor_manifest(trainable={"a": (CHUNK_BYTES,)}, frozen={"f": (CHUNK_BYTES,)})
    initial = initial.model_copy(update={"model": a_blob_ref("m", size=9 * CHUNK_BYTES)})
    assert costs(None)[0] == 5 * CHUNK_BYTES, "four chunks and a header, in whole chunks"
    assert costs("int8")[0] == 128 + -(-CHUNK_BYTES // 124) * 128
    assert costs("float32")[0] < 5 * CHUNK_BYTES


def test_numbers_of_a_round_differ_everywhere(make: Make) -> None:
    """So that a chunk left as it was would be found."""
    scene = make(rounds=1)
    before, after = (np.frombuffer(read_blob(scene.there, ref), "<f4", offset=1024) for ref in scene.models)
    assert (before[:-5] != after[:-5]).mean() > 0.9
