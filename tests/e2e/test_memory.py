"""The coordinator's memory is a function of nothing that grows: not of the model, whatever its size."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.drafts import make_draft
from tests.support.federations import Federation

MEGABYTE = 10**6
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="VmHWM is Linux's"),
]


def peak_bytes(pid: int) -> int:
    """Most memory that a process ever had resident."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def coordinators_peak(folder: Path, model_bytes: int, codec: str = "float32") -> int:
    """After a round of two participants with a model of that size, whose deltas travel in that codec."""
    with Federation(folder / "federation", ("bank", "clinic"), min_quorum=2) as federation:
        federation.start_participants()
        shapes = {"embedding": (model_bytes // 4000, 1000)}
        draft = make_draft(folder / "draft", shapes=shapes, rounds=1, quorum=2, codec={"type": codec})
        assert draft.statement.initial.model.size > model_bytes - 4000
        ended = federation.wait_until_ended(federation.start_run(draft))
        assert ended.ended is not None
        assert ended.ended.reason == "rounds-done"
        assert federation.coordinator is not None
        return peak_bytes(federation.coordinator.pid)


def test_a_tenfold_model_takes_the_coordinator_no_more_memory(tmp_path: Path) -> None:
    small = coordinators_peak(tmp_path / "small", 20 * MEGABYTE)
    large = coordinators_peak(tmp_path / "large", 200 * MEGABYTE)
    assert large - small < 40 * MEGABYTE, f"{small:,} and {large:,} bytes"
    assert large < 300 * MEGABYTE


@pytest.mark.parametrize("codec", ["int4", "topk"])
def test_a_chunk_of_millions_of_small_numbers_takes_the_coordinator_no_more_than_it_may(
    tmp_path: Path, codec: str
) -> None:
    assert coordinators_peak(tmp_path, 200 * MEGABYTE, codec) < 300 * MEGABYTE
