"""A ledger as a script that is signed anew after every change: what somebody with all the keys could write.

    script = a_script()                      # drafts of one statement each, with places to be filled in
    script[15].body["outcome"] = "abandoned"
    made = Forge(script)                     # parents, digests, seeds, cohorts, notes: all fit again
    made.bundle()                            # with deltas, models, metrics, and cosigned checkpoints

Places: "@7" is the digest of entry 7, "note" the log's checkpoint of all entries before this one, "seed" and "cohort" what
#open computes, "cohort 0" the first of that cohort.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.independent.arithmetic import header, outputs
from tests.independent.bundle import blob_root, tree_root

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
MANIFEST: list[dict[str, Any]] = [
    {"name": "w", "shape": [5, 7], "dtype": "F32", "group": "trainable"},
    {"name": "b", "shape": [], "dtype": "F32", "group": "trainable"},
    {"name": "p", "shape": [3], "dtype": "F32", "group": "frozen"},
]
Body = dict[str, Any]


@cache
def key(name: str) -> Ed25519PrivateKey:
    """A key of its own for each name, the same every time."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


def public(name: str) -> str:
    return key(name).public_key().public_bytes_raw().hex()


def at(minutes: float) -> str:
    """A time of the script, so long after its beginning."""
    return f"{NOW + timedelta(minutes=minutes):%Y-%m-%dT%H:%M:%S}.000Z"


def canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def leaf(entry: bytes) -> bytes:
    return hashlib.sha256(b"\0" + entry).digest()


# --- blobs ------------------------------------------------------------------------------------------------------------


def blob(seed: int, scale: float = 1.0, *, whole: bool) -> bytes:
    """A model, or a delta, of random numbers."""
    head, size = header([it for it in MANIFEST if whole or it["group"] == "trainable"])
    return head + (np.random.default_rng(seed).standard_normal(size // 4) * scale).astype("<f4").tobytes()


def reference(data: bytes) -> Body:
    return {"algorithm": "blake3", "root": blob_root(data, "blake3"), "size": len(data)}


TOKENIZER = b'{"tokens":257}'
BASE = blob(0, whole=True)
DELTAS = {(number, k): blob(10 * number + k, 0.01, whole=False) for number in (1, 2, 3) for k in (0, 1)}
CONTROLS = {(number, k): blob(100 + 10 * number + k, 0.1, whole=False) for number in (1, 2, 3) for k in (0, 1)}
TOKENS = (17, 64)
ACCEPTED = 3
SCAFFOLD: Body = {
    "optimizer": {"type": "sgd", "learning_rate": "0.1"},
    "correction": {"type": "scaffold", "max_control_l2": "100"},
}


# --- the script -------------------------------------------------------------------------------------------------------


@dataclass
class Draft:
    """One statement before its places are filled in."""

    kind: str
    parent: str
    body: Body
    by: str = "coordinator"
    approved_by: list[str] = field(default_factory=list)
    parent_kind: str | None = None
    edit_payload: Callable[[bytes], bytes] = bytes
    """Changes the payload's bytes before they are signed."""
    edit_envelope: Callable[[bytes], bytes] = bytes


def member(name: str, *roles: str, status: str = "active") -> Body:
    scheme = {"scheme": "ed25519", "public": public(name)}
    return {
        "name": name,
        "signing_key": scheme,
        "encryption_key": None,
        "roles": list(roles),
        "certificates": [
            {"serial": hashlib.sha256(name.encode()).hexdigest()[:8].lstrip("0"), "spki_sha256": "ab" * 32}
        ],
        "status": status,
    }


OPERATOR = member("operator", "operator")
EAST, NORTH, SOUTH = (member(name, "trainer", "witness") for name in ("east", "north", "south"))
AUDIT = member("audit", "auditor", "witness")
WITNESSES = ("audit", "east", "north", "south")


def roster(version: int, *members: Body, approved_by: Iterable[str] = ()) -> Draft:
    ordered = sorted(members, key=lambda it: it["name"])
    parent = f"@{version - 1}" if version < 6 else "@5"
    return Draft("roster", parent, {"version": version, "members": ordered}, approved_by=list(approved_by))


MEANS = {"beta1": "0.9", "beta2": "0.99"}
OPTIMIZERS: dict[str, Body] = {
    "sgd": {},
    "momentum": {"momentum": "0.9"},
    "nesterov": {"momentum": "0.9"},
    "adam": MEANS | {"epsilon": "0.001", "bias_correction": False},
    "adamw": MEANS | {"epsilon": "0.001", "bias_correction": True, "weight_decay": "0.01"},
    "yogi": MEANS | {"tau": "0.001", "initial_square": "0.000001"},
    "adagrad": {"tau": "0.001", "initial_square": "0.000001"},
}
"""What a plan says of each besides its type and learning rate."""


def plan(run: str, downlink: str | None = None, optimizer: str = "sgd") -> Draft:
    """Two rounds with two of three trainers each, quorum 2. With optimizer `scaffold` local steps are corrected."""
    correction, optimizer = (SCAFFOLD, "sgd") if optimizer == "scaffold" else ({}, optimizer)
    body = {
        "apiVersion": "llmasos/v1",
        "name": "tiny",
        "cohort": {"size": 2},
        "quorum": 2,
        "rounds": 2,
        "deadline_seconds": 3600,
        "delta_audience": ["audit"],
        "local": {"steps": 2, "batch_size": 2, "sequence_length": 16} | correction,
        "model": {"type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 16, "n_positions": 16},
        "rule": {"type": "weighted-mean"},
        "server_optimizer": {"type": optimizer, "learning_rate": "0.7"} | OPTIMIZERS[optimizer],
        "max_delta_l2": "1000",
    } | ({"downlink": {"type": downlink}} if downlink else {})
    initial = {"model": reference(BASE), "tokenizer": reference(TOKENIZER)}
    said = {"run": run, "plan": body, "manifest": MANIFEST, "initial": initial}
    return Draft("plan", "@5", said, approved_by=["east", "north"])


def answer(name: str, run: str, parent: str) -> Draft:
    nonce = hashlib.sha256(f"{name} {run}".encode()).hexdigest()
    body = {"institution": name, "run": run, "accept": True, "reasons": [], "protocol_version": 1, "nonce": nonce}
    return Draft("answer", parent, body | {"data_use_agreement": None, "availability": []}, name)


def opened(
    run: str, number: int, parent: str, minutes: float, model: Body, task: str = "train", *, state: Body | None = None
) -> Draft:
    body = {"run": run, "round": number, "task": task, "mode": "synchronous", "cohort": "cohort", "seed": "seed"}
    stages = [{"name": "collect", "deadline": at(minutes + 60)}]
    inputs = {"model": model, "server_state": state}
    return Draft("round-opened", parent, body | {"inputs": inputs, "roster": "@5", "stages": stages})


def offer(run: str, number: int, k: int, parent: str, *, trains: bool = True) -> Draft:
    body = {"institution": f"cohort {k}", "run": run, "round": number, "stage": "collect", "checkpoint": "note"}
    body |= {"blobs": {"delta": reference(DELTAS[number, k])} if trains else {}, "deviations": [], "relays": []}
    body |= {"weight": {"mode": "clear", "num_tokens": TOKENS[k] if trains else 0}, "privacy": None}
    commitment = hashlib.sha256(bytes(32) + b"{}").hexdigest()
    return Draft("contribution", parent, body | {"metrics_commitment": commitment}, f"cohort {k}")


def closed(
    run: str,
    number: int,
    parent: str,
    offers: Iterable[int],
    model: Body,
    outcome: str = "committed",
    *,
    applied: Body | None = None,
    state: Body | None = None,
) -> Draft:
    status = "used" if outcome == "committed" else "unused"
    inputs = [{"contribution": f"@{index}", "status": status} for index in offers]
    body = {"run": run, "round": number, "outcome": outcome, "reason": "all-contributed", "rule": "weighted-mean"}
    made = {"model": model, "server_state": state, "applied_delta": applied}
    return Draft("round-closed", parent, body | {"inputs": inputs, "outputs": made})


def control(action: str, parent: str, minutes: float, **fields: Any) -> Draft:
    body = {"action": action, "issued_at": at(minutes), "reason": "because", "run": None, "round": None}
    body |= {"institution": None, "model": None, "deadline": None, "missing_from": None, "rounds": None}
    return Draft("control", parent, body | fields, fields["institution"] if action == "leave" else "coordinator")


def refusal(parent: str, **fields: Any) -> Draft:
    body = {"institution": "south", "run": None, "round": None, "refused_sha256": "ab" * 32, "code": "bad-signature"}
    return Draft("refusal", parent, body | {"attribution": "signed-by"} | fields)


def attested(parent: str, number: int, model: Body) -> Draft:
    body = {"institution": "audit", "run": "alpha", "round": number, "result": "equal", "model": model}
    return Draft("attestation", parent, body, "audit")


@dataclass(frozen=True)
class Made:
    """What the run's rounds 1 and 3 make, between which round 2 changes nothing: model, applied delta, state of each."""

    first: tuple[bytes, bytes | None, bytes | None]
    second: tuple[bytes, bytes | None, bytes | None]

    @property
    def blobs(self) -> list[bytes]:
        """All of them, the base model among them."""
        return [BASE, *(each for each in (*self.first, *self.second) if each is not None)]


@cache
def made(downlink: str | None = None, optimizer: str = "sgd") -> Made:
    said = plan("alpha", downlink, optimizer).body
    offered = {number: [(TOKENS[k], DELTAS[number, k]) for k in (0, 1)] for number in (1, 3)}
    controls = {number: (ACCEPTED, [CONTROLS[number, k] for k in (0, 1)]) for number in (1, 3)}
    first = outputs(said, BASE, offered[1], None, controls[1])
    return Made(first, outputs(said, first[0], offered[3], first[2], controls[3]))


def a_script(ca_certificate: bytes, ca_digest: str, downlink: str | None = None, optimizer: str = "sgd") -> list[Draft]:
    """Every kind of statement, a run from its plan to its end, another one that goes on, and an institution that leaves."""
    base = reference(BASE)
    (first, applied_1, state_1), (second, applied_2, state_2) = (
        [None if it is None else reference(it) for it in each]
        for each in (made(downlink, optimizer).first, made(downlink, optimizer).second)
    )
    assert first is not None
    assert second is not None
    genesis = {
        "consortium": "hospitals",
        "protocol_version": 1,
        "created_at": at(0),
        "ca_certificate": ca_certificate.decode(),
        "coordinator_key": {"scheme": "ed25519", "public": public("coordinator")},
        "log": {"origin": "hospitals.llmasos/ledger", "key": {"scheme": "ed25519", "public": public("log")}},
        "blob_digest": "blake3",
        "approvals": {"roster": 1, "plan": 2, "release": 0},
    }
    files = [{"path": "model.safetensors", "size": 7, "sha256": "ab" * 32}]
    script = [
        Draft("genesis", ca_digest, genesis, parent_kind="ca-certificate"),
        roster(1, OPERATOR),
        roster(2, OPERATOR, EAST),
        roster(3, OPERATOR, EAST, NORTH, approved_by=["east"]),
        roster(4, OPERATOR, EAST, NORTH, SOUTH, approved_by=["north"]),
        roster(5, OPERATOR, EAST, NORTH, SOUTH, AUDIT, approved_by=["north"]),
        plan("alpha", downlink, optimizer),
        *(answer(name, "alpha", "@6") for name in ("east", "north", "south")),
        refusal("@6", run="alpha"),
        opened("alpha", 1, "@6", 1, base),  # 11
        *(offer("alpha", 1, k, "@11") for k in (0, 1)),
        refusal("@11", run="alpha", round=1),
        closed("alpha", 1, "@11", (12, 13), first, applied=applied_1, state=state_1),  # 15
        control("pause", "@15", 2, run="alpha"),
        control("resume", "@15", 3, run="alpha"),
        opened("alpha", 2, "@15", 4, first, state=state_1),  # 18
        offer("alpha", 2, 0, "@18"),
        closed("alpha", 2, "@18", (19,), first, "abandoned", state=state_1),  # 20
        opened("alpha", 3, "@20", 5, first, state=state_1),  # 21
        *(offer("alpha", 3, k, "@21") for k in (0, 1)),
        closed("alpha", 3, "@21", (22, 23), second, applied=applied_2, state=state_2),  # 24
        attested("@15", 1, first),
        opened("alpha", 4, "@24", 6, second, "evaluate", state=state_2),  # 26
        offer("alpha", 4, 0, "@26", trains=False),
        closed("alpha", 4, "@26", (27,), second, state=state_2),  # 28
        control("run-ended", "@28", 7, run="alpha", model=second),
        attested("@24", 3, second),
        Draft("release", "@28", {"run": "alpha", "round": 4, "model": second, "files": files}),  # 31
        plan("beta"),
        *(answer(name, "beta", "@32") for name in ("east", "north", "south")),
        control("leave", "@5", 8, institution="south"),  # 36
        roster(6, OPERATOR, EAST, NORTH, {**SOUTH, "status": "left"}, AUDIT),
        control("erased", "@36", 9, institution="south"),
    ]
    if optimizer == "scaffold":
        for index, (number, k) in {12: (1, 0), 13: (1, 1), 19: (2, 0), 22: (3, 0), 23: (3, 1)}.items():
            script[index].body["blobs"]["control"] = reference(CONTROLS[number, k])
    return [replace(draft, body=json.loads(json.dumps(draft.body))) for draft in script]


def steered(script: list[Draft]) -> None:
    """The run alpha rolled back from round 3 to round 1, extended, its open round given more time, and ended."""
    base, (first, _, _) = reference(BASE), made().first
    second, third = (
        outputs(script[6].body, start, [(TOKENS[k], DELTAS[number, k]) for k in (0, 1)])[0]
        for start, number in ((first, 3), (made().second[0], 1))
    )
    one, two, three = (reference(each) for each in (first, second, third))
    assert script[11].body["inputs"]["model"] == base
    script[0].body["approvals"]["plan"] = 0
    del script[25:]
    script += [
        control("roll-back", "@24", 5.6, run="alpha", round=1, model=one),  # 25
        opened("alpha", 4, "@25", 6, one),  # 26
        *(offer("alpha", 3, k, "@26") for k in (0, 1)),
        closed("alpha", 4, "@26", (27, 28), two),  # 29
        control("extend", "@29", 7, run="alpha", rounds=3),  # 30
        opened("alpha", 5, "@29", 7, two),  # 31
        control("extend", "@31", 7.5, run="alpha", round=5, deadline=at(600)),  # 32
        *(offer("alpha", 1, k, "@31") for k in (0, 1)),
        closed("alpha", 5, "@31", (33, 34), three),  # 35
        opened("alpha", 6, "@35", 8, three, "evaluate"),  # 36
        offer("alpha", 6, 0, "@36", trains=False),
        closed("alpha", 6, "@36", (37,), three),  # 38
        control("run-ended", "@38", 9, run="alpha", model=three),
    ]
    for index, number in ((27, 4), (28, 4), (33, 5), (34, 5)):
        script[index].body["round"] = number


WEIGHTINGS: dict[str, tuple[Body, tuple[int, int], tuple[int, int]]] = {
    "capped-tokens": ({"type": "capped-tokens", "cap": 20}, (17, 20), (0, 0)),
    "bytes": ({"type": "bytes", "max_bytes_a_token": 4}, (68, 65), (68, 65)),
    "equal": ({"type": "equal"}, (65536, 65536), (0, 0)),
}
"""A plan's section, what the deltas of each round weigh by it, and the bytes that contributions say of them."""


def weighted(kind: str) -> Callable[[list[Draft]], None]:
    """The run alpha with another weighting, and with the models that it gives."""
    section, _, num_bytes = WEIGHTINGS[kind]

    def change(script: list[Draft]) -> None:
        old, new = made(), weighted_models(kind)
        for draft in script:
            text = json.dumps(draft.body)
            for before, after in zip((old.first[0], old.second[0]), new, strict=True):
                text = text.replace(reference(before)["root"], reference(after)["root"])
            draft.body = json.loads(text)
            if draft.kind == "contribution" and kind == "bytes" and draft.body["blobs"]:
                draft.body["weight"]["num_bytes"] = num_bytes[TOKENS.index(draft.body["weight"]["num_tokens"])]
        script[6].body["plan"]["weighting"] = section

    return change


def weighted_models(kind: str) -> tuple[bytes, bytes]:
    """What rounds 1 and 3 make with that weighting."""
    said, weights = plan("alpha").body, WEIGHTINGS[kind][1]
    first = outputs(said, BASE, [(weights[k], DELTAS[1, k]) for k in (0, 1)])[0]
    return first, outputs(said, first, [(weights[k], DELTAS[3, k]) for k in (0, 1)])[0]


# --- signing it -------------------------------------------------------------------------------------------------------

SIZES = {12: 1.5, 19: 4.5, 22: 5.5, 27: 6.5, 39: 10}
"""Checkpoints: entries, and the minutes at which witnesses cosigned."""


class Forge:
    """A script's envelopes, with all that they name filled in."""

    def __init__(self, script: list[Draft], downlink: str | None = None, optimizer: str = "sgd") -> None:
        self.script, self.entries = script, list[bytes]()
        self.digests: list[str] = []
        self._cohorts: dict[tuple[str, int], list[str]] = {}
        self._tokens: dict[str, tuple[str, int]] = {}
        for draft in script:
            self._write(draft)
        self.sizes = {min(size, len(self.entries)): minutes for size, minutes in SIZES.items()}
        self.witnesses: dict[int, tuple[str, ...]] = {}
        self.hidden: Collection[int] = ()
        self.conflicting: list[bytes] = []
        self.metrics: list[tuple[str, bytes, bytes]] = [(digest, bytes(32), b"{}") for digest in self.digests[27:28]]
        self.blobs = [
            *made(downlink, optimizer).blobs,
            *(delta for (number, _), delta in DELTAS.items() if number != 2),
            *(each for (number, _), each in CONTROLS.items() if number != 2 and optimizer == "scaffold"),
        ]
        self.edit_note: Callable[[int, bytes], bytes] = lambda size, note: note

    def _write(self, draft: Draft) -> None:
        body = self._fill(draft, draft.body)
        by = body["institution"] if draft.by.startswith("cohort") else draft.by
        parent = self._digest(draft.parent)
        kind = draft.parent_kind or self.script[int(draft.parent[1:])].kind
        payload = draft.edit_payload(
            canonical(
                {
                    "_type": "https://in-toto.io/Statement/v1",
                    "predicate": body,
                    "predicateType": f"https://llmasos.org/statement/{draft.kind}/v1",
                    "subject": [{"name": kind, "digest": {"sha256": parent}}],
                }
            )
        )
        approvals = sorted((self._signature(payload, name) for name in draft.approved_by), key=lambda it: it["keyid"])
        envelope = {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": "application/vnd.in-toto+json",
            "signatures": [self._signature(payload, by), *approvals],
        }
        self.digests.append(hashlib.sha256(payload).hexdigest())
        if draft.kind == "contribution":
            self._tokens[self.digests[-1]] = body["institution"], body["weight"].get("num_tokens", 0)
        self.entries.append(draft.edit_envelope(canonical(envelope)))

    def _signature(self, payload: bytes, name: str) -> Body:
        pae = b"DSSEv1 28 application/vnd.in-toto+json %d " % len(payload) + payload
        keyid = hashlib.sha256(bytes.fromhex(public(name))).hexdigest()
        return {"keyid": keyid, "sig": base64.b64encode(key(name).sign(pae)).decode()}

    def _digest(self, place: str) -> str:
        return self.digests[int(place[1:])] if place.startswith("@") else place

    def _fill(self, draft: Draft, body: Body) -> Body:
        filled: Body = json.loads(json.dumps(body))
        run, number = str(filled.get("run")), int(filled.get("round") or 0)
        if draft.kind == "round-opened":
            filled["roster"] = self._digest(filled["roster"])
            if filled["seed"] == "seed":
                seed = f"{self._plan_of(run)}/seed/{number}".encode()
                filled["seed"] = int.from_bytes(hashlib.sha256(seed).digest()[:4], "big")
            if filled["cohort"] == "cohort":
                filled["cohort"] = self._draw(run, number, filled["roster"])
            self._cohorts[run, number] = filled["cohort"]
        if str(filled.get("institution")).startswith("cohort "):
            filled["institution"] = self._cohorts[run, number][int(filled["institution"].split()[1])]
        if filled.get("checkpoint") == "note":
            filled["checkpoint"] = self.note(len(self.entries)).decode()
        for each in filled["inputs"] if draft.kind == "round-closed" else ():
            each["contribution"] = self._digest(each["contribution"])
            name, num_tokens = self._tokens.get(each["contribution"], ("nobody", 1))
            each.setdefault("institution", name)
            each.setdefault("num_tokens", num_tokens)
        return filled

    def _plan_of(self, run: str) -> str:
        return next(
            self.digests[at] for at, it in enumerate(self.script) if it.kind == "plan" and it.body["run"] == run
        )

    def _draw(self, run: str, number: int, newest: str) -> list[str]:
        said = [it.body for it in self.script if it.kind == "answer" and it.body["run"] == run and it.body["accept"]]
        ranks = {
            it["institution"]: hashlib.sha256(
                f"{self._plan_of(run)}/{number}/{newest}/{it['institution']}/{it.get('nonce')}".encode()
            ).digest()
            for it in said
        }
        return sorted(sorted(ranks, key=lambda name: ranks[name])[:2])

    # --- notes --------------------------------------------------------------------------------------------------------

    def note(self, size: int, *, head: bytes | None = None, by: str = "log") -> bytes:
        """The log's note, of the first entries; of another head or key, if given."""
        head = head or tree_root([leaf(entry) for entry in self.entries[:size]])
        text = f"hospitals.llmasos/ledger\n{size}\n{base64.b64encode(head).decode()}\n"
        return (text + "\n").encode() + self._line("hospitals.llmasos/ledger", by, 1, key(by).sign(text.encode()))

    def _line(self, name: str, by: str, kind: int, signature: bytes) -> bytes:
        keyid = hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + bytes.fromhex(public(by))).digest()[:4]
        return f"\u2014 {name} {base64.b64encode(keyid + signature).decode()}\n".encode()

    def cosign(self, note: bytes, name: str, minutes: float, *, by: str | None = None) -> bytes:
        seconds = int((NOW + timedelta(minutes=minutes)).timestamp())
        text = note[: note.index(b"\n\n") + 1]
        signature = key(by or name).sign(b"cosignature/v1\ntime %d\n" % seconds + text)
        return note + self._line(f"hospitals.llmasos/{name}", by or name, 4, seconds.to_bytes(8, "big") + signature)

    # --- the file -----------------------------------------------------------------------------------------------------

    def bundle(self) -> bytes:
        """The file, under the digest that fits."""
        parts = [b"llmasos.org/evidence@v1\n"]
        for size, minutes in sorted(self.sizes.items()):
            note = self.note(size)
            gone = {"south"} if size > 36 else set()
            for name in self.witnesses.get(size, tuple(name for name in WITNESSES if name not in gone)):
                note = self.cosign(note, name, minutes)
            note = self.edit_note(size, note)
            parts.append(b"checkpoint %d\n%b\n" % (len(note), note))
        parts += [b"conflicting %d\n%b\n" % (len(note), note) for note in self.conflicting]
        parts += self._entries()
        parts += [
            f"metrics {digest} {salt.hex()} {len(content)}\n".encode() + content + b"\n"
            for digest, salt, content in sorted(self.metrics)
        ]
        for root, data in sorted((blob_root(data, "blake3"), data) for data in self.blobs):
            parts.append(f"blob blake3 {len(data)} {root}\n".encode() + data + b"\n")
        return with_digest(b"".join(parts))

    def _entries(self) -> Iterable[bytes]:
        index, cuts = 0, sorted(self.sizes)
        while index < len(self.entries):
            if index not in self.hidden:
                yield b"entry %d %d\n%b\n" % (index, len(self.entries[index]), self.entries[index])
                index += 1
                continue
            level = 0
            while self._is_one_subtree(index, level + 1, cuts):
                level += 1
            root = tree_root([leaf(entry) for entry in self.entries[index : index + (1 << level)]])
            yield f"subtree {level} {index >> level} {root.hex()}\n".encode()
            index += 1 << level

    def _is_one_subtree(self, start: int, level: int, cuts: list[int]) -> bool:
        end = start + (1 << level)
        whole = start % (1 << level) == 0 and all(index in self.hidden for index in range(start, end))
        return whole and not any(start < cut < end for cut in cuts)


def with_digest(records: bytes) -> bytes:
    return records + f"end {hashlib.sha256(records).hexdigest()}\n".encode()
