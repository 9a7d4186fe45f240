"""What the ledger's tree costs beside plain SQLite, and how fast a long ledger proves.

    python benchmarks/ledger.py                          # a table
    python benchmarks/ledger.py --json -                 # the same as JSON

In one run, on one disk, batch by batch in turns: the same envelopes into a bare table (index, envelope) by sqlite3 alone, and
by the coordinator's own transactions, with every column, leaf hashes and tiles. Both with WAL and synchronous=FULL, one commit
a batch. `ratio` is ours by plain, of the rates. Then a ledger of --leaves small entries: proofs of random entries, with some
tiles in memory (warm) and with none (cold: all come from the database, though the system may hold its pages), each verified.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import resource
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.ledger.merkle import verify_consistency, verify_inclusion
from common.ledger.tree import StoredTree
from coordinator.store.database import Database, LedgerRow, file_url
from coordinator.store.tiles import Tiles, recovered
from coordinator.store.tree import LedgerTree, envelope_hash

SMALLEST_ENVELOPE, LARGEST_ENVELOPE = 800, 1500
"""Bytes of the statements of a run; a contribution with its checkpoint has 1,400."""
SMALL_ENVELOPE = 100
LARGE_BATCH = 4096
DIGEST = "ab" * 32
"""A statement's digest is computed when it is verified, long before it is appended."""
NOW = "2026-01-01T00:00:00.000Z"
MEGABYTE = 1_000_000
LEAST_RATIO, MOST_PROOF_SECONDS, MOST_GROWTH_MB = 0.5, 0.005, 8.0


@dataclass(frozen=True, slots=True)
class Settings:
    """How much, and in which portions."""

    entries: int = 100_000
    batch: int = 1000
    singles: int = 1000
    leaves: int = 1_000_000
    proofs: int = 1000
    seed: int = 1


@dataclass(slots=True)
class Side:
    """Seconds and entries of one of two competitors."""

    seconds: float = 0.0
    entries: int = 0

    def timed(self, work: Callable[[Sequence[bytes]], None], envelopes: Sequence[bytes]) -> None:
        started = time.perf_counter()
        work(envelopes)
        self.seconds += time.perf_counter() - started
        self.entries += len(envelopes)

    @property
    def rate(self) -> float:
        """Entries a second."""
        return self.entries / self.seconds


@dataclass(frozen=True, slots=True)
class Contest:
    """The same envelopes, both ways."""

    plain: Side = field(default_factory=Side)
    ours: Side = field(default_factory=Side)

    @property
    def ratio(self) -> float:
        return self.ours.rate / self.plain.rate


class PlainTable:
    """Envelopes in SQLite, and nothing else."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute('CREATE TABLE entries ("index" INTEGER PRIMARY KEY, envelope BLOB NOT NULL)')
        self._size = 0

    def append(self, envelopes: Sequence[bytes]) -> None:
        """All in one transaction."""
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany("INSERT INTO entries VALUES (?, ?)", list(enumerate(envelopes, self._size)))
        self._connection.execute("COMMIT")
        self._size += len(envelopes)

    def close(self) -> None:
        self._connection.close()


class LedgerTable:
    """The coordinator's database, as `coordinator.ledger` writes it."""

    def __init__(self, path: Path) -> None:
        self.database = Database(file_url(path))
        self.tree = LedgerTree()

    def append(self, envelopes: Sequence[bytes]) -> None:
        """Rows, leaf hashes and completed tiles in one transaction; then the head."""
        first = self.tree.size
        rows = [LedgerRow(at, DIGEST, "contribution", NOW, each) for at, each in enumerate(envelopes, first)]
        grown, tiles = self.tree.grown([envelope_hash(each) for each in envelopes])
        with self.database.transaction() as tx:
            tx.append(*rows)
            tx.keep_tiles(tiles)
        self.tree = grown
        self.tree.head()

    def close(self) -> None:
        self.database.close()


@dataclass(frozen=True, slots=True)
class Proofs:
    """Milliseconds of proofs of one kind."""

    milliseconds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.milliseconds)

    @property
    def p99(self) -> float:
        return sorted(self.milliseconds)[int(0.99 * (len(self.milliseconds) - 1))]

    def report(self) -> dict[str, float]:
        return {"median_ms": round(self.median, 3), "p99_ms": round(self.p99, 3)}


@dataclass(frozen=True, slots=True)
class Long:
    """A long ledger: what it took to make, and what proofs take."""

    seconds: float
    resident_mb: list[float]
    proofs: dict[str, Proofs]


def compete(settings: Settings, folder: Path) -> tuple[Contest, Contest]:
    """Group commits, and one entry a commit."""
    draw = random.Random(settings.seed)
    plain, ours = PlainTable(folder / "plain.sqlite"), LedgerTable(folder / "ours.sqlite")
    groups, singles = Contest(), Contest()
    try:
        for contest, batch, entries in (
            (groups, settings.batch, settings.entries),
            (singles, 1, settings.singles),
        ):
            for number in range(max(1, entries // batch)):
                envelopes = [draw.randbytes(draw.randint(SMALLEST_ENVELOPE, LARGEST_ENVELOPE)) for _ in range(batch)]
                turns = [(contest.plain, plain.append), (contest.ours, ours.append)]
                for side, append in turns if number % 2 else reversed(turns):
                    side.timed(append, envelopes)
    finally:
        plain.close()
        ours.close()
    return groups, singles


def long_ledger(settings: Settings, folder: Path) -> Long:
    """Append --leaves small entries, then prove."""
    table, draw = LedgerTable(folder / "long.sqlite"), random.Random(settings.seed)
    try:
        started, resident = time.perf_counter(), [resident_mb()]
        quarter = settings.leaves // 4
        for _ in range(4):
            for batch in batches(quarter):
                table.append([draw.randbytes(SMALL_ENVELOPE) for _ in range(batch)])
            resident.append(resident_mb())
        seconds = time.perf_counter() - started
        if recovered(table.database).head() != table.tree.head():
            raise SystemExit("the tree that was read back from the database is another one")
        return Long(seconds, resident, dict(prove(settings, table, draw)))
    finally:
        table.close()


def batches(entries: int) -> Iterator[int]:
    while entries > 0:
        yield min(LARGE_BATCH, entries)
        entries -= LARGE_BATCH


def prove(settings: Settings, table: LedgerTable, draw: random.Random) -> Iterator[tuple[str, Proofs]]:
    """Inclusion in the newest tree and consistency with an earlier one, warm and cold."""
    size, tiles = table.tree.size, Tiles(table.database)
    indexes = [draw.randrange(size) for _ in range(settings.proofs)]
    for index in indexes[: settings.proofs // 4]:
        tiles.of(table.tree).inclusion_proof(index)
    for name, one in (("inclusion", check_inclusion), ("consistency", check_consistency)):
        yield f"{name}, warm", Proofs([one(table, tiles.of(table.tree), index) for index in indexes])
        yield f"{name}, cold", Proofs([one(table, Tiles(table.database).of(table.tree), index) for index in indexes])


def check_inclusion(table: LedgerTable, tree: StoredTree, index: int) -> float:
    """Milliseconds of the proof that this entry is there; it is verified afterwards."""
    started = time.perf_counter()
    proof = tree.inclusion_proof(index)
    took = time.perf_counter() - started
    leaf = envelope_hash(table.database.envelopes(index, limit=1)[0].envelope)
    verify_inclusion(hashlib.sha256, table.tree.head(), index, leaf, proof)
    return took * 1000


def check_consistency(table: LedgerTable, tree: StoredTree, old_size: int) -> float:
    """Milliseconds of the proof that the tree of that size is the beginning; it is verified afterwards."""
    started = time.perf_counter()
    proof = tree.consistency_proof(old_size)
    took = time.perf_counter() - started
    verify_consistency(hashlib.sha256, tree.head(old_size), table.tree.head(), proof)
    return took * 1000


def resident_mb() -> float:
    """This process's resident memory now, megabytes; the highest so far where /proc does not say."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024 / MEGABYTE


def report(settings: Settings, contests: tuple[Contest, Contest], long: Long) -> dict[str, object]:
    groups, singles = contests
    proofs = {name: each.report() for name, each in long.proofs.items()}
    # The first quarter fills caches; from then on a ledger three times as long must not need more.
    growth = max(long.resident_mb[2:]) - long.resident_mb[1]
    slowest = max(each.p99 for name, each in long.proofs.items() if name.startswith("inclusion")) / 1000
    return {
        "group_commits": {**contest_report(groups), "batch": settings.batch},
        "single_commits": contest_report(singles),
        "long": {
            "leaves": settings.leaves // 4 * 4,
            "seconds": round(long.seconds, 1),
            "resident_mb": [round(each, 1) for each in long.resident_mb],
            "growth_mb": round(growth, 1),
            "highest_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MEGABYTE, 1),
            "proofs": proofs,
        },
        "met": {
            "ratio": groups.ratio >= LEAST_RATIO,
            "inclusion": slowest < MOST_PROOF_SECONDS,
            "memory": growth < MOST_GROWTH_MB,
        },
        "machine": {"cores": os.cpu_count(), "platform": platform.platform(), "python": platform.python_version()},
        "sqlite": sqlite3.sqlite_version,
    }


def contest_report(contest: Contest) -> dict[str, float]:
    return {
        "entries": contest.ours.entries,
        "plain_per_second": round(contest.plain.rate),
        "ours_per_second": round(contest.ours.rate),
        "ratio": round(contest.ratio, 3),
    }


def table(found: dict[str, Any]) -> str:
    """The same for people."""
    long = found["long"]
    lines = [f"{'':28}{'plain/s':>12}{'ours/s':>12}{'ratio':>8}"]
    for name in ("group_commits", "single_commits"):
        each = found[name]
        label = f"{name.replace('_', ' ')}, {each.get('batch', 1)} a commit"
        lines.append(f"{label:28}{each['plain_per_second']:>12,}{each['ours_per_second']:>12,}{each['ratio']:>8.2f}")
    lines += ["", f"{'at ' + format(long['leaves'], ',') + ' entries':28}{'median ms':>12}{'p99 ms':>12}"]
    lines += [f"{name:28}{each['median_ms']:>12.3f}{each['p99_ms']:>12.3f}" for name, each in long["proofs"].items()]
    memory = " → ".join(f"{each:.0f}" for each in long["resident_mb"])
    lines += ["", f"made in {long['seconds']} s; resident MB at each quarter: {memory}; highest {long['highest_mb']}"]
    return "\n".join(lines)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Settings()
    parser.add_argument("--entries", type=int, default=default.entries, help="group-committed, each way")
    parser.add_argument("--batch", type=int, default=default.batch, help="entries a commit")
    parser.add_argument("--singles", type=int, default=default.singles, help="entries committed one by one, each way")
    parser.add_argument("--leaves", type=int, default=default.leaves, help="entries of the ledger that proves")
    parser.add_argument("--proofs", type=int, default=default.proofs, help="of each kind")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument(
        "--json", metavar="FILE", help="write the result there; - is standard output, without the table"
    )
    parser.add_argument("--folder", type=Path, help="where databases lie meanwhile; default: the temporary folder")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    settings = Settings(**{name: getattr(options, name) for name in Settings.__slots__})
    with tempfile.TemporaryDirectory(prefix="ledger-", dir=options.folder) as folder:
        found = report(settings, compete(settings, Path(folder)), long_ledger(settings, Path(folder)))
    text = json.dumps(found, indent=2)
    print(text if options.json == "-" else table(found))
    if options.json not in {None, "-"}:
        Path(options.json).write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
