"""A participant's backup, and that a home restored from it signs nothing that it may have signed before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.backup.archive import open_archive
from common.backup.restoring import restoration, restore
from common.clock import ManualClock
from common.errors import LedgerConflict, MalformedBackup, NotInitialised
from participant.commands.status_text import _restored
from participant.config import HomeLayout
from participant.memory.backup import back_up, check_restored
from participant.memory.journal import SignedSlot
from participant.memory.restoration import Restoration, RestorationPorts, own_statements
from participant.tasks import answer_slot, contribution_slot
from tests.support.agents import Institution
from tests.support.participants import RUN


@pytest.fixture
def home(north: Institution) -> Path:
    """What a real home holds besides."""
    (north.folder / "genesis.json").write_bytes(north.coordinator.genesis)
    (north.folder / "policy.yaml").write_text("answer: accept\n")
    (north.folder / "identity").mkdir()
    (north.folder / "identity" / "signing.key.pem").write_bytes(b"key")
    return north.folder


def backed_up(north: Institution, file: Path) -> Path:
    back_up(HomeLayout(north.folder), file, north.name, ManualClock())
    return file


def restored(north: Institution, file: Path, folder: Path) -> tuple[Institution, Restoration]:
    """The same institution over the restored home, before it followed anything beyond the backup."""
    north.close()
    restore(file, folder, "participant", ManualClock(), check_restored)
    again = Institution.__new__(Institution)
    again.__dict__ |= north.__dict__ | {"folder": folder}
    again._open()
    clock: Any = ManualClock()
    ports = RestorationPorts(folder, again.name, again.mirror, again.journal, clock, again.status.tell)
    return again, Restoration(ports)


def test_a_backup_holds_keys_journal_and_what_nobody_else_has(north: Institution, home: Path, tmp_path: Path) -> None:
    record = north.open_round()
    (home / "jobs" / RUN / "personal").mkdir(parents=True)
    (home / "jobs" / RUN / "personal" / "1").write_bytes(b"layers")
    (home / "jobs" / RUN / "tokens").mkdir()
    (home / "jobs" / RUN / "tokens" / "t").write_bytes(b"private text")
    north.session.before_submit = lambda: (_ for _ in ()).throw(LedgerConflict("not yet"))
    with pytest.raises(LedgerConflict):
        north.agent.work(north.run, record)
    with open_archive(backed_up(north, tmp_path / "b.tar")) as archive:
        paths = {entry.path for entry in archive.manifest.files}
        content = b"".join(data for _, pieces in archive.members() for data in pieces)
    assert {"genesis.json", "policy.yaml", "identity/signing.key.pem", "journal.sqlite"} <= paths
    assert f"jobs/{RUN}/personal/1" in paths
    assert {Path(path).stem for path in paths if path.startswith("blobs/")} == north.outbox.blobs_of(record)
    assert b"private text" not in content


def test_a_statement_that_reached_the_ledger_after_the_backup_is_taken_over_and_not_signed_again(
    north: Institution, home: Path, tmp_path: Path
) -> None:
    record = north.open_round()
    backup = backed_up(north, tmp_path / "b.tar")
    north.agent.work(north.run, record)
    signed = north.journal.signed(contribution_slot(record))
    assert signed is not None
    again, restoring = restored(north, backup, tmp_path / "restored")
    assert restoring.pending
    assert again.journal.signed(contribution_slot(record)) is None
    restoring.caught_up()
    taken = again.journal.signed(contribution_slot(record))
    assert taken is not None
    assert (taken.digest, taken.envelope) == (signed.digest, signed.envelope)
    assert not restoring.pending
    assert again.agent._next(again.mirror.state) is None
    note = restoration(again.folder)
    assert note is not None
    assert again.status.told["restored"] == note
    settled: Any = note["settled"]
    assert (settled["taken_over"], settled["entries"]) == (1, again.mirror.state.size)
    (said,) = _restored(note)
    assert said.endswith(f"the ledger had {again.mirror.state.size}, 1 own statements were taken over")
    (before,) = _restored(note | {"settled": None})
    assert before.endswith("nothing is signed before the ledger was followed to its newest checkpoint")
    again.close()


def test_a_restored_participant_does_nothing_and_cosigns_nothing_before_it_caught_up(
    north: Institution, home: Path, tmp_path: Path
) -> None:
    import threading

    from participant import agent as agent_module

    north.open_round()
    again, restoring = restored(north, backed_up(north, tmp_path / "b.tar"), tmp_path / "restored")
    ports: Any = again.agent._ports
    object.__setattr__(ports, "catching_up", lambda: restoring.pending)
    stopping = threading.Event()
    object.__setattr__(again.status, "doing", lambda activity, **fields: (said.append(activity), stopping.set()))
    said: list[str] = []
    again.agent.run(stopping)
    assert said == [agent_module.CATCHING_UP]
    assert again.session.submitted == []
    again.close()


def test_another_statement_in_the_ledger_under_the_own_key_stops_it(
    north: Institution, home: Path, tmp_path: Path
) -> None:
    record = north.open_round()
    slot = answer_slot(north.run)
    again, restoring = restored(north, backed_up(north, tmp_path / "b.tar"), tmp_path / "restored")
    with again.journal._file.transaction() as connection:
        connection.execute("UPDATE signed SET digest = ? WHERE slot = ?", ("ab" * 32, slot))
    with pytest.raises(LedgerConflict, match=r"was signed here as abababababababab…, the ledger holds"):
        restoring.caught_up()
    assert restoring.pending
    assert record.number == 1
    again.close()


def test_answers_contributions_and_attestations_are_own_statements(north: Institution) -> None:
    record = north.open_round()
    north.agent.work(north.run, record)
    slots = dict(own_statements(north.mirror.state, "north"))
    assert set(slots) == {answer_slot(north.run), contribution_slot(record)}
    entry = north.journal.signed(contribution_slot(record))
    assert isinstance(entry, SignedSlot)
    assert slots[contribution_slot(record)].digest == entry.digest


def test_a_home_without_a_journal_or_with_another_genesis_is_refused(
    north: Institution, home: Path, tmp_path: Path
) -> None:
    with pytest.raises(NotInitialised, match="holds no journal"):
        back_up(HomeLayout(tmp_path / "empty"), tmp_path / "b.tar", "north", ManualClock())
    backup = backed_up(north, tmp_path / "b.tar")
    data = backup.read_bytes()
    size = north.mirror.state.size
    backup.write_bytes(data.replace(b'"entries":%d,' % size, b'"entries":%d,' % (size + 1)))
    with pytest.raises(MalformedBackup, match=r"its manifest says"):
        restore(backup, tmp_path / "restored", "participant", ManualClock(), check_restored)
    assert not (tmp_path / "restored").exists()
