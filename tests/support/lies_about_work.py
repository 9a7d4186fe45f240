"""Lies about weights, metrics and deltas. A round takes four different deltas of one institution: one of them is the truth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from common.statements.kinds import Tensor
from common.tensors import trainable_header
from tests.support.lies import SENT, SIGNED, Lie, Tell
from tests.support.mallory import METRICS, SALT, Mallory
from tests.support.statements import resealed

UNFIT = "INVALID_ARGUMENT"


def first_number(value: float) -> Tell:
    """A delta of the right form whose first number is `value`."""
    return lambda liar: liar.submit(liar.payload(liar.send(liar.delta(value))))


def with_header(make: Any) -> Tell:
    """A delta of the right size whose header `make` writes from the entries of the right one."""

    def tell(liar: Mallory) -> int:
        manifest: Sequence[Tensor] = liar.draft.statement.manifest
        right = trainable_header(manifest)
        entries = json.loads(right[8:])
        made = make(entries)
        return liar.submit(
            liar.payload(liar.send(liar.delta(header=made if isinstance(made, bytes) else header(made))))
        )

    return tell


def header(entries: Any) -> bytes:
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)
    return len(text).to_bytes(8, "little") + text


def extra(entries: dict[str, Any]) -> dict[str, Any]:
    end = max(entry["data_offsets"][1] for entry in entries.values())
    return entries | {"more": {"dtype": "F32", "shape": [0], "data_offsets": [end, end]}}


def missing(entries: dict[str, Any]) -> dict[str, Any]:
    return dict(list(entries.items())[:-1])


def overlapping(entries: dict[str, Any]) -> dict[str, Any]:
    last = list(entries)[-1]
    size = entries[last]["data_offsets"][1] - entries[last]["data_offsets"][0]
    return entries | {last: entries[last] | {"data_offsets": [0, size]}}


def huge(entries: dict[str, Any]) -> bytes:
    return (2**40).to_bytes(8, "little") + header(entries)[8:]


def wrong_dtype(entries: dict[str, Any]) -> dict[str, Any]:
    return {name: entry | {"dtype": "F16"} for name, entry in entries.items()}


def renamed(entries: dict[str, Any]) -> dict[str, Any]:
    return {("../" + name)[: len(name)]: entry for name, entry in entries.items()}


def reordered(entries: dict[str, Any]) -> dict[str, Any]:
    return dict(reversed(entries.items()))


def nested(entries: dict[str, Any]) -> bytes:
    text = b'{"embedding":' + b"[" * 900 + b"]" * 900 + b"}"
    text += b" " * (-(8 + len(text)) % 64)
    return len(text).to_bytes(8, "little") + text


def negative_offsets(entries: dict[str, Any]) -> dict[str, Any]:
    return {name: entry | {"data_offsets": [-1, 2**63]} for name, entry in entries.items()}


DELTAS = (
    Lie("NaN in a delta", first_number(float("nan")), "non-finite-delta", UNFIT, SIGNED),
    Lie("infinity in a delta", first_number(float("inf")), "non-finite-delta", UNFIT, SIGNED),
    Lie("a delta too long", first_number(2000.0), "delta-too-long", UNFIT, SIGNED),
    Lie("3e38 in a delta", first_number(float(np.float32(3e38))), "delta-too-long", UNFIT, SIGNED, by="trudy"),
    Lie("a tensor more", with_header(extra), "wrong-tensors", UNFIT, SIGNED, by="trudy"),
    Lie("a tensor missing", with_header(missing), "wrong-tensors", UNFIT, SIGNED, by="trudy"),
    Lie("tensors that overlap", with_header(overlapping), "wrong-tensors", UNFIT, SIGNED, by="oscar"),
    Lie("a header of 2^40 bytes", with_header(huge), "wrong-tensors", UNFIT, SIGNED, by="oscar"),
    Lie("half precision", with_header(wrong_dtype), "wrong-tensors", UNFIT, SIGNED, by="oscar"),
    Lie("tensors named as paths", with_header(renamed), "wrong-tensors", UNFIT, SIGNED, by="eve"),
    Lie("tensors in another order", with_header(reordered), "wrong-tensors", UNFIT, SIGNED, by="eve"),
    Lie("a header nested 900 deep", with_header(nested), "wrong-tensors", UNFIT, SIGNED, by="eve"),
    Lie("offsets that are none", with_header(negative_offsets), "wrong-tensors", UNFIT, SIGNED, by="victor"),
)  # fmt: skip


def told_metrics(metrics: bytes, salt: bytes = SALT) -> Tell:
    """A contribution that commits to these metrics, and brings them. They are looked at before its delta is."""
    return lambda liar: liar.submit_metrics(metrics, salt)


def beside(*what: bytes) -> Tell:
    """The usual contribution with something else beside it than it commits to."""
    return lambda liar: liar.peer.submit(resealed(liar.payload(), liar.key), *what)


def weighing(num_tokens: int) -> Tell:
    return lambda liar: liar.submit(liar.payload(weight={"mode": "clear", "num_tokens": num_tokens}))


def measured(loss: bytes, tokens: bytes = b"100") -> bytes:
    return b'{"evaluation":{"loss_sum_fixed":' + loss + b',"num_tokens":' + tokens + b"}}"


METRIC_LIES = tuple(
    Lie(claim, tell, "bad-commitment", UNFIT, SIGNED)
    for claim, tell in (
        ("other metrics than committed to", beside(METRICS.replace(b"3932", b"1932"), SALT)),
        ("another salt than committed to", beside(METRICS, b"t" * 32)),
        ("no metrics", beside()),
        ("a loss of NaN", told_metrics(measured(b"NaN"))),
        ("a loss of 1e400", told_metrics(measured(b"1e400"))),
        ("a loss below zero", told_metrics(measured(b"-1"))),
        ("a loss of 2^60", told_metrics(measured(b"1152921504606846976"))),
        ("tokens of 2^50", told_metrics(measured(b"1", b"1125899906842624"))),
        ("a loss twice", told_metrics(measured(b'1,"loss_sum_fixed":2'))),
        ("metrics nested deep", told_metrics(b"[" * 1000 + b"]" * 1000)),
        ("metrics with a text", told_metrics(METRICS[:-1] + b',"text":"of a patient"}')),
        ("metrics with spaces", told_metrics(METRICS.replace(b":", b": "))),
    )
)

WORK = (
    *DELTAS,
    *METRIC_LIES,
    Lie("metrics of 65 KiB", told_metrics(b'"' + b"a" * 65 * 1024 + b'"'), "malformed-message",
        recorded=(None, None, "sent-on-connection")),
    Lie("a salt of 31 bytes", told_metrics(METRICS, b"s" * 31), "malformed-message",
        recorded=(None, None, "sent-on-connection")),
    Lie("more tokens than the plan allows", weighing(65), "implausible-weight", UNFIT, SIGNED),
    Lie("no tokens", weighing(0), "implausible-weight", UNFIT, SIGNED),
    Lie("2^29 - 1 tokens", weighing(2**29 - 1), "implausible-weight", UNFIT, SIGNED),
    Lie("a masked weight", lambda m: m.submit(m.payload(weight={"mode": "masked"})), "malformed-statement", UNFIT, SIGNED),
    Lie("two blobs", lambda m: m.submit(m.payload(blobs={name: m.delta_ref().model_dump() for name in ("control", "delta")})),
        "malformed-statement", UNFIT, SIGNED),
    Lie("a delta that is not there", lambda m: m.submit(m.payload()), "missing-blob", "FAILED_PRECONDITION", SIGNED),
    Lie("a fifth delta for one round", lambda m: [m.send(m.delta(value)) for value in (0.1, 0.2, 0.25, 0.3, 0.4)],
        "too-many-requests", "RESOURCE_EXHAUSTED", SENT, by="peggy"),
)  # fmt: skip
