"""Without the extra `flower` everything else works, and what needs it says which to install."""

from __future__ import annotations

import subprocess
import sys

import pytest

from common.errors import MissingExtra
from llmasos import extras

WITHOUT_FLOWER = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("flwr", "ray"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""
MODULES = (
    "llmasos.cli",
    "llmasos.flower",
    "llmasos.flower.rounds",
    "llmasos.simulation.app",
    "coordinator.app",
    "coordinator.cli",
    "participant.app",
    "participant.cli",
)


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", WITHOUT_FLOWER + program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("module", MODULES)
def test_everything_else_is_imported_without_flower(module: str) -> None:
    assert run(f"import {module}; print(sorted({{'flwr', 'ray'}} & set(sys.modules)))") == "[]"


@pytest.mark.parametrize("name", ["Strategy", "client_app", "Institution"])
def test_a_name_that_needs_it_says_which_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import llmasos.flower

    monkeypatch.setattr(extras, "find_spec", lambda package: None)
    with pytest.raises(MissingExtra, match=rf"To use llmasos\.flower\.{name}, flwr must be installed") as caught:
        getattr(llmasos.flower, name)
    assert caught.value.fix == "Install them: pip install 'llmasos[flower]'."


def test_another_name_is_an_attribute_error() -> None:
    import llmasos.flower

    with pytest.raises(AttributeError, match=r"'llmasos\.flower' has no attribute 'absent'"):
        llmasos.flower.absent  # noqa: B018
