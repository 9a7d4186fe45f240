"""Which targets there are; without importing them, since the fuzzer must see them being imported."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
NAMES = tuple(sorted(path.stem for path in (FOLDER / "targets").glob("*.py") if path.stem != "__init__"))
