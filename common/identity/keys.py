"""Private keys: made, kept in files that only their owner can read, used, never shown.

    SigningKey      Ed25519   signs statements, checkpoints and enrolments
    TlsKey          P-256     mutual TLS; BoringSSL takes no Ed25519 (grpc/grpc#24252)
    EncryptionKey   X25519    the slot for secrets that institutions will share with each other

Files are PKCS #8 in PEM, mode 0600, and never overwritten: a lost key is a lost identity. With a passphrase they are encrypted.
No key shows in a repr.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID
from securesystemslib.signer import (  # type: ignore[attr-defined]  # listed in no __all__
    CryptoSigner,
    SSlibKey,
)

from common.errors import AlreadyInitialised, BadSignature, NotInitialised, StorageFailure, WrongPassphrase
from common.statements.kinds import PublicKey

ENCRYPTED_MARK = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"

WEAK_KEYS = frozenset(
    bytes.fromhex(key)
    for key in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)
"""Ed25519 points of small order, sign bit cleared: for such a key anybody makes signatures that verify, so whoever enrolled
it could disown every statement. Source: Bernstein and others, eprint 2020/1244; the list is libsodium's."""

Private = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | x25519.X25519PrivateKey


def key_id(key: PublicKey) -> str:
    """SHA-256 of the raw public key, hexadecimal digits: what envelopes name a signer by."""
    return hashlib.sha256(bytes.fromhex(key.public)).hexdigest()


def verifying_key(key: PublicKey) -> SSlibKey:
    """`key` as securesystemslib takes it, to verify with."""
    return SSlibKey(key_id(key), key.scheme, key.scheme, {"public": key.public})


def is_weak(key: PublicKey) -> bool:
    """Whether anybody can sign for this Ed25519 key."""
    raw = bytes.fromhex(key.public)
    return raw[:31] + bytes(byte & 0x7F for byte in raw[31:]) in WEAK_KEYS


def verify_raw(key: PublicKey, signature: bytes, message: bytes) -> None:
    """Check an Ed25519 signature over bytes that are no statement: a proof of possession, a checkpoint.

    Raises:
        BadSignature: `signature` is not one by `key` over `message`, or `key` is none that signs.
    """
    if key.scheme != "ed25519":
        raise BadSignature(f"A {key.scheme} key was given to verify with, expected ed25519.")
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.public)).verify(signature, message)
    except (InvalidSignature, ValueError) as err:
        raise BadSignature(f"A signature over {len(message):,} bytes is not one by key {key_id(key)[:16]}….") from err


class _PrivateKey(ABC):
    """What the three kinds share: files, and silence about the secret."""

    what: ClassVar[str]
    __slots__ = ()

    @classmethod
    @abstractmethod
    def _wrap(cls, private: object) -> Self | None:
        """The key, or None when `private` is of another kind."""

    @property
    @abstractmethod
    def private_key(self) -> Private:
        """The library's object; its repr shows nothing."""

    @property
    def private_pem(self) -> bytes:
        """PKCS #8, PEM, unencrypted. A secret."""
        return self.pem()

    def pem(self, passphrase: bytes | None = None) -> bytes:
        """PKCS #8, PEM, as it stands in a file."""
        encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
        return self.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)

    def save(self, path: Path, passphrase: bytes | None = None) -> None:
        """Write the key to a new file of mode 0600, durably; encrypted, if there is a passphrase.

        Raises:
            AlreadyInitialised: the file exists; a key is never overwritten.
            StorageFailure: the disk says no.
        """
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(self.pem(passphrase))
                file.flush()
                os.fsync(descriptor)
            _sync_folder(path.parent)
        except FileExistsError as err:
            raise AlreadyInitialised(f"The key file {path} exists already, and keys are never overwritten.") from err
        except OSError as err:
            raise StorageFailure(f"The key file {path} cannot be written: {err.strerror}.") from err

    @classmethod
    def load(cls, path: Path, passphrase: bytes | None = None) -> Self:
        """The key that `save` wrote. One that is not encrypted is read whatever the passphrase: it may be older than that.

        Raises:
            NotInitialised: there is no such file.
            WrongPassphrase: it is encrypted under another one, or none is given.
            StorageFailure: it cannot be read, or holds no such key.
        """
        pem = _read(path)
        encrypted = pem.startswith(ENCRYPTED_MARK)
        if encrypted and passphrase is None:
            raise WrongPassphrase(f"The key file {path} is encrypted, and no passphrase was named.")
        try:
            key = cls._wrap(load_pem_private_key(pem, password=passphrase if encrypted else None))
        except (ValueError, TypeError, UnsupportedAlgorithm) as err:
            if encrypted:  # a wrong passphrase and a damaged file look the same
                raise WrongPassphrase(f"The key file {path} does not open with the passphrase that was named.") from err
            key = None
        if key is None:
            raise StorageFailure(
                f"The file {path} ({len(pem)} bytes) holds no {cls.what} private key in PEM.",
                "Restore it from a backup; if setting up was interrupted and it is empty, remove it and set up again.",
            )
        return key


def is_encrypted(path: Path) -> bool:
    """Whether a key file is encrypted.

    Raises:
        NotInitialised, StorageFailure: as `load`.
    """
    return _read(path).startswith(ENCRYPTED_MARK)


class SigningKey(_PrivateKey):
    """Ed25519: signs statements. A coordinator holds one for statements and another for checkpoints."""

    what = "Ed25519"
    __slots__ = ("_private",)

    def __init__(self, private: ed25519.Ed25519PrivateKey) -> None:
        self._private = private

    @classmethod
    def generate(cls) -> Self:
        return cls(ed25519.Ed25519PrivateKey.generate())

    @classmethod
    def _wrap(cls, private: object) -> Self | None:
        return cls(private) if isinstance(private, ed25519.Ed25519PrivateKey) else None

    @property
    def private_key(self) -> ed25519.Ed25519PrivateKey:
        return self._private

    @property
    def public(self) -> PublicKey:
        return PublicKey(scheme="ed25519", public=_raw(self._private.public_key()))

    def sign(self, message: bytes) -> bytes:
        """64 bytes. `message` must begin with what it is for, so that it can never be read as something else."""
        return self._private.sign(message)

    def signer(self) -> CryptoSigner:
        """For securesystemslib's envelopes."""
        return CryptoSigner(self._private, verifying_key(self.public))

    def __repr__(self) -> str:
        return f"SigningKey(public={self.public.public})"


class TlsKey(_PrivateKey):
    """P-256: TLS, and the certificate authority."""

    what = "P-256"
    __slots__ = ("_private",)

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        self._private = private

    @classmethod
    def generate(cls) -> Self:
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def _wrap(cls, private: object) -> Self | None:
        if isinstance(private, ec.EllipticCurvePrivateKey) and isinstance(private.curve, ec.SECP256R1):
            return cls(private)
        return None

    @property
    def private_key(self) -> ec.EllipticCurvePrivateKey:
        return self._private

    def csr(self, common_name: str) -> bytes:
        """A PKCS #10 request in DER. The authority takes only the public key from it; the name is for people."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(self._private, hashes.SHA256())
        return request.public_bytes(Encoding.DER)

    @property
    def spki_sha256(self) -> str:
        """SHA-256 of the public half, hexadecimal digits, as a roster names it."""
        spki = self._private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return hashlib.sha256(spki).hexdigest()

    def __repr__(self) -> str:
        return f"TlsKey(spki_sha256={self.spki_sha256})"


class EncryptionKey(_PrivateKey):
    """X25519: what other institutions will seal secrets to."""

    what = "X25519"
    __slots__ = ("_private",)

    def __init__(self, private: x25519.X25519PrivateKey) -> None:
        self._private = private

    @classmethod
    def generate(cls) -> Self:
        return cls(x25519.X25519PrivateKey.generate())

    @classmethod
    def _wrap(cls, private: object) -> Self | None:
        return cls(private) if isinstance(private, x25519.X25519PrivateKey) else None

    @property
    def private_key(self) -> x25519.X25519PrivateKey:
        return self._private

    @property
    def public(self) -> PublicKey:
        return PublicKey(scheme="x25519", public=_raw(self._private.public_key()))

    def __repr__(self) -> str:
        return f"EncryptionKey(public={self.public.public})"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as err:
        raise NotInitialised(f"The key file {path} does not exist.") from err
    except OSError as err:
        raise StorageFailure(f"The key file {path} cannot be read: {err.strerror}.") from err


def _raw(public: ed25519.Ed25519PublicKey | x25519.X25519PublicKey) -> str:
    return public.public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
