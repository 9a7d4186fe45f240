"""Where an institution's data stand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Source:
    """A folder of data. `text_column` and `unit_field` name fields of .jsonl and .csv files: the text, and whose it is.

    Tasks on records read the fields that the plan names, whatever `text_column` says: it is for tasks on plain text.
    `tasks` says which tasks of a mixture may learn from it, by type or name; none: each that finds its fields.
    """

    folder: Path
    text_column: str | None = None
    unit_field: str | None = None
    tasks: tuple[str, ...] = ()
