"""Fixtures: a coordinator with three institutions, without network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.coordinators import Coordinator


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    """Founded; east, north and south are enrolled."""
    made = Coordinator(tmp_path / "coordinator")
    yield made
    made.close()
