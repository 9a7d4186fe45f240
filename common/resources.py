"""Files that ship with LLMasOS: ready plans and configurations.

config_path("plans/tiny.yaml")
"""

from __future__ import annotations

from pathlib import Path

from common.errors import UnknownObject

_ROOT = Path(__file__).resolve().parents[1]
_FOLDERS = (_ROOT / "llmasos" / "configs", _ROOT / "configs")
"""In an installed wheel, and beside the packages in a checkout."""


def config_path(name: str) -> Path:
    """The shipped configuration of that name, relative to `configs/`.

    Raises:
        UnknownObject: there is none; those there are, are named.
    """
    for folder in _FOLDERS:
        path = folder / name
        if path.is_file():
            return path
    known = ", ".join(sorted(path.relative_to(root).as_posix() for root in _FOLDERS for path in root.rglob("*.yaml")))
    raise UnknownObject(f"No configuration {name!r} is shipped.", f"Name one of: {known}.")


def read_config(name: str) -> str:
    """The text of a shipped configuration."""
    return config_path(name).read_text(encoding="utf-8")
