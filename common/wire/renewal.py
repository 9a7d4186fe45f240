"""The asking end of a renewal: a new TLS pair, and where wanted a new signing key (docs/protocol.md#renew).

The key of the new pair is on disk before it is asked for, so that asking again after a lost reply gets the same certificate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from common.identity.certificates import renew_proof_message
from common.identity.keys import SigningKey
from common.identity.tls_pair import TlsPair
from common.statements.kinds import CertificateId, Genesis
from common.wire.messages import Enrolment, RenewalRequest
from common.wire.session import renew_certificate


@dataclass(frozen=True, slots=True)
class Renewer:
    """Who renews, and where."""

    address: str
    """The enrolment listener's: it asks for no certificate, so an expired one does not matter."""
    genesis: Genesis
    fingerprint: bytes
    institution: str
    tls: TlsPair
    ask: Callable[[RenewalRequest], Enrolment] | None = None
    """Stands in for the call over the network."""

    def renew(
        self, key: SigningKey, *, listed: Sequence[CertificateId] = (), new_key: SigningKey | None = None
    ) -> Enrolment:
        """Ask under the present signing key, and use the new pair from here on.

        Args:
            listed: this institution's certificates as its newest roster names them, as far as it knows one.
            new_key: takes over as the signing key.

        Raises:
            LLMasOSError: what the coordinator raised, CoordinatorUnreachable, or a failing disk; the old pair stays.
        """
        request = self.request(key, listed=listed, new_key=new_key)
        enrolment = (self.ask or self._call)(request)
        self.tls.switch(enrolment.certificate_pem.encode())
        return enrolment

    def _call(self, request: RenewalRequest) -> Enrolment:
        genesis = self.genesis
        return renew_certificate(
            self.address, consortium=genesis.consortium, ca_pem=genesis.ca_certificate.encode(), request=request
        )

    def request(
        self, key: SigningKey, *, listed: Sequence[CertificateId] = (), new_key: SigningKey | None = None
    ) -> RenewalRequest:
        """What is asked; asked again before the pair changed, it is the same renewal to the coordinator."""
        staged = self.tls.stage_key()
        replaces = _replaced(self.tls.certificate_id(), listed, staged.spki_sha256)
        csr = staged.csr(self.institution)
        public = bytes.fromhex(new_key.public.public) if new_key else None
        message = renew_proof_message(self.fingerprint, self.institution, replaces, csr, public or b"")
        return RenewalRequest(
            institution=self.institution,
            replaces_serial=replaces,
            csr_der=csr,
            proof=key.sign(message),
            new_signing_key=public,
            new_proof=new_key.sign(message) if new_key else None,
        )


def _replaced(own: CertificateId, listed: Sequence[CertificateId], staged_spki: str) -> str:
    """Serial of the newest certificate that the coordinator knows.

    It is the own one, save where a home was restored from a backup and the roster names a later one. Where that later one is
    for the staged key, its reply was lost: the renewal that asked for it is asked again.
    """
    if own in listed and listed[-1].spki_sha256 != staged_spki:
        return listed[-1].serial
    return own.serial
