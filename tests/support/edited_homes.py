"""A coordinator's home with a row in every table, and copies of it that a hand edited.

template = template_home(tmp_path / "template")
home = edited(template, tmp_path / "copy", 'UPDATE ledger SET kind = \\'control\\' WHERE "index" = 9')
verified(HomeLayout(home))
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from common.errors import ApprovalPending
from common.identity.certificates import renew_proof_message
from common.identity.keys import SigningKey, TlsKey
from common.ledger.heads import signed_checkpoint, tree_of
from common.ledger.notes import cosign
from coordinator.config import HomeLayout
from coordinator.ports import RenewalOffer
from tests.support.cheats import witness_name
from tests.support.coordinators import Coordinator
from tests.support.participants import RUN, FakeParticipant

NAMES = ("east", "north", "south")
MORE_THAN_A_TILE = 260
"""Entries; a tile has 256 hashes."""


def template_home(home: Path, *, entries: int = 0) -> HomeLayout:
    """Two rounds that witnesses saw, a renewed certificate, an open invitation, a draft with one approval.

    Args:
        entries: how long the ledger is at least.
    """
    coordinator = Coordinator(home, names=(), approvals={"roster": 2})
    for name in NAMES:
        _enrol(coordinator, name)
    _renew(coordinator, "north")
    coordinator.start_run(rounds=2, quorum=2)
    coordinator.advance()
    for participant in coordinator.participants.values():
        participant.answer()
    while coordinator.run.ended is None:
        coordinator.clock.advance(seconds=10)
        coordinator.advance()
        if coordinator.run.open_round is not None:
            _cosign(coordinator)
            _lengthen(coordinator, entries)
            for participant in coordinator.participants.values():
                participant.contribute()
    _draft(coordinator)
    coordinator.invite("yak")
    _cosign(coordinator)
    coordinator.close()
    return coordinator.layout


def _enrol(coordinator: Coordinator, name: str) -> None:
    """Its invitation redeemed, once those who are members approved."""
    participant = FakeParticipant(coordinator, name)
    offer = participant.offer(coordinator.invite(name, ("trainer", "evaluator", "witness")))
    coordinator.participants[name] = participant
    try:
        coordinator.desk.enrol(offer)
    except ApprovalPending:
        (proposal,) = coordinator.database.proposals()
        for approver in NAMES[: NAMES.index(name)]:
            coordinator[approver].approve(proposal.payload_sha256)


def _lengthen(coordinator: Coordinator, entries: int) -> None:
    """Pauses and resumptions, until the ledger has so many."""
    while coordinator.state.size < entries:
        coordinator.clock.advance(seconds=1)
        coordinator.desk.control_run(RUN, "pause", "operator")
        coordinator.desk.control_run(RUN, "resume", "operator")


def _renew(coordinator: Coordinator, name: str) -> None:
    member, csr = coordinator[name].member, TlsKey.generate().csr(name)
    fingerprint = bytes.fromhex(coordinator.state.genesis_place.digest)
    serial = member.certificates[-1].serial
    proof = coordinator[name].key.sign(renew_proof_message(fingerprint, name, serial, csr, b""))
    coordinator.desk.renew(RenewalOffer(name, serial, csr, proof))


def _draft(coordinator: Coordinator) -> None:
    """Zebra wants in, and one of two institutions has approved."""
    try:
        FakeParticipant(coordinator, "zebra").join(coordinator.invite("zebra"))
    except ApprovalPending:
        (proposal,) = coordinator.database.proposals()
        coordinator["east"].approve(proposal.payload_sha256)


def _cosign(coordinator: Coordinator) -> None:
    """What the coordinator keeps once a majority saw this size; and the largest checkpoint, beside the database."""
    genesis, key = coordinator.state.genesis, SigningKey.load(coordinator.layout.log_key)
    note = signed_checkpoint(tree_of(coordinator.envelopes()), genesis, key)
    coordinator.layout.log_head.write_bytes(note.encode())
    for name in NAMES:
        seconds = int(coordinator.clock.now().timestamp())
        note = cosign(note, witness_name(name), coordinator[name].key, seconds=seconds)
    with coordinator.database.transaction() as tx:
        tx.keep_checkpoint(coordinator.state.size, note.encode())


def copied(template: HomeLayout, home: Path) -> HomeLayout:
    """A home of its own; blobs are linked until somebody edits one."""
    shutil.copytree(template.home, home, copy_function=_link_blobs)
    return HomeLayout(home)


def _link_blobs(source: str, target: str) -> None:
    path = Path(target)
    if path.suffix in (".blob", ".leaves"):
        path.hardlink_to(source)
    else:
        shutil.copy2(source, target)


def edited(template: HomeLayout, home: Path, command: str, values: tuple[Any, ...] = ()) -> HomeLayout:
    """A copy in whose state database one command changed something."""
    layout = copied(template, home)
    with closing(sqlite3.connect(layout.state)) as other:
        assert other.execute(command, values).rowcount > 0, f"nothing was edited: {command}"
        other.commit()
    return layout
