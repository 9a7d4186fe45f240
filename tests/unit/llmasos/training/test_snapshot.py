"""Snapshots: going on from one gives the bits of never having stopped."""

from __future__ import annotations

import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from common.errors import StorageFailure  # noqa: E402
from llmasos.evaluation.perplexity import LossSums  # noqa: E402
from llmasos.models.sharding import Part  # noqa: E402
from llmasos.training import state_file  # noqa: E402
from llmasos.training.loop import LocalTraining, RoundSums, RoundWork, StepDone  # noqa: E402
from llmasos.training.snapshot import Record, SnapshotFolder, State  # noqa: E402
from tests.unit.llmasos.training.test_loop import bits  # noqa: E402

pytestmark = pytest.mark.torch

Make = Callable[..., Any]
WITH_DROPOUT = {"type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 32, "n_positions": 32, "dropout": "0.1"}


def a_record(**changes: Any) -> Record:
    fields: dict[str, Any] = {
        "run": "tiny-abc123", "round": 3, "seed": 5, "base": "00" * 32, "step": 2, "steps": 6, "tokens": 256,
        "loss_sum_fixed": 700_000, "evaluation": LossSums(9, 1), "device": "cpu", "threads": 1, "capability": "AVX2",
        "versions": {"torch": "2"},
    }  # fmt: skip
    return Record(**(fields | changes))


def a_state() -> State:
    return State({"w": torch.arange(4.0)}, {"w.step": torch.tensor(2.0), "w.exp_avg": torch.ones(4)})


def test_training_that_stopped_goes_on_with_the_same_bits(trainee: Make, tmp_path: Path) -> None:
    one = trainee(model=WITH_DROPOUT)
    folder = SnapshotFolder(tmp_path / "snapshots")
    whole = one.training()

    def stop_half_way(boundary: StepDone) -> None:
        if boundary.step == 3:
            record = a_record(step=3, tokens=boundary.sums.num_tokens, loss_sum_fixed=boundary.sums.loss_sum_fixed)
            folder.write(record, State(whole.weights(), whole.moments()))

    expected = whole.run_round(RoundWork(trained_rounds=0, seed=5), one.draw, stop_half_way)
    resumed = one.training()
    found = folder.newest_of(a_record())
    assert found is not None
    state = found.load()
    resumed.load_weights(state.weights)
    resumed.load_moments(state.moments)
    done = RoundSums(found.record.step, found.record.tokens, found.record.loss_sum_fixed)
    assert resumed.run_round(RoundWork(trained_rounds=0, seed=5, done=done), one.draw) == expected
    assert bits(resumed.weights()) == bits(whole.weights())
    assert bits(resumed.moments()) == bits(whole.moments())


def test_a_snapshot_brings_back_record_weights_and_moments(tmp_path: Path) -> None:
    folder = SnapshotFolder(tmp_path / "snapshots")
    written = folder.write(a_record(), a_state())
    assert written.folder.name == "round-00000003-step-00000002"
    assert sorted(path.name for path in written.folder.iterdir()) == ["rank-00000.safetensors", "snapshot.json"]
    found = folder.newest_of(a_record(step=0))
    assert found is not None
    assert found.record == written.record == a_record(part=found.record.part)
    assert bits(dict(found.load().weights)) == bits({"w": torch.arange(4.0)})
    assert set(found.load().moments) == {"w.step", "w.exp_avg"}


def test_each_rank_writes_a_part_and_together_they_are_the_state(tmp_path: Path) -> None:
    weights = {"a": torch.arange(6.0), "b": torch.ones(2, 3), "c": torch.zeros(())}
    state = State(weights, {"a.step": torch.tensor(2.0), "b.exp_avg": torch.ones(2, 3)})
    record = a_record(ranks=3)
    parts = [state.part(rank, 3) for rank in range(3)]
    names = [name for part in parts for name in (*part.weights, *part.moments)]
    assert sorted(names) == sorted([*state.weights, *state.moments])
    others = [
        threading.Thread(target=SnapshotFolder(tmp_path, rank).write, args=(record, parts[rank])) for rank in (1, 2)
    ]
    for other in others:
        other.start()
    written = SnapshotFolder(tmp_path).write(record, parts[0])
    for other in others:
        other.join()
    assert [path.name for path in tmp_path.iterdir()] == [written.folder.name]
    found = SnapshotFolder(tmp_path, 1).named(written.folder.name)
    assert found is not None
    assert bits(dict(found.load().weights)) == bits(dict(state.weights))
    assert bits(dict(found.load().moments)) == bits(dict(state.moments))
    (written.folder / "rank-00002.safetensors").unlink()
    with pytest.raises(StorageFailure, match="rank-00002"):
        found.load()


def test_rows_that_ranks_share_out_are_one_tensor_again(tmp_path: Path) -> None:
    table = torch.arange(12.0).reshape(4, 3)
    for rank, (first, last) in enumerate([(0, 2), (2, 4), (4, 4)]):
        state_file.write(tmp_path / str(rank), {"weight.w": table[first:last]}, {"weight.w": Part(0, first, 4)})
    pieces = [state_file.read_pieces(tmp_path / str(rank), None)["weight.w"] for rank in (2, 1, 0)]
    assert torch.equal(state_file.joined("weight.w", pieces), table)
    with pytest.raises(StorageFailure, match=r"tensor weight\.w lacks row 0"):
        state_file.joined("weight.w", pieces[:2])
    with pytest.raises(StorageFailure, match=r"tensor weight\.w has 2 rows, expected 4"):
        state_file.joined("weight.w", pieces[2:])


def test_columns_that_ranks_share_out_are_one_tensor_again(tmp_path: Path) -> None:
    table = torch.arange(12.0).reshape(3, 4)
    for rank, (first, last) in enumerate([(0, 3), (3, 4)]):
        state_file.write(tmp_path / str(rank), {"weight.w": table[:, first:last]}, {"weight.w": Part(1, first, 4)})
    pieces = [state_file.read_pieces(tmp_path / str(rank), None)["weight.w"] for rank in (1, 0)]
    assert torch.equal(state_file.joined("weight.w", pieces), table)
    with pytest.raises(StorageFailure, match=r"tensor weight\.w lacks column 0"):
        state_file.joined("weight.w", pieces[:1])


def test_a_rank_that_cannot_write_its_part_fails_rank_0(tmp_path: Path) -> None:
    (tmp_path / ".unfinished-round-00000003-step-00000002" / "rank-00001.safetensors").mkdir(parents=True)
    with pytest.raises(StorageFailure):
        SnapshotFolder(tmp_path, 1).write(a_record(ranks=2), a_state())
    with pytest.raises(StorageFailure, match="rank 1 could not write its part"):
        SnapshotFolder(tmp_path).write(a_record(ranks=2), a_state())
    assert SnapshotFolder(tmp_path).newest_of(a_record()) is None


def test_what_a_killed_writer_left_goes_at_the_next_round(tmp_path: Path) -> None:
    written = SnapshotFolder(tmp_path).write(a_record(), a_state())
    (tmp_path / ".unfinished-round-00000003-step-00000004").mkdir()
    SnapshotFolder(tmp_path).remove_unfinished()
    assert list(tmp_path.iterdir()) == [written.folder]


def test_a_record_without_every_ranks_digest_is_damaged() -> None:
    with pytest.raises(ValueError, match="2 ranks, and digests of 1 parts"):
        a_record(ranks=2, parts=("aa",))


def test_a_snapshot_is_for_its_owner_only(tmp_path: Path) -> None:
    written = SnapshotFolder(tmp_path / "snapshots").write(a_record(), a_state())
    assert stat.S_IMODE(written.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((written.folder / "rank-00000.safetensors").stat().st_mode) == 0o600


@pytest.mark.parametrize("change", [{"run": "other"}, {"round": 4}, {"seed": 6}, {"base": "11" * 32}, {"steps": 7}])
def test_a_snapshot_of_another_training_is_not_gone_on_from(tmp_path: Path, change: dict[str, Any]) -> None:
    folder = SnapshotFolder(tmp_path / "snapshots")
    folder.write(a_record(), a_state())
    assert folder.newest_of(a_record(**change)) is None


def test_moments_come_from_the_newest_finished_round_before(tmp_path: Path) -> None:
    folder = SnapshotFolder(tmp_path / "snapshots")
    folder.write(a_record(round=1, step=6), a_state())
    folder.write(a_record(round=2, step=4), a_state())
    folder.write(a_record(round=3, step=2), a_state())
    found = folder.newest_finished_before("tiny-abc123", 3)
    assert found is not None
    assert found.record.round == 1
    assert folder.newest_finished_before("other", 3) is None
    assert folder.newest_finished_before("tiny-abc123", 1) is None


def test_what_nothing_needs_any_more_is_removed(tmp_path: Path) -> None:
    root = tmp_path / "snapshots"
    folder = SnapshotFolder(root)
    (root / ".unfinished-x").mkdir(parents=True)
    for round_number, step in ((1, 6), (2, 6), (3, 2), (3, 4)):
        folder.write(a_record(round=round_number, step=step), a_state())
    assert sorted(path.name for path in root.iterdir()) == [
        "round-00000002-step-00000006",
        "round-00000003-step-00000004",
    ]


def test_an_unreadable_record_is_passed_over(tmp_path: Path) -> None:
    folder = SnapshotFolder(tmp_path / "snapshots")
    written = folder.write(a_record(), a_state())
    (written.folder / "snapshot.json").write_text("{")
    assert folder.newest_of(a_record()) is None


def test_a_damaged_part_names_its_folder_and_what_to_do(tmp_path: Path) -> None:
    written = SnapshotFolder(tmp_path / "snapshots").write(a_record(), a_state())
    (written.folder / "rank-00000.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(StorageFailure, match=r"round-00000003-step-00000002/rank.* is damaged") as caught:
        written.load()
    assert "the round begins again" in caught.value.fix


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :]


def test_a_flipped_bit_anywhere_in_a_snapshot_is_seen(tmp_path: Path) -> None:
    folder = SnapshotFolder(tmp_path / "snapshots")
    written = folder.write(a_record(), a_state())
    part, record = written.folder / "rank-00000.safetensors", written.folder / "snapshot.json"
    content = part.read_bytes()
    for at in range(len(content)):
        part.write_bytes(flipped(content, at))
        with pytest.raises(StorageFailure, match=r"is damaged"):
            written.load()
    part.write_bytes(content)
    content = record.read_bytes()
    for at in range(len(content)):
        record.write_bytes(flipped(content, at))
        found = folder.newest_of(a_record())
        assert found is None or found.record == written.record, content[:at].decode()[-20:]
    record.write_bytes(content)
    assert folder.newest_of(a_record()) == written


def test_a_snapshot_of_a_release_without_digests_is_read(tmp_path: Path) -> None:
    folder = SnapshotFolder(tmp_path / "snapshots")
    written = folder.write(a_record(), a_state())
    (written.folder / "snapshot.json").write_text(a_record().model_dump_json(exclude_none=True, exclude={"deviations"}))
    save_file({"weight.w": torch.arange(4.0)}, written.folder / "rank-00000.safetensors")
    found = folder.newest_of(a_record())
    assert found is not None
    assert bits(dict(found.load().weights)) == bits({"w": torch.arange(4.0)})


def test_a_file_of_state_is_a_safetensors_file_of_any_layout_and_type(tmp_path: Path) -> None:
    tensors = {
        "turned": torch.arange(6.0).reshape(2, 3).T,
        "scalar": torch.tensor(2.0),
        "empty": torch.zeros(0, 3),
        "short": torch.arange(5.0).bfloat16(),
        "count": torch.arange(3),
    }
    path = tmp_path / "state.safetensors"
    read = state_file.read(path, state_file.write(path, tensors))
    assert {name: (value.dtype, value.tolist()) for name, value in read.items()} == {
        name: (value.dtype, value.tolist()) for name, value in tensors.items()
    }


def test_loading_gives_training_its_own_copies(trainee: Make, tmp_path: Path) -> None:
    one = trainee()
    training: LocalTraining = one.training()
    one.run(training)
    written = SnapshotFolder(tmp_path / "snapshots").write(a_record(), State(training.weights(), training.moments()))
    before = bits(dict(written.load().weights))
    again = one.training()
    again.load_weights(written.load().weights)
    again.load_moments(written.load().moments)
    one.run(again)
    assert bits(dict(written.load().weights)) == before
