"""`join`: redeem an invitation. Keys are made here and never leave; the coordinator gets public halves and a request.

Interrupted anywhere, the same command goes on: keys and request are kept in the home folder from the first try, and the
coordinator answers the same request with the same certificate.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.clock import Clock, parse_rfc3339, rfc3339
from common.errors import AlreadyInitialised, InvalidInvitation, InvitationExpired, TooLittleData
from common.homes import atomic_write, private_folder
from common.identity.certificates import certificate_id, enrol_proof_message
from common.identity.invitation import Invitation, open_genesis
from common.identity.keys import EncryptionKey, SigningKey, TlsKey
from common.resources import read_config
from common.wire.messages import EnrolmentRequest
from common.wire.session import enrol
from participant.config import HomeLayout

TEXT_SUFFIXES = frozenset({".txt", ".md", ".py", ".jsonl", ".csv"})


@dataclass(frozen=True, slots=True)
class Joining:
    """What `join` is told besides the invitation."""

    data: Path
    text_column: str | None = None
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Joined:
    institution: str
    consortium: str
    fingerprint: str
    roster_index: int


def join(home: Path, invitation: Invitation, joining: Joining, clock: Clock) -> Joined:
    """Make a participant's home folder and a member of the consortium.

    Raises:
        AlreadyInitialised: the folder holds a participant.
        InvitationExpired, InvalidInvitation, InvitationUsed: as they say.
        TooLittleData: the data folder has no file that is read.
        CoordinatorUnreachable: nothing is lost; the same command goes on later.
    """
    layout = HomeLayout(home)
    if layout.config.exists():
        raise AlreadyInitialised(f"{home} holds a participant already.")
    _check_data(joining.data)
    if clock.now() >= parse_rfc3339(invitation.expires_at):
        raise InvitationExpired(
            f"The invitation of {invitation.institution} expired at {invitation.expires_at}; "
            f"it is {rfc3339(clock.now())} here."
        )
    statement, genesis = open_genesis(invitation.genesis)
    private_folder(home)
    private_folder(layout.identity)
    request = _request(layout, invitation, bytes.fromhex(statement.digest))
    enrolment = enrol(
        invitation.enrolment_address,
        consortium=genesis.consortium,
        ca_pem=genesis.ca_certificate.encode(),
        request=request,
    )
    _keep(layout, invitation, enrolment.certificate_pem.encode())
    atomic_write(layout.policy, read_config("policy.yaml").encode())
    atomic_write(layout.config, _configuration(invitation, genesis.consortium, joining).encode())
    return Joined(invitation.institution, genesis.consortium, statement.digest, enrolment.roster_index)


def _check_data(folder: Path) -> None:
    if not folder.is_dir():
        raise TooLittleData(f"{folder} is not a folder.", "Name the folder that holds this institution's text.")
    if not any(path.suffix in TEXT_SUFFIXES for path in folder.rglob("*")):
        raise TooLittleData(f"{folder} holds no {', '.join(sorted(TEXT_SUFFIXES))} file.")


def _request(layout: HomeLayout, invitation: Invitation, fingerprint: bytes) -> EnrolmentRequest:
    """The same request at every try: keys and CSR are made once."""
    signing = SigningKey.load(layout.signing_key) if layout.signing_key.exists() else SigningKey.generate()
    encryption = (
        EncryptionKey.load(layout.encryption_key) if layout.encryption_key.exists() else EncryptionKey.generate()
    )
    tls = TlsKey.load(layout.tls_key) if layout.tls_key.exists() else TlsKey.generate()
    for key, path in ((signing, layout.signing_key), (encryption, layout.encryption_key), (tls, layout.tls_key)):
        if not path.exists():
            key.save(path)
    if not layout.request.exists():
        atomic_write(layout.request, tls.csr(invitation.institution))
    csr = layout.request.read_bytes()
    public = bytes.fromhex(encryption.public.public)
    proof = signing.sign(enrol_proof_message(fingerprint, invitation.invitation_id, csr, public))
    return EnrolmentRequest(
        invitation_id=invitation.invitation_id,
        secret=invitation.secret,
        csr_der=csr,
        signing_key=bytes.fromhex(signing.public.public),
        proof=proof,
        encryption_key=public,
    )


def _keep(layout: HomeLayout, invitation: Invitation, certificate: bytes) -> None:
    """Store what came, once it is known to be for this institution's key."""
    ours = TlsKey.load(layout.tls_key).spki_sha256
    if certificate_id(certificate).spki_sha256 != ours:
        raise InvalidInvitation(
            "The coordinator issued a certificate for another key.", "Tell the operator: this must not happen."
        )
    atomic_write(layout.tls_certificate, certificate)
    atomic_write(layout.genesis, invitation.genesis)


def _configuration(invitation: Invitation, consortium: str, joining: Joining) -> str:
    """The shipped, commented configuration with this institution's values."""
    text = read_config("participant.yaml")
    column = f"\n    text_column: {_yaml_string(joining.text_column)}" if joining.text_column else ""
    for before, after in (
        ("institution: hospital-a", f"institution: {invitation.institution}"),
        ("consortium: demo", f"consortium: {consortium}"),
        ("work: 127.0.0.1:7443", f"work: {invitation.work_address}"),
        ("enrolment: 127.0.0.1:7444", f"enrolment: {invitation.enrolment_address}"),
        ("folder: /srv/llmasos/data", f"folder: {_yaml_string(str(joining.data.resolve()))}{column}"),
        ("threads: 1 ", f"threads: {joining.threads} "),
    ):
        if before not in text:
            raise RuntimeError(f"configs/participant.yaml lacks the line {before!r}")
        text = text.replace(before, after)
    return text


def _yaml_string(text: str) -> str:
    """A YAML scalar that means exactly this text."""
    return "'" + text.replace("'", "''") + "'"
