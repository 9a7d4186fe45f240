"""Ways to spoil a good bundle, each by one thing that somebody with the keys for it could do, digests made to fit again.

`SCRIPTS` change what is signed, `FILES` what is put into the file, `BYTES` the file itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.independent.forging import (
    AUDIT,
    BASE,
    CONTROLS,
    DELTAS,
    EAST,
    NORTH,
    OPERATOR,
    SOUTH,
    Draft,
    Forge,
    answer,
    at,
    attested,
    blob,
    control,
    made,
    member,
    offer,
    opened,
    public,
    reference,
    refusal,
    with_digest,
)

Script = list[Draft]
OTHER = reference(blob(99, whole=True))
RENAMED = DELTAS[1, 0].replace(b'"w"', b'"v"')
INFINITE = DELTAS[1, 0][:-4] + b"\x00\x00\x80\x7f"


def edit(index: int, path: str, value: Any) -> Callable[[Script], None]:
    """Another value at a path of an entry's predicate."""

    def change(script: Script) -> None:
        *way, last = path.split(".")
        inner: Any = script[index].body
        for step in way:
            inner = inner[int(step) if step.isdigit() else step]
        inner[int(last) if last.isdigit() else last] = value

    return change


def without(index: int, path: str) -> Callable[[Script], None]:
    """No such member in an entry's predicate."""

    def change(script: Script) -> None:
        *way, last = path.split(".")
        inner: Any = script[index].body
        for step in way:
            inner = inner[int(step) if step.isdigit() else step]
        del inner[last]

    return change


def signed_by(index: int, name: str) -> Callable[[Script], None]:
    def change(script: Script) -> None:
        script[index].by = name

    return change


def under(index: int, parent: str) -> Callable[[Script], None]:
    def change(script: Script) -> None:
        script[index].parent = parent

    return change


def approved(index: int, *names: str) -> Callable[[Script], None]:
    def change(script: Script) -> None:
        script[index].approved_by = list(names)

    return change


def in_payload(index: int, old: bytes, new: bytes) -> Callable[[Script], None]:
    def change(script: Script) -> None:
        script[index].edit_payload = lambda data: data.replace(old, new, 1)

    return change


def in_envelope(index: int, old: bytes, new: bytes) -> Callable[[Script], None]:
    def change(script: Script) -> None:
        script[index].edit_envelope = lambda data: data.replace(old, new, 1)

    return change


def more(*drafts: Draft) -> Callable[[Script], None]:
    """Further statements at the end."""
    return lambda script: script.extend(drafts)


def instead(index: int, draft: Draft) -> Callable[[Script], None]:
    def change(script: Script) -> None:
        script[index] = draft

    return change


def both(*changes: Callable[[Script], None]) -> Callable[[Script], None]:
    def change(script: Script) -> None:
        for each in changes:
            each(script)

    return change


def edited(draft: Draft, **fields: Any) -> Draft:
    draft.body |= fields
    return draft


def flipped_base64(data: bytes) -> bytes:
    """Other unused bits at the end of the first signature: the same bytes in another spelling."""
    value = json.loads(data)
    text = value["signatures"][0]["sig"]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    value["signatures"][0]["sig"] = text[:-3] + alphabet[alphabet.index(text[-3]) + 1] + "=="
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def twice(data: bytes) -> bytes:
    """The last approval twice."""
    value = json.loads(data)
    value["signatures"].append(value["signatures"][-1])
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def editing(index: int, how: Callable[[bytes], bytes]) -> Callable[[Script], None]:
    def change(script: Script) -> None:
        script[index].edit_envelope = how

    return change


def members(*changed: dict[str, Any]) -> list[dict[str, Any]]:
    return sorted(changed, key=lambda it: it["name"])


WEST = member("west", "trainer")
X25519 = {"scheme": "x25519", "public": public("west")}
KEPT = (OPERATOR, EAST, NORTH, AUDIT)
LEFT = {**SOUTH, "status": "left"}

SCRIPTS: dict[str, Callable[[Script], None]] = {
    # form
    "a number with a fraction": in_payload(6, b'"quorum":2', b'"quorum":2.0'),
    "white space": in_payload(7, b'"accept":true', b'"accept": true'),
    "a member twice": in_payload(7, b'"accept":true', b'"accept":true,"accept":true'),
    "an unknown field": edit(7, "mood", "good"),
    "a decimal of another spelling": edit(6, "plan.max_delta_l2", "1000.0"),
    "a decimal with an exponent": edit(6, "plan.max_delta_l2", "1E+3"),
    "a decimal as a number": edit(6, "plan.max_delta_l2", 1000),
    "a plan with a cap of nothing": edit(6, "plan.weighting", {"type": "capped-tokens", "cap": 0}),
    "a plan with a weighting of nobody's": edit(6, "plan.weighting", {"type": "heads"}),
    "a plan with too many bytes a token": edit(6, "plan.weighting", {"type": "bytes", "max_bytes_a_token": 65}),
    "an integer of 2^53": edit(15, "inputs.0.num_tokens", 1 << 53),
    "minus zero": in_payload(27, b'"num_tokens":0', b'"num_tokens":-0'),
    "a truth for a number": edit(7, "protocol_version", True),
    "another protocol version": edit(7, "protocol_version", 2),
    "no nonce": without(7, "nonce"),
    "a null for a list": edit(7, "reasons", None),
    "an upper-case digest": edit(7, "nonce", "AB" * 32),
    "an impossible day": edit(29, "issued_at", "2026-02-30T12:00:00.000Z"),
    "a time without milliseconds": edit(29, "issued_at", "2026-11-21T12:07:00Z"),
    "a reason that is no code": edit(29, "reason", "Why not"),
    "an unknown kind": in_payload(7, b"statement/answer/v1", b"statement/applause/v1"),
    "a second subject": in_payload(
        7, b'"subject":[', b'"subject":[{"digest":{"sha256":"%s"},"name":"plan"},' % (b"ab" * 32)
    ),
    "a lone surrogate": in_payload(6, b'"name":"tiny"', b'"name":"\\ud800"'),
    "a deep nest": in_payload(7, b'"reasons":[]', b'"reasons":' + b"[" * 33 + b"]" * 33),
    "an escaped slash": in_payload(7, b"llmasos.org/statement", b"llmasos.org\\/statement"),
    "a manifest that is out of order": edit(6, "manifest.0.group", "frozen"),
    "a tensor without elements": edit(6, "manifest.0.shape", [0, 7]),
    "a role that is none": edit(2, "members.0.roles", ["king"]),
    "a new member whose key cannot sign": both(
        approved(37, "east"), edit(37, "members", members(*KEPT, LEFT, {**WEST, "signing_key": X25519}))
    ),
    "a new member whose key cannot decrypt": both(
        approved(37, "east"), edit(37, "members", members(*KEPT, LEFT, {**WEST, "encryption_key": WEST["signing_key"]}))
    ),
    "a consortium that is not the CA's": edit(0, "consortium", "clinics"),
    "a signing key that cannot sign": edit(2, "members.0.signing_key.scheme", "x25519"),
    "other bits at the end of base64": editing(7, flipped_base64),
    "another payload type": in_envelope(7, b"application/vnd.in-toto+json", b"application/json"),
    "a stage of a later version": edit(11, "stages.0.name", "unmask"),
    "two stages": edit(11, "stages", [{"name": "collect", "deadline": at(61)}] * 2),
    "a weight that is masked": edit(12, "weight", {"mode": "masked"}),
    "privacy": edit(12, "privacy", {"dp_epsilon": "1", "dp_delta": "0"}),
    "a server state": edit(11, "inputs.server_state", OTHER),
    "an applied delta": edit(15, "outputs.applied_delta", OTHER),
    "an action of a later version": edit(16, "action", "abort"),
    # signers and approvals
    "a plan by an institution": signed_by(6, "east"),
    "an answer by another institution": signed_by(7, "north"),
    "an answer by the coordinator": signed_by(7, "coordinator"),
    "a release by an institution": signed_by(31, "east"),
    "a plan with one approval": approved(6, "east"),
    "a plan approved by the operator": approved(6, "east", "operator"),
    "a plan approved by its author": approved(6, "east", "coordinator"),
    "an approval twice": editing(6, twice),
    "an answer with an approval": approved(7, "north"),
    "a member without approval": approved(4),
    "a member approved by itself": approved(4, "south"),
    "a roster approved by who is gone": both(approved(37, "south"), edit(37, "members.0.roles", ["trainer"])),
    "a changed role without approval": edit(37, "members.1.roles", ["trainer"]),
    "a revocation without approval": edit(37, "members.1.status", "revoked"),
    "a left without a leave": edit(37, "members.1.status", "left"),
    "a changed encryption key without approval": edit(
        37, "members.1.encryption_key", {"scheme": "x25519", "public": "ab" * 32}
    ),
    # parents, membership
    "another genesis parent": under(0, "ab" * 32),
    "a plan under an old roster": under(6, "@4"),
    "a contribution under another round": under(22, "@18"),
    "a round under the plan again": under(18, "@6"),
    "a round-closed under the plan": under(15, "@6"),
    "a roster under the genesis": under(5, "@0"),
    "a roster's version left out": edit(5, "version", 7),
    "a member who disappears": edit(37, "members", members(OPERATOR, EAST, NORTH, LEFT)),
    "a member who comes back": more(
        Draft("roster", "@37", {"version": 7, "members": members(*KEPT, SOUTH)}, approved_by=["east"])
    ),
    "members out of order": edit(5, "members", [OPERATOR, EAST, NORTH, SOUTH, AUDIT]),
    "one key for two": edit(5, "members.0.signing_key.public", public("east")),
    "one serial for two": edit(5, "members.0.certificates", EAST["certificates"]),
    "a second leave": more(control("leave", "@37", 10, institution="south")),
    "an erased without a leave": more(control("erased", "@36", 10, institution="east")),
    "a second erased": more(control("erased", "@36", 10, institution="south")),
    "a leave with a run": edit(36, "run", "alpha"),
    "a second genesis": more(Draft("genesis", "@0", {})),
    # runs
    "a run twice": both(edit(32, "run", "alpha"), lambda script: script.__delitem__(slice(33, None))),
    "an answer twice": instead(10, answer("east", "alpha", "@6")),
    "an answer of an auditor": instead(10, answer("audit", "alpha", "@6")),
    "an answer after a leave": more(answer("south", "beta", "@32")),
    "a cohort by hand": edit(11, "cohort", ["east", "north", "south"]),
    "nobody accepts": both(
        *(edit(index, "accept", False) for index in (33, 34, 35)), more(opened("beta", 1, "@32", 9, reference(BASE)))
    ),
    "another seed": edit(11, "seed", 7),
    "an old roster in an opening": edit(11, "roster", "@4"),
    "another base model": edit(21, "inputs.model", reference(BASE)),
    "a round's number left out": both(edit(18, "round", 3), edit(19, "round", 3), edit(20, "round", 3)),
    "a third training round": edit(26, "task", "train"),
    "a round while the run is paused": edit(17, "action", "pause"),
    "a round after the evaluation": instead(29, opened("alpha", 5, "@28", 7, OTHER, "evaluate")),
    "a weight beyond the plan": edit(12, "weight.num_tokens", 65),
    "a weight of nothing": edit(12, "weight.num_tokens", 0),
    "bytes where the plan weighs tokens": edit(12, "weight.num_bytes", 17),
    "a weight in an evaluation": edit(27, "weight.num_tokens", 1),
    "a delta in an evaluation": edit(27, "blobs", {"delta": reference(DELTAS[1, 0])}),
    "a contribution without a delta": edit(12, "blobs", {}),
    "a slot filled twice": instead(14, offer("alpha", 1, 0, "@11")),
    "a contribution to a closed round": instead(16, offer("alpha", 1, 1, "@11")),
    "another's contribution": edit(12, "institution", "cohort 1"),
    "a contribution left out": edit(15, "inputs", [{"contribution": "@12", "status": "used"}]),
    "a contribution not used": edit(15, "inputs.0.status", "unused"),
    "an input marked late": edit(20, "inputs.0.status", "late"),
    "an abandoned round's input used": edit(20, "inputs.0.status", "used"),
    "another weight at the close": edit(15, "inputs.0.num_tokens", 18),
    "a commit without a quorum": edit(20, "outcome", "committed"),
    "an abandoned round with a new model": edit(20, "outputs.model", OTHER),
    "an evaluation with a new model": edit(28, "outputs.model", OTHER),
    "another rule": edit(15, "rule", "median"),
    "an end with another model": edit(29, "model", OTHER),
    "an end while a round is open": instead(28, control("run-ended", "@24", 7, run="alpha", model=OTHER)),
    "a pause after the end": more(control("pause", "@28", 10, run="alpha")),
    "a refusal twice": instead(14, refusal("@6", run="alpha")),
    "a refusal under another statement": under(14, "@6"),
    "an equal that is not": edit(25, "model", OTHER),
    "a different that is equal": edit(25, "result", "different"),
    "a different": both(edit(25, "result", "different"), edit(25, "model", OTHER)),
    "an attestation twice": more(edited(attested("@24", 3, OTHER), result="different")),
    "an attestation by a trainer": both(signed_by(25, "east"), edit(25, "institution", "east")),
    "an attestation of an evaluation": both(under(25, "@20"), edit(25, "round", 2)),
    "a release of another model": edit(31, "model", OTHER),
    "a release without files": edit(31, "files", []),
    "an evaluation without anybody": both(instead(27, refusal("@26", run="alpha", round=4)), edit(28, "inputs", [])),
    # arithmetic
    "another model": both(
        edit(24, "outputs.model", OTHER),
        edit(26, "inputs.model", OTHER),
        edit(28, "outputs.model", OTHER),
        edit(29, "model", OTHER),
        edit(30, "model", OTHER),
        edit(31, "model", OTHER),
    ),
    "another learning rate": edit(6, "plan.server_optimizer.learning_rate", "0.8"),
    "a shorter limit of deltas": edit(6, "plan.max_delta_l2", "0.001"),
    "a tensor of another name in a delta": edit(12, "blobs.delta", reference(RENAMED)),
    "a delta with an infinite number": edit(12, "blobs.delta", reference(INFINITE)),
    "weights exchanged": both(edit(12, "weight.num_tokens", 64), edit(13, "weight.num_tokens", 17)),
    "a model of the size of another": edit(15, "outputs.model.size", 4096),
    # times
    "an end dated back": edit(29, "issued_at", at(-60)),
    "an end dated forward": edit(29, "issued_at", at(60)),
    "an opening dated back": edit(26, "stages.0.deadline", at(0)),
    "an opening dated forward": edit(21, "stages.0.deadline", at(120)),
    "a genesis dated forward": edit(0, "created_at", at(20)),
    "a leave dated back": edit(36, "issued_at", at(-60)),
    "a leave dated forward": edit(36, "issued_at", at(60)),
}


SCAFFOLDS: dict[str, Callable[[Script], None]] = {
    "a contribution without a control": edit(12, "blobs", {"delta": reference(DELTAS[1, 0])}),
    "an evaluation with a control": edit(27, "blobs", {"control": reference(CONTROLS[1, 0])}),
    "no server_state": edit(15, "outputs.server_state", None),
    "a plan with momentum": edit(6, "plan.local.optimizer.momentum", "0.9"),
    "a plan with another local optimizer": edit(6, "plan.local.optimizer", {"type": "adamw"}),
    "a plan with another rule": edit(6, "plan.rule", {"type": "median"}),
    "a plan with a buffer": edit(6, "plan.mode", {"type": "buffered", "buffer": 2, "max_staleness": 1}),
    "a plan with FedProx": edit(6, "plan.local.fedprox_mu", "0.1"),
    "a control that is too long": edit(6, "plan.local.correction.max_control_l2", "0.01"),
    "a control that is not finite": edit(12, "blobs.control", reference(INFINITE)),
    "a control that is another": edit(12, "blobs.control", reference(DELTAS[2, 0])),
}

_STATE, _APPLIED = (len(each or b"") for each in (made("int8").first[2], made("int8").first[1]))
_OTHER_STATE = {"algorithm": "blake3", "root": "cd" * 32, "size": _STATE}
DOWNLINKS: dict[str, Callable[[Script], None]] = {
    "no applied delta": edit(15, "outputs.applied_delta", None),
    "no server_state": edit(15, "outputs.server_state", None),
    "an applied delta of no size of the codec's": edit(15, "outputs.applied_delta.size", _APPLIED + 1),
    "a server_state of no size of the manifest's": edit(15, "outputs.server_state.size", _STATE - 4),
    "an opening with no server_state": edit(18, "inputs.server_state", None),
    "an opening with the server_state of nobody": edit(18, "inputs.server_state", _OTHER_STATE),
    "a first opening with a server_state": edit(11, "inputs.server_state", _OTHER_STATE),
    "an abandoned round that drops the server_state": edit(20, "outputs.server_state", None),
    "an abandoned round with an applied delta": edit(20, "outputs.applied_delta", OTHER),
    "an evaluation with an applied delta": edit(28, "outputs.applied_delta", OTHER),
    "an evaluation with a server_state of its own": edit(28, "outputs.server_state", _OTHER_STATE),
    "a downlink that nobody knows": edit(6, "plan.downlink.type", "int2"),
    "a plan without the downlink": edit(6, "plan.downlink", None),
    "another applied delta": edit(24, "outputs.applied_delta.root", "cd" * 32),
    "another server_state": both(
        *(edit(index, "outputs.server_state.root", "cd" * 32) for index in (24, 28)),
        edit(26, "inputs.server_state.root", "cd" * 32),
    ),
    "another learning rate": edit(6, "plan.server_optimizer.learning_rate", "0.8"),
}
"""Edits of the script with downlink int8."""


def noted(change: Callable[[Forge, int, bytes], bytes], at_size: int = 22) -> Callable[[Forge], None]:
    """Another note of that size."""

    def apply(forge: Forge) -> None:
        forge.edit_note = lambda size, note: change(forge, size, note) if size == at_size else note

    return apply


def named(number: int, size: int) -> Callable[[Script], None]:
    """A contribution that names a checkpoint of another size."""

    def change(script: Script) -> None:
        script[number].body["checkpoint"] = Forge(script[: max(size, number)]).note(size).decode()

    return change


SCRIPTS |= {
    "a checkpoint from before the opening": named(13, 11),
    "a checkpoint that goes back": both(named(22, 22), edit(12, "checkpoint", "note"), named(19, 12)),
    "a checkpoint that is no note": edit(12, "checkpoint", "hospitals.llmasos/ledger\n12\n"),
    "a contribution without a checkpoint": edit(12, "checkpoint", None),
    "a contribution without a commitment": edit(27, "metrics_commitment", None),
}


def hide(*indexes: int) -> Callable[[Forge], None]:
    def apply(forge: Forge) -> None:
        forge.hidden = set(indexes)

    return apply


def witnessed(size: int, *names: str) -> Callable[[Forge], None]:
    def apply(forge: Forge) -> None:
        forge.witnesses[size] = names

    return apply


def conflict(make: Callable[[Forge], list[bytes]]) -> Callable[[Forge], None]:
    def apply(forge: Forge) -> None:
        forge.conflicting = make(forge)

    return apply


def blobs(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[Forge], None]:
    def apply(forge: Forge) -> None:
        forge.blobs = change(forge.blobs)

    return apply


def metrics(*those: tuple[int, bytes, bytes]) -> Callable[[Forge], None]:
    def apply(forge: Forge) -> None:
        forge.metrics = [(forge.digests[index], salt, content) for index, salt, content in those]

    return apply


def sizes(**changed: float) -> Callable[[Forge], None]:
    def apply(forge: Forge) -> None:
        forge.sizes = {int(size[1:]): minutes for size, minutes in changed.items()}

    return apply


def few_witnesses(forge: Forge) -> None:
    forge.witnesses = dict.fromkeys(forge.sizes, ("east", "north"))


FILES: dict[str, Callable[[Forge], None]] = {
    "no checkpoint": sizes(),
    "a checkpoint of the middle alone": sizes(_22=5.5),
    "no majority anywhere": few_witnesses,
    "no majority at the end": witnessed(39, "east"),
    "witnesses with a late clock": sizes(_12=1.5, _19=4.5, _22=60, _27=60, _39=60),
    "witnesses with an early clock": sizes(_12=-60, _19=4.5, _22=5.5, _27=6.5, _39=10),
    "the second run withheld": hide(32, 33, 34, 35),
    "a plan withheld": hide(6),
    "a roster withheld": hide(5),
    "an attestation withheld": hide(25),
    "the genesis withheld": hide(0),
    "a note by another log": noted(lambda forge, size, note: forge.note(size, by="east")),
    "a note of another tree": noted(lambda forge, size, note: forge.note(size, head=bytes(32))),
    "a note of a larger tree": noted(lambda forge, size, note: forge.note(60, head=bytes(32)), 39),
    "a stranger's cosignature": noted(lambda forge, size, note: forge.cosign(note, "stranger", 5)),
    "a witness's name with another key": noted(lambda forge, size, note: forge.cosign(note, "east", 5, by="north")),
    "a cosignature before one was a witness": sizes(_4=1, _39=10),
    "a forged cosignature": noted(lambda forge, size, note: note[:-10] + b"AAAAAAAA=\n"[:10]),
    "a cosignature twice": noted(lambda forge, size, note: note + note.splitlines(keepends=True)[-1]),
    "a cosignature twice at two times": noted(lambda forge, size, note: forge.cosign(note, "east", 5.6)),
    "a signature of the log twice": noted(lambda forge, size, note: note + note.splitlines(keepends=True)[4]),
    "a note without the empty line": noted(lambda forge, size, note: note.replace(b"\n\n", b"\n", 1)),
    "a note with a fourth line": noted(lambda forge, size, note: note.replace(b"\n\n", b"\nextension\n\n", 1)),
    "a note with a plus in a name": noted(lambda forge, size, note: forge.cosign(note, "ea+st", 5)),
    "a conflicting note": conflict(lambda forge: [forge.note(20, head=bytes(32))]),
    "a conflicting note of this history": conflict(lambda forge: [forge.note(20)]),
    "a conflicting note of nobody": conflict(lambda forge: [forge.note(20, head=bytes(32), by="east")]),
    "conflicting notes beyond": conflict(lambda forge: [forge.note(50, head=bytes([it]) * 32) for it in (1, 2)]),
    "metrics of another contribution": metrics((22, b"\1" * 32, b"{}")),
    "metrics of no contribution": metrics((24, bytes(32), b"{}")),
    "metrics without a commitment": metrics((12, bytes(32), b"{}"), (13, bytes(32), b"{")),
    "no metrics": metrics(),
    "no blobs": blobs(lambda held: []),
    "no base model": blobs(lambda held: [data for data in held if data != BASE]),
    "a delta that lacks": blobs(lambda held: [data for data in held if data != DELTAS[3, 1]]),
    "a blob that nobody names": blobs(lambda held: [*held, b"years of work"]),
    "a blob that only a `different` names": blobs(lambda held: [*held, blob(99, whole=True)]),
}


def once(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    """The file with one change, under the digest that fits again."""

    def change(data: bytes) -> bytes:
        records = data[: data.rindex(b"end ")]
        return with_digest(records.replace(old, new, 1))

    return change


BYTES: dict[str, Callable[[bytes], bytes]] = {
    "another header": once(b"evidence@v1", b"evidence@v2"),
    "a digest that is another": lambda data: data[:-2] + (b"0\n" if data[-2:] != b"0\n" else b"1\n"),
    "bytes after the end": lambda data: data + b"\n",
    "no end": lambda data: data[: data.rindex(b"end ")],
    "a leading zero": once(b"\nentry 7 ", b"\nentry 07 "),
    "an entry left out": once(b"\nentry 7 ", b"\nentry 8 "),
    "two spaces": once(b"\nentry 7 ", b"\nentry  7 "),
    "a record that is unknown": once(b"\nmetrics ", b"\nmeasure "),
    "a blob of another root": lambda data: once(data[at_blob(data) : at_blob(data) + 64], b"0" * 64)(data),
    "a blob of another algorithm": once(b"\nblob blake3 ", b"\nblob sha256 "),
    "a length beyond the file": once(b"\nblob blake3 ", b"\nblob blake3 9"),
    "nothing": lambda data: b"",
}


def at_blob(data: bytes) -> int:
    line = data.index(b"\nblob ") + 1
    return data.index(b"\n", line) - 64


STEERING: dict[str, Callable[[Script], None]] = {
    "a roll-back to a round that is not there": edit(25, "round", 7),
    "a roll-back to the newest round": edit(25, "round", 3),
    "a roll-back to a round, with another one's model": edit(25, "model", reference(BASE)),
    "a roll-back to the beginning, with another model": edit(25, "round", None),
    "a roll-back that names a deadline": edit(25, "deadline", at(6)),
    "a roll-back with no model": edit(25, "model", None),
    "a roll-back by an institution": signed_by(25, "east"),
    "a round that follows what was rolled back": lambda script: setattr(script[26], "parent", "@24"),
    "a round that starts from what was rolled back": edit(26, "inputs.model", reference(made().second[0])),
    "a round whose number was used before": both(*(edit(index, "round", 2) for index in range(26, 30))),
    "an extension by nothing": edit(30, "rounds", 2),
    "an extension that names a model": edit(30, "model", OTHER),
    "an extension of what the institutions approved": edit(0, "approvals.plan", 2),
    "more rounds than the extension": edit(30, "rounds", None),
    "a deadline for a round that is closed": edit(32, "round", 4),
    "a deadline that hangs on the run": lambda script: setattr(script[32], "parent", "@29"),
    "a deadline and rounds": edit(32, "rounds", 9),
    "no deadline": edit(32, "deadline", None),
    "an end with a model that was rolled back": edit(39, "model", reference(made().second[0][:-1])),
}
"""The same of a run that was rolled back and extended (forging.steered)."""
