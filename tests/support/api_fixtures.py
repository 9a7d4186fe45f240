"""Fixtures for tests that need a consortium; a conftest.py imports them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.api import Consortium, Scene, listening


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    """`north` and the operator `ops` are in its roster."""
    made = Consortium(tmp_path)
    made.enrolled("north")
    made.enrolled("ops", "operator")
    return made


@pytest.fixture
def scene(consortium: Consortium) -> Iterator[Scene]:
    """The same, listening."""
    with listening(consortium) as (listeners, addresses):
        made = Scene(consortium, listeners, addresses)
        yield made
        for session in made.sessions:
            session.close()
