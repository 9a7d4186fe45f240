"""What all tests share: property tests that take the same examples every time, however busy the machine is."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("llmasos", deadline=None, derandomize=True, database=None)
settings.load_profile("llmasos")
