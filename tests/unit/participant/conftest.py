"""A participant and a coordinator in memory, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agents import Institution
from tests.support.coordinators import Coordinator


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    made = Coordinator(tmp_path / "coordinator")
    yield made
    made.close()


@pytest.fixture
def north(tmp_path: Path, coordinator: Coordinator) -> Iterator[Institution]:
    made = Institution(tmp_path / "north", coordinator)
    yield made
    made.close()
