"""Tables, blobs and files of a coordinator that somebody edited by hand, in every place that there is."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from common.errors import LLMasOSError
from common.verify.report import Finding, Outcome, Report
from coordinator.commands.verifying import verified
from coordinator.config import HomeLayout
from coordinator.store.tables import metadata
from coordinator.tables import ROWS
from tests.support.edited_homes import MORE_THAN_A_TILE, copied, edited, template_home

COLUMNS = [(table.name, column.name) for table in metadata.sorted_tables for column in table.columns]

UNNOTICED = {
    ("schema", "row"): "deleted: whoever opens the database writes it again",
    ("schema", "version"): "an older one: whoever opens the database brings it up to date",
    (
        "ledger",
        "appended_at",
    ): "a later or earlier time between its neighbours': no signature covers this machine's clock",
    ("seals", "sealed_at"): "another time between opening and close: no signature covers it",
    (
        "seals",
        "reason",
    ): "of an abandoned round, another reason that there is: the ledger says only that it had no quorum",
    ("metrics", "row"): "deleted: institutions may have theirs deleted, and the ledger keeps the commitment",
    ("invitations", "row"): "deleted: an open one is withdrawn so; who was enrolled by it stands in the roster",
    ("invitations", "institution"): "of an open one, another name: no statement was made of it; the roster will say it",
    ("invitations", "id"): "another id: whoever holds the old invitation is refused, and nobody is let in",
    (
        "invitations",
        "secret_sha256",
    ): "another digest: as above; who knows a secret to it needs the operator's home anyway",
    ("invitations", "roles"): "of an open one, other roles: no statement was made of it; the roster will say them",
    ("invitations", "expires_at"): "another time: no statement was made of it",
    ("invitations", "redeemed_by"): "another digest of keys: it only lets the same keys ask again",
    ("proposals", "row"): "deleted with its approvals: a draft is withdrawn so, and was no statement yet",
    ("proposals", "request"): "another digest: it only lets the same request be asked again",
    ("proposals", "proposed_at"): "another time: no statement was made of it",
    ("proposals", "redeemed_by"): "another digest of keys: as in invitations",
    ("proposals", "invitation"): "nothing there is to be mistaken: it is one of that institution's, or found",
    ("approvals", "row"): "deleted: the institution is asked once more",
    ("approvals", "approved_at"): "another time: the signature does not cover it",
    ("checkpoints", "row"): "deleted, where a later checkpoint covers the same rounds: it shows nothing more",
}
"""What a hand may change, within what the words say, and nobody can tell; everything else is found."""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> HomeLayout:
    return template_home(tmp_path_factory.mktemp("tables") / "template")


@pytest.fixture(scope="module")
def long_template(tmp_path_factory: pytest.TempPathFactory) -> HomeLayout:
    return template_home(tmp_path_factory.mktemp("tiles") / "template", entries=MORE_THAN_A_TILE)


def failed(report: Report) -> list[Finding]:
    findings = [finding for check in report.checks for finding in check.findings]
    return [finding for finding in findings if finding.outcome is Outcome.FAILED]


def test_an_untouched_home_is_verified_and_has_a_row_in_every_table(
    template: HomeLayout, long_template: HomeLayout
) -> None:
    for layout in (template, long_template):
        report = verified(layout)
        assert report.outcome is Outcome.VERIFIED, [check.findings for check in report.checks]
    with closing(sqlite3.connect(long_template.state)) as other:
        for name in metadata.tables:
            assert other.execute(f"SELECT count(*) FROM {name}").fetchone()[0] > 0, name


def test_every_table_has_its_check() -> None:
    assert set(ROWS) == set(metadata.tables)
    assert {column for column in UNNOTICED if column[1] != "row"} <= set(COLUMNS)


# --- edits with their words ---------------------------------------------------------------------------------------------

OPEN, REDEEMED = "redeemed_by IS NULL AND institution = 'yak'", "redeemed_by IS NOT NULL"
EDITS = {
    "a digest": ("UPDATE ledger SET digest = 'ffffffff' || substr(digest, 9) WHERE \"index\" = 9", "digest or kind"),
    "a kind": ("UPDATE ledger SET kind = 'control' WHERE \"index\" = 9", "digest or kind"),
    "a row that is gone": ('DELETE FROM ledger WHERE "index" = 9', "lacks a row"),
    "rows that changed places": ('UPDATE ledger SET "index" = 1000 WHERE "index" = 9', "lacks a row"),
    "the last row": ('DELETE FROM ledger WHERE "index" = (SELECT max("index") FROM ledger)', "is an older one"),
    "an envelope that is text": ('UPDATE ledger SET envelope = CAST(envelope AS TEXT) WHERE "index" = 9', "not bytes"),
    "a time that is none": ("UPDATE ledger SET appended_at = 'noon' WHERE \"index\" = 9", "A row's time is none"),
    "a time before the row above": (
        "UPDATE ledger SET appended_at = '2025-12-31T00:00:00.000Z' WHERE \"index\" = 9",
        "before the one of the row above",
    ),
    "a time that the statement contradicts": (
        "UPDATE ledger SET appended_at = '2026-06-01T00:00:00.000Z' WHERE \"index\" = (SELECT max(\"index\") FROM ledger)",
        "another time than its control claims",
    ),
    "a row before the first": (
        'INSERT INTO ledger SELECT -1, digest, kind, appended_at, envelope FROM ledger WHERE "index" = 9',
        "has rows before entry 0",
    ),
    "a seal's reason": ("UPDATE seals SET reason = 'deadline-passed'", "another reason"),
    "a seal of nothing": ("UPDATE seals SET round_opened = 'ffffffff' || substr(round_opened, 9)", "never opened"),
    "a seal that is gone": ("DELETE FROM seals", "its seal is not there"),
    "a seal's time": ("UPDATE seals SET sealed_at = '2027-01-01T00:00:00.000Z'", "not between its opening and its close"),
    "a measurement": ("UPDATE metrics SET content = '{}'", "not what their contribution committed to"),
    "a measurement of another run": ("UPDATE metrics SET run = 'tiny-0a1b2d'", "under another run"),
    "a measurement of nobody": (
        "UPDATE metrics SET contribution = 'ffffffff' || substr(contribution, 9)",
        "not what their contribution committed to",
    ),
    "an invitation's roster": (f"UPDATE invitations SET roster_index = 1000 WHERE {REDEEMED}", "no roster names it"),
    "an invitation's roles": (f"UPDATE invitations SET roles = 'operator' WHERE {REDEEMED}", "gave other roles"),
    "roles that there are none of": (f"UPDATE invitations SET roles = 'king' WHERE {OPEN}", "are no roles"),
    "an invitation opened again": (
        "UPDATE invitations SET redeemed_by = NULL, certificate_pem = NULL, roster_index = NULL",
        "its invitation is open again",
    ),
    "an invitation's certificate": (
        f"UPDATE invitations SET certificate_pem = (SELECT pem FROM certificates WHERE institution = 'operator') "
        f"WHERE {REDEEMED}",
        "holds another certificate",
    ),
    "a certificate of somebody else": ("UPDATE certificates SET institution = 'east'", "it is certificate"),
    "a certificate of another roster": ("UPDATE certificates SET roster_index = 1", "the roster of its index"),
    "a certificate that replaced another": (
        "UPDATE certificates SET replaces = 'ab' WHERE replaces IS NOT NULL",
        "the row says ab",
    ),
    "a certificate with a word beside it": (
        "UPDATE certificates SET pem = CAST('hello' || char(10) AS BLOB) || pem",
        "not spelled as it was issued",
    ),
    "a draft's subject": ("UPDATE proposals SET subject = 'yak'", "what it changes is nothing of that name"),
    "a draft's purpose": ("UPDATE proposals SET purpose = 'revoke'", "what it changes is enrol"),
    "a draft's digest": ("UPDATE proposals SET payload_sha256 = 'abababab' || substr(payload_sha256, 9)", "another digest"),
    "a draft without its certificate": ("UPDATE proposals SET certificate_pem = NULL", "the certificate beside it is none"),
    "a draft's invitation": ("UPDATE proposals SET invitation = 'ab'", "its invitation is not one of that institution"),
    "a draft that replaces a certificate": ("UPDATE proposals SET replaces = 'ab'", "it replaces certificate ab"),
    "an approval by another": ("UPDATE approvals SET institution = 'south'", "does not hold"),
    "an approval of no draft": ("UPDATE approvals SET payload_sha256 = 'ab'", "of no draft that is kept"),
    "a checkpoint's size": ("UPDATE checkpoints SET size = size + 1000", "under another size than its own"),
}  # fmt: skip


@pytest.mark.parametrize("claim", EDITS)
def test_an_edited_table_fails_in_words(template: HomeLayout, tmp_path: Path, claim: str) -> None:
    command, text = EDITS[claim]
    found = failed(verified(edited(template, tmp_path / "home", command)))
    assert any(text in finding.text for finding in found), [finding.text for finding in found]


FOREIGN = {
    "a trigger": (
        "CREATE TRIGGER nightly AFTER INSERT ON ledger BEGIN DELETE FROM approvals; END",
        "The database has the trigger nightly, which no release made",
    ),
    "a view in a table's place": (
        "ALTER TABLE seals RENAME TO kept; CREATE VIEW seals AS SELECT * FROM kept",
        "The database has the view seals, which no release made",
    ),
    "indexes of any type": (
        "ALTER TABLE ledger RENAME TO kept; CREATE TABLE ledger AS SELECT * FROM kept; DROP TABLE kept; "
        'UPDATE ledger SET "index" = \'nine\' WHERE "index" = 9',
        "The ledger's table lacks a row",
    ),
}


@pytest.mark.parametrize("claim", FOREIGN)
def test_a_database_that_is_built_otherwise_fails_in_words(template: HomeLayout, tmp_path: Path, claim: str) -> None:
    script, text = FOREIGN[claim]
    layout = copied(template, tmp_path / "home")
    with closing(sqlite3.connect(layout.state)) as other:
        other.executescript(script)
    found = failed(verified(layout))
    assert any(text in finding.text for finding in found), [finding.text for finding in found]


TILES = {
    "a hash": (
        "UPDATE tiles SET hashes = CAST(x'00ff00ff' || substr(hashes, 5) AS BLOB)",
        "is not made from the envelopes",
    ),
    "a root": (
        "UPDATE tiles SET root = CAST(x'00ff00ff' || substr(root, 5) AS BLOB)",
        "is not made from the envelopes",
    ),
    "a hash that is text": ("UPDATE tiles SET hashes = x'ff' || 'text'", "The table tiles cannot be read"),
    "a tile that is gone": ("DELETE FROM tiles", "is not there"),
    "a tile too many": (
        "INSERT INTO tiles SELECT level, position + 1, root, hashes FROM tiles",
        "too short to have it",
    ),
    "a tile's place": ("UPDATE tiles SET level = 1", "is not there"),
}


@pytest.mark.parametrize("claim", TILES)
def test_an_edited_tile_fails_in_words(long_template: HomeLayout, tmp_path: Path, claim: str) -> None:
    command, text = TILES[claim]
    found = failed(verified(edited(long_template, tmp_path / "home", command)))
    assert any(text in finding.text for finding in found), [finding.text for finding in found]


# --- every column, every blob, every file -------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [column for column in COLUMNS if column[0] != "tiles"], ids=".".join)
def test_a_change_in_any_column_is_found_or_named_above(
    template: HomeLayout, tmp_path: Path, where: tuple[str, str]
) -> None:
    """All rows of a column in turn, each changed a little."""
    table, column = where
    with closing(sqlite3.connect(template.state)) as other:
        rows = other.execute(f'SELECT rowid, "{column}" FROM {table} ORDER BY rowid').fetchall()
    changeable = [(rowid, value) for rowid, value in rows if value is not None]
    for rowid, value in random.Random(column).sample(changeable, min(2, len(changeable))):
        home = tmp_path / str(rowid)
        command = f'UPDATE {table} SET "{column}" = ? WHERE rowid = ?'
        found = outcome(edited(template, home, command, (changed(random.Random(rowid), value), rowid)))
        assert found is not Outcome.VERIFIED or where in UNNOTICED, (where, rowid, value)


def changed(draw: random.Random, value: Any) -> Any:
    """Another value of the same type, that differs in little."""
    if isinstance(value, int):
        return value + draw.choice((1000, -1000, 7000))
    at = draw.randrange(len(value)) if value else 0
    if isinstance(value, bytes):
        return value[:at] + bytes([value[at] ^ (1 << draw.randrange(8))]) + value[at + 1 :] if value else b"\0"
    return value[:at] + draw.choice("0123456789abcdef".replace(value[at : at + 1] or "x", "")) + value[at + 1 :]


def outcome(layout: HomeLayout) -> Outcome:
    """What verification says; a home that cannot even be opened, with an error that says why, has failed."""
    try:
        return verified(layout).outcome
    except LLMasOSError:
        return Outcome.FAILED


@pytest.mark.parametrize("seed", range(24))
def test_a_random_edit_is_found_or_named_above(template: HomeLayout, tmp_path: Path, seed: int) -> None:
    """Any row of any table: a value changed, set to nothing, made another type, or the row deleted, or copied over."""
    draw = random.Random(f"edit {seed}")
    with closing(sqlite3.connect(template.state)) as other:
        table = draw.choice([name for name in metadata.tables if name != "tiles"])
        rowid, *values = draw.choice(other.execute(f"SELECT rowid, * FROM {table}").fetchall())
    names = [column.name for column in metadata.tables[table].columns]
    if draw.random() < 0.15:
        column, command, arguments = "row", f"DELETE FROM {table} WHERE rowid = ?", (rowid,)
    else:
        at = draw.randrange(len(names))
        column, value = names[at], values[at]
        other_value = draw.choice((changed(draw, value) if value is not None else "ab", "", 12, b"\xff\x00", "\u202e"))
        command, arguments = f'UPDATE {table} SET "{column}" = ? WHERE rowid = ?', (other_value, rowid)
    try:
        home = edited(template, tmp_path / "home", command, arguments)
    except sqlite3.IntegrityError:
        return  # the database itself refuses that one
    assert outcome(home) is not Outcome.VERIFIED or (table, column) in UNNOTICED, (command, arguments)


def blob_files(layout: HomeLayout) -> Iterator[Path]:
    yield from (
        path.relative_to(layout.home) for path in sorted(layout.blobs.rglob("*")) if path.suffix in (".blob", ".leaves")
    )


def test_a_change_in_any_blob_or_its_leaves_is_found(template: HomeLayout, tmp_path: Path) -> None:
    """Initial model, tokenizer, deltas, every round's model, the last one too, which no later round reads."""
    names = list(blob_files(template))
    assert len(names) >= 20
    for number, name in enumerate(names):
        layout = copied(template, tmp_path / str(number))
        content = changed(random.Random(number), (template.home / name).read_bytes())
        (layout.home / name).unlink()  # a hard link: the template keeps its own
        (layout.home / name).write_bytes(content)
        found = failed(verified(layout))
        assert found, name
        assert any(
            "held here, but not as it was" in each.text or "cannot be recomputed" in each.text for each in found
        ), name


def test_a_model_that_is_kept_for_ever_and_is_gone_is_found(template: HomeLayout, tmp_path: Path) -> None:
    for number, name in enumerate(blob_files(template)):
        layout = copied(template, tmp_path / str(number))
        (layout.home / name).unlink()
        assert verified(layout).outcome is not Outcome.VERIFIED, name


def test_a_database_that_is_older_than_what_was_signed_is_found(template: HomeLayout, tmp_path: Path) -> None:
    """log.head of another history, of a longer one, and one that cannot be read."""
    layout = copied(template, tmp_path / "home")
    note = layout.log_head.read_bytes()
    layout.log_head.write_bytes(note[:-20] + b"A" * 18 + b"\n")
    report = verified(layout)
    assert report.outcome is Outcome.GAPS
    assert any("cannot be read" in finding.text for check in report.checks for finding in check.findings)


@pytest.mark.parametrize("name", ["genesis.json", "operator/genesis.json"])
def test_a_genesis_that_was_edited_is_found(template: HomeLayout, tmp_path: Path, name: str) -> None:
    """The one that the coordinator starts from, and the one that the operator keeps to know the consortium by."""
    layout = copied(template, tmp_path / "home")
    path = layout.home / name
    path.write_bytes(path.read_bytes().replace(b'"sig":"', b'"sig":"A', 1))
    assert outcome(layout) is Outcome.FAILED
