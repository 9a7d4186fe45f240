from __future__ import annotations

import pytest

from tests.support.evidence import MadeLedger, a_ledger


@pytest.fixture(scope="package")
def ledger() -> MadeLedger:
    """Three runs one after the other; nothing here changes it."""
    return a_ledger("alpha", "beta", "gamma")
