"""A bundle as a file: private, durable, whole or absent, and never in the place of another one."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from common.errors import UsageError
from common.evidence.format import Contents, write_bundle
from common.evidence.read import read_bundle
from common.homes import storage_failure, sync_folder


def check_free(path: Path) -> None:
    """
    Raises:
        UsageError: the name is taken, or there is no folder to hold it.
    """
    if path.exists() or path.is_symlink():
        raise UsageError(f"{path} exists already.", "Name a file that does not exist yet; nothing is written over.")
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent} is no folder.", "Make it first, or name a file in another one.")


def save_bundle(contents: Contents, path: Path) -> str:
    """Write a bundle beside its place, read it back as a stranger would, then rename it; the digest that it ends in.

    Raises:
        UsageError: the name is taken.
        MalformedStatement: it would be refused by its reader: too many entries, or too many notes.
        BlobError: a blob is gone or damaged.
        StorageFailure: the disk says no; nothing of that name is left.
    """
    check_free(path)
    making = path.with_name(f".{path.name}.{secrets.token_hex(6)}.making")
    try:
        digest = _write(contents, making)
        read_bundle(making).close()
        check_free(path)
        making.rename(path)
        sync_folder(path.parent)
    except OSError as err:
        raise storage_failure(path, err) from err
    finally:
        making.unlink(missing_ok=True)
    return digest


def _write(contents: Contents, path: Path) -> str:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        digest = write_bundle(contents, file)
        file.flush()
        os.fsync(file.fileno())
    return digest
