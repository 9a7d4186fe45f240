"""Members that lie, over the real wire, with clients of their own: every lie has its code, liars are named, the others finish.

The tables stand in tests/support/lies_*.py. All of them are told to one coordinator process while honest institutions work on
two runs there.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from common.ledger.state import RunRecord
from common.statements.kinds import Kind, Refusal
from tests.support.commands_run import run_command
from tests.support.drafts import make_draft
from tests.support.federations import COORDINATOR, NAMES, Federation
from tests.support.lies import OTHER_RUN, RUN, JsonLogging, Lie
from tests.support.lies_about_work import WORK
from tests.support.lies_in_statements import SPELLING, WHO_AND_WHERE
from tests.support.lies_on_the_wire import BLOBS, CALLS, DIGESTS, HARMLESS, OUTSIDE, WIRE
from tests.support.mallory import METRICS, SALT, Mallory, credentials, work_address
from tests.support.wire_client import Refused, WireClient, refusal

pytestmark = pytest.mark.xdist_group("hostile")

LIARS = ("eve", "mallory", "oscar", "peggy", "trudy", "victor")
OUTSIDER = "carol"
LIES = (*WHO_AND_WHERE, *SPELLING, *DIGESTS, *WORK, *BLOBS, *OUTSIDE, *CALLS, *WIRE)
"""In this order: four deltas a round are few, so the true one is begun by who lies about blobs, after its false ones."""
INSULTS = ("lie", "liar", "lying", "attack", "malicious", "cheat", "hostile", "fraud")


@dataclass
class Told:
    """What came of it."""

    federation: JsonLogging
    got: dict[str, Refused | None] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)
    again: dict[str, Refused | None] = field(default_factory=dict)
    replayed: list[int] = field(default_factory=list)
    runs: dict[str, RunRecord] = field(default_factory=dict)
    watched: str = ""
    viewed: dict[str, Any] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    folder = tmp_path_factory.mktemp("hostile")
    with ExitStack() as stack:
        federation = JsonLogging(folder / "federation", (*NAMES, *LIARS, OUTSIDER))
        stack.enter_context(federation)
        for name in NAMES:
            federation.start_participant(name)
        told = Told(federation)
        liars = _in_round_one(federation, stack)
        _tell_all(told, liars)
        _finish(told, liars)
        _look(told)
        yield told


def _in_round_one(federation: Federation, stack: ExitStack) -> dict[str, dict[str, Mallory]]:
    """Two runs whose first rounds are open and lack only the liars, by run and name. Stop rules that one liar could trip."""
    drafts = {
        RUN: make_draft(federation.folder / RUN, run=RUN, stop={"target_perplexity": "1.5", "patience_rounds": 1}),
        OTHER_RUN: make_draft(federation.folder / OTHER_RUN, run=OTHER_RUN, rounds=1),
    }
    peers = {
        name: stack.enter_context(WireClient(work_address(federation), credentials(federation, name)))
        for name in (*LIARS, OUTSIDER)
    }
    liars = {}
    for run, draft in drafts.items():
        liars[run] = {name: Mallory(federation, draft, peer, name) for name, peer in peers.items()}
        federation.start_run(draft)
        for name, liar in liars[run].items():
            liar.answer(accept=name != OUTSIDER)
    for run in drafts:
        federation.wait_until_open(run, 1)
        federation.wait_for(
            lambda state, run=run: len(state.runs[run].rounds[0].contributions) == 3, "three contributed"
        )
    return liars


def _tell_all(told: Told, liars: dict[str, dict[str, Mallory]]) -> None:
    for lie in LIES:
        told.got[lie.claim] = refusal(lambda lie=lie: lie.tell(liars[RUN][lie.by]))  # type: ignore[misc]
    for claim, tell in HARMLESS.items():
        told.got[claim] = refusal(lambda tell=tell: tell(liars[RUN]["mallory"]))  # type: ignore[misc]
    told.refusals = list(told.federation.of_kind(Kind.REFUSAL))


def _finish(told: Told, liars: dict[str, dict[str, Mallory]]) -> None:
    """The truth at last, but for mallory's metrics: they claim what would end the run, were it believed."""
    federation, mallory = told.federation, liars[RUN]["mallory"]
    boasting, despairing = METRICS.replace(b"39321600", b"0"), METRICS.replace(b"39321600", b"9007199254740991")
    for name in LIARS:
        liars[OTHER_RUN][name].tell_the_truth()
    first = {name: liars[RUN][name].tell_the_truth(_metrics(1) if name != "mallory" else boasting) for name in LIARS}
    federation.wait_until_open(RUN, 2)
    told.replayed = [mallory.peer.submit(first["mallory"], boasting, SALT)]
    rerun = mallory.payload() | {"subject": json.loads(_payload(first["mallory"]))["subject"]}
    told.again = {
        "the old parent in the new round": refusal(lambda: mallory.submit(rerun)),
        "the old round": refusal(lambda: mallory.submit(mallory.payload(round=1))),
    }
    mallory.tell_the_truth(despairing)
    told.again["a second contribution to one slot"] = refusal(  # while the round waits for the other liars
        lambda: mallory.submit(mallory.payload(weight={"mode": "clear", "num_tokens": 11}))
    )
    for name in LIARS:
        if name != "mallory":
            liars[RUN][name].tell_the_truth(_metrics(2))
    federation.wait_until_open(RUN, 3)
    for run, number in ((RUN, 3), (OTHER_RUN, 2)):
        federation.wait_until_open(run, number)
        for name in LIARS:
            liars[run][name].tell_the_truth()
        told.runs[run] = federation.wait_until_ended(run)
    told.again["a contribution to a run that ended"] = refusal(lambda: mallory.submit(mallory.payload()))


def _metrics(number: int) -> bytes:
    """What an honest institution with a null worker measures in that round."""
    return METRICS.replace(b"39321600", b"%d" % (39321600 // number))


def _payload(envelope: bytes) -> bytes:
    return base64.b64decode(json.loads(envelope)["payload"])


def _look(told: Told) -> None:
    """What an operator sees."""
    federation = told.federation
    home = str(federation.coordinator_home)
    told.watched = run_command(*COORDINATOR, "run", "watch", RUN, "--home", home)
    with federation.operator() as session:
        told.viewed = {view.run: view for view in session.runs()}
        told.viewed[RUN] = next(iter(session.watch(RUN)))
    told.log = federation.events()


# --- every lie -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: str(lie.claim))
def test_a_lie_has_its_code(told: Told, lie: Lie) -> None:
    assert told.got[lie.claim] == lie.answer


@pytest.mark.parametrize("claim", HARMLESS)
def test_it_is_harmless_and_taken(told: Told, claim: str) -> None:
    assert told.got[claim] is None


def test_no_claim_stands_twice() -> None:
    claims = [lie.claim for lie in LIES]
    assert len(claims) == len(set(claims))


def test_every_liar_stands_in_the_ledger_by_code_once_and_nobody_else_does(told: Told) -> None:
    expected = {(lie.by, *lie.recorded, lie.code) for lie in LIES if lie.recorded is not None}
    recorded = [(each.institution, each.run, each.round, each.attribution, each.code) for each in told.refusals]
    assert sorted(map(str, recorded)) == sorted(map(str, expected))
    assert {each.institution for each in told.refusals} <= {*LIARS, OUTSIDER}
    assert all(len(each.refused_sha256) == 64 for each in told.refusals)


# --- everybody finishes ------------------------------------------------------------------------------------------------------


def test_the_runs_of_the_honest_end_as_planned(told: Told) -> None:
    for run, rounds in ((RUN, 3), (OTHER_RUN, 2)):
        record = told.runs[run]
        assert record.ended is not None
        assert record.ended.reason == "rounds-done"
        assert [entry.closed.outcome for entry in record.rounds if entry.closed] == ["committed"] * rounds
        assert [sorted(entry.contributions) for entry in record.rounds] == [sorted((*NAMES, *LIARS))] * rounds


def test_metrics_that_boast_or_despair_stop_no_run(told: Told) -> None:
    """mallory claimed a perplexity of 1 in round 1, below the plan's target, and the worst there is in round 2."""
    assert len(told.runs[RUN].committed()) == 2


def test_the_same_bytes_again_mean_the_same_place(told: Told) -> None:
    assert told.replayed == [told.runs[RUN].rounds[0].contributions["mallory"].place.index]


def test_identical_deltas_count_where_each_sent_its_own_bytes(told: Told) -> None:
    contributions = told.runs[RUN].rounds[0].contributions
    assert len({contributions[name].contribution.blobs["delta"] for name in LIARS}) == 1


def test_what_was_true_once_is_not_taken_for_another_round(told: Told) -> None:
    assert told.again == {
        "the old parent in the new round": Refused("wrong-parent", "FAILED_PRECONDITION"),
        "the old round": Refused("round-not-open", "FAILED_PRECONDITION"),
        "a second contribution to one slot": Refused("slot-taken", "ALREADY_EXISTS"),
        "a contribution to a run that ended": Refused("round-not-open", "FAILED_PRECONDITION"),
    }


# --- and the operator sees it ------------------------------------------------------------------------------------------------


def test_the_runs_view_names_liar_code_and_evidence(told: Told) -> None:
    shown = {(each.institution, each.code, each.refused_sha256) for each in told.viewed[RUN].refusals}
    of_run = [each for each in told.refusals if each.run in (RUN, None)]
    assert len(of_run) > 20
    assert {(each.institution, each.code, each.refused_sha256) for each in of_run} <= shown


def test_run_watch_names_liar_and_code_in_neutral_words(told: Told) -> None:
    lines = [line for line in told.watched.splitlines() if line.startswith("refused")]
    for each in told.refusals:
        if each.run in (RUN, None):
            assert any(each.institution in line and each.code in line for line in lines), each
    assert all(letter == "\n" or letter.isprintable() for letter in told.watched)
    assert not [word for word in INSULTS if word in told.watched.lower().split()]


def test_the_log_names_liar_code_and_evidence_once(told: Told) -> None:
    logged = [
        (each["institution"], each["run"], each["round"], each["code"], each["refused_sha256"])
        for each in told.log
        if each["event"] == "refusal recorded"
    ]
    assert len(logged) == len(set(logged))
    for each in told.refusals:
        assert (each.institution, each.run, each.round, each.code, each.refused_sha256) in logged


def test_no_lie_is_a_bug_of_ours(told: Told) -> None:
    assert [each for each in told.log if "traceback" in each or each["level"] == "error"] == []
    assert "Traceback" not in told.federation.log("coordinator").read_text()


def test_a_refused_call_is_logged_with_who_and_what(told: Told) -> None:
    refused = {
        (each.get("institution"), each["method"], each["code"]) for each in told.log if each["event"] == "call refused"
    }
    assert (None, "/llmasos.v1.Operations/ListRuns", "role-missing") in refused
    assert ("mallory", "/llmasos.v1.Blobs/Begin", "wrong-parent") in refused
    assert ("carol", "/llmasos.v1.Blobs/Get", "not-authorised") in refused
    assert ("mallory", "/llmasos.v1.Work/Report", "malformed-message") in refused


def test_a_thousand_refusals_are_few_lines(told: Told) -> None:
    lines = [
        (each.get("institution"), each["method"], each["code"]) for each in told.log if each["event"] == "call refused"
    ]
    assert len(lines) <= 2 * len(set(lines))


def test_nothing_was_written_outside_the_blob_folders(told: Told, tmp_path: Path) -> None:
    blobs = told.federation.coordinator_home / "blobs"
    folders = {path.relative_to(blobs).parts[0] for path in blobs.rglob("*")}
    assert folders == {"blake3", "partial", "sent", "writing"}
    assert {path.name for path in (blobs / "sent").iterdir()} == {*NAMES, *LIARS}
    assert {path.name for path in (blobs / "partial").iterdir()} <= {*NAMES, *LIARS, "operator"}
