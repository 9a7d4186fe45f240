"""`join`: redeem an invitation. Keys are made here and never leave; the coordinator gets public halves and a request.

    invitation ─▶ time, fingerprint, data: checked here ─▶ keys ─▶ enrolment ─▶ certificate, policy, data set, configuration

Interrupted anywhere, the same command goes on: keys and request are kept in the home folder from the first try, and the
coordinator answers the same request with the same certificate. So it does where institutions have to approve the new member
first: `join` asks again until they did, or as long as it is to wait. participant.yaml comes last: with it the home is whole.
Where the coordinator refuses, what this try made is taken away again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import yaml

from common.clock import Clock, parse_rfc3339, rfc3339
from common.errors import (
    AlreadyInitialised,
    ApprovalPending,
    CoordinatorUnreachable,
    InvalidInvitation,
    InvitationExpired,
    RefusalError,
    TooLittleData,
    TooManyRequests,
    WrongFingerprint,
)
from common.homes import atomic_write, private_folder
from common.identity.certificates import certificate_id, enrol_proof_message
from common.identity.invitation import Invitation, open_genesis
from common.identity.keys import EncryptionKey, SigningKey, TlsKey, is_encrypted
from common.identity.passphrase import read_passphrase
from common.resources import read_config
from common.statements.envelope import Statement
from common.statements.kinds import Genesis
from common.wire.messages import Enrolment, EnrolmentRequest
from common.wire.session import enrol
from participant.config import HomeLayout
from participant.datasets import DataSet, add_data_set, check_data_set
from participant.policy.model import Answer

Key = TypeVar("Key", SigningKey, EncryptionKey, TlsKey)

ASK_SECONDS = 5.0
"""Between two requests of who waits for approvals."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long `join` waits for approvals, and who hears of it."""

    seconds: float = 0.0
    tell: Callable[[str], None] = lambda _said: None
    """Given what the coordinator says, each time that it says something new."""
    pause: Callable[[float], None] = time.sleep


@dataclass(frozen=True, slots=True)
class Joining:
    """What `join` is told besides the invitation."""

    data: Path | None = None
    text_column: str | None = None
    threads: int = 1
    answer: Answer | None = None
    """To plans that break no rule; None: what the shipped policy says, which is ask."""
    fingerprint: str | None = None
    """The consortium's, as people compared it: 64 hexadecimal digits, lower case."""
    passphrase_file: Path | None = None
    """Holds what the private keys are encrypted under."""


@dataclass(frozen=True, slots=True)
class Joined:
    institution: str
    consortium: str
    fingerprint: str
    roster_index: int


def join(
    home: Path, invitation: Invitation, joining: Joining, clock: Clock, patience: Patience | None = None
) -> Joined:
    """Make a participant's home folder and a member of the consortium.

    Raises:
        ApprovalPending: institutions have not approved it in time; nothing is lost, the same command goes on later.
        AlreadyInitialised: the folder holds a participant, or a coordinator.
        WrongFingerprint: the invitation, or who answers at its address, is another consortium's.
        InvitationExpired, InvalidInvitation, InvitationUsed: as they say.
        TooLittleData, UsageError: the data folder cannot be one.
        InvalidConfiguration, WrongPassphrase: the passphrase's file, or an earlier try's other passphrase.
        CoordinatorUnreachable: by its kinds, why; nothing is lost, the same command goes on later.
    """
    layout = HomeLayout(home)
    _check_free(layout)
    data = _checked_data(layout, joining)
    statement, genesis = _trusted(invitation, joining.fingerprint)
    if not layout.request.exists():  # a request that was made in time may be answered later
        _expect_in_time(invitation, clock)
    passphrase = read_passphrase(joining.passphrase_file)
    with _undone_if_refused(layout):
        private_folder(home)
        private_folder(layout.identity)
        request = _request(layout, invitation, bytes.fromhex(statement.digest), passphrase)
        enrolment = _enrolled(invitation, genesis, request, patience or Patience(), clock)
    _keep(layout, invitation, enrolment.certificate_pem.encode(), passphrase)
    atomic_write(layout.policy, _policy(joining.answer).encode())
    if data is not None:
        (layout.data / f"{data.name}.yaml").unlink(missing_ok=True)  # of a try that ended after this line
        add_data_set(layout, data)
    atomic_write(layout.config, _configuration(invitation, genesis.consortium, joining).encode())
    return Joined(invitation.institution, genesis.consortium, statement.digest, enrolment.roster_index)


# --- before anything is made or sent ---------------------------------------------------------------------------------------


def _check_free(layout: HomeLayout) -> None:
    if layout.config.exists():
        raise AlreadyInitialised(f"{layout.home} holds a participant already.")
    if (layout.home / "coordinator.yaml").exists():
        raise AlreadyInitialised(
            f"{layout.home} holds a coordinator.", "Name another --home: the two never share keys or a folder."
        )


def _trusted(invitation: Invitation, fingerprint: str | None) -> tuple[Statement, Genesis]:
    """The genesis that the invitation holds, if it is the one that is meant."""
    statement, genesis = open_genesis(invitation.genesis)
    if fingerprint is not None and fingerprint != statement.digest:
        raise WrongFingerprint(
            f"The invitation of {invitation.institution} is to the consortium {genesis.consortium!r} with the fingerprint "
            f"{statement.digest}, expected {fingerprint}. Nothing was sent."
        )
    return statement, genesis


def _expect_in_time(invitation: Invitation, clock: Clock) -> None:
    now = clock.now()
    if now >= parse_rfc3339(invitation.expires_at):
        raise InvitationExpired(
            f"The invitation of {invitation.institution} expired at {invitation.expires_at}; it is {rfc3339(now)} here.",
            "Check this machine's clock; if it is right, ask the operator for a new one: "
            f"llmasos-coordinator institution invite {invitation.institution}.",
        )


def _checked_data(layout: HomeLayout, joining: Joining) -> DataSet | None:
    """The first data set, if its folder can be one."""
    if joining.data is None:
        return None
    if not joining.data.is_dir():
        raise TooLittleData(f"{joining.data} is not a folder.", "Name the folder that holds this institution's text.")
    data = DataSet(folder=joining.data.resolve(), text_column=joining.text_column)
    check_data_set(layout, data)
    return data


# --- keys and enrolment ------------------------------------------------------------------------------------------------------


@contextmanager
def _undone_if_refused(layout: HomeLayout) -> Iterator[None]:
    """Take away the keys that this try made when the coordinator refuses them: nobody will ever know them.

    What an earlier try left stays, and after a lost reply everything does: the coordinator may hold those keys for a member's.
    """
    files = (layout.signing_key, layout.encryption_key, layout.tls_key, layout.request)
    before = {path for path in (*files, layout.identity, layout.home) if path.exists()}
    try:
        yield
    except (TooManyRequests, ApprovalPending):
        raise  # passes, and is no refusal of these keys
    except RefusalError:
        for path in files:
            if path not in before:
                path.unlink(missing_ok=True)
        for folder in (layout.identity, layout.home):
            if folder not in before and not any(folder.iterdir()):
                folder.rmdir()
        raise


def _enrolled(
    invitation: Invitation, genesis: Genesis, request: EnrolmentRequest, patience: Patience, clock: Clock
) -> Enrolment:
    """The answer to the request, asked for again while it waits for approvals."""
    until = clock.monotonic() + patience.seconds
    pending: ApprovalPending | None = None
    while True:
        try:
            return enrol(
                invitation.enrolment_address,
                consortium=genesis.consortium,
                ca_pem=genesis.ca_certificate.encode(),
                request=request,
            )
        except ApprovalPending as err:
            if pending is None or err.message != pending.message:
                patience.tell(err.message)
            pending = err
        except (CoordinatorUnreachable, TooManyRequests):
            if pending is None:
                raise  # else it waits already, and this passes
        if clock.monotonic() >= until:
            raise pending
        patience.pause(ASK_SECONDS)


def _request(
    layout: HomeLayout, invitation: Invitation, fingerprint: bytes, passphrase: bytes | None
) -> EnrolmentRequest:
    """The same request at every try: keys and CSR are made once."""
    signing = _key(SigningKey, layout.signing_key, passphrase)
    encryption = _key(EncryptionKey, layout.encryption_key, passphrase)
    tls = _key(TlsKey, layout.tls_key, passphrase)
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


def _key(kind: type[Key], path: Path, passphrase: bytes | None) -> Key:
    """The key of an earlier try, else a new one; either way it then lies there under this try's passphrase."""
    if path.exists() and path.stat().st_size == 0:
        path.unlink()  # a try that was killed between making the file and writing it
    if not path.exists():
        key = kind.generate()
        key.save(path, passphrase)
        return key
    key = kind.load(path, passphrase)
    if passphrase is not None and not is_encrypted(path):
        atomic_write(path, key.pem(passphrase))
    return key


def _keep(layout: HomeLayout, invitation: Invitation, certificate: bytes, passphrase: bytes | None) -> None:
    """Store what came, once it is known to be for this institution's key."""
    ours = TlsKey.load(layout.tls_key, passphrase).spki_sha256
    if certificate_id(certificate).spki_sha256 != ours:
        raise InvalidInvitation(
            "The coordinator issued a certificate for another key.", "Tell the operator: this must not happen."
        )
    atomic_write(layout.tls_certificate, certificate)
    atomic_write(layout.genesis, invitation.genesis)


# --- policy and configuration ------------------------------------------------------------------------------------------------


def _policy(answer: Answer | None) -> str:
    """The shipped, commented policy, with the answer that was asked for."""
    text = read_config("policy.yaml")
    if answer is None:
        return text
    written, count = re.subn(
        r"(?m)^answer: \w+ *", lambda found: f"answer: {answer}".ljust(len(found[0]) - 1) + " ", text, count=1
    )
    if count != 1:
        raise RuntimeError("configs/policy.yaml lacks the line 'answer: …'")
    return written


def _configuration(invitation: Invitation, consortium: str, joining: Joining) -> str:
    """The shipped, commented configuration with this institution's values."""
    text = read_config("participant.yaml")
    for before, after in (
        ("institution: hospital-a", f"institution: {invitation.institution}"),
        ("consortium: demo", f"consortium: {consortium}"),
        ("work: 127.0.0.1:7443", f"work: {invitation.work_address}"),
        ("enrolment: 127.0.0.1:7444", f"enrolment: {invitation.enrolment_address}"),
        ("threads: 1 ", f"threads: {joining.threads} "),
        ("identity: {}", _identity(joining.passphrase_file)),
    ):
        if before not in text:
            raise RuntimeError(f"configs/participant.yaml lacks the line {before!r}")
        text = text.replace(before, after)
    return text


def _identity(passphrase_file: Path | None) -> str:
    if passphrase_file is None:
        return "identity: {}"
    section = {"identity": {"passphrase_file": str(passphrase_file.expanduser().absolute())}}
    return yaml.safe_dump(section, width=1000).rstrip()
