from __future__ import annotations

import hashlib
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from common.errors import AlreadyInitialised, BadSignature, NotInitialised, StorageFailure
from common.identity.keys import EncryptionKey, SigningKey, TlsKey, key_id, verify_raw

KINDS = [SigningKey, TlsKey, EncryptionKey]
Key = SigningKey | TlsKey | EncryptionKey


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_comes_back_from_its_file(kind: type[Key], tmp_path: Path) -> None:
    key = kind.generate()
    key.save(tmp_path / "a.key.pem")
    assert kind.load(tmp_path / "a.key.pem").private_pem == key.private_pem
    assert repr(kind.load(tmp_path / "a.key.pem")) == repr(key)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_owner_can_read_a_key_file(kind: type[Key], tmp_path: Path) -> None:
    kind.generate().save(tmp_path / "a.key.pem")
    assert stat.S_IMODE((tmp_path / "a.key.pem").stat().st_mode) == 0o600


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_is_never_overwritten(kind: type[Key], tmp_path: Path) -> None:
    path, first = tmp_path / "a.key.pem", kind.generate()
    first.save(path)
    with pytest.raises(AlreadyInitialised, match=r"a\.key\.pem exists already, and keys are never overwritten"):
        kind.generate().save(path)
    assert kind.load(path).private_pem == first.private_pem


def test_a_key_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AlreadyInitialised):
        SigningKey.generate().save(tmp_path / "link")
    assert not (tmp_path / "elsewhere").exists()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageFailure, match=r"no/a\.key\.pem cannot be written: No such file"):
        SigningKey.generate().save(tmp_path / "no" / "a.key.pem")


def test_a_missing_key_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotInitialised, match=r"a\.key\.pem does not exist"):
        SigningKey.load(tmp_path / "a.key.pem")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_file_without_a_key_is_told(kind: type[Key], content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.key.pem").write_bytes(content)
    with pytest.raises(StorageFailure, match=f"holds no {kind.what} private key in PEM"):
        kind.load(tmp_path / "a.key.pem")


@pytest.mark.parametrize(
    ("saved", "loaded"), [(SigningKey, TlsKey), (TlsKey, EncryptionKey), (EncryptionKey, SigningKey)]
)
def test_a_key_of_another_kind_is_told(saved: type[Key], loaded: type[Key], tmp_path: Path) -> None:
    saved.generate().save(tmp_path / "a.key.pem")
    with pytest.raises(StorageFailure, match=f"holds no {loaded.what} private key"):
        loaded.load(tmp_path / "a.key.pem")


def test_another_curve_is_no_tls_key(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    (tmp_path / "a.key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(StorageFailure, match="holds no P-256 private key"):
        TlsKey.load(tmp_path / "a.key.pem")


@pytest.mark.parametrize("kind", KINDS)
def test_a_repr_shows_no_secret(kind: type[Key]) -> None:
    key = kind.generate()
    secret = key.private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()).hex()
    shown = repr(key) + str(key) + f"{key!r:>10}" + repr(key.private_key)
    assert not any(secret[i : i + 32] in shown for i in range(0, len(secret) - 32, 2) if i > 60)
    assert shown.startswith(kind.__name__)


def test_a_signature_verifies_under_its_key_alone() -> None:
    key, other = SigningKey.generate(), SigningKey.generate()
    signature = key.sign(b"context\x00message")
    verify_raw(key.public, signature, b"context\x00message")
    for public, bad, message in [
        (other.public, signature, b"context\x00message"),
        (key.public, signature, b"context\x00massage"),
        (key.public, bytes(64), b"context\x00message"),
        (key.public, b"", b"context\x00message"),
    ]:
        with pytest.raises(BadSignature, match=f"is not one by key {key_id(public)[:16]}"):
            verify_raw(public, bad, message)


def test_an_encryption_key_verifies_nothing() -> None:
    with pytest.raises(BadSignature, match="A x25519 key was given to verify with, expected ed25519"):
        verify_raw(EncryptionKey.generate().public, bytes(64), b"message")


def test_a_key_id_is_the_hash_of_the_raw_key() -> None:
    public = SigningKey.generate().public
    assert key_id(public) == hashlib.sha256(bytes.fromhex(public.public)).hexdigest()
