"""llmasos-coordinator checkpoint: beside a running coordinator, on a home at rest, and where the database went back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.clock import SystemClock
from common.homes import HomeLock, atomic_write
from common.identity.invitation import open_genesis
from common.ledger.heads import log_key
from common.ledger.merkle import TreeHead
from common.ledger.notes import cosign, parse_note, read_checkpoint
from common.terminal import exit_code_of
from coordinator.app import CoordinatorApp, load_config
from coordinator.cli import app
from coordinator.config import HomeLayout
from coordinator.members.founding import Founding, found
from coordinator.store.database import Database, file_url
from coordinator.store.tiles import rebuilt
from tests.support.coordinators import Coordinator

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Exit code, stdout, stderr of `checkpoint` on a home."""

    def run(home: Path, *options: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = exit_code_of(app, ["checkpoint", *options, "--home", str(home)])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A coordinator's home, keys encrypted, nothing running."""
    passphrase_file = tmp_path / "passphrase"
    atomic_write(passphrase_file, b"correct horse battery staple\n")
    founding = Founding("hospitals", "127.0.0.1:0", "127.0.0.1:0", passphrase_file=passphrase_file)
    found(tmp_path / "home", founding, SystemClock())
    return tmp_path / "home"


@pytest.fixture
def running(home: Path) -> Iterator[CoordinatorApp]:
    """The same, with a coordinator that holds the home's lock."""
    with HomeLock(home):
        made = CoordinatorApp(home, load_config(home))
        made.start()
        yield made
        made.stop()


def head_in(home: Path, text: str) -> TreeHead:
    """What a printed note says, verified under the operator's genesis."""
    genesis = open_genesis((HomeLayout(home).operator / "genesis.json").read_bytes())[1]
    return read_checkpoint(parse_note(text.encode()), log_key(genesis))


def head_of(home: Path) -> TreeHead:
    database = Database(file_url(HomeLayout(home).state))
    try:
        return rebuilt(database).head()
    finally:
        database.close()


def test_a_home_at_rest_is_signed_for_and_remembered(home: Path, command: Command) -> None:
    code, out, err = command(home)
    assert (code, err) == (0, "")
    assert head_in(home, out) == head_of(home)
    assert (home / "log.head").read_text() == out
    assert command(home)[1] == out


def test_a_running_coordinator_is_asked(home: Path, running: CoordinatorApp, command: Command) -> None:
    code, out, err = command(home)
    assert (code, err) == (0, "")
    assert out == running.log.newest().encode().decode()
    assert (home / "log.head").read_text() == out
    code, out, _ = command(home, "--format", "json")
    found = json.loads(out)
    assert head_in(home, found["checkpoint"]) == TreeHead(found["size"], bytes.fromhex(found["root"]))
    assert (found["origin"], found["cosigned_by"]) == ("hospitals.llmasos/ledger", [])


def test_an_operators_home_elsewhere_asks_too(
    home: Path, running: CoordinatorApp, command: Command, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(home / "operator", elsewhere / "operator")
    context = json.loads((elsewhere / "operator" / "context.json").read_text())
    context["work_address"] = json.loads((home / "addresses.json").read_text())["work"]
    (elsewhere / "operator" / "context.json").write_text(json.dumps(context))
    code, out, err = command(elsewhere)
    assert (code, err) == (0, "")
    assert out == running.log.newest().encode().decode()


def test_a_folder_that_holds_neither_is_a_usage_error(command: Command, tmp_path: Path) -> None:
    code, out, err = command(tmp_path / "nothing")
    assert (code, out) == (2, "")
    assert "error [not-initialised]: " in err


def test_a_home_that_went_back_is_not_signed_for(home: Path, command: Command, tmp_path: Path) -> None:
    shutil.copy(home / "state.sqlite", tmp_path / "backup")
    with HomeLock(home):
        made = CoordinatorApp(home, load_config(home))
        made.start()
        assert exit_code_of(app, ["institution", "invite", "north", "--home", str(home)]) == 0
        assert exit_code_of(app, ["operator", "renew", "--home", str(home)]) == 0
        signed = made.log.newest()
        made.stop()
    for left in home.glob("state.sqlite*"):
        left.unlink()
    shutil.copy(tmp_path / "backup", home / "state.sqlite")
    code, out, err = command(home)
    assert (code, out) == (3, "")
    assert "error [two-histories]: The state database holds 2 entries, but log.head shows that 3 were signed for" in err
    assert "fix: Restore a backup whose ledger has at least 3 entries" in err
    assert (home / "log.head").read_bytes() == signed.encode()


def test_cosignatures_that_were_kept_are_printed(tmp_path: Path, command: Command) -> None:
    coordinator = Coordinator(tmp_path / "home")
    note = coordinator.log.newest()
    cosigned = cosign(note, "hospitals.llmasos/north", coordinator["north"].key, seconds=5)
    with coordinator.database.transaction() as tx:
        tx.keep_checkpoint(coordinator.state.size, cosigned.encode())
    coordinator.close()
    assert command(tmp_path / "home") == (0, cosigned.encode().decode(), "")
    found = json.loads(command(tmp_path / "home", "--format", "json")[1])
    assert found["cosigned_by"] == ["hospitals.llmasos/north"]
