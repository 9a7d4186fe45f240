"""A participant's journal that somebody edited by hand, in every place that verification looks at."""

from __future__ import annotations

import base64
import json
import random
import shutil
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from common import strict_json
from common.blobs.store import FolderBlobStore
from common.clock import rfc3339
from common.errors import LLMasOSError
from common.identity.invitation import open_genesis
from common.identity.keys import SigningKey
from common.statements.envelope import signed_under
from common.verify.report import Finding, Outcome, Report
from common.verify.verify import verify
from participant.commands.verifying import material_of
from participant.config import HomeLayout
from participant.memory.journal import Journal, KeptCheckpoint, SignedSlot
from participant.memory.mirror import Mirror
from participant.memory.rows import check_journal
from tests.support.cheats import Scene
from tests.support.participant_homes import ParticipantHome

LOOKED_AT = ("ledger", "signed", "checkpoints")
UNNOTICED = {
    (
        "signed",
        "slot",
    ): "of an answer or a leave: whoever signed it may look for it elsewhere; a contribution's is found",
    ("signed", "signed_at"): "this machine's clock, which no signature covers",
    ("signed", "metrics"): "set to nothing where the salt is nothing too: metrics may be deleted",
    ("signed", "row"): "an answer's: deleted; a contribution's is found, since the ledger holds it",
    ("checkpoints", "kind"): "what it was kept for: the note is compared whatever it is called",
    ("checkpoints", "seen_at"): "this machine's clock, which no signature covers",
    ("checkpoints", "row"): "deleted, where another covers the same rounds: it shows nothing more",
}
"""What a hand may change, and nobody can tell. The tables egress, work, measurements, alone, events, orders, decisions are this
institution's notes to itself: nothing in the ledger says what they must hold, and verification does not read them."""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> ParticipantHome:
    """North's home after the run, with all blobs, everything that it signed, and the checkpoints that it saw."""
    folder = tmp_path_factory.mktemp("rows")
    scene = Scene(folder / "coordinator")
    home = ParticipantHome(folder / "north", scene.coordinator)
    home.follow()
    journal = Journal(home.layout.journal)
    now = rfc3339(scene.coordinator.clock.now())
    for record in scene.run.rounds:
        given = record.contributions["north"]
        envelope = scene.entries[given.place.index]
        metrics = scene.coordinator.database.metrics(scene.run.run)[given.place.digest]
        slot = f"contribution/{record.place.digest}"
        journal.sign(SignedSlot(slot, given.place.digest, envelope, metrics.content, metrics.salt, now))
    tree = Mirror(journal, scene.entries[0])
    notes = [KeptCheckpoint(each.size, tree.head(each.size).root.hex(), note, now)
             for each, note in zip(scene.seen, scene.notes, strict=True)]  # fmt: skip
    journal.keep_checkpoints("cosigned", notes)
    journal.close()
    shutil.copytree(scene.coordinator.layout.blobs, home.layout.blobs)
    scene.close()
    return home


def edited(template: ParticipantHome, home: Path, command: str, values: tuple[object, ...] = ()) -> HomeLayout:
    shutil.copytree(template.layout.home, home)
    layout = HomeLayout(home)
    with closing(sqlite3.connect(layout.journal)) as other:
        assert other.execute(command, values).rowcount > 0, f"nothing was edited: {command}"
        other.commit()
    return layout


def verified(layout: HomeLayout) -> Report:
    """What `llmasos-participant verify --no-fetch` finds."""
    journal, blobs = Journal(layout.journal), FolderBlobStore(layout.blobs)
    try:
        known = open_genesis(layout.genesis.read_bytes())[0].digest
        return verify(material_of(journal, "north", blobs, known), also=(partial(check_journal, journal, "north"),))
    finally:
        blobs.close()
        journal.close()


def failed(report: Report) -> list[Finding]:
    findings = [finding for check in report.checks for finding in check.findings]
    return [finding for finding in findings if finding.outcome is Outcome.FAILED]


def test_an_untouched_home_is_verified_without_a_gap(template: ParticipantHome) -> None:
    report = verified(template.layout)
    assert report.outcome is Outcome.VERIFIED, [check.findings for check in report.checks]
    names = ["genesis", "history", "witnesses", "times", "own", "journal", "blobs", "rounds", "lineage"]
    assert [check.name for check in report.checks] == names


EDITS = {
    "an envelope": ("UPDATE ledger SET envelope = x'7b7d' WHERE position = 9", "is not a DSSE envelope"),
    "a digest": ("UPDATE ledger SET digest = 'ffffffff' || substr(digest, 9) WHERE position = 9", "not its envelope's"),
    "a row that is gone": ("DELETE FROM ledger WHERE position = 9", "lacks a row"),
    "the last row's place": ("UPDATE ledger SET position = 99 WHERE position = 32", "lacks a row"),
    "rows that changed places": ("UPDATE ledger SET position = 99 WHERE position = 9", "lacks a row"),
    "a signed statement's digest": ("UPDATE signed SET digest = 'ab'", "has another digest, or is no statement"),
    "a signed statement's slot": ("UPDATE signed SET slot = 'contribution/' || rowid", "was signed for another slot"),
    "a signed statement of another": (
        "UPDATE signed SET (digest, envelope) = (SELECT digest, envelope FROM ledger WHERE position = 14)",
        "is not a statement of north",
    ),
    "metrics beside it": ("UPDATE signed SET metrics = x'7b7d'", "are not those that it committed to"),
    "what was signed is gone": ("DELETE FROM signed", "that this institution's journal does not know"),
    "a digest that is bytes": ("UPDATE signed SET digest = x'00ff'", "has another digest, or is no statement"),
    "a slot that is bytes": ("UPDATE signed SET slot = CAST(slot AS BLOB)", "was signed for another slot"),
    "a checkpoint's root": ("UPDATE checkpoints SET root = 'ab'", "another size or root than its row says"),
    "a checkpoint": ("UPDATE checkpoints SET note = x'7b7d' WHERE size = 33", "is not one that this log signed"),
}  # fmt: skip


@pytest.mark.parametrize("claim", EDITS)
def test_an_edited_journal_fails_in_words(template: ParticipantHome, tmp_path: Path, claim: str) -> None:
    command, text = EDITS[claim]
    report = verified(edited(template, tmp_path / "home", command))
    found = failed(report)
    assert any(text in finding.text for finding in found), [finding.text for finding in found]
    json.dumps(report.as_json())  # whatever type a hand wrote


@pytest.mark.parametrize("by", ["another key", "other bits"])
def test_a_signature_that_a_hand_changed_is_found_though_the_digest_stays(
    template: ParticipantHome, tmp_path: Path, by: str
) -> None:
    with closing(sqlite3.connect(template.layout.journal)) as other:
        slot, envelope = other.execute("SELECT slot, envelope FROM signed ORDER BY slot LIMIT 1").fetchone()
    if by == "another key":
        changed = signed_under(envelope, SigningKey.generate())
    else:
        value = json.loads(envelope)
        signature = base64.b64decode(value["signatures"][0]["sig"])
        value["signatures"][0]["sig"] = base64.b64encode(bytes([signature[0] ^ 1]) + signature[1:]).decode()
        changed = strict_json.dumps(value)
    command = "UPDATE signed SET envelope = ? WHERE slot = ?"
    (found,) = failed(verified(edited(template, tmp_path / "home", command, (changed, slot))))
    assert found.text.startswith(f"What was signed for {slot} does not bear this institution's signature: ")


@pytest.mark.parametrize("seed", range(24))
def test_a_random_edit_is_found_or_named_above(template: ParticipantHome, tmp_path: Path, seed: int) -> None:
    """A value changed in one bit or letter, made another type, or its row deleted."""
    draw = random.Random(f"journal {seed}")
    table = draw.choice(LOOKED_AT)
    with closing(sqlite3.connect(template.layout.journal)) as other:
        cursor = other.execute(f"SELECT rowid, * FROM {table}")
        names = [column[0] for column in cursor.description][1:]
        rowid, *values = draw.choice(cursor.fetchall())
    at = draw.randrange(len(names))
    if draw.random() < 0.15:
        column, command, arguments = "row", f"DELETE FROM {table} WHERE rowid = ?", (rowid,)
    else:
        column, command = names[at], f"UPDATE {table} SET {names[at]} = ? WHERE rowid = ?"
        arguments = (draw.choice((spoiled(draw, values[at]), 12345, b"\xff\x00", "text")), rowid)
    try:
        layout = edited(template, tmp_path / "home", command, arguments)
    except sqlite3.IntegrityError:
        return  # the database itself refuses that one
    try:
        found = verified(layout).outcome
    except LLMasOSError:
        found = Outcome.FAILED
    assert found is not Outcome.VERIFIED or (table, column) in UNNOTICED, (command, arguments)


def spoiled(draw: random.Random, value: object) -> object:
    if isinstance(value, int):
        return value + 1000
    content = bytearray(value if isinstance(value, bytes) else str(value).encode())
    if content:
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(7)
    return bytes(content) if isinstance(value, bytes) else content.decode(errors="replace")


def test_a_history_that_was_shown_as_another_fails_for_ever_after(template: ParticipantHome, tmp_path: Path) -> None:
    """What stopped the daemon is kept as `conflicting`, and verification repeats it."""
    layout = edited(template, tmp_path / "home", "UPDATE checkpoints SET kind = 'conflicting' WHERE size = 33")
    assert verified(layout).outcome is Outcome.VERIFIED  # the note is of this history, whatever it was kept for
    with closing(sqlite3.connect(layout.journal)) as other:
        other.execute("DELETE FROM ledger WHERE position = 32")
        other.commit()
    report = verified(layout)
    texts = [finding.text for check in report.checks for finding in check.findings]
    assert any(text.startswith("The log signed a tree of 33 entries; 32 are held here") for text in texts)


def test_a_blob_that_was_changed_is_found(template: ParticipantHome, tmp_path: Path) -> None:
    shutil.copytree(template.layout.home, tmp_path / "home")
    layout = HomeLayout(tmp_path / "home")
    store = FolderBlobStore(layout.blobs)
    for ref, _ in list(store.list()):
        path = store.path(ref)
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert failed(verified(layout)), ref
        path.write_bytes(content)
    store.close()
