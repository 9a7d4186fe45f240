"""`import llmasos` is cheap, and every name that it promises is there."""

from __future__ import annotations

import subprocess
import sys

import pytest

import llmasos

HEAVY = "{'torch', 'transformers', 'tokenizers', 'numpy', 'grpc'}"
LIGHT_MODULES = ("llmasos", "llmasos.tokenizers", "llmasos.datasets.text", "llmasos.extras")


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_importing_loads_no_heavy_package(module: str) -> None:
    program = f"import sys, {module}; print(sorted({HEAVY} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_preparation_and_generation_are_loaded_without_torch() -> None:
    program = "import sys, llmasos.preparation, llmasos.generation, llmasos.models.build; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("name", llmasos.__all__)
def test_every_promised_name_is_there(name: str) -> None:
    assert getattr(llmasos, name).__name__ in {name, f"llmasos.{name}"}
    assert name in dir(llmasos)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'llmasos' has no attribute 'absent'"):
        llmasos.absent  # noqa: B018
