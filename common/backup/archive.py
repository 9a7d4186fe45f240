"""The file: an uncompressed tar of regular files, and as its last member MANIFEST, which names each with size and SHA-256.

    identity/signing.key.pem
    journal.sqlite
    manifest.json       {"format": "llmasos.org/backup@v1", "side": "participant", …, "files": [{"path", "sha256", "size"}]}

Private keys are in it as they lie in the home: who reads the file is who may sign, unless a passphrase protects them.
"""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.errors import MalformedBackup
from common.homes import storage_failure, sync_folder
from common.strict_json import StrictJsonError, loads

MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 64 * 1024 * 1024
PIECE_BYTES = 1024 * 1024
Side = Literal["coordinator", "participant"]


class FileEntry(BaseModel):
    """One file of a backup."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: Annotated[str, Field(max_length=1000)]
    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Manifest(BaseModel):
    """What a backup is of. `entries`: how many ledger entries its database holds; `made_at`: RFC 3339, UTC."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal["llmasos.org/backup@v1"] = "llmasos.org/backup@v1"
    side: Side
    name: str
    genesis: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    made_at: str
    entries: Annotated[int, Field(ge=1)]
    blobs: Literal["all", "needed", "none"]
    files: tuple[FileEntry, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """A file that goes in: where it lies, and its path in the home."""

    path: str
    file: Path
    optional: bool = False
    """Whether it may be gone by the time at which it is read."""


def write_archive(file: Path, sources: Sequence[Source], manifest: Manifest) -> Manifest:
    """Write a backup beside its place, read it back, and give it its name: whole or not at all, and never over another.

    Args:
        manifest: all but `files`, which is what is written.

    Raises:
        StorageFailure: the disk says no, or a source is gone; nothing of that name is left.
        MalformedBackup: what was written does not read back as it was; likewise.
    """
    making = file.with_name(f".{file.name}.{secrets.token_hex(6)}.making")
    try:
        made = _write(making, sources, manifest)
        with open_archive(making) as archive:
            for _ in archive.members():
                pass
        os.link(making, file)  # unlike a rename it never takes another file's place
        sync_folder(file.parent)
    except OSError as err:
        raise storage_failure(file, err) from err
    finally:
        making.unlink(missing_ok=True)
    return made


def _write(path: Path, sources: Sequence[Source], manifest: Manifest) -> Manifest:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        os.fchmod(out.fileno(), 0o600)
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
            made = manifest.model_copy(
                update={"files": tuple(entry for source in sources if (entry := _add(tar, source)))}
            )
            data = made.model_dump_json().encode()
            tar.addfile(_member(MANIFEST, len(data)), io.BytesIO(data))
        out.flush()
        os.fsync(out.fileno())
    return made


def _add(tar: tarfile.TarFile, source: Source) -> FileEntry | None:
    try:
        descriptor = os.open(source.file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        if source.optional:
            return None
        raise
    with os.fdopen(descriptor, "rb") as content:
        size = os.fstat(content.fileno()).st_size
        hashed = _Hashed(content)
        tar.addfile(_member(source.path, size), hashed)
    return FileEntry(path=source.path, size=size, sha256=hashed.sha256.hexdigest())


def _member(path: str, size: int) -> tarfile.TarInfo:
    """Nothing of the machine's: no owner, no time."""
    info = tarfile.TarInfo(path)
    info.size, info.mode = size, 0o600
    return info


class _Hashed:
    """Hashes what is read through it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.sha256 = file, hashlib.sha256()

    def read(self, count: int = -1) -> bytes:
        data = self._file.read(count)
        self.sha256.update(data)
        return data


@dataclass(frozen=True, slots=True)
class Archive:
    """A backup that is open for reading."""

    tar: tarfile.TarFile
    manifest: Manifest

    def members(self) -> Iterator[tuple[FileEntry, Iterator[bytes]]]:
        """Each file with its bytes, in the order of the file; the next one only when these were read or passed over.

        Raises:
            MalformedBackup: a file is missing, damaged, or more than the manifest names.
        """
        listed = {entry.path: entry for entry in self.manifest.files}
        found = [info for info in self.tar.getmembers() if info.name != MANIFEST]
        if [info.name for info in found] != list(listed):
            raise MalformedBackup("The backup's files are not those that its manifest lists.")
        for info in found:
            entry = listed[info.name]
            if not info.isreg() or info.size != entry.size:
                raise MalformedBackup(f"{entry.path} in the backup is no file of {entry.size:,} bytes.")
            pieces = self._pieces(info, entry)
            yield entry, pieces
            for _ in pieces:  # whoever does not want it has it checked all the same
                pass

    def _pieces(self, info: tarfile.TarInfo, entry: FileEntry) -> Iterator[bytes]:
        content, digest, left = self.tar.extractfile(info), hashlib.sha256(), entry.size
        while content is not None and left:
            data = content.read(min(PIECE_BYTES, left))
            if not data:
                break
            digest.update(data)
            left -= len(data)
            yield data
        if left or digest.hexdigest() != entry.sha256:
            raise MalformedBackup(f"{entry.path} in the backup is damaged: its SHA-256 is not the manifest's.")


@contextmanager
def open_archive(file: Path) -> Iterator[Archive]:
    """
    Raises:
        MalformedBackup: it is no backup, or a part of one.
        StorageFailure: it cannot be read.
    """
    try:
        with tarfile.open(file, mode="r:") as tar:
            yield Archive(tar, _manifest(tar))
    except tarfile.TarError as err:
        raise MalformedBackup(f"{file} is no backup, or a part of one: {err}.") from err
    except OSError as err:
        raise storage_failure(file, err) from err


def _manifest(tar: tarfile.TarFile) -> Manifest:
    members = tar.getmembers()
    if not members or members[-1].name != MANIFEST or members[-1].size > MAX_MANIFEST_BYTES:
        raise MalformedBackup("The file does not end in a backup's manifest: it is none, or was cut off.")
    content = tar.extractfile(members[-1])
    try:
        data = content.read() if content is not None else b""
        loads(data, max_bytes=MAX_MANIFEST_BYTES)
        manifest = Manifest.model_validate_json(data)
    except (StrictJsonError, ValidationError) as err:
        raise MalformedBackup(f"The backup's manifest cannot be read: {err}"[:300]) from err
    for entry in manifest.files:
        parts = PurePosixPath(entry.path)
        if parts.is_absolute() or not parts.parts or ".." in parts.parts or str(parts) != entry.path:
            raise MalformedBackup(f"{entry.path[:200]!r} is no path inside a home folder.")
    return manifest
