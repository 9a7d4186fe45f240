"""The file and its notes, judged by their form: docs/protocol.md#evidence, #checkpoints and #merkle."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any

import blake3

from tests.independent.statements import DIGEST, MIB, is_signed, matches, must, one_of, sha, unbase64

HASHES: dict[str, Callable[..., Any]] = {"sha256": hashlib.sha256, "blake3": blake3.blake3}
MAX_ENTRIES = 1 << 24
Key = dict[str, str]


def tree_root(leaves: list[bytes], new_hash: Callable[..., Any] = hashlib.sha256) -> bytes:
    """#merkle, over the hashes of leaves."""
    if len(leaves) < 2:
        return leaves[0] if leaves else bytes(new_hash(b"").digest())
    k = 1 << (len(leaves) - 1).bit_length() - 1
    return bytes(new_hash(b"\x01" + tree_root(leaves[:k], new_hash) + tree_root(leaves[k:], new_hash)).digest())


def blob_root(data: bytes, algorithm: str) -> str:
    """#blobs: the root over chunks of 4 MiB, hex."""
    new_hash = HASHES[algorithm]
    leaves = [new_hash(b"\0" + data[at : at + 4 * MIB]).digest() for at in range(0, len(data), 4 * MIB)]
    return tree_root(leaves, new_hash).hex()


class Note:
    """A checkpoint: its three lines, and (name, key id, signature) of each signature line."""

    def __init__(self, raw: bytes, section: str) -> None:
        try:
            whole = raw.decode()
        except ValueError as err:
            must(False, section, f"a note that is no UTF-8: {err}")
        form = re.fullmatch(
            r"(([^\s+]+)\n(0|[1-9][0-9]*)\n([0-9A-Za-z+/=]+)\n)\n((?:\u2014 [^\s+]+ [0-9A-Za-z+/=]+\n){1,1024})", whole
        )
        must(form and len(raw) <= 256 * 1024, section, "no note")
        assert form is not None
        self.text, self.origin, self.size, self.head = form[1].encode(), form[2], int(form[3]), unbase64(form[4])
        lines = [line.split(" ") for line in form[5].splitlines()]
        signed = [(name, unbase64(coded)) for _, name, coded in lines]
        must(len(self.head) == 32 and all(len(data) > 4 for _, data in signed), section, "a note's lengths")
        self.signatures = [(name, data[:4], data[4:]) for name, data in signed]

    def _by(self, name: str, key: Key, kind: int) -> list[bytes]:
        keyid = hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + bytes.fromhex(key["public"])).digest()[:4]
        return [signature for *who, signature in self.signatures if who == [name, keyid]]

    def count(self, name: str, key: Key, kind: int) -> int:
        """How many of its lines bear this name and key."""
        return len(self._by(name, key, kind))

    def is_by_log(self, log: dict[str, Key]) -> bool:
        """Whether the log signed it, as a checkpoint of its own."""
        origin, key = str(log["origin"]), log["key"]
        found = self._by(origin, key, 1)
        raw = bytes.fromhex(key["public"])
        return self.origin == origin and bool(found) and all(is_signed(raw, it, self.text) for it in found)

    def cosigned_at(self, name: str, key: Key) -> int | None:
        """Seconds since the epoch at which that witness cosigned; None where it did not.

        Raises:
            Failed: a line bears its name and key, and is not by it.
        """
        times = []
        for signature in self._by(name, key, 4):
            seconds = int.from_bytes(signature[:8], "big")
            message = b"cosignature/v1\ntime %d\n" % seconds + self.text
            genuine = len(signature) == 72 and is_signed(bytes.fromhex(key["public"]), signature[8:], message)
            must(genuine and seconds < 1 << 63, "witnesses", f"{name} did not cosign {self.size}")
            times.append(seconds)
        return max(times, default=None)


RECORDS = {
    "checkpoint": (0, "n"),
    "conflicting": (1, "n"),
    "entry": (2, "nn"),
    "subtree": (2, "nnh"),
    "metrics": (3, "hhn"),
    "blob": (4, "anh"),
    "end": (5, "h"),
}
VALUES = {"n": matches("0|[1-9][0-9]{0,15}"), "h": DIGEST, "a": one_of("blake3", "sha256")}


class Bundle:
    """The records of a file that has its one form and digest. `entries` by index, `blobs` by (algorithm, root)."""

    def __init__(self, data: bytes) -> None:
        self.notes: list[Note] = []
        self.conflicting: list[tuple[Note, bytes]] = []
        self.entries: dict[int, bytes] = {}
        self.metrics: dict[str, tuple[bytes, bytes]] = {}
        self.blobs: dict[tuple[str, str], bytes] = {}
        self.size = self._note_bytes = 0
        self._nodes: list[tuple[int, int, bytes]] = []
        self._data, self._at = data, len(b"llmasos.org/evidence@v1\n")
        must(data.startswith(b"llmasos.org/evidence@v1\n"), "evidence", "no header")
        self._read()
        self._check_tree()

    def _read(self) -> None:
        stage = 0
        while True:
            start = self._at
            word, *values = self._line().split(" ")
            must(word in RECORDS and RECORDS[word][0] >= stage, "evidence", f"{word} at byte {start}")
            stage, form = RECORDS[word]
            spelled = len(values) == len(form) and all(map(lambda kind, it: VALUES[kind](it), form, values))
            must(spelled, "evidence", f"{word} at byte {start}")
            if word == "end":
                must(values[0] == sha(self._data[:start]) and self._at == len(self._data), "evidence", "the digest")
                return
            content = b"" if word == "subtree" else self._content(int(values[form.rindex("n")]))
            getattr(self, "_take_" + word)(content, *values)

    def _line(self) -> str:
        start, stop = self._at, self._data.find(b"\n", self._at)
        must(0 <= stop - start < 300, "evidence", f"no record at byte {start}")
        self._at = stop + 1
        return self._data[start:stop].decode("ascii", "replace")

    def _content(self, length: int) -> bytes:
        start, self._at = self._at, self._at + length + 1
        must(self._data[self._at - 1 : self._at] == b"\n", "evidence", f"a record is cut at byte {start}")
        return self._data[start : self._at - 1]

    def _note(self, content: bytes) -> Note:
        note, self._note_bytes = Note(content, "evidence"), self._note_bytes + len(content)
        must(note.size <= MAX_ENTRIES and self._note_bytes <= 16 * MIB, "evidence", "notes beyond their bounds")
        return note

    def _take_checkpoint(self, content: bytes, _: str) -> None:
        note = self._note(content)
        must(note.size > (self.notes[-1].size if self.notes else 0), "evidence", "checkpoints ascend by size, from 1")
        self.notes.append(note)

    def _take_conflicting(self, content: bytes, _: str) -> None:
        note = self._note(content)
        before = (self.conflicting[-1][0].size, self.conflicting[-1][1]) if self.conflicting else (0, b"")
        must((note.size, content) > before and note.size > 0, "evidence", "conflicting notes ascend, from size 1")
        self.conflicting.append((note, content))

    def _take_entry(self, content: bytes, index: str, _: str) -> None:
        right = int(index) == self.size < MAX_ENTRIES and len(content) <= MIB
        must(right, "evidence", f"entry {index} in the place of {self.size}")
        self._nodes.append((self.size, 1, hashlib.sha256(b"\0" + content).digest()))
        self.entries[self.size], self.size = content, self.size + 1

    def _take_subtree(self, _: bytes, level: str, position: str, root: str) -> None:
        right = int(level) <= 24 and self.size > 0 and int(position) << int(level) == self.size
        must(right, "evidence", f"a subtree in the place of {self.size}")
        self._nodes.append((self.size, 1 << int(level), bytes.fromhex(root)))
        self.size += 1 << int(level)

    def _take_metrics(self, content: bytes, digest: str, salt: str, _: str) -> None:
        must(digest > max(self.metrics, default="") and len(content) <= 65536, "evidence", "metrics ascend")
        self.metrics[digest] = (bytes.fromhex(salt), content)

    def _take_blob(self, content: bytes, algorithm: str, _: str, root: str) -> None:
        must(all(root > before for _, before in self.blobs), "evidence", "blobs ascend")
        must(blob_root(content, algorithm) == root, "evidence", f"blob {root} is other bytes")
        self.blobs[algorithm, root] = content

    def _check_tree(self) -> None:
        """Entry 0 is shown; what is withheld lies in the largest checkpoint's tree, and cuts no note's."""
        sizes = {it.size for it in self.notes} | {it.size for it, _ in self.conflicting}
        covered = self.notes[-1].size if self.notes else 0
        must(0 in self.entries and self.size >= covered, "evidence", "an index is missing")
        before = (0, 0)
        for start, width, _ in self._nodes:
            if start not in self.entries:
                must(start + width <= covered, "evidence", "withheld beyond the largest checkpoint")
                must(not any(start < it < start + width for it in sizes), "evidence", "a subtree crosses a note's size")
                halves = before == (start - width, width) and start // width % 2 == 1 and before[0] not in self.entries
                must(not halves or start in sizes, "evidence", "two subtrees that are one")
            before = (start, width)

    def head(self, size: int) -> bytes | None:
        """The head of the tree over the first entries; None where it ends inside a withheld subtree."""
        known = {(start, width): root for start, width, root in self._nodes}

        def root(start: int, width: int) -> bytes:
            if (start, width) in known:
                return known[start, width]
            k = 1 << (width - 1).bit_length() - 1
            return hashlib.sha256(b"\1" + root(start, k) + root(start + k, width - k)).digest()

        return None if any(start < size < start + width for start, width, _ in self._nodes) else root(0, size)
