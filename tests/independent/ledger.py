"""Which statement may follow: docs/protocol.md#parents, #approvals and what #open computes."""

from __future__ import annotations

import base64
from collections import defaultdict

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

from tests.independent.arithmetic import State, corrects, encoded_size, trainable_header
from tests.independent.bundle import Note
from tests.independent.drawing import draw, sizes
from tests.independent.rules import check_plan
from tests.independent.statements import BLOB, Entry, Failed, Json, ascending, conform, must, sha

SIGNED_BY_INSTITUTIONS = ("answer", "contribution", "attestation")
NO_INSTITUTIONS = {"operator", "viewer"}


class Run:
    """What the ledger says of one run so far. `tip` is its newest round-closed or roll-back, or the plan."""

    def __init__(self, entry: Entry) -> None:
        self.plan, self.tip, self.model = entry, entry, entry.body["initial"]["model"]
        self.state: Json = None
        self.answers: dict[str, Json] = {}
        self.openings: dict[int, Entry] = {}
        self.closings: dict[int, Entry] = {}
        self.offers: defaultdict[int, dict[str, Entry]] = defaultdict(dict)
        self.attestations: defaultdict[int, dict[str, str]] = defaultdict(dict)
        self.paused = self.ended = False
        self.trained, self.rounds = 0, entry.body["plan"]["rounds"]
        self.taken_back: set[int] = set()
        self.wanted: dict[int, int] = {}
        self.accepted: dict[int, int] = {}
        self.turn = -1

    @property
    def open_round(self) -> int | None:
        """The number of the round that is open."""
        return len(self.openings) if len(self.openings) > len(self.closings) else None

    def is_evaluated(self) -> bool:
        """Whether the evaluation was opened, which is a run's last round."""
        return any(self.openings[number].body["task"] == "evaluate" for number in self.standing)

    @property
    def standing(self) -> list[int]:
        """Rounds that were opened and not rolled back."""
        return [number for number in self.openings if number not in self.taken_back]

    def go_back(self, number: int, tip: Entry) -> None:
        """#steering: as it was after that round, or before the first."""
        self.taken_back |= {each for each in self.openings if each > number}
        outputs = self.closings[number].body["outputs"] if number else None
        self.model = outputs["model"] if outputs else self.plan.body["initial"]["model"]
        self.state = outputs["server_state"] if outputs else None
        self.tip = tip
        trained = [self.closings[each] for each in self.standing if self.openings[each].body["task"] == "train"]
        self.trained = sum(each.body["outcome"] == "committed" for each in trained)


def most_late(run: Run, at: int) -> int:
    """By how many rounds what round `at` takes may be late."""
    mode = run.plan.body["plan"]["mode"]
    buffered = mode["type"] == "buffered" and run.openings[at].body["task"] == "train"
    return int(mode["max_staleness"]) if buffered else 0


class Ledger:
    """Entries in order, each admitted by the rules over what stands below it."""

    def __init__(self) -> None:
        self.entries: dict[int, Entry] = {}
        self.by_digest: dict[str, Entry] = {}
        self.rosters: list[Entry] = []
        self.leaves: dict[str, Entry] = {}
        self.erased: set[str] = set()
        self.refusals: set[Json] = set()
        self.runs: dict[str, Run] = {}
        self.lineages: list[tuple[int, int, bytes]] = []

    @property
    def genesis(self) -> Entry:
        return self.entries[0]

    def admit(self, entry: Entry) -> None:
        """One more entry.

        Raises:
            Failed: a rule does not let it in.
        """
        must(entry.digest not in self.by_digest, "history", "this payload stands in the ledger")
        if entry.index == 0:
            must(entry.kind == "genesis", "genesis", "entry 0 is no genesis")
            entry.check_signature(0, entry.body["coordinator_key"])
            self._admit_genesis(entry)
        else:
            must(entry.kind != "genesis", "history", "a second genesis")
            entry.check_signature(0, self._author_key(entry))
            getattr(self, "_admit_" + entry.kind.replace("-", "_"))(entry, entry.body)
        self.entries[entry.index] = self.by_digest[entry.digest] = entry

    # --- who ------------------------------------------------------------------------------------------------------------

    def roster(self, below: int) -> dict[str, Json]:
        """Members by name, of the newest roster below an index."""
        members: list[Json] = next((it.body["members"] for it in reversed(self.rosters) if it.index < below), [])
        return {member["name"]: member for member in members}

    def active(self, below: int, role: str | None = None) -> dict[str, Json]:
        """Members that are neither revoked nor left, by the roster and the leaves below an index; of a role, if given."""
        gone = {name for name, leave in self.leaves.items() if leave.index < below}
        members = {name: it for name, it in self.roster(below).items() if it["status"] == "active" and name not in gone}
        return {name: it for name, it in members.items() if role is None or role in it["roles"]}

    def _author_key(self, entry: Entry) -> dict[str, str]:
        """#kinds: the one key that may have signed this."""
        if entry.kind in SIGNED_BY_INSTITUTIONS or entry.body.get("action") == "leave":
            members, name = self.active(entry.index), entry.body["institution"]
            must(name in members, "history", f"{entry.index}: wrong-signer")
            return dict(members[name]["signing_key"])
        return dict(self.genesis.body["coordinator_key"])

    def _check_approvals(self, entry: Entry) -> None:
        """#approvals."""
        keys = {
            sha(bytes.fromhex(member["signing_key"]["public"])): member["signing_key"]
            for member in self.active(entry.index).values()
            if not NO_INSTITUTIONS.issuperset(member["roles"])
        }
        for at, (keyid, _) in enumerate(entry.signatures[1:], 1):
            must(keyid in keys, "history", f"{entry.index}: not-enough-approvals")
            entry.check_signature(at, keys[keyid])
        needed = min(self.genesis.body["approvals"].get(entry.kind, 0), len(keys))
        enough = len(entry.signatures) - 1 >= needed or (entry.kind == "roster" and self._is_routine(entry))
        must(enough, "history", f"{entry.index}: not-enough-approvals")

    def _is_routine(self, entry: Entry) -> bool:
        """Whether a roster changes nothing but certificates, or the status of members whose leave stands here."""
        if entry.body["version"] == 1:
            return True
        before = self.roster(entry.index)
        after = {member["name"]: member for member in entry.body["members"]}
        if after.keys() != before.keys():
            return False
        for name, member in after.items():
            said = {"left"} if name in self.leaves else set()
            same = {**member, "certificates": 0, "status": 0} == {**before[name], "certificates": 0, "status": 0}
            if not same or member["status"] not in {before[name]["status"], *said}:
                return False
        return True

    # --- what follows what --------------------------------------------------------------------------------------------

    def _follows(self, entry: Entry, parent: Entry) -> None:
        must(entry.parent == (parent.kind, parent.digest), "history", f"{entry.index}: wrong-parent")

    def _run(self, body: Json, *, also_ended: bool = False) -> Run:
        run = self.runs.get(body["run"])
        if run is None or (run.ended and not also_ended):
            raise Failed("history", f"run {body['run']} is not there, or has ended")
        return run

    def _newest_roster(self) -> Entry:
        return self.rosters[-1] if self.rosters else self.genesis

    def _admit_genesis(self, entry: Entry) -> None:
        """#enrolment: the parent is the CA certificate, self-signed, a CA, in canonical PEM."""
        pem = entry.body["ca_certificate"].encode()
        try:
            certificate = x509.load_pem_x509_certificate(pem)
            certificate.verify_directly_issued_by(certificate)
            is_ca = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound) as err:
            raise Failed("genesis", "no CA certificate") from err
        must(is_ca and certificate.public_bytes(Encoding.PEM) == pem, "genesis", "no CA certificate in canonical PEM")
        names = [it.value for it in certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
        must(names == [entry.body["consortium"]], "genesis", "another consortium's CA certificate")
        lines = "".join(entry.body["ca_certificate"].splitlines()[1:-1])
        must(entry.parent == ("ca-certificate", sha(base64.b64decode(lines))), "genesis", "wrong-parent")

    def _admit_roster(self, entry: Entry, body: Json) -> None:
        self._follows(entry, self._newest_roster())
        must(body["version"] == len(self.rosters) + 1, "history", "a roster's version")
        members = {it["name"]: it for it in body["members"]}
        must(ascending(it["name"] for it in body["members"]), "history", "members in order")
        keys = [it["signing_key"]["public"] for it in body["members"]]
        serials = [certificate["serial"] for it in body["members"] for certificate in it["certificates"]]
        must(len(set(keys)) == len(keys) and len(set(serials)) == len(serials), "history", "a key, or serial, twice")
        for name, before in self.roster(entry.index).items():
            kept = name in members and before["status"] in ("active", members[name]["status"])
            must(kept, "history", f"{entry.index}: a roster keeps every member, and who left or was revoked")
        self._check_approvals(entry)
        self.rosters.append(entry)

    def _admit_plan(self, entry: Entry, body: Json) -> None:
        must(self.rosters, "history", "a plan needs a roster")
        self._follows(entry, self.rosters[-1])
        must(body["run"] not in self.runs, "history", "a run's id is new")
        groups = [["trainable", "frozen", "personal"].index(tensor["group"]) for tensor in body["manifest"]]
        names = {tensor["name"] for tensor in body["manifest"]}
        offered = body["protocol_versions"]
        must(offered["least"] <= offered["most"], "history", "versions offered")
        must(groups == sorted(groups) and groups[0] == 0 and len(names) == len(groups), "history", "the manifest")
        check_plan(body["plan"])
        self._check_approvals(entry)
        self.runs[body["run"]] = Run(entry)

    def _admit_answer(self, entry: Entry, body: Json) -> None:
        run = self._run(body)
        self._follows(entry, run.plan)
        must(body["institution"] in self.active(entry.index, "trainer"), "history", "not-in-cohort")
        must(body["institution"] not in run.answers, "history", "slot-taken")
        offered = run.plan.body["protocol_versions"]
        spoken = offered["least"] <= body["protocol_version"] <= offered["most"]
        must(spoken or not body["accept"], "history", "unsupported-protocol")
        run.answers[body["institution"]] = body

    def _admit_round_opened(self, entry: Entry, body: Json) -> None:
        """#open: anybody can compute an opening's fields."""
        run, roster = self._run(body), self.rosters[-1].digest
        number = len(run.openings) + 1
        self._follows(entry, run.tip)
        must(run.open_round is None and not run.paused and not run.is_evaluated(), "history", "no round may open")
        must(body["round"] == number, "history", "rounds count from 1 without gaps")
        must(body["task"] == "evaluate" or run.trained < run.rounds, "history", "no training round follows")
        computed = {
            "cohort": self._cohort(run, number, entry.index),
            "mode": run.plan.body["plan"]["mode"]["type"] if body["task"] == "train" else "synchronous",
            "seed": int(sha(f"{run.plan.digest}/seed/{number}".encode())[:8], 16),
            "roster": roster,
            "inputs": {"model": run.model, "server_state": run.state},
        }
        for field, value in computed.items():
            must(body[field] == value, "history", f"{entry.index}: {field} is not what #open computes")
        run.openings[number] = entry
        if body["task"] == "evaluate" and run.plan.body["plan"]["mode"]["type"] == "buffered":
            run.wanted[number] = len(body["cohort"])

    def _cohort(self, run: Run, number: int, below: int) -> list[str]:
        """#cohort; beside it, how many contributions the round wants."""
        trainers, roster = self.active(below, "trainer"), self.rosters[-1].digest
        nonces = {
            name: answer["nonce"]
            for name, answer in sorted(run.answers.items())
            if answer["accept"] and name in trainers
        }
        wanted, invited = sizes(run.plan.body["plan"], len(nonces))
        run.wanted[number] = wanted
        run.accepted[number] = sum(answer["accept"] for answer in run.answers.values())
        return draw(run, nonces, invited, f"{run.plan.digest}/{number}/{roster}")

    def _admit_contribution(self, entry: Entry, body: Json) -> None:
        run = self._run(body)
        """#parents and #buffered: it goes into the open round, which may be a later one than it was trained for."""
        name, at = body["institution"], run.open_round
        must(at is not None and 0 <= at - body["round"] <= most_late(run, at), "history", "round-not-open")
        must(body["round"] in run.openings, "history", "wrong-parent")
        must(body["round"] not in run.taken_back, "history", "round-not-open")
        opening = run.openings[body["round"]]
        self._follows(entry, opening)
        must(all(name in run.openings[it].body["cohort"] for it in (body["round"], at)), "history", "not-in-cohort")
        given = [offers[name].body["round"] for offers in run.offers.values() if name in offers]
        must(body["round"] not in given, "history", "slot-taken")
        must(name not in run.offers[at] and len(run.offers[at]) < run.wanted[at], "history", "round-not-open")
        local, tokens = run.plan.body["plan"]["local"], body["weight"]["num_tokens"]
        if opening.body["task"] == "train":
            names = ("delta", "control") if corrects(run.plan.body["plan"]) else ("delta",)
            conform(body["blobs"], dict.fromkeys(names, BLOB), "blobs")
            most = local["steps"] * local["batch_size"] * local["sequence_length"]
            must(1 <= tokens <= most, "history", "implausible-weight")
            weighting, num_bytes = run.plan.body["plan"]["weighting"], body["weight"]["num_bytes"]
            must((num_bytes is not None) == (weighting["type"] == "bytes"), "history", "num_bytes, or none")
            if num_bytes is not None:
                must(1 <= num_bytes <= tokens * weighting["max_bytes_a_token"], "history", "implausible-weight")
        else:
            must(body["weight"]["num_bytes"] is None, "history", "num_bytes in an evaluation")
            must(body["blobs"] == {} and tokens == 0, "history", "an evaluation has no delta and no weight")
        run.offers[at][name] = entry

    def _admit_round_closed(self, entry: Entry, body: Json) -> None:
        run = self._run(body)
        must(body["round"] == run.open_round, "history", "round-not-open")
        opening, plan = run.openings[body["round"]], run.plan.body["plan"]
        self._follows(entry, opening)
        committed, trains = body["outcome"] == "committed", opening.body["task"] == "train"
        status = "used" if committed else "unused"
        sealed = [
            {
                "institution": name,
                "contribution": it.digest,
                "num_tokens": it.body["weight"]["num_tokens"],
                "status": status,
            }
            for name, it in sorted(run.offers[body["round"]].items())
        ]
        must(body["inputs"] == sealed, "history", f"{entry.index}: not every contribution of its round, once")
        must(not committed or len(sealed) >= (plan["quorum"] if trains else 1), "history", "quorum")
        if committed and trains:
            self._check_beside(run, body["outputs"])
        else:
            kept = {**opening.body["inputs"], "applied_delta": None}
            must(body["outputs"] == kept, "history", "an abandoned round, and an evaluation, keep what they had")
        must(body["rule"] == plan["rule"]["type"], "history", "the plan's rule")
        run.closings[body["round"]], run.tip, run.model = entry, entry, body["outputs"]["model"]
        run.state = body["outputs"]["server_state"]
        run.trained += committed and trains

    def _check_beside(self, run: Run, made: Json) -> None:
        """#parents: a commit's applied_delta and server_state are there, in their sizes, as the plan says."""
        plain, count = trainable_header(run.plan.body["manifest"])
        downlink = run.plan.body["plan"]["downlink"]
        codec = downlink["type"] if downlink else None
        wanted = {
            "applied_delta": encoded_size(codec, plain, count) if codec else None,
            "server_state": State(run.plan.body["plan"], count).size,
        }
        for name, size in wanted.items():
            must((made[name] and made[name]["size"]) == size, "history", f"{name} is not what the plan makes")

    def _admit_refusal(self, entry: Entry, body: Json) -> None:
        run, slot = self.runs.get(body["run"]), (body["institution"], body["run"], body["round"], body["code"])
        self._follows(entry, run.openings.get(body["round"], run.plan) if run else self._newest_roster())
        must(slot not in self.refusals, "history", "slot-taken")
        self.refusals.add(slot)

    def _admit_control(self, entry: Entry, body: Json) -> None:
        action, name = body["action"], body["institution"]
        must(action == "recovery" or body["given_up"] is None, "history", "a control that gives up a lineage")
        if action == "recovery":
            self._begin_lineage(entry, body)
        elif action == "leave":
            self._follows(entry, self._newest_roster())
            must(body["run"] is None and body["model"] is None, "history", "a leave names a run or a model")
            self.leaves[name] = entry
        elif action == "erased":
            must(name in self.leaves and name not in self.erased, "history", "wrong-parent or slot-taken")
            self._follows(entry, self.leaves[name])
            self.erased.add(name)
        else:
            run = self._run(body)
            later = action == "extend" and body["rounds"] is None
            self._follows(entry, run.openings.get(body["round"], run.plan) if later else run.tip)
            if action in ("extend", "roll-back"):
                self._steer(run, entry, body)
            elif action == "run-ended":
                must(
                    run.open_round is None and body["model"] == run.model, "history", "run-ended: not its newest model"
                )
                run.ended = True
            else:
                run.paused = action == "pause"

    def _begin_lineage(self, entry: Entry, body: Json) -> None:
        """#recovery."""
        others = ("run", "round", "institution", "model", "deadline", "rounds")
        must(all(body[field] is None for field in others), "history", "a recovery's fields")
        self._follows(entry, self._newest_roster())
        must(body["missing_from"] == entry.index and body["given_up"] is not None, "history", "a recovery elsewhere")
        note = Note(body["given_up"].encode(), "history")
        must(note.is_by_log(self.genesis.body["log"]) and note.size > entry.index, "history", "gives nothing up")
        self.lineages.append((entry.index, note.size, note.head))

    def gave_up(self, note: Note) -> bool:
        """#verify-lineage: whether a note of another tree may be of a lineage that was given up."""
        return any((size, head) == (note.size, note.head) or at < note.size < size for at, size, head in self.lineages)

    def _steer(self, run: Run, entry: Entry, body: Json) -> None:
        """#steering."""
        fields = ("round", "model", "deadline", "rounds", "institution", "missing_from")
        given, number = {field for field in fields if body[field] is not None}, body["round"] or 0
        if body["action"] == "roll-back":
            must(given == {"model", "round"} - ({"round"} if not number else set()), "history", "a roll-back's fields")
            there = number == 0 or number in run.closings.keys() - run.taken_back
            must(run.open_round is None and there and run.standing[-1:] > [number], "history", "no such round before")
            run.go_back(number, entry)
            must(body["model"] == run.model, "history", "a roll-back to another model")
        elif "rounds" in given:
            free = not self.genesis.body["approvals"].get("plan", 0) and not run.is_evaluated()
            must(given == {"rounds"} and body["rounds"] > run.rounds and free, "history", "no such extension")
            run.rounds = body["rounds"]
        else:
            must(given == {"round", "deadline"} and number == run.open_round, "history", "no such open round")

    def _closing(self, body: Json) -> tuple[Run, Entry]:
        run = self._run(body, also_ended=True)
        must(body["round"] in run.closings, "history", "wrong-parent")
        return run, run.closings[body["round"]]

    def _admit_attestation(self, entry: Entry, body: Json) -> None:
        run, closing = self._closing(body)
        self._follows(entry, closing)
        trains = run.openings[body["round"]].body["task"] == "train"
        must(trains and closing.body["outcome"] == "committed", "history", "wrong-parent")
        must(body["institution"] in self.active(entry.index, "auditor"), "history", "wrong-signer")
        must(body["institution"] not in run.attestations[body["round"]], "history", "slot-taken")
        equal = body["model"] == closing.body["outputs"]["model"]
        must((body["result"] == "equal") == equal, "history", f"{entry.index}: `equal` exactly where it is")
        run.attestations[body["round"]][body["institution"]] = body["result"]

    def _admit_release(self, entry: Entry, body: Json) -> None:
        run, closing = self._closing(body)
        self._follows(entry, closing)
        made = closing.body["outcome"] == "committed" or run.openings[body["round"]].body["task"] == "evaluate"
        must(made and body["model"] == closing.body["outputs"]["model"], "history", "a release of another model")
        self._check_approvals(entry)
