"""`init`: what a new home holds, and what it refuses."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from common.clock import ManualClock
from common.config import load_yaml
from common.errors import AlreadyInitialised, InvalidName, UsageError
from common.identity.authority import Authority
from common.identity.certificates import certificate_id
from common.identity.invitation import open_genesis
from common.identity.keys import SigningKey
from coordinator.config import CoordinatorConfig, HomeLayout
from coordinator.ledger import Ledger
from coordinator.members.founding import Founding, found
from coordinator.store.database import Database, file_url

CONSORTIUM = "hospitals"


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> HomeLayout:
    """A home under a umask that would leave everything open."""
    home = tmp_path_factory.mktemp("founding") / "home"
    before = os.umask(0)
    try:
        fingerprint = found(home, Founding(CONSORTIUM, work_address="[::1]:0"), ManualClock())
    finally:
        os.umask(before)
    (home.parent / "fingerprint").write_text(fingerprint)
    return HomeLayout(home)


def test_the_fingerprint_is_the_digest_of_a_genesis_that_verifies(founded: HomeLayout) -> None:
    statement, genesis = open_genesis(founded.genesis.read_bytes())
    assert statement.digest == (founded.home.parent / "fingerprint").read_text()
    assert genesis.consortium == CONSORTIUM
    assert genesis.created_at == "2026-01-01T00:00:00.000Z"
    assert genesis.blob_digest == "blake3"


def test_every_key_is_its_own_and_in_its_place(founded: HomeLayout) -> None:
    _, genesis = open_genesis(founded.genesis.read_bytes())
    assert SigningKey.load(founded.statement_key).public == genesis.coordinator_key
    assert SigningKey.load(founded.log_key).public == genesis.log.key
    operator = SigningKey.load(founded.operator / "signing.key.pem").public
    assert len({operator, genesis.coordinator_key, genesis.log.key}) == 3
    assert Authority.load(founded.identity).certificate_pem.decode() == genesis.ca_certificate


def test_folders_keys_and_state_are_their_owners_alone(founded: HomeLayout) -> None:
    folders = [founded.home, *(path for path in founded.home.rglob("*") if path.is_dir())]
    secrets = [founded.config, *founded.home.rglob("*.key.pem"), *founded.home.glob("state.sqlite*")]
    assert len(secrets) >= 8
    for path in (*folders, *secrets):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & 0o077 == 0, f"{path} has mode {mode:o}"


def test_the_ledger_begins_with_genesis_and_the_operator(founded: HomeLayout) -> None:
    database = Database(file_url(founded.state))
    try:
        ledger = Ledger(database, SigningKey.load(founded.statement_key), ManualClock(), founded.genesis.read_bytes())
        assert ledger.state.size == 2
        assert ledger.state.roster is not None
        (operator,) = ledger.state.roster.members
    finally:
        database.close()
    assert (operator.name, operator.roles, operator.status) == ("operator", ("operator",), "active")
    assert operator.certificates == (certificate_id((founded.operator / "tls.pem").read_bytes()),)


def test_the_configuration_loads_with_what_was_said(founded: HomeLayout) -> None:
    config = load_yaml(founded.config, CoordinatorConfig, environment={}, prefix="LLMASOS_COORDINATOR_")
    assert config.consortium == CONSORTIUM
    assert (config.listen.work, config.listen.enrolment) == ("[::1]:0", "127.0.0.1:7444")


def test_the_operators_folder_says_where_the_coordinator_is(founded: HomeLayout) -> None:
    context = json.loads((founded.operator / "context.json").read_text())
    addresses = {"work_address": "[::1]:0", "enrolment_address": "127.0.0.1:7444"}
    assert context == {"consortium": CONSORTIUM} | addresses
    assert (founded.operator / "genesis.json").read_bytes() == founded.genesis.read_bytes()


def test_a_home_is_never_founded_twice(founded: HomeLayout) -> None:
    before = founded.genesis.read_bytes()
    with pytest.raises(AlreadyInitialised, match=r"home holds a coordinator already\."):
        found(founded.home, Founding("banks"), ManualClock())
    assert founded.genesis.read_bytes() == before


@pytest.mark.parametrize("name", ["", "Hospitals", "a b", "../x"])
def test_a_consortium_without_a_proper_name_leaves_nothing_behind(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidName, match="is not a name"):
        found(tmp_path / "home", Founding(name), ManualClock())
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("field", ["work_address", "enrolment_address"])
@pytest.mark.parametrize("address", ["7443", "localhost", "host:70000", "http://host:1", "a\nb:1"])
def test_an_address_that_is_none_leaves_nothing_behind(tmp_path: Path, field: str, address: str) -> None:
    founding = Founding(CONSORTIUM, **{field: address})
    with pytest.raises(UsageError, match="is not an address, expected host:port"):
        found(tmp_path / "home", founding, ManualClock())
    assert not (tmp_path / "home").exists()


def test_an_interrupted_init_is_told_from_a_coordinator(tmp_path: Path) -> None:
    (tmp_path / "identity").mkdir()
    with pytest.raises(AlreadyInitialised, match=r"holds keys, but no coordinator"):
        found(tmp_path, Founding(consortium="hospitals"), ManualClock())
