"""Tables that somebody edited by hand."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from common.verify.report import Outcome
from coordinator.tables import check_tables
from tests.support.coordinators import Coordinator

EDITS = {
    "a digest": ("UPDATE ledger SET digest = 'ff' || substr(digest, 3) WHERE \"index\" = 9", "digest or kind"),
    "a kind": ("UPDATE ledger SET kind = 'control' WHERE \"index\" = 9", "digest or kind"),
    "a row that is gone": ('DELETE FROM ledger WHERE "index" = 9', "lacks a row"),
    "a seal's reason": ("UPDATE seals SET reason = 'deadline-passed'", "another reason"),
    "a seal of nothing": ("UPDATE seals SET round_opened = 'ff' || substr(round_opened, 3)", "never opened"),
    "a measurement": ("UPDATE metrics SET content = '{}'", "not what their contribution committed to"),
    "an invitation": ("UPDATE invitations SET roster_index = 1000 WHERE redeemed_by IS NOT NULL", "no roster names it"),
}


def played(folder: Path) -> Coordinator:
    coordinator = Coordinator(folder)
    coordinator.start_run(rounds=2)
    for participant in coordinator.participants.values():
        participant.answer()
    coordinator.play()
    return coordinator


def test_untouched_tables_say_what_the_ledger_says(tmp_path: Path) -> None:
    coordinator = played(tmp_path / "coordinator")
    check = check_tables(coordinator.database, coordinator.state)
    assert (check.outcome, check.findings) == (Outcome.VERIFIED, ())
    coordinator.close()


@pytest.mark.parametrize("claim", EDITS)
def test_an_edited_table_is_found(tmp_path: Path, claim: str) -> None:
    coordinator = played(tmp_path / "coordinator")
    command, text = EDITS[claim]
    with closing(sqlite3.connect(coordinator.layout.state)) as other:
        assert other.execute(command).rowcount > 0
        other.commit()
    check = check_tables(coordinator.database, coordinator.state)
    assert check.outcome is Outcome.FAILED
    assert text in check.findings[0].text
    coordinator.close()
