"""How an operator's command reaches the coordinator: certificate and address from HOME/operator."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import InvalidConfiguration, NotInitialised
from common.identity.invitation import open_genesis
from common.statements.kinds import Genesis
from common.wire.session import TlsFiles
from coordinator.api.client import OperatorSession
from coordinator.config import HomeLayout


@contextmanager
def operator_session(home: Path) -> Iterator[OperatorSession]:
    """A session under the operator's certificate of this home folder.

    Raises:
        NotInitialised: the folder holds no operator's certificate.
    """
    folder = HomeLayout(home).operator
    if not (folder / "tls.pem").exists():
        raise NotInitialised(f"{home} holds no operator's certificate.")
    files = TlsFiles(folder / "tls.key.pem", folder / "tls.pem")
    with OperatorSession(work_address(home), consortium_genesis(home), files) as session:
        yield session


def consortium_genesis(home: Path) -> Genesis:
    """The genesis that this operator trusts."""
    return open_genesis((HomeLayout(home).operator / "genesis.json").read_bytes())[1]


def work_address(home: Path) -> str:
    """Where the coordinator is: the running one on this machine, else what the operator's context says."""
    layout = HomeLayout(home)
    for path, field in ((layout.addresses, "work"), (layout.operator / "context.json", "work_address")):
        if path.exists():
            try:
                return str(json.loads(path.read_text())[field])
            except (ValueError, KeyError) as err:
                raise InvalidConfiguration(f"{path}: expected a JSON object with {field!r}.") from err
    raise NotInitialised(f"{home} names no coordinator.")
