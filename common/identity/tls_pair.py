"""A TLS key and its certificate on disk, exchanged together: a crash leaves the old pair or the new one, never a mixed one.

    tls.key.pem   tls.pem                 in use
    next.tls.key.pem                      made before a certificate is asked for: asked again, it is the same key
    next.tls.pem                          came; from here on `recover` goes on to the new pair

`switch` renames the key first. Between the two renames the key fits only `next.tls.pem`, and `read` takes that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from common.errors import StorageFailure
from common.homes import atomic_write, storage_failure, sync_folder
from common.identity.certificates import certificate_id
from common.identity.keys import TlsKey
from common.statements.kinds import CertificateId

_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class TlsPair:
    """Two files in one folder."""

    key: Path
    certificate: Path
    passphrase: bytes | None = field(default=None, repr=False)

    def read(self) -> tuple[bytes, bytes]:
        """Key and certificate that belong together, PEM; the key as TLS takes it, unencrypted. Writes nothing.

        Raises:
            NotInitialised, StorageFailure, WrongPassphrase: a file is not there, unreadable, or none of the pair's.
        """
        for _ in range(_ATTEMPTS):  # another process may be exchanging them at this very moment
            key, certificate = TlsKey.load(self.key, self.passphrase), _certificate(self.certificate)
            if _fits(certificate, key):
                return key.private_pem, certificate
            if self.next_certificate.exists():
                certificate = _certificate(self.next_certificate)
                if _fits(certificate, key):
                    return key.private_pem, certificate
        raise StorageFailure(
            f"{self.certificate} is not the certificate of the key in {self.key}.",
            "Restore both from the same backup.",
        )

    def certificate_id(self) -> CertificateId:
        """What the roster knows the certificate in use by.

        Raises:
            StorageFailure, MalformedMessage: there is none.
        """
        return certificate_id(_certificate(self.certificate))

    def stage_key(self) -> TlsKey:
        """The key of the next pair: made at the first call, the same one until `switch`.

        Raises:
            StorageFailure, WrongPassphrase: it cannot be written or read.
        """
        self.recover()  # else a new key would take the place of the one that a certificate has come for
        if not self.next_key.exists():
            made = TlsKey.generate()
            atomic_write(self.next_key, made.pem(self.passphrase))
        return TlsKey.load(self.next_key, self.passphrase)

    def switch(self, certificate: bytes) -> None:
        """Use the staged key and this certificate from here on, durably.

        Raises:
            StorageFailure: the certificate is another key's, or the disk says no; the old pair is still there.
        """
        if not _fits(certificate, self.stage_key()):
            raise StorageFailure(
                "The certificate that came is for another key than the one it was asked for.",
                "Tell the operator: this must not happen.",
            )
        atomic_write(self.next_certificate, certificate)
        self.recover()

    def recover(self) -> bool:
        """Finish an exchange that a crash interrupted; whether there was one.

        Raises:
            NotInitialised, StorageFailure, WrongPassphrase: a file is missing or unreadable, or the disk says no.
        """
        if not self.next_certificate.exists():
            return False
        came = _certificate(self.next_certificate)
        try:
            if not _fits(came, TlsKey.load(self.key, self.passphrase)):
                if not _fits(came, TlsKey.load(self.next_key, self.passphrase)):
                    raise StorageFailure(
                        f"{self.next_certificate} fits neither {self.key} nor {self.next_key}.",
                        f"Remove {self.next_certificate}; the next renewal makes a new one.",
                    )
                self.next_key.replace(self.key)
                sync_folder(self.key.parent)
            self.next_certificate.replace(self.certificate)
            sync_folder(self.key.parent)
        except OSError as err:
            raise storage_failure(self.certificate, err) from err
        return True

    @property
    def next_key(self) -> Path:
        return self.key.with_name(f"next.{self.key.name}")

    @property
    def next_certificate(self) -> Path:
        return self.certificate.with_name(f"next.{self.certificate.name}")


def _certificate(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as err:
        raise storage_failure(path, err) from err


def _fits(certificate: bytes, key: TlsKey) -> bool:
    return certificate_id(certificate).spki_sha256 == key.spki_sha256
