"""Encrypted private keys, and the file that their passphrase comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import InvalidConfiguration, StorageFailure, WrongPassphrase
from common.identity.authority import Authority
from common.identity.keys import EncryptionKey, SigningKey, TlsKey, is_encrypted
from common.identity.passphrase import read_passphrase
from tests.support.statements import NOW

KINDS = [SigningKey, TlsKey, EncryptionKey]
Key = SigningKey | TlsKey | EncryptionKey


def a_file(folder: Path, content: bytes = b"correct horse\n", mode: int = 0o600) -> Path:
    path = folder / "passphrase"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_an_encrypted_key_comes_back_with_its_passphrase_alone(kind: type[Key], tmp_path: Path) -> None:
    key, path = kind.generate(), tmp_path / "a.key.pem"
    key.save(path, b"correct horse")
    assert is_encrypted(path)
    assert key.private_pem not in path.read_bytes()
    assert kind.load(path, b"correct horse").private_pem == key.private_pem
    with pytest.raises(WrongPassphrase, match=r"a\.key\.pem is encrypted, and no passphrase was named\.") as absent:
        kind.load(path)
    assert "identity.passphrase_file" in absent.value.fix
    assert "--passphrase-file" in absent.value.fix
    with pytest.raises(WrongPassphrase, match=r"a\.key\.pem does not open with the passphrase that was named\."):
        kind.load(path, b"battery staple")


def test_a_key_from_before_the_passphrase_is_still_read(tmp_path: Path) -> None:
    key, path = SigningKey.generate(), tmp_path / "a.key.pem"
    key.save(path)
    assert not is_encrypted(path)
    assert SigningKey.load(path, b"set later").public == key.public


def test_an_encrypted_key_of_another_kind_is_told(tmp_path: Path) -> None:
    TlsKey.generate().save(tmp_path / "a.key.pem", b"secret")
    with pytest.raises(StorageFailure, match="holds no Ed25519 private key"):
        SigningKey.load(tmp_path / "a.key.pem", b"secret")


def test_an_authority_is_kept_encrypted(tmp_path: Path) -> None:
    authority = Authority.create("hospitals", now=NOW)
    authority.save(tmp_path, b"secret")
    assert Authority.load(tmp_path, b"secret").certificate_pem == authority.certificate_pem
    with pytest.raises(WrongPassphrase, match=r"ca\.key\.pem"):
        Authority.load(tmp_path)


@pytest.mark.parametrize("content", [b"correct horse\n", b"correct horse", b"correct horse\r\nsecond line\n"])
def test_the_passphrase_is_the_files_first_line(content: bytes, tmp_path: Path) -> None:
    assert read_passphrase(a_file(tmp_path, content)) == b"correct horse"


def test_without_a_file_there_is_no_passphrase() -> None:
    assert read_passphrase(None) is None


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o620, 0o602, 0o666])
def test_a_file_that_is_open_to_others_is_refused(mode: int, tmp_path: Path) -> None:
    path = a_file(tmp_path, mode=mode)
    with pytest.raises(InvalidConfiguration, match=rf"has mode {mode:04o}, expected one that only its owner") as caught:
        read_passphrase(path)
    assert caught.value.fix == f"chmod 600 {path}"


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o440])
def test_owner_only_files_and_those_of_systemd_are_read(mode: int, tmp_path: Path) -> None:
    assert read_passphrase(a_file(tmp_path, mode=mode)) == b"correct horse"


@pytest.mark.parametrize("content", [b"", b"\n", b"x" * 1025])
def test_a_file_without_a_passphrase_is_told(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match=r"The first line of the passphrase file .* expected 1 to 1,024\."):
        read_passphrase(a_file(tmp_path, content))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match=r"absent cannot be read: No such file or directory\."):
        read_passphrase(tmp_path / "absent")
