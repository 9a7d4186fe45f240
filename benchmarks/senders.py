"""Institutions that are nothing but senders: many in one process, each with its own identity, connection and deltas.

They join as institutions do, follow the ledger, answer the plan, fetch each round's model and drop it, send a delta that was
made ready before, and sign their contributions: everything that the coordinator sees of an institution, without agent, worker
and disk. No witnesses, so nobody waits for cosignatures; entries are verified once for the whole process.

    python benchmarks/senders.py --coordinator HOME --homes FOLDER --prepared FOLDER --first 1 --count 16

Prints `ready` when all have joined; stays until it is ended.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import struct
import sys
import threading
import time
import traceback
from pathlib import Path

from common import strict_json
from common.blobs import digest
from common.blobs.reader import chunk_buffer
from common.blobs.reference import CHUNK_BYTES, BlobRef
from common.clock import SystemClock
from common.errors import TooManyRequests
from common.identity.invitation import open_genesis, parse_invitation
from common.identity.keys import SigningKey
from common.ledger.rules import admit, start
from common.ledger.state import LedgerState, Place, RoundRecord, RunRecord
from common.statements.envelope import Parent, sign
from common.statements.kinds import Answer, ClearWeight, Contribution, PlanStatement, Predicate
from common.tensors import delta_size, trainable_header
from common.wire import convert
from common.wire.messages import LedgerEntries, MetricsRecord, Purpose
from common.wire.session import Session, TlsFiles
from coordinator.commands.connection import operator_session, work_address
from participant.config import HomeLayout
from participant.joining import Joining, join

POLL_SECONDS = 20.0
METRICS = strict_json.dumps(
    {"evaluation": {"loss_sum_fixed": 6_553_600, "num_tokens": 100}, "train_loss_fixed": 65_536}
)
EVALUATION = strict_json.dumps({"evaluation": {"loss_sum_fixed": 6_553_600, "num_tokens": 100}})

ZEROS = memoryview(bytes(CHUNK_BYTES))


class ReadyDelta:
    """A delta of zeros but for one number in each chunk, with its digests; it takes no memory.

    Every chunk differs from those of other institutions and rounds, so each one travels.
    """

    def __init__(self, plan: PlanStatement, mark: int) -> None:
        self._header = trainable_header(plan.manifest)
        if len(self._header) >= CHUNK_BYTES:
            raise ValueError("the delta's header does not fit in its first chunk")
        self._number = struct.pack("<f", 2.0**-8 * (1 + mark % 2**16 / 2**16))
        size = delta_size(plan.manifest)
        self.ref = BlobRef(algorithm="blake3", size=size, root="0" * 64)
        buffer = chunk_buffer(self.ref)
        leaves = [digest.leaf("blake3", self.read_chunk(index, buffer)) for index in range(self.ref.chunks)]
        self.leaves = b"".join(leaves)
        self.ref = BlobRef(algorithm="blake3", size=size, root=digest.root_of("blake3", leaves).hex())

    def read_chunk(self, index: int, into: memoryview) -> memoryview:
        """As the real thing, which reads a file."""
        chunk = into[: self.ref.chunk_size(index)]
        self.read_unverified(index * CHUNK_BYTES, chunk)
        return chunk

    def read_unverified(self, position: int, into: memoryview) -> None:
        """As `read_chunk`, for a part of one chunk, and no dearer than it is long."""
        into[:] = ZEROS[: len(into)]
        begin = position // CHUNK_BYTES * CHUNK_BYTES
        head = self._header if begin == 0 else b""
        content, skipped = head + self._number, position - begin
        part = content[skipped : skipped + len(into)]
        into[: len(part)] = part


class SharedLedger:
    """One verified copy of the ledger for all senders of this process."""

    def __init__(self, genesis: bytes) -> None:
        self.state: LedgerState = start(genesis).state
        self._lock = threading.Lock()

    def take(self, entries: LedgerEntries) -> None:
        """Entries that another sender brought are passed over."""
        with self._lock:
            for index, envelope in enumerate(entries.envelopes, entries.first_index):
                if index == self.state.size:
                    self.state = admit(self.state, envelope).state


class Sender:
    """One institution."""

    def __init__(self, name: str, home: Path, coordinator: Path, plan: PlanStatement, number: int) -> None:
        self.name = name
        layout = HomeLayout(home)
        self._join(coordinator, home)
        self._key = SigningKey.load(layout.signing_key, None)
        self.genesis = layout.genesis.read_bytes()
        tls = TlsFiles(layout.tls_key, layout.tls_certificate)
        self._session = Session(work_address(coordinator), open_genesis(self.genesis)[1], tls)
        rounds = plan.plan.rounds
        self._deltas = {at: ReadyDelta(plan, number * (rounds + 1) + at) for at in range(1, rounds + 1)}
        self._answered = False
        self._contributed: set[int] = set()

    def _join(self, coordinator: Path, home: Path) -> None:
        """As `institution invite --role trainer` and `join` do; the enrolment listener bears only so many a second."""
        with operator_session(coordinator) as operator:
            invitation = parse_invitation(operator.invite(self.name, expires_hours=0, roles=("trainer",)))
        while True:
            try:
                join(home, invitation, Joining(), SystemClock())
                return
            except TooManyRequests:
                time.sleep(0.5)

    def run(self, ledger: SharedLedger) -> None:
        """Until the run has ended."""
        with self._session:
            while not self._act(ledger.state):
                ledger.take(self._session.follow(from_index=ledger.state.size, wait_seconds=POLL_SECONDS))

    def _act(self, state: LedgerState) -> bool:
        """Do what is to do now; whether there never will be more."""
        for run in state.runs.values():
            if run.ended is not None:
                return True
            if not self._answered:
                self._answer(run)
            record = run.open_round
            if record is not None and self.name in record.missing and record.number not in self._contributed:
                self._contribute(run, record)
        return False

    def _answer(self, run: RunRecord) -> None:
        nonce = hashlib.sha256(self.name.encode()).hexdigest()
        answer = Answer(institution=self.name, run=run.run, accept=True, nonce=nonce)
        self._session.submit(self._signed(answer, run.place))
        self._answered = True

    def _contribute(self, run: RunRecord, record: RoundRecord) -> None:
        """Take the model, send the delta, sign."""
        train = record.opened.task == "train"
        self._drop(record.opened.inputs.model)
        delta = self._deltas[record.number] if train else None
        if delta is not None:
            self._session.upload(delta, Purpose(round_opened=record.place.digest))
        metrics = MetricsRecord(METRICS if train else EVALUATION, os.urandom(32))
        contribution = Contribution(
            institution=self.name,
            run=run.run,
            round=record.number,
            blobs={"delta": delta.ref} if delta is not None else {},
            weight=ClearWeight(num_tokens=run.statement.plan.local.tokens_per_round if train else 0),
            metrics_commitment=hashlib.sha256(metrics.salt + metrics.content).hexdigest(),
        )
        self._session.submit(self._signed(contribution, record.place), metrics)
        self._contributed.add(record.number)

    def _drop(self, ref: BlobRef) -> None:
        """Fetch a blob whole, and keep nothing of it."""
        request = convert.get_request_to_wire(ref, 0, ref.chunks)
        received = self._session.call(
            lambda stubs: sum(len(convert.piece_from_wire(message).data) for message in stubs.blobs.Get(request))
        )
        if received != ref.size:
            raise RuntimeError(f"{self.name} got {received} bytes of {ref}, expected {ref.size}")

    def _signed(self, predicate: Predicate, parent: Place) -> bytes:
        return sign(predicate, parent=Parent(parent.kind.value, parent.digest), key=self._key).envelope


def end_with_parent(lifeline: int) -> None:
    while os.read(lifeline, 1):
        pass
    os._exit(0)


def run_or_die(sender: Sender, ledger: SharedLedger) -> None:
    """One that fails fails all: a round would wait for it until its deadline."""
    try:
        sender.run(ledger)
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
        os._exit(1)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coordinator", type=Path, required=True, help="the coordinator's home, on this machine")
    parser.add_argument("--homes", type=Path, required=True, help="where the senders' homes go")
    parser.add_argument("--prepared", type=Path, required=True, help="the prepared plan that will be run")
    parser.add_argument("--first", type=int, required=True, help="number of the first: sender-1")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--lifeline-fd", type=int)
    return parser.parse_args()


def main() -> int:
    options = parse_arguments()
    if options.lifeline_fd is not None:
        threading.Thread(target=end_with_parent, args=(options.lifeline_fd,), daemon=True).start()
    plan = PlanStatement.model_validate_json((options.prepared / "draft.json").read_bytes())
    senders = []
    for number in range(options.first, options.first + options.count):
        name = f"sender-{number}"
        senders.append(Sender(name, options.homes / name, options.coordinator, plan, number))
    ledger = SharedLedger(senders[0].genesis)
    threads = [threading.Thread(target=run_or_die, args=(each, ledger), name=each.name) for each in senders]
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    signal.pause()  # whoever started this still wants to know what it used
    return 0


if __name__ == "__main__":
    sys.exit(main())
