"""Operators, auditors and viewers with homes of their own, at a coordinator whose keys are encrypted; over loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from common.clock import SystemClock
from common.homes import atomic_write
from common.identity.authority import Authority
from common.identity.certificates import certificate_id
from common.identity.keys import TlsKey, is_encrypted
from common.terminal import exit_code_of
from coordinator.app import CoordinatorApp, load_config
from coordinator.cli import app
from coordinator.config import HomeLayout
from coordinator.members.operators import OperatorHome

SECRET = b"correct horse battery staple"


@dataclass
class Shell:
    """Runs commands in this process, by default with the founder's home."""

    home: Path
    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str, home: Path | None = None) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        self.capture.readouterr()
        code = exit_code_of(app, [*arguments, "--home", str(home or self.home)])
        out, err = self.capture.readouterr()
        return code, out, err


@pytest.fixture(scope="module")
def passphrase_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("secrets") / "passphrase"
    atomic_write(path, SECRET + b"\n")
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, passphrase_file: Path) -> Iterator[Path]:
    """A running coordinator's home, founded by its command."""
    folder = tmp_path_factory.mktemp("coordinator") / "home"
    addresses = ["--work-address", "127.0.0.1:0", "--enrolment-address", "127.0.0.1:0"]
    command = ["init", "--consortium", "hospitals", *addresses, "--passphrase-file", str(passphrase_file)]
    assert exit_code_of(app, [*command, "--home", str(folder)]) == 0
    coordinator = CoordinatorApp(folder, load_config(folder))
    coordinator.start()
    yield folder
    coordinator.stop()


@pytest.fixture
def shell(home: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(home, capsys)


def join(shell: Shell, folder: Path, name: str, role: str, *options: str) -> Path:
    """Invite and join: a home that holds an operator's folder alone."""
    code, invitation, err = shell("operator", "invite", name, "--role", role)
    assert code == 0, err
    (folder / f"{name}.inv").write_text(invitation)
    code, out, err = shell(
        "operator", "join", "--invitation-file", str(folder / f"{name}.inv"), *options, home=folder / name
    )
    assert code == 0, err
    assert f"{name} is a member of hospitals, until 20" in out
    return folder / name


def serial(home: Path) -> str:
    return certificate_id(OperatorHome(home).tls_certificate.read_bytes()).serial


def test_every_private_key_of_an_encrypted_home_is_encrypted(home: Path) -> None:
    keys = list(home.rglob("*.key.pem"))
    assert len(keys) == 6
    assert all(is_encrypted(path) for path in keys)
    assert SECRET not in b"".join(path.read_bytes() for path in home.rglob("*.*") if path.is_file())


def test_without_its_passphrase_a_coordinator_says_which_setting_names_it(home: Path) -> None:
    from common.errors import WrongPassphrase

    config = load_config(home)
    plain = config.model_copy(update={"identity": config.identity.model_copy(update={"passphrase_file": None})})
    with pytest.raises(WrongPassphrase, match=r"statement\.key\.pem is encrypted") as caught:
        CoordinatorApp(home, plain)
    assert "identity.passphrase_file" in caught.value.fix


def test_a_viewer_works_from_a_home_of_its_own_and_changes_nothing(shell: Shell, tmp_path: Path) -> None:
    maria = join(shell, tmp_path, "maria", "viewer")
    assert sorted(path.name for path in maria.iterdir()) == ["operator"]
    assert sorted(path.name for path in (maria / "operator").iterdir()) == [
        "context.json",
        "genesis.json",
        "request.der",
        "signing.key.pem",
        "tls.key.pem",
        "tls.pem",
    ]
    for arguments in (("institution", "list"), ("run", "list"), ("status",)):
        code, _, err = shell(*arguments, home=maria)
        assert code == 0, err
    for arguments in (("institution", "invite", "west"), ("institution", "revoke", "maria", "--yes")):
        code, out, err = shell(*arguments, home=maria)
        assert (code, out) == (3, "")
        assert "error [role-missing]: maria has the roles viewer" in err


def test_a_second_operator_does_everything_and_can_be_revoked(
    shell: Shell, tmp_path: Path, passphrase_file: Path
) -> None:
    deputy = join(shell, tmp_path, "deputy", "operator", "--passphrase-file", str(passphrase_file))
    assert is_encrypted(deputy / "operator" / "tls.key.pem")
    code, _, err = shell("institution", "invite", "south", home=deputy)
    assert code == 0, err
    code, out, _ = shell("institution", "revoke", "south", home=deputy)
    assert (code, out) == (0, "The invitation of south is withdrawn.\n")
    code, out, _ = shell("institution", "revoke", "deputy", "--yes", "--format", "json")
    assert code == 0
    assert json.loads(out)["status"] == "revoked"
    code, _, err = shell("institution", "list", home=deputy)
    assert code == 3
    assert "deputy is no active member of hospitals any more: revoked." in err
    code, _, err = shell("institution", "revoke", "deputy", "--yes")
    assert code == 2
    assert "deputy is no member any more: revoked." in err


def test_the_last_operator_stays(shell: Shell) -> None:
    code, _, err = shell("institution", "revoke", "operator", "--yes")
    assert code == 2
    assert "error [usage]: operator is the last active operator" in err


def test_who_is_neither_member_nor_invited_is_named(shell: Shell) -> None:
    code, _, err = shell("institution", "revoke", "nobody", "--yes")
    assert code == 2
    assert "nobody is neither a member nor invited." in err


def test_a_certificate_is_renewed_and_the_new_one_gets_in(shell: Shell, tmp_path: Path) -> None:
    for folder in (shell.home, join(shell, tmp_path, "otto", "auditor")):
        before = serial(folder)
        code, out, err = shell("operator", "renew", home=folder)
        assert code == 0, err
        assert "is good until 20" in out
        assert serial(folder) != before
        code, _, err = shell("run", "list", home=folder)
        assert code == 0, err


def test_an_expired_certificate_says_how_to_renew_it_and_then_is(
    shell: Shell, tmp_path: Path, passphrase_file: Path
) -> None:
    ida = join(shell, tmp_path, "ida", "viewer")
    place, layout = OperatorHome(ida), HomeLayout(shell.home)
    authority = Authority.load(layout.identity, SECRET)
    now = SystemClock().now() - timedelta(minutes=1)
    request = TlsKey.load(place.tls_key).csr("ida")
    number = int(serial(ida), 16)
    place.tls_certificate.write_bytes(authority.issue_institution(request, "ida", now=now, days=0, serial=number))
    code, _, err = shell("run", "list", home=ida)
    assert code == 3
    assert "error [certificate-expired]: The certificate of ida in" in err
    assert "fix: Renew it: llmasos-coordinator operator renew." in err
    code, _, err = shell("operator", "renew", home=ida)
    assert code == 0, err
    code, _, err = shell("run", "list", home=ida)
    assert code == 0, err


def test_an_interrupted_join_goes_on_with_the_same_keys(shell: Shell, tmp_path: Path) -> None:
    code, invitation, _ = shell("operator", "invite", "eva", "--role", "viewer")
    (tmp_path / "eva.inv").write_text(invitation)
    command = ("operator", "join", "--invitation-file", str(tmp_path / "eva.inv"))
    code, _, err = shell(*command, home=tmp_path / "eva")
    assert code == 0, err
    folder = tmp_path / "eva" / "operator"
    before = (folder / "tls.key.pem").read_bytes()
    code, _, err = shell(*command, home=tmp_path / "eva")
    assert code == 2
    assert "error [already-initialised]" in err
    (folder / "context.json").unlink()  # as if the machine had stopped right before its last file
    code, _, err = shell(*command, home=tmp_path / "eva")
    assert code == 0, err
    assert (folder / "tls.key.pem").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("operator", "renew"), "holds no operator's certificate."),
        (("institution", "list"), "make one: llmasos-coordinator operator join."),
    ],
)
def test_a_home_without_an_operator_says_how_to_make_one(
    shell: Shell, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    code, _, err = shell(*arguments, home=tmp_path / "empty")
    assert code == 2
    assert message in " ".join(err.split())
