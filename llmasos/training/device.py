"""Where training runs, and the settings under which the same inputs give the same bits.

The promise holds for the same device kind, thread count, CPU capability and library versions, which is why each of these is
part of `Machine` and of every snapshot.
"""

from __future__ import annotations

import os
import platform
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch

PRECISION_FALLBACK = "precision-float32"
"""Deviation code: the plan asks for bfloat16, which this device has not."""
COMPILE_FALLBACK = "not-compiled"
"""Deviation code: the plan asks for torch.compile, for which this machine lacks something."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What trains here. `name` is for people; `versions` by distribution name."""

    kind: Literal["cpu", "cuda"]
    name: str
    threads: int
    capability: str
    has_bfloat16: bool
    versions: dict[str, str]

    @property
    def device(self) -> torch.device:
        return torch.device(self.kind)

    def deviations(self, precision: str) -> tuple[str, ...]:
        """Codes for what cannot be done here as the plan says."""
        return (PRECISION_FALLBACK,) if precision == "bfloat16" and not self.has_bfloat16 else ()

    def autocast(self, precision: str) -> AbstractContextManager[object]:
        """The context of a forward pass in the plan's precision, or float32 where the device lacks it."""
        if precision == "bfloat16" and self.has_bfloat16:
            return torch.autocast(self.kind, dtype=torch.bfloat16)
        return nullcontext()

    def release_memory(self) -> None:
        """Give unused device memory back to others on this machine."""
        if self.kind == "cuda":
            torch.cuda.empty_cache()


def set_up(threads: int, *, allow_cuda: bool = True) -> Machine:
    """Fix threads and deterministic algorithms for this process and say what it runs on.

    Args:
        threads: of CPU arithmetic, ≥ 1.
        allow_cuda: False keeps to the CPU where a CUDA device is present.

    Raises:
        ValueError: threads below 1.
    """
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    # cuBLAS reads it when its first handle is made; without it deterministic mode refuses matrix products.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    if torch.get_num_interop_threads() != 1:
        torch.set_num_interop_threads(1)
    # As torch.use_deterministic_algorithms(True), which also imports the compiler: a second at each start, seldom needed.
    torch.set_deterministic_debug_mode("error")
    # Deterministic mode also fills fresh memory, a guard against reading it unset that costs a pass over every tensor.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_float32_matmul_precision("highest")
    return _describe(threads, use_cuda=allow_cuda and torch.cuda.is_available())


def _describe(threads: int, *, use_cuda: bool) -> Machine:
    capability = torch.backends.cpu.get_cpu_capability()
    versions = {name: version(name) for name in ("torch", "transformers", "numpy")} | {
        "python": platform.python_version()
    }
    if find_spec("peft") is not None:  # only plans with an adapter need it
        versions["peft"] = version("peft")
    if use_cuda:
        versions["cuda"] = str(torch.version.cuda)
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return Machine("cuda", f"cuda: {torch.cuda.get_device_name()}", threads, capability, has_bfloat16, versions)
    return Machine("cpu", f"cpu: {platform.machine()}", threads, capability, _cpu_has_bfloat16(), versions)


def _cpu_has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU multiplies bfloat16 itself; emulation would be slower than float32, so it does not count."""
    try:
        text = cpuinfo.read_text(errors="replace")
    except OSError:
        return False
    flags: set[str] = set()
    for line in text.splitlines():
        if line.startswith(("flags", "Features")):
            flags.update(line.split())
            break
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})
