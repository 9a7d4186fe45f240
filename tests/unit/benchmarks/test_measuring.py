"""What benchmarks/measuring computes, without processes: cgroups of both versions, rates, steps, lines through points."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from common.errors import OperationError
from tests.support.benchmark_modules import accounting, cgroups, growth, machine, profile

V1_MOUNT = "30 20 0:26 / {root} rw,relatime - cgroup cgroup rw,memory"
V2_MOUNT = "30 20 0:26 / {root} rw,relatime - cgroup2 cgroup rw,nsdelegate"


def a_proc(folder: Path, mount: str, cgroup: str) -> Path:
    """A /proc that knows one cgroup mount, at folder/fs."""
    proc = folder / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "mountinfo").write_text(mount.format(root=folder / "fs") + "\n")
    (proc / "self" / "cgroup").write_text(cgroup + "\n")
    return proc


def test_version_1_offers_the_own_memory_cgroup(tmp_path: Path) -> None:
    proc = a_proc(tmp_path, V1_MOUNT, "8:cpu:/elsewhere\n4:memory:/user/me")
    assert list(cgroups.places(proc)) == [(cgroups.V1, tmp_path / "fs" / "user" / "me")]


def test_version_2_offers_each_cgroup_above_that_has_the_memory_controller(tmp_path: Path) -> None:
    proc = a_proc(tmp_path, V2_MOUNT, "0::/user/me")
    (tmp_path / "fs" / "user" / "me").mkdir(parents=True)
    for place, controllers in (("user/me", "pids"), ("user", "memory pids"), (".", "cpu memory")):
        (tmp_path / "fs" / place / "cgroup.controllers").write_text(controllers + "\n")
    assert list(cgroups.places(proc)) == [(cgroups.V2, tmp_path / "fs" / "user"), (cgroups.V2, tmp_path / "fs")]


def test_a_cage_of_version_2_has_its_limit_and_no_swap_and_says_what_it_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Path.mkdir

    def mkdir_as_the_kernel_does(path: Path) -> None:
        made(path)
        (path / "memory.swap.max").write_text("max\n")
        (path / "cgroup.subtree_control").write_text("\n")

    (tmp_path / "cgroup.subtree_control").write_text("pids\n")
    monkeypatch.setattr(Path, "mkdir", mkdir_as_the_kernel_does)
    cages = cgroups.Cages(tmp_path / "cages", cgroups.V2, 512_000_000)
    place = cages.cage("agent")
    assert place == tmp_path / "cages" / "agent"
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+memory"
    assert (tmp_path / "cages" / "cgroup.subtree_control").read_text() == "+memory"
    assert (place / "memory.max").read_text() == "512000000"
    assert (place / "memory.swap.max").read_text() == "0"
    (place / "memory.peak").write_text("123000000\n")
    (place / "memory.events").write_text("low 0\nhigh 0\nmax 7\noom 1\noom_kill 2\n")
    assert cages.readings() == {"agent": cgroups.Reading(peak_mb=123.0, oom_kills=2, limit_hits=7)}


def test_a_machine_without_memory_cgroups_says_what_to_do(tmp_path: Path) -> None:
    proc = a_proc(tmp_path, V2_MOUNT, "0::/")
    (tmp_path / "fs").mkdir()
    with pytest.raises(OperationError, match="no memory controller is mounted") as error:
        cgroups.Cages.find(1000, proc)
    assert "systemd-run" in error.value.fix


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_usage_counts_processor_time_and_written_bytes(tmp_path: Path) -> None:
    before = accounting.usage(os.getpid())
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    (tmp_path / "file").write_bytes(bytes(1_000_000))
    used = accounting.usage(os.getpid()) - before
    assert 0.15 < used.seconds < 2
    assert used.written_bytes >= 0


def test_samples_of_perf_fall_into_steps() -> None:
    assert profile.step_of("_copy_to_iter", "[kernel.kallsyms]") == "kernel: copies"
    assert profile.step_of("copy_folio_from_iter_atomic", "[kernel.kallsyms]") == "kernel: files"
    assert profile.step_of("finish_task_switch.isra.0", "[kernel.kallsyms]") == "kernel: waking and switching"
    assert profile.step_of("tcp_sendmsg_locked", "[kernel.kallsyms]") == "kernel: network"
    assert profile.step_of("[unknown]", "/x/grpc/_cython/cygrpc.cpython-311-x86_64-linux-gnu.so") == "gRPC and TLS"
    assert profile.step_of("blake3_hash_many_avx512", "/x/blake3/blake3.so") == "hash"
    line = " 4250 37555.875996:      7fb1edfb291c get_common (x) (/usr/lib/ld-linux-x86-64.so.2)"
    match = profile.SAMPLE.match(line)
    assert match is not None
    assert (match["symbol"], match["library"]) == ("get_common (x)", "/usr/lib/ld-linux-x86-64.so.2")


def test_a_straight_line_is_linear_and_a_square_is_not() -> None:
    def points(seconds: list[float]) -> list[dict[str, float]]:
        return [{"gb_moved": float(2**at), "round_seconds": each} for at, each in enumerate(seconds)]

    straight = growth.series(points([1.5, 2.5, 4.5, 8.5]))
    assert straight["line"] == {"fixed_seconds": 0.5, "seconds_per_gb": 1.0, "largest_deviation": 0.0}
    assert straight["met"]
    square = growth.series(points([1, 4, 16, 64]))
    assert square["exponent"] == 2.0
    assert not square["met"]
    with pytest.raises(OperationError, match="One point makes no line"):
        growth.series(points([1]))


def test_the_machines_limits_are_rates(tmp_path: Path) -> None:
    tiny = machine.Effort(memory_bytes=8_000_000, disk_bytes=4_200_000, repeats=1, fsyncs=3)
    limits = machine.measure(tmp_path, tiny)
    assert all(each > 0 for each in limits.report().values())
    assert limits.disk == max(limits.disk_new, limits.disk_over)
    assert list(tmp_path.iterdir()) == []
