"""A small federation that runs once, and what is left of it: the tour's material.

Three institutions, a coordinator and their agents as processes over mutual TLS on loopback; one training round and the final
evaluation. While the round is open, one institution lies twice through the bare stub. A recording is plain JSON, without paths
of this machine.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from common import strict_json
from common.blobs.reference import BlobRef
from common.identity.invitation import open_genesis
from common.identity.keys import SigningKey
from common.ledger.state import LedgerState, RoundRecord, RunRecord
from common.statements.envelope import Parent, sign
from common.statements.kinds import ClearWeight, Contribution
from common.tensors import model_header, trainable_header
from common.wire import convert
from common.wire.errors import error_from_rpc
from common.wire.messages import EnrolmentRequest
from common.wire.session import Session, TlsFiles
from common.wire.v1 import enrolment_pb2, work_pb2
from participant.config import HomeLayout
from participant.memory.journal import Journal
from participant.tasks import contribution_slot
from scripts.tour import worker
from tests.support.federations import Federation, make_draft

SHOWN, LIAR, HELD = "clinic", "bank", "laboratory"
"""Whose side is shown; who lies; who is kept waiting so that the round stays open for the lies."""
SHAPES = {"embedding": (24, 16), "bias": (16,)}


@dataclass(frozen=True)
class Recording:
    """What a run leaves behind. Envelopes are text, digests and salts hexadecimal digits."""

    institution: str
    liar: str
    run: str
    ledger: list[dict[str, str]]
    """`envelope` and `appended_at`, from the coordinator's state.sqlite."""
    seal: dict[str, str]
    signed: list[dict[str, str]]
    """The shown institution's contributions from its journal, by round: slot, digest, metrics, salt, signed_at."""
    egress: list[dict[str, Any]]
    worker: list[dict[str, Any]]
    enrolment: dict[str, int]
    refused: list[dict[str, Any]]
    element: dict[str, Any]
    """Element 0 of the round: its value in the base, in each delta, in the new model, and the weights."""

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Recording:
        return cls(**json.loads(text))


def record(folder: Path) -> Recording:
    """Run the federation in `folder`; seconds."""
    with Federation(folder, worker=worker.COMMAND) as federation:
        federation.hold(HELD)
        federation.start_participants()
        run = federation.start_run(make_draft(folder / "draft", shapes=SHAPES, rounds=1))
        federation.wait_until_open(run, 1)
        state = federation.wait_for(lambda state: _contributed(state, run) == {SHOWN, LIAR} and state, "two contribute")
        refused = [_submit(federation, request) for request in _lies(federation, state.runs[run])]
        federation.release(HELD)
        ended = federation.wait_until_ended(run)
        return Recording(
            institution=SHOWN,
            liar=LIAR,
            run=run,
            ledger=list(_rows(federation.coordinator_home / "state.sqlite", "ledger", "appended_at", "envelope")),
            seal=next(_rows(federation.coordinator_home / "state.sqlite", "seals", "reason", "sealed_at")),
            signed=[_signed(federation, each) for each in ended.rounds],
            egress=list(_rows(federation.home(SHOWN) / "journal.sqlite", "egress", "at", "kind", "bytes", "digest")),
            worker=_worker_lines(federation),
            enrolment=_enrolment_sizes(federation),
            refused=refused,
            element=_first_element(federation, ended),
        )


def _contributed(state: LedgerState, run: str) -> set[str]:
    current = state.runs[run].current
    return set(current.contributions) if current else set()


# --- lies ------------------------------------------------------------------------------------------------------------------


def _lies(federation: Federation, run: RunRecord) -> Iterator[work_pb2.SubmitRequest]:
    """The liar's slot once more with another weight, signed anew; then the same payload under its first signature."""
    current = run.current
    assert current is not None
    entry = current.contributions[LIAR]
    assert isinstance(entry.contribution.weight, ClearWeight)
    most = run.statement.plan.local.tokens_per_round
    other = most if entry.contribution.weight.num_tokens != most else 1
    boast = entry.contribution.model_copy(update={"weight": ClearWeight(num_tokens=other)})
    key = SigningKey.load(HomeLayout(federation.home(LIAR)).signing_key)
    again = sign(boast, parent=Parent(current.place.kind.value, current.place.digest), key=key).envelope
    yield convert.submit_request_to_wire(again, None)
    first = json.loads(federation.entries()[entry.place.index].statement.envelope)
    altered = strict_json.dumps(json.loads(again) | {"signatures": first["signatures"]})
    yield convert.submit_request_to_wire(altered, None)


def _submit(federation: Federation, request: work_pb2.SubmitRequest) -> dict[str, Any]:
    """Send it on the liar's connection, past everything that an agent checks; how it was refused."""
    layout = HomeLayout(federation.home(LIAR))
    genesis = open_genesis(layout.genesis.read_bytes())[1]
    address = str(federation.addresses()["work"])
    with Session(address, genesis, TlsFiles(layout.tls_key, layout.tls_certificate)) as session:
        try:
            session.stubs().work.Submit(request, timeout=30)
        except grpc.RpcError as failure:
            error = error_from_rpc(failure)
            detail = {"code": error.code, "message": error.message, "fix": error.fix}
            return {"envelope": request.envelope.json.decode(), "status": failure.code().name, "detail": detail}
    raise RuntimeError("the coordinator took a lie")


# --- what is left ------------------------------------------------------------------------------------------------------------


def _rows(database: Path, table: str, *columns: str) -> Iterator[dict[str, Any]]:
    """Rows in the order of their primary key; bytes as text."""
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        found = connection.execute(f"SELECT {', '.join(columns)} FROM {table} ORDER BY rowid").fetchall()
    for row in found:
        values = (value.decode() if isinstance(value, bytes) else value for value in row)
        yield dict(zip(columns, values, strict=True))


def _signed(federation: Federation, current: RoundRecord) -> dict[str, str]:
    """The shown institution's row for a round."""
    journal = Journal(HomeLayout(federation.home(SHOWN)).journal)
    try:
        row = journal.signed(contribution_slot(current))
    finally:
        journal.close()
    assert row is not None
    return {
        "slot": row.slot,
        "digest": row.digest,
        "metrics": row.metrics.decode(),
        "salt": row.salt.hex(),
        "signed_at": row.signed_at,
    }


def _worker_lines(federation: Federation) -> list[dict[str, Any]]:
    """What agent and worker of the shown institution said; this machine's folders become names."""
    text = (HomeLayout(federation.home(SHOWN)).jobs / worker.MESSAGES).read_text()
    for folder, name in ((federation.home(SHOWN), "HOME"), (federation.data(SHOWN), "DATA")):
        text = text.replace(str(folder.resolve()), name).replace(str(folder), name)
    return [json.loads(line) for line in text.splitlines()]


def _enrolment_sizes(federation: Federation) -> dict[str, int]:
    """Bytes of the shown institution's Enrol call: all fields but CSR and certificate have a fixed length."""
    layout = HomeLayout(federation.home(SHOWN))
    request = EnrolmentRequest(
        invitation_id="0" * 32,
        secret=bytes(32),
        csr_der=layout.request.read_bytes(),
        signing_key=bytes(32),
        proof=bytes(64),
        encryption_key=bytes(32),
    )
    reply = enrolment_pb2.EnrolResponse(certificate_pem=layout.tls_certificate.read_text(), roster_index=4)
    return {"request": convert.enrolment_request_to_wire(request).ByteSize(), "reply": reply.ByteSize()}


def _first_element(federation: Federation, run: RunRecord) -> dict[str, Any]:
    round_one = run.rounds[0]
    assert round_one.closed is not None
    model, delta = len(model_header(run.statement.manifest)), len(trainable_header(run.statement.manifest))

    def number(ref: BlobRef, offset: int) -> float:
        return float(np.frombuffer(federation.blob(ref), "<f4", count=1, offset=offset)[0])

    def given(contribution: Contribution) -> list[float]:
        assert isinstance(contribution.weight, ClearWeight)
        return [contribution.weight.num_tokens, number(contribution.blobs["delta"], delta)]

    contributions = sorted(round_one.contributions.items())
    return {
        "base": number(round_one.opened.inputs.model, model),
        "deltas": {name: given(entry.contribution) for name, entry in contributions},
        "new": number(round_one.closed.outputs.model, model),
    }
