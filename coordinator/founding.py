"""`init`: a consortium comes into being. Keys, CA, genesis, the operator's own certificate, and the first roster."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from common.clock import Clock, rfc3339
from common.errors import AlreadyInitialised
from common.homes import atomic_write, private_folder
from common.identity.authority import Authority
from common.identity.certificates import certificate_id
from common.identity.keys import SigningKey, TlsKey
from common.names import check_name
from common.resources import read_config
from common.statements.envelope import Parent, Statement, sign
from common.statements.kinds import Genesis, Log
from common.wire.channel import split_address
from coordinator.config import HomeLayout
from coordinator.enrolment import first_roster, operator_member
from coordinator.ledger import Ledger
from coordinator.store.database import Database, file_url

AUTHORITY_DAYS = 3650


@dataclass(frozen=True, slots=True)
class Founding:
    """What `init` is told."""

    consortium: str
    work_address: str = "127.0.0.1:7443"
    enrolment_address: str = "127.0.0.1:7444"
    certificate_days: int = 365


def found(home: Path, founding: Founding, clock: Clock) -> str:
    """Make a coordinator's home folder; the genesis fingerprint, hexadecimal.

    Raises:
        AlreadyInitialised: the folder holds a coordinator.
        InvalidName: the consortium's name is not one.
        UsageError: an address is not one.
    """
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
    authority.save(layout.identity)
    genesis = _genesis(layout, authority, founding, now)
    tls = TlsKey.generate()
    tls.save(layout.tls_key)
    certificate = authority.issue_coordinator(tls.csr(founding.consortium), now=now, days=AUTHORITY_DAYS)
    atomic_write(layout.tls_certificate, certificate)
    atomic_write(layout.genesis, genesis.envelope)
    _operator(layout, authority, founding, clock)
    atomic_write(layout.config, _configuration(founding).encode(), mode=0o600)
    return genesis.digest


def _genesis(layout: HomeLayout, authority: Authority, founding: Founding, now: datetime) -> Statement:
    key, log_key = SigningKey.generate(), SigningKey.generate()
    key.save(layout.statement_key)
    log_key.save(layout.log_key)
    genesis = Genesis(
        consortium=founding.consortium,
        created_at=rfc3339(now),
        ca_certificate=authority.certificate_pem.decode(),
        coordinator_key=key.public,
        log=Log(origin=f"{founding.consortium}.llmasos/ledger", key=log_key.public),
    )
    parent = Parent("ca-certificate", sha256(authority.certificate_der).hexdigest())
    return sign(genesis, parent=parent, key=key)


def _operator(layout: HomeLayout, authority: Authority, founding: Founding, clock: Clock) -> None:
    """The operator's keys and certificate, and the roster that names it as the only member."""
    private_folder(layout.operator)
    signing, tls = SigningKey.generate(), TlsKey.generate()
    signing.save(layout.operator / "signing.key.pem")
    tls.save(layout.operator / "tls.key.pem")
    certificate = authority.issue_institution(
        tls.csr("operator"), "operator", now=clock.now(), days=founding.certificate_days
    )
    atomic_write(layout.operator / "tls.pem", certificate)
    genesis = layout.genesis.read_bytes()
    atomic_write(layout.operator / "genesis.json", genesis)
    context = {"consortium": founding.consortium, "work_address": founding.work_address}
    atomic_write(layout.operator / "context.json", json.dumps(context, indent=2).encode())
    database = Database(file_url(layout.state))
    try:
        ledger = Ledger(database, SigningKey.load(layout.statement_key), clock, genesis)
        roster = first_roster(operator_member(signing.public, certificate_id(certificate)))
        ledger.append(roster, ledger.state.genesis_place)
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
    ):
        if before not in text:
            raise RuntimeError(f"configs/coordinator.yaml lacks the line {before!r}")
        text = text.replace(before, after)
    return text
