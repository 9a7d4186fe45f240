"""Homes of people who operate or watch a consortium: HOME/operator, made by `init` or, on any other host, by `operator join`.

    operator/signing.key.pem   asks for the next certificate
             tls.key.pem       speaks TLS
             tls.pem           the certificate: who this is, and until when
             genesis.json      the consortium that this operator trusts
             context.json      addresses, and where the passphrase is; written last: with it the home is whole

What somebody may do is said by the roles in the roster, not by the home.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from common.clock import Clock, parse_rfc3339, rfc3339
from common.errors import (
    AlreadyInitialised,
    CertificateExpired,
    InvalidConfiguration,
    InvalidInvitation,
    InvitationExpired,
    NotInitialised,
)
from common.homes import atomic_write, private_folder
from common.identity.certificates import (
    certificate_id,
    check_validity,
    common_name,
    enrol_proof_message,
    load_certificate,
    validity,
)
from common.identity.invitation import Invitation, open_genesis
from common.identity.keys import SigningKey, TlsKey
from common.identity.passphrase import read_passphrase
from common.identity.tls_pair import TlsPair
from common.wire.messages import EnrolmentRequest
from common.wire.renewal import Renewer
from common.wire.session import enrol
from coordinator.config import HomeLayout

RENEW = "Renew it: llmasos-coordinator operator renew."


class OperatorHome:
    """The folder `operator` of a home, and what its files say."""

    def __init__(self, home: Path) -> None:
        self._layout = HomeLayout(home)
        self.home, self.folder = home, self._layout.operator
        self.signing_key = self.folder / "signing.key.pem"
        self.tls_key = self.folder / "tls.key.pem"
        self.tls_certificate = self.folder / "tls.pem"
        self.request = self.folder / "request.der"
        self.genesis = self.folder / "genesis.json"
        self.context = self.folder / "context.json"

    def passphrase(self) -> bytes | None:
        """What the private keys are encrypted under.

        Raises:
            InvalidConfiguration: context.json is unreadable, or names a file that will not do.
        """
        named = self._field("passphrase_file") if self.context.exists() else None
        return read_passphrase(Path(named) if named else None)

    def tls(self) -> TlsPair:
        """Key and certificate."""
        return TlsPair(self.tls_key, self.tls_certificate, self.passphrase())

    def name(self) -> str:
        """Whose home this is, as its certificate says.

        Raises:
            NotInitialised, MalformedMessage: it holds no certificate.
        """
        if not self.tls_certificate.exists():
            raise NotInitialised(
                f"{self.home} holds no operator's certificate.",
                "Join with an invitation: llmasos-coordinator operator join --invitation-file FILE.",
            )
        return common_name(load_certificate(self.tls_certificate.read_bytes())) or ""

    def check_certificate(self, clock: Clock) -> None:
        """
        Raises:
            CertificateExpired: it is outside its time; says how to renew it.
        """
        try:
            pem = self.tls_certificate.read_bytes()
            check_validity(pem, now=clock.now(), what=f"The certificate of {self.name()} in {self.folder}")
        except CertificateExpired as err:
            raise CertificateExpired(err.message, RENEW) from err

    def enrolment_address(self) -> str:
        """Where certificates are renewed: the running coordinator on this machine, else what the context says.

        Raises:
            InvalidConfiguration: neither says it.
        """
        if self._layout.addresses.exists():
            return str(json.loads(self._layout.addresses.read_text())["enrolment"])
        found = self._field("enrolment_address")
        if not found:
            raise InvalidConfiguration(
                f"{self.context}: expected a JSON object with 'enrolment_address'.",
                'Add "enrolment_address": "HOST:PORT" to it: the enrolment listener\'s address.',
            )
        return found

    def _field(self, name: str) -> str | None:
        try:
            found = json.loads(self.context.read_text(encoding="utf-8")).get(name)
        except (OSError, ValueError, AttributeError) as err:
            raise InvalidConfiguration(
                f"{self.context}: expected a JSON object with 'work_address' and 'enrolment_address'."
            ) from err
        return str(found) if found is not None else None


@dataclass(frozen=True, slots=True)
class Context:
    """What context.json says."""

    consortium: str
    work_address: str
    enrolment_address: str
    passphrase_file: Path | None = None

    def save(self, path: Path) -> None:
        """
        Raises:
            StorageFailure: the disk says no.
        """
        content = {
            "consortium": self.consortium,
            "work_address": self.work_address,
            "enrolment_address": self.enrolment_address,
        }
        if self.passphrase_file is not None:
            content["passphrase_file"] = str(self.passphrase_file.resolve())
        atomic_write(path, json.dumps(content, indent=2).encode() + b"\n")


@dataclass(frozen=True, slots=True)
class OperatorJoined:
    name: str
    consortium: str
    fingerprint: str
    certificate_until: str


def join_operator(
    home: Path, invitation: Invitation, clock: Clock, passphrase_file: Path | None = None
) -> OperatorJoined:
    """Make a home that holds an operator's folder alone. Interrupted anywhere, the same command goes on.

    Raises:
        ApprovalPending: institutions have to approve it first; nothing is lost, the same command goes on later.
        AlreadyInitialised: the home holds an operator, or is another role's.
        InvitationExpired, InvalidInvitation, InvitationUsed: as they say.
        CoordinatorUnreachable: nothing is lost; the same command goes on later.
    """
    place = OperatorHome(home)
    if place.context.exists() or (home / "participant.yaml").exists() or HomeLayout(home).config.exists():
        raise AlreadyInitialised(f"{home} is a home already.", "Name another folder with --home.")
    in_time = clock.now() < parse_rfc3339(invitation.expires_at)
    if not in_time and not place.request.exists():  # a request that was made in time may be answered later
        raise InvitationExpired(
            f"The invitation of {invitation.institution} expired at {invitation.expires_at}; "
            f"it is {rfc3339(clock.now())} here.",
            "Ask for a new one: llmasos-coordinator operator invite NAME --role ROLE.",
        )
    passphrase = read_passphrase(passphrase_file)
    statement, genesis = open_genesis(invitation.genesis)
    private_folder(home)
    private_folder(place.folder)
    enrolment = enrol(
        invitation.enrolment_address,
        consortium=genesis.consortium,
        ca_pem=genesis.ca_certificate.encode(),
        request=_request(place, invitation, bytes.fromhex(statement.digest), passphrase),
    )
    certificate = enrolment.certificate_pem.encode()
    if certificate_id(certificate).spki_sha256 != TlsKey.load(place.tls_key, passphrase).spki_sha256:
        raise InvalidInvitation("The coordinator issued a certificate for another key.", "Ask for a new invitation.")
    atomic_write(place.tls_certificate, certificate)
    atomic_write(place.genesis, invitation.genesis)
    addresses = invitation.work_address, invitation.enrolment_address
    Context(genesis.consortium, *addresses, passphrase_file=passphrase_file).save(place.context)
    until = rfc3339(validity(certificate)[1])
    return OperatorJoined(invitation.institution, genesis.consortium, statement.digest, until)


def _request(
    place: OperatorHome, invitation: Invitation, fingerprint: bytes, passphrase: bytes | None
) -> EnrolmentRequest:
    """The same request at every try: keys and CSR are made once."""
    if not place.signing_key.exists():
        SigningKey.generate().save(place.signing_key, passphrase)
    if not place.tls_key.exists():
        TlsKey.generate().save(place.tls_key, passphrase)
    signing = SigningKey.load(place.signing_key, passphrase)
    if not place.request.exists():
        atomic_write(place.request, TlsKey.load(place.tls_key, passphrase).csr(invitation.institution))
    csr = place.request.read_bytes()
    return EnrolmentRequest(
        invitation_id=invitation.invitation_id,
        secret=invitation.secret,
        csr_der=csr,
        signing_key=bytes.fromhex(signing.public.public),
        proof=signing.sign(enrol_proof_message(fingerprint, invitation.invitation_id, csr, b"")),
    )


@dataclass(frozen=True, slots=True)
class OperatorRenewed:
    name: str
    serial: str
    certificate_until: str
    roster_index: int


def renew_operator(home: Path) -> OperatorRenewed:
    """A new TLS key and certificate for an operator, before the old one's end or after it.

    Raises:
        NotInitialised: the home holds no operator.
        BadSignature, UnknownCertificate: the coordinator does not know this operator, or not any more.
        CoordinatorUnreachable: nothing is lost; the same command goes on later.
    """
    place = OperatorHome(home)
    name, tls = place.name(), place.tls()
    tls.recover()
    statement, genesis = open_genesis(place.genesis.read_bytes())
    renewer = Renewer(place.enrolment_address(), genesis, bytes.fromhex(statement.digest), name, tls)
    enrolment = renewer.renew(SigningKey.load(place.signing_key, tls.passphrase))
    certificate = enrolment.certificate_pem.encode()
    until = rfc3339(validity(certificate)[1])
    return OperatorRenewed(name, certificate_id(certificate).serial, until, enrolment.roster_index)
