"""How an operator's command reaches the coordinator: certificate and address from HOME/operator.

    HOME/operator/tls.key.pem    private key
                  tls.pem        certificate, of a member with the role operator, auditor or viewer
                  genesis.json   the consortium that this operator trusts
                  context.json   {"consortium": NAME, "work_address": HOST:PORT, "enrolment_address": HOST:PORT}

A home that holds nothing but `operator/` is enough on any host that reaches the coordinator. Where the coordinator itself runs,
HOME/addresses.json says where it listens now, and goes before the context.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.clock import SystemClock
from common.errors import CoordinatorUnreachable, InvalidConfiguration, NotInitialised
from common.identity.invitation import open_genesis
from common.statements.kinds import Genesis
from common.wire.reach import explain
from common.wire.session import TlsFiles
from coordinator.api.client import OperatorSession
from coordinator.config import HomeLayout
from coordinator.members.operators import OperatorHome

NEEDED = ("tls.pem", "tls.key.pem", "genesis.json")


@contextmanager
def operator_session(home: Path) -> Iterator[OperatorSession]:
    """A session under the operator's certificate of this home folder.

    Raises:
        NotInitialised: the folder holds no operator's certificate; says what is missing.
        InvalidConfiguration: the context or the addresses are not JSON with an address.
        CertificateExpired: `operator renew` is due.
        CoordinatorUnreachable: with the cause, where it can be found: name, port, proxy, intercepted TLS.
    """
    folder = HomeLayout(home).operator
    missing = [name for name in NEEDED if not (folder / name).exists()]
    if missing:
        raise NotInitialised(
            f"{home} holds no operator's certificate: {_listed(folder, missing)}.",
            "Name with --home the folder that holds operator/, or make one: llmasos-coordinator operator join.",
        )
    place = OperatorHome(home)
    place.check_certificate(SystemClock())
    files = TlsFiles(place.tls_key, place.tls_certificate, place.passphrase())
    address, genesis = work_address(home), consortium_genesis(home)
    try:
        with OperatorSession(address, genesis, files) as session:
            yield session
    except CoordinatorUnreachable as err:
        raise explain(address, genesis) or err from err


def consortium_genesis(home: Path) -> Genesis:
    """The genesis that this operator trusts."""
    return open_genesis((HomeLayout(home).operator / "genesis.json").read_bytes())[1]


def work_address(home: Path) -> str:
    """Where the coordinator is: the running one on this machine, else what the operator's context says.

    Raises:
        NotInitialised: neither is there.
        InvalidConfiguration: the file is not JSON with an address.
    """
    layout = HomeLayout(home)
    context = layout.operator / "context.json"
    for path, field in ((layout.addresses, "work"), (context, "work_address")):
        if path.exists():
            try:
                return str(json.loads(path.read_text())[field])
            except (ValueError, KeyError, TypeError) as err:
                raise InvalidConfiguration(
                    f"{path}: expected a JSON object with {field!r}.",
                    f'Write {{"{field}": "HOST:PORT"}} into it: the work listener\'s address.',
                ) from err
    raise NotInitialised(
        f"{home} names no coordinator: {context} is missing.",
        'Write {"work_address": "HOST:PORT"} into it: the work listener\'s address.',
    )


def _listed(folder: Path, missing: list[str]) -> str:
    if not folder.is_dir():
        return f"the folder {folder} is missing"
    return f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing in {folder}"
