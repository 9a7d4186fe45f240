"""Fixtures: a ledger at every stage."""

from __future__ import annotations

import pytest

from tests.support.story import Story, tell


@pytest.fixture(scope="module")
def story() -> Story:
    """States are values, so the tests of a module share one."""
    return tell()
