"""A coordinator's backup, a restored home, and what it has to learn before it signs anything."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.backup.archive import open_archive
from common.backup.restoring import restore
from common.blobs.store import FolderBlobStore
from common.clock import ManualClock
from common.errors import MalformedBackup, MissingBlob, NotRecovered, TwoHistories, UsageError
from common.evidence.files import save_bundle
from common.evidence.select import Holdings, select
from common.ledger.state import LedgerState
from common.terminal import exit_code_of
from coordinator.app import CoordinatorConfig, load_config
from coordinator.cli import app
from coordinator.commands.verifying import verified
from coordinator.config import HomeLayout
from coordinator.recovery.backing_up import BlobChoice, back_up, check_restored, expect_recovered
from coordinator.recovery.from_files import Recovered, recover
from coordinator.rounds.phases import Phase
from tests.support.coordinators import Coordinator
from tests.support.participants import RUN

Build = Callable[[Path], Coordinator]


def play_rounds(coordinator: Coordinator, count: int) -> None:
    for _ in range(count):
        for participant in coordinator.participants.values():
            participant.act()
        coordinator.advance()


def backed_up(coordinator: Coordinator, file: Path, blobs: BlobChoice = "needed") -> Path:
    back_up(coordinator.layout, file, blobs, coordinator.clock)
    return file


def exported(coordinator: Coordinator, file: Path, *, size: int | None = None, deltas: bool = True) -> Path:
    """What an institution that follows everything can export: entries, the log's checkpoint, and what it may read."""
    envelopes = coordinator.envelopes()[:size]
    note = coordinator.log.note(len(envelopes)).encode()
    blobs = FolderBlobStore(coordinator.layout.blobs) if deltas else None
    save_bundle(select(Holdings(envelopes, (note,), blobs=blobs)).contents, file)
    return file


def restored(file: Path, home: Path) -> HomeLayout:
    restore(file, home, "coordinator", ManualClock(), check_restored)
    return HomeLayout(home)


def config(coordinator: Coordinator) -> CoordinatorConfig:
    return load_config(coordinator.layout.home)


def recovered(layout: HomeLayout, coordinator: Coordinator, *files: Path) -> Recovered:
    return recover(layout, config(coordinator), files, coordinator.clock)


def moved_to(coordinator: Coordinator, layout: HomeLayout) -> None:
    """The coordinator's process goes on over the restored home; the institutions are the same."""
    coordinator.close()
    shutil.rmtree(coordinator.layout.home)
    coordinator.layout = layout
    coordinator._open()


def models(state: LedgerState) -> list[str]:
    return [record.closed.outputs.model.root for record in state.runs[RUN].rounds if record.closed]


@pytest.fixture
def undisturbed(tmp_path: Path) -> Iterator[list[str]]:
    other = Coordinator(tmp_path / "undisturbed")
    other.open_round(rounds=4)
    yield models_of(other)
    other.close()


def models_of(coordinator: Coordinator) -> list[str]:
    coordinator.play()
    return models(coordinator.state)


def test_a_backup_holds_keys_and_ledger_and_what_retention_keeps(coordinator: Coordinator, tmp_path: Path) -> None:
    coordinator.open_round(rounds=4)
    play_rounds(coordinator, 2)
    with open_archive(backed_up(coordinator, tmp_path / "b.tar")) as archive:
        paths = {entry.path for entry in archive.manifest.files}
        assert (archive.manifest.entries, archive.manifest.name) == (coordinator.state.size, "hospitals")
    assert {"genesis.json", "state.sqlite", "identity/statement.key.pem", "identity/log.key.pem"} <= paths
    assert "lock" not in paths
    home, kept = coordinator.layout.home, {ref.root for ref, _ in coordinator.blobs.list()}
    assert {Path(path).stem for path in paths if path.startswith("blobs/")} == kept
    with open_archive(backed_up(coordinator, tmp_path / "none.tar", "none")) as archive:
        assert not any(entry.path.startswith("blobs/") for entry in archive.manifest.files)
    assert home.exists()


def test_beside_a_restored_home_no_command_signs_a_checkpoint(
    coordinator: Coordinator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coordinator.open_round(rounds=4)
    layout = restored(backed_up(coordinator, tmp_path / "b.tar"), tmp_path / "new")
    with pytest.raises(NotRecovered, match=r"was restored from a backup of .* with \d+ ledger entries"):
        expect_recovered(layout.home)
    assert exit_code_of(app, ["checkpoint", "--home", str(layout.home)]) == 2
    assert "error [not-recovered]" in capsys.readouterr().err
    recovered(layout, coordinator)
    expect_recovered(layout.home)
    with pytest.raises(UsageError, match="waits for no recovery"):
        recovered(layout, coordinator)


def test_what_institutions_hold_is_taken_in_and_the_run_goes_on_with_the_same_bits(
    coordinator: Coordinator, undisturbed: list[str], tmp_path: Path
) -> None:
    coordinator.open_round(rounds=4)
    play_rounds(coordinator, 1)
    backup, then = backed_up(coordinator, tmp_path / "b.tar"), coordinator.state.size
    play_rounds(coordinator, 1)
    coordinator["east"].contribute()
    size = coordinator.state.size
    short = exported(coordinator, tmp_path / "short", size=size - 2, deltas=False)
    evidence = exported(coordinator, tmp_path / "evidence")
    layout = restored(backup, tmp_path / "new")
    found = recovered(layout, coordinator, short, evidence)
    assert (found.before, found.after, found.lacking) == (then, size, ())
    assert found.blobs > 0
    moved_to(coordinator, layout)
    assert coordinator.state.size == size
    assert coordinator.engine.state_of(coordinator.run).phase is Phase.COLLECTING
    coordinator.play()
    assert models(coordinator.state) == undisturbed
    report = verified(layout)
    assert [
        finding.text for check in report.checks for finding in check.findings if finding.outcome.value == "failed"
    ] == []


def test_a_run_whose_newest_model_nobody_brought_is_rolled_back_to_one_that_is_here(
    coordinator: Coordinator, tmp_path: Path
) -> None:
    coordinator.open_round(rounds=4)
    play_rounds(coordinator, 1)
    backup = backed_up(coordinator, tmp_path / "b.tar")
    play_rounds(coordinator, 2)
    evidence = exported(coordinator, tmp_path / "evidence", deltas=False)
    layout = restored(backup, tmp_path / "new")
    found = recovered(layout, coordinator, evidence)
    (lacking,) = found.lacking
    assert lacking.startswith(f"the model of {RUN}, blake3:")
    assert lacking.endswith(f"run rollback {RUN} --to-round 1")
    moved_to(coordinator, layout)
    from coordinator.ports import Steering

    with pytest.raises(MissingBlob):
        coordinator.desk.control_run(RUN, "rollback", "", Steering(to_round=2))
    coordinator.desk.control_run(RUN, "rollback", "", Steering(to_round=1))
    assert coordinator.play().ended is not None


def test_nothing_is_taken_in_of_another_history(coordinator: Coordinator, tmp_path: Path) -> None:
    coordinator.open_round(rounds=4)
    backup = backed_up(coordinator, tmp_path / "b.tar")
    play_rounds(coordinator, 1)
    one = exported(coordinator, tmp_path / "one")
    layout = restored(backup, tmp_path / "new")
    fork = restored(backup, tmp_path / "fork")
    recovered(fork, coordinator)
    moved_to(coordinator, fork)
    coordinator.desk.control_run(RUN, "abort", "operator")
    other = exported(coordinator, tmp_path / "other")
    for files in ((one, other), (other, one)):
        with pytest.raises(TwoHistories, match=r"Entry \d+ of .* is another one than this ledger's, or another file's"):
            recovered(layout, coordinator, *files)
    assert recovered(layout, coordinator, one).after > recovered_size(backup)


def recovered_size(backup: Path) -> int:
    with open_archive(backup) as archive:
        return archive.manifest.entries


def test_a_file_of_another_consortium_is_refused(coordinator: Coordinator, tmp_path: Path) -> None:
    other = Coordinator(tmp_path / "other", names=())
    try:
        foreign = exported(other, tmp_path / "foreign")
    finally:
        other.close()
    layout = restored(backed_up(coordinator, tmp_path / "b.tar"), tmp_path / "new")
    with pytest.raises(TwoHistories, match="Entry 0 of"):
        recovered(layout, coordinator, foreign)
    with pytest.raises(NotRecovered):
        expect_recovered(layout.home)


def test_a_backup_whose_database_is_another_than_its_manifest_says_is_refused(
    coordinator: Coordinator, tmp_path: Path
) -> None:
    backup = backed_up(coordinator, tmp_path / "b.tar")
    data = backup.read_bytes()
    size = coordinator.state.size
    backup.write_bytes(data.replace(b'"entries":%d,' % size, b'"entries":%d,' % (size + 1)))
    with pytest.raises(MalformedBackup, match=rf"holds {size} entries of .*, its manifest says {size + 1}"):
        restored(backup, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_recover_takes_files_or_the_word_that_there_are_none(
    coordinator: Coordinator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = restored(backed_up(coordinator, tmp_path / "b.tar"), tmp_path / "new")
    assert exit_code_of(app, ["recover", "--home", str(layout.home)]) == 2
    assert "recover takes --from FILE, --nothing-newer or --new-lineage: one." in capsys.readouterr().err
    assert exit_code_of(app, ["recover", "--nothing-newer", "--home", str(layout.home)]) == 0


def test_the_commands_say_that_keys_are_in_it(
    coordinator: Coordinator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, home = tmp_path / "b.tar", str(coordinator.layout.home)
    assert exit_code_of(app, ["backup", str(file), "--home", home]) == 0
    assert "PRIVATE KEYS ARE IN IT" in capsys.readouterr().out
    assert file.stat().st_mode & 0o777 == 0o600
    assert exit_code_of(app, ["backup", str(file), "--home", home]) == 2
    assert exit_code_of(app, ["backup", str(tmp_path / "c"), "--blobs", "some", "--home", home]) == 2
    assert exit_code_of(app, ["restore", str(file), "--home", home]) == 2
    assert exit_code_of(app, ["restore", str(file), "--home", str(tmp_path / "new")]) == 0
    assert "recover --from FILE" in capsys.readouterr().out
