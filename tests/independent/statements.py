"""Envelopes and payloads, judged by their form alone: docs/protocol.md#statements and #kinds."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MIB = 1 << 20
APPROVABLE = ("roster", "plan", "release")

Json = Any


class Failed(Exception):
    """What a bundle breaks: the section of #verify, and what is wrong there."""


def must(holds: object, section: str, what: str) -> None:
    """
    Raises:
        Failed: the claim does not hold.
    """
    if not holds:
        raise Failed(section, what)


def sha(data: bytes) -> str:
    """SHA-256, hex."""
    return hashlib.sha256(data).hexdigest()


def is_signed(key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether the Ed25519 signature over the message verifies under the raw key."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def unbase64(coded: str) -> bytes:
    """The bytes of base64 in its one spelling."""
    try:
        data = base64.b64decode(coded, validate=True)
    except ValueError as err:
        raise Failed("history", "no base64") from err
    must(base64.b64encode(data).decode() == coded, "history", "base64 of another spelling")
    return data


# --- canonical JSON ---------------------------------------------------------------------------------------------------


def parse_json(data: bytes) -> Json:
    """The value of canonical JSON of at most an envelope's size; every other spelling is refused."""

    def members(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
        must(len(dict(pairs)) == len(pairs), "history", "a member stands twice")
        return dict(pairs)

    def integer(digits: str) -> int:
        must(digits != "-0" and len(digits) < 18 and abs(int(digits)) < 1 << 53, "history", "an integer's range")
        return int(digits)

    def refuse(number: str) -> None:
        raise Failed("history", f"a number {number}")

    must(len(data) <= MIB, "history", "too long")
    try:
        value = json.loads(
            data.decode(), object_pairs_hook=members, parse_int=integer, parse_float=refuse, parse_constant=refuse
        )
        again = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    except (ValueError, RecursionError) as err:
        raise Failed("history", f"no canonical JSON: {err}") from err
    must(again == data and _depth(value) <= 32, "history", "not canonical, or nested too deep")
    return value


def _depth(value: Json) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(_depth, inner), default=0)


# --- shapes: what a predicate holds -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Maybe:
    """A field that may be absent, and the default that it has then."""

    shape: Json
    default: Json = None


@dataclass(frozen=True)
class Many:
    """A list, and how many it may hold."""

    shape: Json
    least: int = 0
    most: int = 1 << 20


class Open(dict[str, Json]):
    """An object that may hold more than is asked of it here."""


def matches(pattern: str) -> Callable[[Json], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value, re.ASCII) is not None


def one_of(*values: Json) -> Callable[[Json], bool]:
    return lambda value: any(value == it and type(value) is type(it) for it in values)


def between(low: int, high: int) -> Callable[[Json], bool]:
    return lambda value: type(value) is int and low <= value <= high


def anything(value: Json) -> bool:
    return True


def text(value: Json) -> bool:
    return isinstance(value, str)


def moment(value: str) -> float:
    """Seconds since the epoch, of a time as it is spelled."""
    must(matches(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")(value), "history", f"{value} is no time")
    try:
        return datetime.strptime(value, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC).timestamp()
    except ValueError as err:
        raise Failed("history", f"{value} is no time") from err


def is_time(value: Json) -> bool:
    return isinstance(value, str) and moment(value) is not None


def a_mode(value: Json) -> bool:
    if value == {"type": "synchronous"}:
        return True
    conform(value, {"type": one_of("buffered"), "buffer": NUMBER, "max_staleness": between(0, 1000)}, "mode")
    return True


def a_weighting(value: Json) -> bool:
    own: dict[str, Json] = {
        "capped-tokens": {"cap": between(1, (1 << 29) - 1)},
        "bytes": {"max_bytes_a_token": Maybe(between(1, 64), 8)},
    }
    kind = value.get("type") if isinstance(value, dict) else None
    conform(value, {"type": one_of("tokens", "capped-tokens", "bytes", "equal")} | own.get(str(kind), {}), "weighting")
    return True


NAME = matches(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
CODE = matches(r"[a-z][a-z0-9-]{0,62}")
DIGEST = matches(r"[0-9a-f]{64}")
DECIMAL = matches(r"0|-?(0|[1-9]\d*)(\.\d*[1-9])?")
NUMBER = between(1, (1 << 40) - 1)
TOKENS = between(0, (1 << 29) - 1)
NULL = Maybe(one_of(None))
KEY = {"public": DIGEST, "scheme": one_of("ed25519")}
BLOB = {"algorithm": one_of("blake3", "sha256"), "root": DIGEST, "size": between(0, 1 << 44)}
ROLE = one_of("operator", "viewer", "trainer", "evaluator", "witness", "auditor")
RULES = (
    "weighted-mean", "median", "trimmed-mean", "geometric-median", "krum", "multi-krum", "bulyan", "norm-clipping",
    "norm-bounding",
)  # fmt: skip
PLAN = Open(
    rounds=NUMBER,
    quorum=NUMBER,
    deadline_seconds=NUMBER,
    cohort={
        "size": Maybe(NUMBER),
        "fraction": Maybe(DECIMAL),
        "selection": Maybe(one_of("uniform", "weighted", "round-robin", "available"), "uniform"),
        "over_selection": Maybe(DECIMAL, "0"),
    },
    mode=Maybe(a_mode, {"type": "synchronous"}),
    local=Open(steps=NUMBER, batch_size=NUMBER, sequence_length=NUMBER),
    weighting=Maybe(a_weighting, {"type": "tokens"}),
    rule=Open(type=one_of(*RULES)),
    server_optimizer=Open(
        type=one_of("sgd", "momentum", "nesterov", "adam", "adamw", "yogi", "adagrad"), learning_rate=DECIMAL
    ),
    max_delta_l2=DECIMAL,
    delta_audience=Many(NAME),
    downlink=Maybe({"type": one_of("float32", "bfloat16", "int8", "int4")}),
)
SHAPES: dict[str, dict[str, Json]] = {
    "genesis": {
        "consortium": NAME,
        "protocol_version": Maybe(one_of(1), 1),
        "created_at": is_time,
        "ca_certificate": text,
        "coordinator_key": KEY,
        "log": {"origin": matches(r"[^\s+]{1,200}"), "key": KEY},
        "blob_digest": Maybe(one_of("blake3", "sha256"), "blake3"),
        "approvals": Maybe({kind: Maybe(between(0, 1000), 0) for kind in APPROVABLE}, {}),
    },
    "roster": {
        "version": NUMBER,
        "members": Many(
            {
                "name": NAME,
                "signing_key": KEY,
                "encryption_key": Maybe({"public": DIGEST, "scheme": one_of("x25519")}),
                "roles": Many(ROLE),
                "certificates": Maybe(Many({"serial": matches("[0-9a-f]{1,40}"), "spki_sha256": DIGEST}, most=16), []),
                "status": Maybe(one_of("active", "revoked", "left"), "active"),
            },
            most=100_000,
        ),
    },
    "plan": {
        "run": NAME,
        "plan": PLAN,
        "initial": {"model": BLOB, "tokenizer": BLOB},
        "manifest": Many(
            {
                "name": matches(r"[A-Za-z0-9_.\-]{1,300}"),
                "shape": Many(NUMBER, most=8),
                "dtype": Maybe(one_of("F32"), "F32"),
                "group": Maybe(one_of("trainable", "frozen", "personal"), "trainable"),
            },
            least=1,
            most=20_000,
        ),
        "protocol_versions": Maybe(
            {"least": Maybe(between(1, 1_000_000), 1), "most": Maybe(between(1, 1_000_000), 1)}, {"least": 1, "most": 1}
        ),
    },
    "answer": {
        "institution": NAME,
        "run": NAME,
        "accept": one_of(True, False),
        "reasons": Maybe(Many(CODE, most=32), []),
        "protocol_version": Maybe(between(1, 1_000_000), 1),
        "nonce": DIGEST,
        "data_use_agreement": Maybe(DIGEST),
        "availability": Maybe(Many(matches("[ -~]{1,100}"), most=64), []),
    },
    "round-opened": {
        "run": NAME,
        "round": NUMBER,
        "task": one_of("train", "evaluate"),
        "mode": Maybe(one_of("synchronous", "buffered"), "synchronous"),
        "inputs": {"model": BLOB, "server_state": Maybe(BLOB)},
        "cohort": Many(NAME, least=1, most=100_000),
        "roster": DIGEST,
        "seed": between(0, (1 << 32) - 1),
        "stages": Many({"name": one_of("collect"), "deadline": is_time}, least=1, most=1),
    },
    "contribution": {
        "institution": NAME,
        "run": NAME,
        "round": NUMBER,
        "stage": Maybe(one_of("collect"), "collect"),
        "blobs": Open(),
        "weight": {"mode": one_of("clear"), "num_tokens": TOKENS, "num_bytes": Maybe(TOKENS)},
        "metrics_commitment": Maybe(DIGEST),
        "checkpoint": Maybe(lambda value: isinstance(value, str) and len(value) <= 4096),
        "deviations": Maybe(Many(CODE, most=16), []),
        "relays": Maybe(Many(anything, most=0), []),
        "privacy": NULL,
    },
    "refusal": {
        "institution": NAME,
        "run": Maybe(NAME),
        "round": Maybe(NUMBER),
        "refused_sha256": DIGEST,
        "code": CODE,
        "attribution": one_of("signed-by", "sent-on-connection"),
    },
    "round-closed": {
        "run": NAME,
        "round": NUMBER,
        "outcome": one_of("committed", "abandoned"),
        "reason": CODE,
        "rule": one_of(*RULES),
        "inputs": Many(
            {"institution": NAME, "contribution": DIGEST, "num_tokens": TOKENS, "status": one_of("used", "unused")},
            most=100_000,
        ),
        "outputs": {"model": BLOB, "server_state": Maybe(BLOB), "applied_delta": Maybe(BLOB)},
    },
    "control": {
        "action": one_of("pause", "resume", "extend", "roll-back", "run-ended", "leave", "erased", "recovery"),
        "issued_at": is_time,
        "run": Maybe(NAME),
        "round": Maybe(NUMBER),
        "reason": CODE,
        "institution": Maybe(NAME),
        "model": Maybe(BLOB),
        "deadline": Maybe(is_time),
        "missing_from": Maybe(between(0, (1 << 53) - 1)),
        "given_up": Maybe(lambda value: isinstance(value, str) and len(value) <= 4096),
        "rounds": Maybe(NUMBER),
    },
    "attestation": {
        "institution": NAME,
        "run": NAME,
        "round": NUMBER,
        "result": one_of("equal", "different"),
        "model": BLOB,
    },
    "release": {
        "run": NAME,
        "round": NUMBER,
        "model": BLOB,
        "files": Many(
            {
                "path": matches(r"(?=.{1,200}$)(?!(.*/)?\.\.?(/|$))[A-Za-z0-9_.\-]+(/[A-Za-z0-9_.\-]+)*"),
                "size": between(0, (1 << 44) - 1),
                "sha256": DIGEST,
            },
            least=1,
            most=1000,
        ),
    },
}


def conform(value: Json, shape: Json, where: str) -> None:
    """Every member known, none missing, each in its range; absent ones get their defaults, in place."""
    if isinstance(shape, Many):
        must(isinstance(value, list) and shape.least <= len(value) <= shape.most, "history", f"{where}: a list")
        for each in value:
            conform(each, shape.shape, where)
    elif isinstance(shape, dict):
        must(isinstance(value, dict), "history", f"{where} is no object")
        must(isinstance(shape, Open) or value.keys() <= shape.keys(), "history", f"{where}: an unknown field")
        for member, inner in shape.items():
            if isinstance(inner, Maybe) and value.setdefault(member, inner.default) is inner.default:
                continue
            must(member in value, "history", f"{where} lacks {member}")
            conform(value[member], inner.shape if isinstance(inner, Maybe) else inner, f"{where}.{member}")
    else:
        must(shape(value), "history", f"{where} is {value!r}")


def ascending(names: Iterable[str]) -> bool:
    """Whether names are distinct and in the order of their bytes."""
    coded = [name.encode() for name in names]
    return coded == sorted(set(coded))


# --- envelopes --------------------------------------------------------------------------------------------------------

ENVELOPE = {
    "payload": text,
    "payloadType": one_of("application/vnd.in-toto+json"),
    "signatures": Many({"keyid": DIGEST, "sig": text}, least=1, most=1001),
}
STATEMENT = {
    "_type": one_of("https://in-toto.io/Statement/v1"),
    "predicate": Open(),
    "predicateType": matches(rf"https://llmasos\.org/statement/({'|'.join(SHAPES)})/v1"),
    "subject": Many({"digest": {"sha256": DIGEST}, "name": text}, least=1, most=1),
}


class Entry:
    """A statement at its index: kind, predicate, parent, digest and signatures; well formed, and not yet judged."""

    def __init__(self, index: int, raw: bytes) -> None:
        envelope = parse_json(raw)
        conform(envelope, ENVELOPE, "envelope")
        payload = unbase64(envelope["payload"])
        statement = parse_json(payload)
        conform(statement, STATEMENT, "statement")
        self.index, self.digest, self.body = index, sha(payload), statement["predicate"]
        self.kind: str = statement["predicateType"].split("/")[-2]
        self.parent = (statement["subject"][0]["name"], statement["subject"][0]["digest"]["sha256"])
        self.signatures = [(it["keyid"], unbase64(it["sig"])) for it in envelope["signatures"]]
        self._signed = b"DSSEv1 28 application/vnd.in-toto+json %d " % len(payload) + payload
        conform(self.body, SHAPES[self.kind], self.kind)
        author, *others = [keyid for keyid, _ in self.signatures]
        must(ascending(others) and author not in others, "history", "approvals ascend, and each key signs once")
        must(not others or self.kind in APPROVABLE, "history", "one signature")

    def check_signature(self, number: int, key: dict[str, str]) -> None:
        """
        Raises:
            Failed: this key did not make the signature of that number.
        """
        (keyid, signature), raw = self.signatures[number], bytes.fromhex(key["public"])
        must(keyid == sha(raw) and is_signed(raw, signature, self._signed), "history", f"{self.index}: bad-signature")
