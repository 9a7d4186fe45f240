"""What an institution can prove later, as files that need neither this program nor its home: for a shelf, a court, an auditor.

    evidence.llmasos one bundle, as `evidence export` writes it: llmasos verify reads it
    genesis.json     the trust root: its payload's SHA-256 is the consortium's fingerprint
    ledger.jsonl     every entry that this institution verified; line n, counted from 0, is ledger index n
    signed.jsonl     every statement that it signed, with the metrics and salts that their commitments are made of
    egress.csv       every byte that left: time, kind, bytes, digest, receiver
    SHA256SUMS       of the files above, as sha256sum checks them

No key and no text of the data is among them. The losses in signed.jsonl left the house only as far as plan and policy allowed.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import shutil
from hashlib import sha256
from pathlib import Path

from common.errors import UsageError
from common.evidence.files import save_bundle
from common.evidence.format import SALT_BYTES, Measured
from common.evidence.select import Holdings, select
from common.homes import atomic_write, private_folder, storage_failure, sync_folder
from common.verify.material import Blobs
from participant.config import HomeLayout
from participant.memory.journal import Egress, Journal, SignedSlot

BUNDLE = "evidence.llmasos"


def holdings(layout: HomeLayout, institution: str, blobs: Blobs | None = None) -> Holdings:
    """What this institution has to make a bundle of; deltas only where `blobs` are given.

    Raises:
        StorageFailure: the journal cannot be read.
    """
    journal = Journal(layout.journal)
    try:
        notes = (
            *journal.checkpoints(),
            *journal.conflicting(),
        )  # before the ledger: it grows, and must hold their trees
        measured = {
            each.digest: Measured(each.digest, each.salt, each.metrics)
            for each in journal.all_signed()
            if len(each.salt) == SALT_BYTES
        }
        ledger = journal.ledger() or [layout.genesis.read_bytes()]
        return Holdings(ledger, notes, institution, measured, blobs)
    finally:
        journal.close()


def export_evidence(layout: HomeLayout, institution: str, folder: Path, *, replace: bool = False) -> tuple[Path, ...]:
    """Write the evidence of a home into a new folder; the files. A crash leaves no folder of that name, or a whole one.

    Args:
        institution: whose home it is.
        replace: put it in the place of an earlier export.

    Raises:
        UsageError: the folder exists and is not to be replaced, or not an earlier export.
        RefusalError: the copy of the ledger breaks a rule.
        StorageFailure: the journal cannot be read, or the disk says no.
    """
    if folder.exists() and not (replace and (folder / "SHA256SUMS").exists()):
        raise UsageError(f"{folder} exists already.", "Name a folder that does not exist yet.")
    journal = Journal(layout.journal)
    try:
        contents = _contents(layout, journal)
    finally:
        journal.close()
    making = folder.with_name(f".{folder.name}.making")
    try:
        shutil.rmtree(making, ignore_errors=True)
        private_folder(making)
        save_bundle(select(holdings(layout, institution)).contents, making / BUNDLE)
        contents["SHA256SUMS"] += f"{sha256((making / BUNDLE).read_bytes()).hexdigest()}  {BUNDLE}\n".encode()
        for name, content in contents.items():
            atomic_write(making / name, content)
        if folder.exists():
            shutil.rmtree(folder)
        making.rename(folder)
        sync_folder(folder.parent)
    except OSError as err:
        raise storage_failure(folder, err) from err
    return tuple(folder / name for name in (BUNDLE, *contents))


def _contents(layout: HomeLayout, journal: Journal) -> dict[str, bytes]:
    files = {
        "genesis.json": layout.genesis.read_bytes(),
        "ledger.jsonl": b"".join(envelope + b"\n" for envelope in journal.ledger()),
        "signed.jsonl": b"".join(_line(entry) for entry in journal.all_signed()),
        "egress.csv": _csv(journal.egress()),
    }
    sums = "".join(f"{sha256(content).hexdigest()}  {name}\n" for name, content in files.items())
    return files | {"SHA256SUMS": sums.encode()}


def _line(entry: SignedSlot) -> bytes:
    """One signed statement. The envelope stands as text: it is canonical JSON, so its bytes come back as they were."""
    content = {
        "slot": entry.slot,
        "digest": entry.digest,
        "signed_at": entry.signed_at,
        "envelope": entry.envelope.decode("ascii"),
        "metrics": base64.b64encode(entry.metrics).decode(),
        "salt": base64.b64encode(entry.salt).decode(),
    }
    return json.dumps(content, sort_keys=True).encode() + b"\n"


def _csv(left: list[Egress]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["at", "kind", "bytes", "digest", "receiver"])
    writer.writerows([entry.at, entry.kind, entry.bytes, entry.digest, entry.receiver] for entry in left)
    return text.getvalue().encode()
