"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from common.errors import StorageFailure

OWNER_ONLY = 0o600
BY_UMASK = 0o666


@contextmanager
def replacing(path: Path, *, mode: int = OWNER_ONLY, spare: Path | None = None) -> Iterator[BinaryIO]:
    """Write `path` under a temporary name; rename it when the block ends well, remove it when it does not.

    Not synced to disk: whoever promises these bytes to somebody else (the blob store) does that.

    Args:
        mode: of a new file.
        spare: a file that becomes this one, if it is there: its old bytes are written over.

    Raises:
        StorageFailure: the file cannot be made or written; names it and the cause.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.unlink(missing_ok=True)
        if spare is not None and spare.exists():
            os.replace(spare, partial)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), mode)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.truncate()
        os.replace(partial, path)
    except OSError as err:
        raise StorageFailure(f"{path} could not be written: {err.strerror or err}.") from err
    finally:
        partial.unlink(missing_ok=True)
