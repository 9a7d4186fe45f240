"""`init`: a consortium comes into being. Keys, CA, genesis, the operator's own certificate, and the first roster."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Literal

from common.clock import Clock, rfc3339
from common.errors import AlreadyInitialised
from common.homes import atomic_write, private_folder
from common.identity.authority import Authority
from common.identity.certificates import certificate_id
from common.identity.keys import SigningKey, TlsKey
from common.identity.passphrase import read_passphrase
from common.names import check_name
from common.resources import read_config
from common.statements.envelope import Parent, Statement, sign
from common.statements.kinds import Genesis, Log
from common.wire.channel import split_address
from coordinator.config import HomeLayout
from coordinator.ledger import Ledger
from coordinator.members.enrolment import first_roster, operator_member
from coordinator.members.operators import Context, OperatorHome
from coordinator.store.database import CertificateRow, Database, file_url

AUTHORITY_DAYS = 3650


@dataclass(frozen=True, slots=True)
class Founding:
    """What `init` is told."""

    consortium: str
    work_address: str = "127.0.0.1:7443"
    enrolment_address: str = "127.0.0.1:7444"
    certificate_days: int = 365
    passphrase_file: Path | None = None
    """Holds what every private key of the home is encrypted under."""
    approvals: Mapping[Literal["roster", "plan", "release"], int] = field(default_factory=dict)
    """How many institutions must approve a statement of that kind; fixed in genesis, for good."""


def found(home: Path, founding: Founding, clock: Clock) -> str:
    """Make a coordinator's home folder; the genesis fingerprint, hexadecimal.

    Raises:
        AlreadyInitialised: the folder holds a coordinator.
        InvalidName: the consortium's name is not one.
        UsageError: an address is not one.
        InvalidConfiguration: the passphrase's file will not do.
    """
    passphrase = read_passphrase(founding.passphrase_file)
    check_name(founding.consortium)
    for address in (founding.work_address, founding.enrolment_address):
        split_address(address)
    layout = HomeLayout(home)
    if layout.config.exists():
        raise AlreadyInitialised(f"{home} holds a coordinator already.")
    if layout.identity.exists():
        raise AlreadyInitialised(
            f"{home} holds keys, but no coordinator: an `init` before this one was interrupted.",
            "Remove the folder and run `init` again; nobody has been invited with these keys.",
        )
    private_folder(home)
    private_folder(layout.identity)
    now = clock.now()
    authority = Authority.create(founding.consortium, now=now, ca_days=AUTHORITY_DAYS)
    authority.save(layout.identity, passphrase)
    genesis = _genesis(layout, authority, founding, now)
    tls = TlsKey.generate()
    tls.save(layout.tls_key, passphrase)
    certificate = authority.issue_coordinator(tls.csr(founding.consortium), now=now, days=founding.certificate_days)
    atomic_write(layout.tls_certificate, certificate)
    atomic_write(layout.genesis, genesis.envelope)
    _operator(layout, authority, founding, clock)
    atomic_write(layout.config, _configuration(founding).encode(), mode=0o600)
    return genesis.digest


def _genesis(layout: HomeLayout, authority: Authority, founding: Founding, now: datetime) -> Statement:
    key, log_key = SigningKey.generate(), SigningKey.generate()
    passphrase = read_passphrase(founding.passphrase_file)
    key.save(layout.statement_key, passphrase)
    log_key.save(layout.log_key, passphrase)
    genesis = Genesis(
        consortium=founding.consortium,
        created_at=rfc3339(now),
        ca_certificate=authority.certificate_pem.decode(),
        coordinator_key=key.public,
        log=Log(origin=f"{founding.consortium}.llmasos/ledger", key=log_key.public),
        approvals={kind: count for kind, count in sorted(founding.approvals.items()) if count},
    )
    parent = Parent("ca-certificate", sha256(authority.certificate_der).hexdigest())
    return sign(genesis, parent=parent, key=key)


def _operator(layout: HomeLayout, authority: Authority, founding: Founding, clock: Clock) -> None:
    """The operator's keys and certificate, and the roster that names it as the only member."""
    place, passphrase = OperatorHome(layout.home), read_passphrase(founding.passphrase_file)
    private_folder(place.folder)
    signing, tls = SigningKey.generate(), TlsKey.generate()
    signing.save(place.signing_key, passphrase)
    tls.save(place.tls_key, passphrase)
    certificate = authority.issue_institution(
        tls.csr("operator"), "operator", now=clock.now(), days=founding.certificate_days
    )
    atomic_write(place.tls_certificate, certificate)
    genesis = layout.genesis.read_bytes()
    atomic_write(place.genesis, genesis)
    Context(founding.consortium, founding.work_address, founding.enrolment_address, founding.passphrase_file).save(
        place.context
    )
    database = Database(file_url(layout.state))
    try:
        ledger = Ledger(database, SigningKey.load(layout.statement_key, passphrase), clock, genesis)
        issued = certificate_id(certificate)
        row = CertificateRow(issued.serial, "operator", certificate, ledger.state.size)
        roster = first_roster(operator_member(signing.public, issued))
        ledger.append(roster, ledger.state.genesis_place, lambda tx: tx.keep_certificate(row))
    finally:
        database.close()
    layout.state.chmod(0o600)


def _configuration(founding: Founding) -> str:
    """The shipped, commented configuration with this consortium's values."""
    text = read_config("coordinator.yaml")
    for before, after in (
        ("consortium: demo", f"consortium: {founding.consortium}"),
        ("work: 127.0.0.1:7443", f"work: {json.dumps(founding.work_address)}"),
        ("enrolment: 127.0.0.1:7444", f"enrolment: {json.dumps(founding.enrolment_address)}"),
        ("certificate_days: 365", f"certificate_days: {founding.certificate_days}"),
        ("identity: {}", _identity(founding)),
    ):
        if before not in text:
            raise RuntimeError(f"configs/coordinator.yaml lacks the line {before!r}")
        text = text.replace(before, after)
    return text


def _identity(founding: Founding) -> str:
    if founding.passphrase_file is None:
        return "identity: {}"
    return f"identity:\n  passphrase_file: {json.dumps(str(founding.passphrase_file.resolve()))}"
