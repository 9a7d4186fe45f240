"""Lies about blobs, and messages that no client of ours would send."""

from __future__ import annotations

import base64

import grpc

from common.blobs.reference import BlobRef
from common.wire.v1 import blobs_pb2, common_pb2, work_pb2
from tests.support.blobs import leaves_and_ref
from tests.support.lies import OTHER_RUN, RUN, SENT, UNPLACED, Lie, Tell
from tests.support.lies_in_statements import PATH_TRICKS
from tests.support.mallory import Mallory
from tests.support.wire_client import put_header, put_piece, wire_ref

TRUTH = 0.25
"""The delta that each liar contributes in the end; begun here already."""


def put(*pieces: tuple[int, int, bytes]) -> Tell:
    """Pieces of the true delta, begun first: chunk, offset and bytes."""

    def tell(liar: Mallory) -> bool:
        leaves, ref = leaves_and_ref(liar.delta(TRUTH))
        assert liar.peer.begin(ref, leaves, liar.purpose) == [(0, 1)]
        return liar.peer.put(ref, liar.purpose, pieces)

    return tell


def content(liar: Mallory) -> bytes:
    return liar.delta(TRUTH)


def corrupt(liar: Mallory) -> bool:
    right = content(liar)
    return bool(put((0, 0, bytes([right[0] ^ 1]) + right[1:]))(liar))


def twice_with_other_bytes(liar: Mallory) -> bool:
    right = content(liar)
    return bool(put((0, 0, b"\xff" * len(right)), (0, 0, right))(liar))


def begin(**changes: object) -> Tell:
    """Begins the true delta but for changes of its reference."""

    def tell(liar: Mallory) -> object:
        leaves, ref = leaves_and_ref(content(liar))
        return liar.peer.begin(ref.model_copy(update=changes), leaves, liar.purpose)

    return tell


def begin_for(purpose: blobs_pb2.Purpose) -> Tell:
    def tell(liar: Mallory) -> object:
        leaves, ref = leaves_and_ref(content(liar))
        return liar.peer.begin(ref, leaves, purpose)

    return tell


def begin_larger(liar: Mallory) -> object:
    leaves, ref = leaves_and_ref(content(liar) + b"\0" * 64)
    return liar.peer.begin(ref, leaves, liar.purpose)


def begin_with_leaves(leaves: bytes) -> Tell:
    return lambda liar: liar.peer.begin(leaves_and_ref(content(liar))[1], leaves, liar.purpose)


def put_messages(*messages: str) -> Tell:
    """A stream of these messages, by name."""

    def tell(liar: Mallory) -> object:
        leaves, ref = leaves_and_ref(content(liar))
        liar.peer.begin(ref, leaves, liar.purpose)
        known = {
            "header": put_header(ref, liar.purpose),
            "empty": blobs_pb2.PutRequest(),
            "piece": put_piece(0, 0, content(liar)[:100]),
            "no purpose": blobs_pb2.PutRequest(ref=wire_ref(ref)),
            "no bytes": put_piece(0, 0, b""),
        }
        return liar.peer.putting([known[name] for name in messages]).result(timeout=30)

    return tell


def of_clinic(liar: Mallory) -> BlobRef:
    """What clinic contributed."""
    return liar.round.contributions["clinic"].contribution.blobs["delta"]


def guess_anothers_delta(liar: Mallory) -> bool:
    """A blob of one chunk has its root as its only leaf: all that Begin asks for stands in the ledger. The bytes do not."""
    theirs = of_clinic(liar)
    assert liar.peer.begin(theirs, bytes.fromhex(theirs.root), liar.purpose) == [(0, 1)]
    return liar.peer.put(theirs, liar.purpose, [(0, 0, bytes(theirs.size))])


TRUNCATED = ("truncated-chunk", "INVALID_ARGUMENT")
MALFORMED = ("malformed-message", "INVALID_ARGUMENT")

BLOBS = (
    Lie("a corrupted chunk", corrupt, "corrupt-chunk", "DATA_LOSS", SENT),
    Lie("one chunk twice with different bytes", twice_with_other_bytes, "corrupt-chunk", "DATA_LOSS", SENT),
    Lie("a chunk that is cut", lambda m: put((0, 0, content(m)[:-1]))(m), *TRUNCATED),
    Lie("a chunk longer than declared", lambda m: put((0, 0, content(m) + b"\0"))(m), *TRUNCATED, SENT),
    Lie("a chunk with a gap", lambda m: put((0, 1, content(m)[1:]))(m), *TRUNCATED, SENT),
    Lie("a chunk from far behind its end", put((0, 2**32 - 1, b"\0")), *TRUNCATED, SENT),
    Lie("two chunks at once", put((0, 0, b"\0"), (0, 0, b"\0")), *TRUNCATED, SENT),
    Lie("bytes after the end", put((1, 0, b"more")), *MALFORMED, SENT),
    Lie("a chunk number of 2^32 - 1", put((2**32 - 1, 0, b"\0")), *MALFORMED, SENT),
    Lie("a piece of more than 2 MiB", put((0, 0, b"\0" * (2**21 + 1))), *MALFORMED, SENT),
    Lie("a piece without bytes", put_messages("header", "no bytes"), *MALFORMED, SENT),
    Lie("a message without anything", put_messages("header", "empty"), *MALFORMED, SENT),
    Lie("a second header", put_messages("header", "header"), *MALFORMED, SENT),
    Lie("a stream without a header", put_messages("piece"), *MALFORMED, UNPLACED),
    Lie("a stream without a purpose", put_messages("no purpose"), *MALFORMED, UNPLACED),
    Lie("a stream of nothing", put_messages(), *MALFORMED),
    Lie("a blob that was never begun", lambda m: m.peer.put(leaves_and_ref(b"other")[1].model_copy(
        update={"size": len(content(m))}), m.purpose, [(0, 0, content(m))]), "missing-blob", "FAILED_PRECONDITION",
        by="victor"),
    Lie("leaves of another blob", begin_with_leaves(b"\1" * 32), "bad-blob-reference", recorded=SENT),
    Lie("too many leaves", begin_with_leaves(b"\1" * 64), "bad-blob-reference", recorded=UNPLACED),
    Lie("no leaves", begin_with_leaves(b""), "bad-blob-reference", recorded=UNPLACED),
    Lie("a blob larger than a delta", begin_larger, "blob-too-large", "RESOURCE_EXHAUSTED", SENT),
    Lie("a blob of nothing", begin(size=0), "bad-blob-reference", recorded=UNPLACED),
    Lie("a blob of 2^44 bytes", begin(size=2**44), "bad-blob-reference", recorded=UNPLACED),
    Lie("a blob of 2^63 bytes", begin(size=2**63), *MALFORMED, UNPLACED),
    Lie("a blob in an algorithm of nobody", begin(algorithm="md5"), *MALFORMED, UNPLACED),
    Lie("a blob in an algorithm that is a path", begin(algorithm="../../tmp"), *MALFORMED, UNPLACED),
    Lie("a blob in the other algorithm", begin(algorithm="sha256"), "bad-blob-reference", recorded=SENT),
    Lie("a blob for a round of nobody", begin_for(blobs_pb2.Purpose(round_opened=b"\1" * 32)),
        "wrong-parent", "FAILED_PRECONDITION"),
    Lie("a blob for a round named in 31 bytes", begin_for(blobs_pb2.Purpose(round_opened=b"\1" * 31)), *MALFORMED, UNPLACED),
    Lie("a blob for nothing", begin_for(blobs_pb2.Purpose()), *MALFORMED, UNPLACED),
    Lie("a blob for a plan", begin_for(blobs_pb2.Purpose(plan=RUN)), "role-missing", "PERMISSION_DENIED"),
    *(Lie(f"a blob for a plan named with {what}", begin_for(blobs_pb2.Purpose(plan=name)), *MALFORMED, UNPLACED)
      for what, name in PATH_TRICKS.items()),
)  # fmt: skip

DIGESTS = (
    Lie("another's delta read by its digest", lambda m: m.peer.get(of_clinic(m)), "not-authorised", "PERMISSION_DENIED"),
    Lie("another's leaves read by its digest", lambda m: m.peer.leaves(of_clinic(m)), "not-authorised",
        "PERMISSION_DENIED"),
    Lie("another's delta begun by its digest, its bytes guessed", guess_anothers_delta, "corrupt-chunk", "DATA_LOSS",
        SENT, by="victor"),
    Lie("another's delta named as one's own", lambda m: m.submit(m.payload(of_clinic(m))),
        "missing-blob", "FAILED_PRECONDITION", (RUN, 1, "signed-by"), by="victor"),
    Lie("another's delta read by who named it", lambda m: m.peer.get(of_clinic(m)),
        "not-authorised", "PERMISSION_DENIED", by="victor"),
)  # fmt: skip

STRANGER = ("not-in-cohort", "PERMISSION_DENIED")
DENIED = ("not-authorised", "PERMISSION_DENIED")
OUTSIDE = tuple(
    Lie(f"who refused the plan {claim}", tell, *answer, recorded=recorded, by="carol")
    for claim, tell, answer, recorded in (
        ("begins a delta", lambda m: m.peer.begin(*reversed(leaves_and_ref(content(m))), m.purpose), STRANGER, None),
        ("sends a delta", lambda m: m.peer.put(leaves_and_ref(content(m))[1], m.purpose, [(0, 0, content(m))]),
         STRANGER, None),
        ("contributes", lambda m: m.submit(m.payload()), STRANGER, (RUN, 1, "signed-by")),
        ("reads a delta", lambda m: m.peer.get(of_clinic(m)), DENIED, None),
        ("reads the model", lambda m: m.peer.get(m.run.model), DENIED, None),
        ("reads its leaves", lambda m: m.peer.leaves(m.run.model), DENIED, None),
    )
)  # fmt: skip


def report(**fields: object) -> Tell:
    right = {"run": RUN, "round": 1, "activity": "training"}
    return lambda liar: liar.peer.report(**(right | fields))


def estimate(**fields: object) -> Tell:
    return lambda liar: liar.peer.estimate(**({"id": b"\0" * 16, "verdict": "accept"} | fields))


NEGATIVE = (
    work_pb2.ReportRequest(run=RUN, round=1, activity="training").SerializeToString() + b"\x20" + b"\xff" * 9 + b"\x01"
)
"""steps_done as -1 would be written: ten bytes of varint, which an unsigned field reads as 2^64 - 1."""

CALLS = (
    Lie("a report of 2^64 - 1 steps", report(steps_done=2**64 - 1), *MALFORMED),
    Lie("a report of -1 steps", lambda m: m.peer.raw("Work/Report", NEGATIVE), *MALFORMED),
    Lie("a report of a loss of -2^63", report(loss_fixed=-(2**63)), *MALFORMED),
    Lie("a report of an activity of nobody", report(activity="sleeping"), *MALFORMED),
    Lie("a report that steers a terminal", report(activity="\x1b[2J"), *MALFORMED),
    Lie("a report of being back in the year 10000", report(available_at="10000-01-01T00:00:00.000Z"), *MALFORMED),
    Lie("a report of being back at a time that is none", report(available_at="\x1b[2J"), *MALFORMED),
    *(Lie(f"a report of a run named with {what}", report(run=name), *MALFORMED) for what, name in PATH_TRICKS.items()),
    Lie("an estimate that nobody asked for", estimate(), "unknown-object", "NOT_FOUND"),
    Lie("an estimate of another verdict", estimate(verdict="maybe"), *MALFORMED),
    Lie("an estimate with 33 codes", estimate(codes=[f"code-{number}" for number in range(33)]), *MALFORMED),
    Lie("an estimate with a code that steers a terminal", estimate(codes=["\x1b]0;title\x07"]), *MALFORMED),
    Lie("an estimate with a window that steers a terminal", estimate(availability=["\x9b2J"]), *MALFORMED),
    Lie("an estimate with a window in look-alike letters", estimate(availability=["d\u0430ily 00:00-24:00 UTC"]), *MALFORMED),
    Lie("an estimate of NaN seconds", estimate(seconds_per_round=float("nan")), *MALFORMED),
    Lie("an estimate of -1 seconds", estimate(seconds_per_round=-1.0), *MALFORMED),
    Lie("an estimate of infinite seconds", estimate(seconds_per_round=float("inf")), *MALFORMED),
    Lie("an estimate with an id of 15 bytes", estimate(id=b"\0" * 15), *MALFORMED),
    Lie("a Follow from 2^63", lambda m: m.peer.following(2**63, 0).result(timeout=30), *MALFORMED),
    Lie("a Follow of an hour", lambda m: m.peer.following(0, 3_600_000).result(timeout=30), *MALFORMED),
    Lie("an operator's call", lambda m: m.peer.list_runs(), "role-missing", "PERMISSION_DENIED"),
    *(Lie(f"an operator's call: {name}", lambda m, name=name: m.peer.raw(f"Operations/{name}", b""),  # type: ignore[misc]
          "role-missing", "PERMISSION_DENIED")
      for name in ("Invite", "Revoke", "StartRun", "ControlRun", "Inquire", "Status")),
)  # fmt: skip


def bomb(liar: Mallory) -> bytes:
    """64 MiB that gzip makes 64 KiB of."""
    content = work_pb2.SubmitRequest(envelope=common_pb2.Envelope(json=bytes(64 * 2**20))).SerializeToString()
    return liar.peer.raw("Work/Submit", content, compression=grpc.Compression.Gzip)


SENDING = ("Work/Submit", "Blobs/Begin", "Blobs/Put")
METHODS = (*SENDING, "Work/Report", "Work/Follow", "Work/Estimate", "Blobs/Leaves", "Blobs/Get")
WIRE = (
    *(Lie(f"no message at all for {method}", lambda m, method=method: m.peer.raw(method, b"\xff\xff garbage"),  # type: ignore[misc]
          *MALFORMED, UNPLACED if method in SENDING else None)
      for method in METHODS),
    *(Lie(f"an empty message for {method}", lambda m, method=method: m.peer.raw(method, b""),  # type: ignore[misc]
          *MALFORMED, UNPLACED if method in SENDING else None)
      for method in METHODS if method != "Work/Follow"),
    Lie("groups nested a thousand deep", lambda m: m.peer.raw("Work/Submit", b"\x0b" * 1000), *MALFORMED, UNPLACED),
    Lie("a statement of 2 MB", lambda m: m.peer.submit(b'{"payload":"' + b"A" * 2_000_000 + b'"}'), *MALFORMED, UNPLACED),
    Lie("a statement of 100 MB", lambda m: m.peer.submit(b"A" * 100_000_000), "", "RESOURCE_EXHAUSTED"),
    Lie("a message that unpacks to 64 MiB", bomb, "", "RESOURCE_EXHAUSTED"),
    Lie("an unknown method", lambda m: m.peer.raw("Work/Confess", b""), "", "UNIMPLEMENTED"),
    Lie("metadata of a megabyte",
        lambda m: m.peer.raw("Work/Follow", b"", metadata=(("x-large", "a" * 2**20),)), "", "RESOURCE_EXHAUSTED"),
    Lie("a message without its statement",
        lambda m: m.peer.raw("Work/Submit", work_pb2.SubmitRequest(metrics=b"{}").SerializeToString()), *MALFORMED, UNPLACED),
)  # fmt: skip

HARMLESS = {
    "a report about another's round": report(run=OTHER_RUN, round=7),
    "a report of a run that is not there": report(run="nobody-000001"),
    "a report of always being back a second before the deadline": report(
        activity="outside-hours", available_at="9999-12-31T23:59:59.999Z"
    ),
    "a report of nine quadrillion tokens": report(tokens_done=2**53 - 1, steps_done=2**53 - 1),
    "unknown fields": lambda liar: liar.peer.raw(
        "Work/Report",
        work_pb2.ReportRequest(run=RUN, round=1, activity="training").SerializeToString() + b"\xfa\x7f\x03abc",
    ),
    "unknown metadata": lambda liar: liar.peer.raw(
        "Work/Follow", b"", metadata=(("llmasos-institution", "clinic"), ("x-bin", base64.b64encode(b"\0\xff")))
    ),
}
"""What is taken, and changes nothing for anybody else."""
