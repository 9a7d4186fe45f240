"""Settings under which the same inputs give the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from llmasos.training import device  # noqa: E402
from llmasos.training.device import Machine, set_up  # noqa: E402

pytestmark = pytest.mark.torch


def test_set_up_fixes_threads_and_deterministic_algorithms(machine: Machine) -> None:
    assert machine.threads == torch.get_num_threads() == 1
    assert torch.are_deterministic_algorithms_enabled()
    assert machine.capability == torch.backends.cpu.get_cpu_capability()
    assert machine.versions["torch"] == torch.__version__
    assert set_up(1, allow_cuda=False) == machine


def test_no_threads_are_refused() -> None:
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        set_up(0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flags\t\t: fpu avx512_bf16 amx_tile\n", True),
        ("flags\t\t: fpu avx2\nflags\t: avx512_bf16\n", False),
        ("Features\t: fp asimd bf16\n", True),
        ("", False),
    ],
)
def test_bfloat16_on_a_cpu_is_what_its_flags_say(tmp_path: Path, text: str, expected: bool) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert device._cpu_has_bfloat16(tmp_path / "cpuinfo") is expected


def test_an_unknown_cpu_has_no_bfloat16(tmp_path: Path) -> None:
    assert device._cpu_has_bfloat16(tmp_path / "absent") is False
