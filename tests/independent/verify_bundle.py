"""A second verifier of evidence bundles, written from docs/protocol.md and from nothing else of this project.

It shares no code with `common/`, so what both find is a property of the page and not of one program.

    python -m tests.independent.verify_bundle FILE [FINGERPRINT]     exit 0: verified, 4: with gaps, 1: failed

    statements.py   canonical JSON, envelopes, predicates        bundle.py       the file, notes, trees
    ledger.py       which statement may follow                   arithmetic.py   the new model's bits
    rules.py        many deltas into one
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping
from math import isqrt
from pathlib import Path

from tests.independent.arithmetic import outputs
from tests.independent.bundle import Bundle, Note, blob_root
from tests.independent.ledger import Ledger, Run
from tests.independent.statements import Entry, Failed, Json, moment, must, sha

TOLERANCE_SECONDS = 600


class Verdict:
    """What #verify says of a bundle. `failed` and `gaps` hold (section, text); a section that fails ends there."""

    def __init__(self, data: bytes, fingerprint: str | None = None, pins: Mapping[str, str] | None = None) -> None:
        self.failed: list[tuple[str, str]] = []
        self.gaps: list[tuple[str, str]] = []
        self._fingerprint, self._pins = fingerprint, pins or {}
        self._ledger = Ledger()
        self._cosigned: list[tuple[int, dict[str, int]]] = []
        try:
            self._bundle = Bundle(data)
            self._genesis()
            self._history()
        except Failed as err:
            self.failed.append(err.args)
            return
        for check in (self._keys, self._notes, self._witnesses, self._times, self._contents, self._rounds):
            try:
                check()
            except Failed as err:
                self.failed.append(err.args)

    @property
    def result(self) -> str:
        return "failed" if self.failed else "verified-with-gaps" if self.gaps else "verified"

    @property
    def sections(self) -> tuple[set[str], set[str]]:
        """Which sections failed, and which have gaps."""
        return {section for section, _ in self.failed}, {section for section, _ in self.gaps}

    def _gap(self, section: str, what: str) -> None:
        self.gaps.append((section, what))

    def _genesis(self) -> None:
        """#verify-genesis."""
        self._ledger.admit(Entry(0, self._bundle.entries[0]))
        if self._fingerprint is None:
            self._gap("genesis", "no fingerprint to compare")
        else:
            must(self._fingerprint == self._ledger.genesis.digest, "genesis", "another genesis")

    def _history(self) -> None:
        """#verify-history."""
        for index, raw in self._bundle.entries.items():
            if index > 0:
                self._ledger.admit(Entry(index, raw))
        if len(self._bundle.entries) < self._bundle.size:
            self._gap("history", "withheld entries")

    def _keys(self) -> None:
        """#verify-keys."""
        members = self._ledger.roster(self._bundle.size)
        for name, pin in self._pins.items():
            key = members[name]["signing_key"]["public"] if name in members else ""
            must(pin in (key, sha(bytes.fromhex(key))), "keys", f"{name} has another key")
        for name, member in members.items():
            if name not in self._pins and member["roles"] != ["operator"]:
                self._gap("keys", f"{name} is not pinned")

    # --- notes --------------------------------------------------------------------------------------------------------

    def _notes(self) -> None:
        """#verify-witnesses and #verify-evidence: who signed each note of the file, and of which tree it is."""
        genesis, bundle = self._ledger.genesis.body, self._bundle
        for note in bundle.notes:
            must(note.is_by_log(genesis["log"]), "witnesses", "a checkpoint that the log did not sign")
            if bundle.head(note.size) != note.head and self._ledger.gave_up(note):
                self._gap("witnesses", f"a checkpoint of {note.size} that was given up")
                continue
            must(bundle.head(note.size) == note.head, "witnesses", "the log signed two histories")
            known, times = note.count(genesis["log"]["origin"], genesis["log"]["key"], 1), {}
            for name, member in self._ledger.active(note.size, "witness").items():
                line = f"{genesis['consortium']}.llmasos/{name}"
                at = note.cosigned_at(line, member["signing_key"])
                known += note.count(line, member["signing_key"], 4)
                if at is not None:
                    times[name] = at
            must(known == len(note.signatures), "witnesses", f"somebody else signed the note of {note.size}")
            self._cosigned.append((note.size, times))
        if (self._cosigned[-1][0] if self._cosigned else 0) < bundle.size:
            self._gap("evidence", "entries beyond the largest checkpoint")
        for note, _ in bundle.conflicting:
            given_up = note.is_by_log(genesis["log"]) and self._ledger.gave_up(note)
            must(given_up and bundle.head(note.size) != note.head, "histories", "a note that contradicts this history")
            self._gap("histories", f"a note of {note.size} that was given up")
        for at, *_ in self._ledger.lineages:
            self._gap("lineages", f"{at} gives up what the log had signed for")

    def _witnesses(self) -> None:
        """#verify-witnesses: what contributions name, and who saw each closed round open."""
        offers = [
            (offer, run.openings[offer.body["round"]])
            for run in self._ledger.runs.values()
            for offers in run.offers.values()
            for offer in offers.values()
            if offer.body["checkpoint"] is not None
        ]
        largest: defaultdict[str, int] = defaultdict(int)
        for offer, opening in sorted(offers, key=lambda pair: pair[0].index):
            self._named(offer, opening, largest)
        for run in self._ledger.runs.values():
            for number, closing in run.closings.items():
                begin = run.openings[number].index
                saw = {name for size, times in self._cosigned if size > begin for name in times}
                if not any(self._is_majority(saw, below) for below in (begin, closing.index)):
                    self._gap("witnesses", f"no majority saw round {number} open")

    def _named(self, offer: Entry, opening: Entry, largest: dict[str, int]) -> None:
        name, note = offer.body["institution"], Note(offer.body["checkpoint"].encode(), "witnesses")
        must(note.is_by_log(self._ledger.genesis.body["log"]), "witnesses", "a checkpoint that the log did not sign")
        must(note.size <= offer.index, "witnesses", "a checkpoint larger than its contribution's index")
        head = self._bundle.head(note.size)
        if head is None:
            self._gap("witnesses", "a checkpoint whose tree ends among withheld entries")
            return
        must(head == note.head, "witnesses", "the log signed two histories")
        must(opening.index < note.size, "witnesses", "a checkpoint without its round's opening")
        must(note.size >= largest[name], "witnesses", "an institution's checkpoints never shrink")
        largest[name] = note.size

    def _is_majority(self, names: set[str], below: int) -> bool:
        witnesses = self._ledger.active(below, "witness")
        return not witnesses or len(names & witnesses.keys()) >= len(witnesses) // 2 + 1

    # --- times --------------------------------------------------------------------------------------------------------

    def _times(self) -> None:
        """#verify-times."""
        claims = [(entry, at) for entry in self._ledger.entries.values() if (at := self._claim(entry)) is not None]
        own = [(entry.index, at) for entry, at in claims if entry.body.get("action") != "leave"]
        for entry, at in claims:
            late, early = self._bounds(entry.index)
            outside = at > late + TOLERANCE_SECONDS or at < early - TOLERANCE_SECONDS
            back = at < max((it for index, it in own if index < entry.index), default=at) - TOLERANCE_SECONDS
            if entry.body.get("action") == "leave":
                after = min((it for index, it in own if index > entry.index), default=at)
                if outside or back or at > after + TOLERANCE_SECONDS:
                    self._gap("times", f"{entry.index}: one of two clocks is wrong")
            else:
                must(not outside and not back, "times", f"{entry.index} was dated back, or forward")

    def _claim(self, entry: Entry) -> float | None:
        match entry.kind:
            case "genesis":
                return moment(entry.body["created_at"])
            case "control":
                return moment(entry.body["issued_at"])
            case "round-opened":
                plan = self._ledger.runs[entry.body["run"]].plan.body["plan"]
                return moment(entry.body["stages"][0]["deadline"]) - int(plan["deadline_seconds"])
        return None

    def _bounds(self, index: int) -> tuple[float, float]:
        """The times that an entry is neither later nor earlier than, by a majority of the witnesses right after it."""
        witnesses = self._ledger.active(index + 1, "witness")
        late: dict[str, int] = {}
        early: dict[str, int] = {}
        for size, times in self._cosigned:
            for name in times.keys() & witnesses.keys():
                if size > index:
                    late[name] = min(times[name], late.get(name, times[name]))
                else:
                    early[name] = max(times[name], early.get(name, times[name]))
        needed = len(witnesses) // 2
        return (
            sorted(late.values())[needed] if len(late) > needed else float("inf"),
            sorted(early.values())[-1 - needed] if len(early) > needed else float("-inf"),
        )

    # --- what else is in the file -------------------------------------------------------------------------------------

    def _contents(self) -> None:
        """#verify-evidence: metrics and blobs."""
        for digest, (salt, metrics) in self._bundle.metrics.items():
            entry = self._ledger.by_digest.get(digest)
            fits = entry is not None and entry.body.get("metrics_commitment") == sha(salt + metrics)
            must(fits, "evidence", "metrics that no contribution commits to")
        named = [ref for run in self._ledger.runs.values() for ref in _named_blobs(run)]
        for (algorithm, root), content in self._bundle.blobs.items():
            known = {"algorithm": algorithm, "root": root, "size": len(content)} in named
            must(known, "evidence", f"no statement names blob {root}")

    def _rounds(self) -> None:
        """#verify-rounds and #verify-lineage."""
        for name, run in self._ledger.runs.items():
            if not run.ended:
                self._gap("lineage", f"{name} goes on")
            for number, closing in run.closings.items():
                if closing.body["outcome"] == "committed" and run.openings[number].body["task"] == "train":
                    self._round(run, number, closing.body["outputs"])

    def _round(self, run: Run, number: int, committed: Json) -> None:
        said, audience = run.attestations[number], run.plan.body["plan"]["delta_audience"]
        must("different" not in said.values(), "rounds", f"an auditor computed another model of round {number}")
        offers = [entry.body for _, entry in sorted(run.offers[number].items())]
        inputs = run.openings[number].body["inputs"]
        base, state = self._held(inputs["model"]), self._held(inputs["server_state"])
        held = [
            (
                weight(run.plan.body["plan"]["weighting"], it["weight"], number - it["round"]),
                self._held(it["blobs"]["delta"]),
            )
            for it in offers
        ]
        deltas = [(num_tokens, delta) for num_tokens, delta in held if delta is not None]
        named = [it["blobs"]["control"] for it in offers if "control" in it["blobs"]]
        controls = [control for control in map(self._held, named) if control is not None]
        whole = len(deltas) == len(held) and len(controls) == len(named)
        if base is None or not whole or (state is None) != (inputs["server_state"] is None):
            if not said.keys() & set(audience):
                self._gap("rounds", f"round {number} cannot be recomputed from this file")
            return
        made = outputs(run.plan.body, base, deltas, state, (run.accepted[number], controls))
        algorithm = committed["model"]["algorithm"]
        for name, data in zip(("model", "applied_delta", "server_state"), made, strict=True):
            computed = data and {"algorithm": algorithm, "root": blob_root(data, algorithm), "size": len(data)}
            must(computed == committed[name], "rounds", f"round {number} gives another {name}")

    def _held(self, reference: Json) -> bytes | None:
        if reference is None:
            return None
        content = self._bundle.blobs.get((reference["algorithm"], reference["root"]))
        return content if content is not None and len(content) == reference["size"] else None


def weight(weighting: Json, said: Json, late: int) -> int:
    """#weights, and #buffered: the largest w with w² × (1 + late) ≤ n², at least 1."""
    num_tokens: int = said["num_tokens"]
    n: int = {
        "tokens": num_tokens,
        "capped-tokens": min(num_tokens, weighting.get("cap", 0)),
        "bytes": said["num_bytes"],
        "equal": 65536,
    }[weighting["type"]]
    return max(1, isqrt(n**2 // (1 + late)))


def _named_blobs(run: Run) -> list[Json]:
    deltas = [entry.body["blobs"] for offers in run.offers.values() for entry in offers.values()]
    made = [ref for closing in run.closings.values() for ref in closing.body["outputs"].values() if ref is not None]
    return [*run.plan.body["initial"].values(), *(ref for each in deltas for ref in each.values()), *made]


def main(path: str, fingerprint: str | None = None) -> int:
    verdict = Verdict(Path(path).read_bytes(), fingerprint)
    for word, findings in (("failed", verdict.failed), ("gap", verdict.gaps)):
        for section, what in findings:
            print(f"{word}: {section}: {what}")
    print(verdict.result)
    return {"verified": 0, "verified-with-gaps": 4, "failed": 1}[verdict.result]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
