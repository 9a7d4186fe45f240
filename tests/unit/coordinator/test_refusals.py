"""What an institution may not send, in one table: one thing spoiled, the code that comes back, and what the ledger keeps.

Each row acts as north in an open training round and says how the refusal is attributed: `signed-by` accuses the key's holder,
`sent-on-connection` only whoever held the connection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import pytest

from common.blobs.reference import BlobRef
from common.errors import RefusalError
from common.statements.envelope import Parent, sign
from common.statements.kinds import Control, MaskedWeight, RoundOpened
from coordinator.ports import Metrics
from tests.support.blobs import delta_bytes, leaves_and_ref, random_arrays, tensor_manifest
from tests.support.coordinators import BASE, Coordinator
from tests.support.participants import MANIFEST, RUN, FakeParticipant
from tests.support.statements import resealed

Send = Callable[[Coordinator, FakeParticipant], object]


@dataclass(frozen=True)
class Refused:
    """One row."""

    claim: str
    send: Send
    code: str
    message: str
    attribution: str = "signed-by"
    round: int | None = 1

    def __str__(self) -> str:
        return self.claim.replace(" ", "-")


def content(**changes: float) -> bytes:
    """A delta in which single elements are set: `embedding=nan`."""
    arrays = random_arrays(MANIFEST, seed=5, scale=0.01)
    for name, value in changes.items():
        arrays[name].reshape(-1)[-1] = value
    return delta_bytes(MANIFEST, arrays)


def unsent(north: FakeParticipant, ref: BlobRef, **changes: Any) -> int:
    """A contribution whose blob never came through the door."""
    metrics = north.metrics()
    return north.submit(north.contribution(ref, metrics, **changes), metrics)


def put(coordinator: Coordinator, north: FakeParticipant, data: bytes) -> int:
    """A blob that lies in the store, sent by north, though no delta has its size or form."""
    leaves, ref = leaves_and_ref(data)
    upload = coordinator.blobs.begin_own(ref, leaves, owner=north.name)
    for chunk in range(ref.chunks):
        upload.write(chunk, data)
    assert upload.finish()
    return unsent(north, ref)


def with_metrics(north: FakeParticipant, text: bytes, salt: bytes = bytes(32)) -> int:
    return north.contribute(metrics=Metrics(text, salt))


def reordered() -> bytes:
    """All the right tensors, in another order."""
    manifest = tuple(reversed([tensor for tensor in MANIFEST if tensor.group == "trainable"]))
    return delta_bytes(manifest, random_arrays(manifest, seed=5))


def reshaped() -> bytes:
    manifest = tensor_manifest(trainable={"embedding": (4, 8), "bias": (4,)})
    return delta_bytes(manifest, random_arrays(manifest, seed=5))


def of_south(coordinator: Coordinator, north: FakeParticipant) -> int:
    south = coordinator["south"]
    return north.submit(south.contribution(south.send(south.delta()), south.metrics()), south.metrics())


def signed_by_south(coordinator: Coordinator, north: FakeParticipant) -> int:
    claimed = north.contribution(north.send(north.delta()), north.metrics())
    forged = sign(claimed.predicate, parent=claimed.parent, key=coordinator["south"].key)
    return north.submit(forged, north.metrics())


def as_coordinator(coordinator: Coordinator, north: FakeParticipant) -> int:
    opened: RoundOpened = north.round.opened
    return north.submit(north.sign(opened.model_copy(update={"round": 2}), "plan", coordinator.run.place.digest))


def pausing(coordinator: Coordinator, north: FakeParticipant) -> int:
    control = Control(action="pause", issued_at="2026-01-01T00:00:00.000Z", run=RUN, reason="operator")
    return north.submit(north.sign(control, "plan", coordinator.run.place.digest))


def too_many_tokens(coordinator: Coordinator, north: FakeParticipant) -> int:
    """10^12 is beyond what a weight can say at all, so it is written by hand."""
    payload = north.contribution(north.send(north.delta()), north.metrics()).payload
    return north.submit(resealed(payload.replace(b'"num_tokens":15', b'"num_tokens":1000000000000'), north.key))


def flipped(coordinator: Coordinator, north: FakeParticipant) -> int:
    """One character of the signature."""
    envelope = north.contribution(north.send(north.delta()), north.metrics()).envelope
    at = envelope.index(b'"sig":"') + 7
    other = b"A" if envelope[at : at + 1] != b"A" else b"B"
    return north.submit(envelope[:at] + other + envelope[at + 1 :])


def changed_payload(coordinator: Coordinator, north: FakeParticipant) -> int:
    """Another payload under the signature that was made for the first."""
    first = north.contribution(north.send(north.delta()), north.metrics())
    second = north.contribution(first.predicate.blobs["delta"], north.metrics(), num_tokens=64)  # type: ignore[attr-defined]
    signature = first.envelope[first.envelope.index(b'"sig":') :]
    return north.submit(second.envelope[: second.envelope.index(b'"sig":')] + signature)


def elsewhere(north: FakeParticipant) -> int:
    return unsent(north, north.send(north.delta()), parent="ab" * 32)


STATEMENTS = (
    Refused("no envelope at all", lambda c, n: n.submit(b"hello"), "malformed-statement",
            "An envelope is not a DSSE envelope", "sent-on-connection", None),
    Refused("an envelope with a space", lambda c, n: n.submit(n.an_answer().envelope + b" "), "malformed-statement",
            "canonical", "sent-on-connection", None),
    Refused("a flipped signature", flipped, "bad-signature",
            "The signature of this contribution statement is not one by key", "sent-on-connection"),
    Refused("a changed payload", changed_payload, "bad-signature",
            "The signature of this contribution statement is not one by key", "sent-on-connection"),
    Refused("a contribution of south on norths connection", of_south, "wrong-signer",
            r"A statement of south came on the connection of north\.", "sent-on-connection"),
    Refused("a contribution of north that south signed", signed_by_south, "bad-signature",
            "This contribution statement is signed by key", "sent-on-connection"),
    Refused("a round-opened", as_coordinator, "wrong-signer",
            r"A round-opened is not for an institution to send\.", "sent-on-connection", None),
    Refused("a control", pausing, "wrong-signer",
            r"A control is not for an institution to send\.", "sent-on-connection", None),
    Refused("a second answer", lambda c, n: n.answer(accept=False), "slot-taken",
            rf"north has answered plan {RUN} already\.", round=None),
    Refused("another parent", lambda c, n: elsewhere(n), "wrong-parent", "A contribution names round-opened abababab"),
    Refused("a run that is not there", lambda c, n: n.contribute(run="other"), "wrong-parent",
            r"No run 'other' is in the ledger\.", round=None),
    Refused("a round that is not there", lambda c, n: n.contribute(round=7), "wrong-parent",
            rf"Round 7 of {RUN} does not exist; the newest is 1\.", round=None),
)  # fmt: skip

WEIGHTS = (
    Refused("no tokens", lambda c, n: n.contribute(num_tokens=0), "implausible-weight",
            r"num_tokens is 0, expected 1 to 64 in a round of this plan\."),
    Refused("one token more than the plan implies", lambda c, n: n.contribute(num_tokens=65), "implausible-weight",
            r"num_tokens is 65, expected 1 to 64 in a round of this plan\."),
    Refused("a million million tokens", too_many_tokens, "malformed-statement",
            "less than or equal to 536870911", "sent-on-connection", None),
    Refused("a masked weight", lambda c, n: n.contribute(weight=MaskedWeight()), "malformed-statement",
            "The weight is masked, expected clear"),
    Refused("a blob too many", lambda c, n: n.contribute(blobs={"delta": n.send(n.delta()), "control": n.send(content())}),
            "malformed-statement", r"holds blobs \['control', 'delta'\], expected \['delta'\]\."),
    Refused("no blob", lambda c, n: n.contribute(blobs={}), "malformed-statement",
            r"holds blobs \[\], expected \['delta'\]\."),
)  # fmt: skip

DELTAS = (
    Refused("a NaN", lambda c, n: n.contribute(content(embedding=np.nan)), "non-finite-delta",
            r"The delta holds nan in tensor 'embedding' at 31\."),
    Refused("an infinity", lambda c, n: n.contribute(content(bias=-np.inf)), "non-finite-delta",
            r"The delta holds -inf in tensor 'bias' at 3\."),
    Refused("a delta that is too long", lambda c, n: n.contribute(content(bias=1001)), "delta-too-long",
            r"The delta's L2 norm is 1001, the plan's max_delta_l2 is 1000\."),
    Refused("tensors in another order", lambda c, n: n.contribute(reordered()), "wrong-tensors",
            r"Tensor 0 is 'bias', expected 'embedding'"),
    Refused("a tensor of another shape", lambda c, n: n.contribute(reshaped()), "wrong-tensors", "embedding"),
    Refused("a delta that is cut", lambda c, n: put(c, n, n.delta()[:-4]), "wrong-tensors", "bytes"),
    Refused("a delta with more behind it", lambda c, n: put(c, n, n.delta() + bytes(4)), "wrong-tensors", "bytes"),
    Refused("the model as a delta", lambda c, n: put(c, n, BASE), "wrong-tensors",
            r"Tensor 'positions' is not one that the manifest lists here\."),
    Refused("an empty delta", lambda c, n: put(c, n, b""), "wrong-tensors", "0 bytes"),
    Refused("the delta of another", lambda c, n: unsent(n, c["south"].send(c["south"].delta())),
            "missing-blob", r"The contribution names blake3:.*, whose bytes north has not sent itself\."),
    Refused("a delta that never came", lambda c, n: unsent(n, BlobRef(algorithm="blake3", size=300, root="ab" * 32)),
            "missing-blob", r"The contribution names blake3:abab.*, which is not wholly here\."),
)  # fmt: skip

METRICS = (
    Refused("no metrics", lambda c, n: n.submit(n.contribution(n.send(n.delta()))), "bad-commitment",
            r"The plan asks for metrics beside each contribution; none came\."),
    Refused("no commitment", lambda c, n: n.contribute(metrics_commitment=None), "bad-commitment",
            r"The plan asks for metrics beside each contribution; none came\."),
    Refused("other metrics than committed to",
            lambda c, n: n.submit(n.contribution(n.send(n.delta()), n.metrics(5.0)), n.metrics(4.0)),
            "bad-commitment", r"Metrics and salt do not give the commitment in the contribution\."),
    Refused("a short salt", lambda c, n: with_metrics(n, b"{}", b"short"), "bad-commitment",
            r"Metrics have 2 bytes and a salt of 5, expected at most 65,536 and 32\."),
    Refused("metrics that are too large", lambda c, n: with_metrics(n, b" " * 65_537), "bad-commitment",
            r"Metrics have 65,537 bytes and a salt of 32"),
    Refused("metrics that are none", lambda c, n: with_metrics(n, b"[]"), "bad-commitment",
            r"The metrics are not of the form that docs/protocol\.md#metrics gives\."),
    Refused("a loss with a fraction", lambda c, n: with_metrics(n, b'{"evaluation":{"loss_sum_fixed":1.5,"num_tokens":1}}'),
            "bad-commitment", "The metrics are not of the form"),
    Refused("a loss below nothing", lambda c, n: with_metrics(n, b'{"evaluation":{"loss_sum_fixed":-1,"num_tokens":1}}'),
            "bad-commitment", "The metrics are not of the form"),
    Refused("metrics with more in them", lambda c, n: with_metrics(
            n, b'{"evaluation":{"loss_sum_fixed":1,"num_tokens":1},"name":"x"}'),
            "bad-commitment", "The metrics are not of the form"),
)  # fmt: skip


@pytest.mark.parametrize("row", [*STATEMENTS, *WEIGHTS, *DELTAS, *METRICS], ids=str)
def test_it_is_refused_with_its_code_and_recorded_once(coordinator: Coordinator, row: Refused) -> None:
    coordinator.open_round()
    north = coordinator["north"]
    for _ in range(2):
        with pytest.raises(RefusalError, match=row.message) as caught:
            row.send(coordinator, north)
        assert caught.value.code == row.code
        assert caught.value.fix
    assert coordinator.refusals() == [("north", row.round, row.code, row.attribution)]
    assert coordinator.run.rounds[0].contributions == {}
    assert coordinator["south"].follow() == coordinator.state, "others can read the refusal"
    north.contribute()


def test_a_refusal_names_the_refused_bytes_and_keeps_none_of_them(coordinator: Coordinator) -> None:
    coordinator.open_round()
    north = coordinator["north"]
    metrics = north.metrics()
    envelope = north.contribution(north.send(north.delta()), metrics, num_tokens=65).envelope
    with pytest.raises(RefusalError):
        north.submit(envelope, metrics)
    place, refusal = coordinator.state.refusal_list[0]
    assert refusal.refused_sha256 == sha256(envelope).hexdigest()
    assert place.index == coordinator.state.size - 1
    assert envelope not in coordinator.envelopes()
    assert coordinator.database.metrics(RUN) == {}


def test_each_institution_and_each_code_has_a_refusal_of_its_own(coordinator: Coordinator) -> None:
    coordinator.open_round()
    for name in ("north", "south"):
        for spoiled in (content(bias=np.nan), content(bias=1001)):
            with pytest.raises(RefusalError):
                coordinator[name].contribute(spoiled)
    assert coordinator.refusals() == [
        (name, 1, code, "signed-by") for name in ("north", "south") for code in ("non-finite-delta", "delta-too-long")
    ]


def test_a_refusal_is_recorded_once_across_restarts(coordinator: Coordinator) -> None:
    coordinator.open_round()
    for _ in range(2):
        with pytest.raises(RefusalError):
            coordinator["north"].contribute(num_tokens=65)
        coordinator.restart()
    assert len(coordinator.refusals()) == 1


def test_a_stranger_cannot_fill_the_ledger(coordinator: Coordinator) -> None:
    coordinator.open_round()
    for number in range(50):
        with pytest.raises(RefusalError):
            coordinator["north"].submit(b"nonsense %d" % number)
        with pytest.raises(RefusalError):
            coordinator["north"].contribute(round=100 + number)
    assert len(coordinator.refusals()) == 2


def test_a_contribution_of_the_last_round_is_no_contribution_of_this_one(coordinator: Coordinator) -> None:
    coordinator.open_round(rounds=2)
    first = coordinator["north"].round.place.digest
    for participant in coordinator.participants.values():
        participant.contribute()
    coordinator.advance()
    north = coordinator["north"]
    with pytest.raises(RefusalError, match="A contribution names round-opened") as caught:
        north.contribute(parent=first)
    assert caught.value.code == "wrong-parent"
    replay = sign(
        north.contribution(north.send(north.delta())).predicate, parent=Parent("round-opened", first), key=north.key
    )
    with pytest.raises(RefusalError, match="A contribution names round-opened"):
        north.submit(replay)


@pytest.mark.parametrize("more", [-64, 64, 2**22])
def test_a_delta_of_another_size_is_not_let_in(coordinator: Coordinator, more: int) -> None:
    coordinator.open_round()
    north = coordinator["north"]
    expected = len(north.delta())
    with pytest.raises(RefusalError, match=rf"by the plan's manifest it has {expected:,}\.") as caught:
        north.send(bytes(expected + more))
    assert caught.value.code == "blob-too-large"
