"""A bundle's file as bytes: its digest first, then line by line and piece by piece, bounded before each read."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from common.blobs import disk
from common.blobs.reference import CHUNK_BYTES
from common.errors import MalformedStatement
from common.evidence.format import END_BYTES, HEADER, MAX_LINE_BYTES

_END = re.compile(rb"end ([0-9a-f]{64})\n")
_BUFFER_BYTES = 64 * 1024
FIX = "Ask for the file again; it must come as it was sent. Its last line is the SHA-256 of all before it."


class Source:
    """A file read from its beginning up to its last line, bounded before each read."""

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self._fd = fd
        with disk.storage("read", path):
            self.limit = os.fstat(fd).st_size - END_BYTES
        self.position = 0
        self._buffer, self._buffered_at = b"", 0

    def refuse(self, why: str, at: int | None = None) -> MalformedStatement:
        position = self.position if at is None else at
        return MalformedStatement(f"{self._path.name} is no evidence bundle: at byte {position:,}, {why}", FIX)

    def check_digest(self) -> str:
        """The digest that the file ends in, which is that of all before its last line.

        Raises:
            MalformedStatement: it begins or ends in another way, or holds something else than it did when it was written.
        """
        if self.limit < len(HEADER) or self._at(0, len(HEADER)) != HEADER:
            raise self.refuse(f"it does not begin with {HEADER.decode().strip()}.", 0)
        end = _END.fullmatch(self._at(self.limit, END_BYTES))
        if end is None:
            raise self.refuse("it does not end in its digest: its end is missing, or something follows.", self.limit)
        hasher, buffer = hashlib.sha256(), memoryview(bytearray(CHUNK_BYTES))
        for start in range(0, self.limit, CHUNK_BYTES):
            hasher.update(self._into(buffer[: min(CHUNK_BYTES, self.limit - start)], start))
        expected, found = end[1].decode(), hasher.hexdigest()
        if found != expected:
            raise self.refuse(f"the digest is {expected}, its bytes give {found}: it was changed.", self.limit)
        return expected

    def line(self) -> str:
        """The next line, without its newline."""
        begin = self._peek(min(MAX_LINE_BYTES, self.limit - self.position))
        line, newline, _ = begin.partition(b"\n")
        if not newline:
            raise self.refuse(f"no line ends within {len(begin)} bytes.")
        self.position += len(line) + 1
        return line.decode("ascii", "replace")

    def take(self, size: int, most: int, what: str) -> bytes:
        """Raw bytes and their newline."""
        self._expect(size, most, what)
        data = self._peek(size)
        self.position += size
        self._newline()
        return data

    def pipe(self, size: int, most: int, what: str, update: Callable[[memoryview], None]) -> None:
        """As `take`, for what is too large to hold."""
        self._expect(size, most, what)
        buffer = memoryview(bytearray(min(size, CHUNK_BYTES)))
        end = self.position + size
        while self.position < end:
            piece = buffer[: min(len(buffer), end - self.position)]
            update(self._into(piece, self.position))
            self.position += len(piece)
        self._newline()

    def _expect(self, size: int, most: int, what: str) -> None:
        if size > most:
            raise self.refuse(f"{what} of {size:,} bytes, at most {most:,} allowed.")
        if size >= self.limit - self.position:
            raise self.refuse(f"{what} of {size:,} bytes, and only {self.limit - self.position:,} follow.")

    def _newline(self) -> None:
        if self._peek(1) != b"\n":
            raise self.refuse("expected a newline after raw bytes.")
        self.position += 1

    def _peek(self, size: int) -> bytes:
        """The next bytes; those of many small records come from one read."""
        start = self.position - self._buffered_at
        if start < 0 or start + size > len(self._buffer):
            self._buffer, self._buffered_at, start = self._at(self.position, max(size, _BUFFER_BYTES)), self.position, 0
        return self._buffer[start : start + size]

    def _at(self, offset: int, size: int) -> bytes:
        with disk.storage("read", self._path):
            return os.pread(self._fd, size, offset)

    def _into(self, target: memoryview, offset: int) -> memoryview:
        with disk.storage("read", self._path):
            got = disk.read_at(self._fd, target, offset)
        if got < len(target):
            raise self.refuse("the file became shorter while it was read.", offset + got)
        return target
