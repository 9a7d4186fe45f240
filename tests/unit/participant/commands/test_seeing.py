"""status, egress and log: everything in them, at 80 columns, for people and for programs."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from common.clock import SystemClock, rfc3339
from common.identity.authority import Authority
from common.identity.keys import TlsKey
from common.terminal import WIDTH
from participant.datasets import DataSet, add_data_set
from participant.memory.journal import Egress
from participant.memory.orders import Order, Orders
from participant.memory.records import Alone, Event, Measurement, Records, Work
from tests.support.coordinators import Coordinator
from tests.support.participant_homes import ParticipantHome
from tests.support.participants import RUN

Output = pytest.CaptureFixture[str]
NOW = rfc3339(datetime.now(UTC))
LONG_AGO = "2026-01-01T00:00:00.000Z"


@pytest.fixture
def home(tmp_path: Path, coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> ParticipantHome:
    """An institution that took part in a round of a run."""
    monkeypatch.delenv("LLMASOS_HOME", raising=False)
    monkeypatch.setenv("TZ", "UTC")
    made = ParticipantHome(tmp_path / "home", coordinator)
    coordinator.enrol("auditor-a", roles=("auditor",))
    coordinator.open_round(rounds=3, delta_audience=("auditor-a",))
    for name in ("east", "north", "south"):
        coordinator[name].contribute()
    coordinator.advance()
    made.follow()
    add_data_set(made.layout, DataSet(folder=Path("/data/notes"), purpose="research under contract 7"))
    authority, request = Authority.load(coordinator.layout.identity), TlsKey.generate().csr("north")
    made.layout.identity.mkdir()
    expires = SystemClock().now() - timedelta(days=1)
    made.layout.tls_certificate.write_bytes(authority.issue_institution(request, "north", now=expires, days=30))
    return made


def keep(home: ParticipantHome) -> None:
    records, orders = Records(home.layout.journal), Orders(home.layout.journal)
    records.worked(Work(RUN, 1, LONG_AGO, 5400.0, "cpu", 100))
    for number, loss in ((1, 5.0), (2, 4.0)):
        records.measured(Measurement(RUN, number, "train", int(loss * 100 * 2**16), 100, LONG_AGO))
    records.trained_alone(Alone(RUN, 6, int(4.5 * 100 * 2**16), 100, LONG_AGO))
    records.note(Event(LONG_AGO, "plan answered", {"run": RUN, "accept": True, "reasons": []}))
    orders.give(Order("pause", {"until": "", "now": True}, LONG_AGO))
    records.close()
    orders.close()


@pytest.mark.parametrize(("count", "said"), [(0, None), (1, "1 proposal awaits"), (2, "2 proposals await")])
def test_status_says_that_proposals_await_approval(
    home: ParticipantHome, count: int, said: str | None, capsys: Output
) -> None:
    home.status().tell(open_proposals=count)
    assert home.run("status") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("approvals")]
    expected = [] if said is None else [f"{said} approval: llmasos-participant proposal list"]
    assert [" ".join(line.split()[1:]) for line in lines] == expected


def entries() -> tuple[Egress, ...]:
    return (
        Egress(LONG_AGO, "answer", 700, "aa" * 32, "127.0.0.1:7443"),
        Egress(NOW, "delta", 4_000_000, "bb" * 32, "127.0.0.1:7443"),
        Egress(NOW, "contribution", 1200, "cc" * 32, "127.0.0.1:7443"),
    )


def test_status_shows_everything_at_eighty_columns(home: ParticipantHome, capsys: Output) -> None:
    keep(home)
    home.book(*entries())
    status = home.status()
    status.connection("connected")
    status.doing("train round", run=RUN, round=2, deadline="2026-11-22T07:00:00.000Z")
    status.worker(device="cpu: x86_64", threads=2, capability="AVX2", isolated=False)
    status.tell(
        plans_waiting=[{"run": "other-1a2b3c", "why": "a person decides", "command": "llmasos-participant plan accept x"}],
        rounds_held=[
            {"run": RUN, "round": 2, "state": "outside-hours", "until": "2026-11-22T17:00:00.000Z",
             "deadline": "2026-11-22T23:00:00.000Z", "budgets": []}
        ],
    )  # fmt: skip
    assert home.run("status") == 0
    shown = capsys.readouterr().out
    assert all(len(line) <= WIDTH for line in shown.splitlines())
    text = " ".join(shown.split())
    for part in (
        "north of hospitals",
        f"train round: {RUN}, round 2, until 2026-11-22 07:00",
        f"round 2 of {RUN}: outside-hours until 2026-11-22 17:00",
        "other-1a2b3c: a person decides. Type: llmasos-participant plan accept x (or refuse)",
        "default: /data/notes (research under contract 7)",
        "4,001,200 bytes: delta 4,000,000, contribution 1,200",
        "readable by the coordinator, and the auditors auditor-a",
        "not isolated: the split guards against accidents only",
        f"run {RUN}: 1 of 3 rounds",
        "used cpu 1.5 of 100 hours",
        "perplexity on own text, by round: round 1: 148.4, round 2: 54.6",
        "alone 90.02 on own text after 6 steps without the others",
        "in 28 days",
        "pause at once, until: llmasos-participant resume",
    ):
        assert part in text, text


def test_status_shows_how_far_a_transfer_is_and_how_fast_it_may_be(home: ParticipantHome, capsys: Output) -> None:
    keep(home)
    path = home.layout.config
    path.write_text(path.read_text().replace("max_mbit_per_s: []", "max_mbit_per_s: [{up: 20, down: 50}]"))
    moving = {"bytes_done": 120_000_000, "bytes_total": 400_000_000, "bytes_per_second": 2_500_000}
    home.status().tell(transfer=moving)
    assert home.run("status") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "transfer 120.0 of 400.0 MB (30 %), 20 Mbit/s, about 2 min left" in text
    assert "speed at most up 20 Mbit/s, down 50 Mbit/s" in text
    assert home.run("status", "--format", "json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["transfer"], shown["speed"]) == (moving, {"up": 20.0, "down": 50.0, "until": ""})


def test_status_gives_programs_all_of_it(home: ParticipantHome, capsys: Output) -> None:
    keep(home)
    home.book(*entries())
    assert home.run("status", "--format", "json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["left_the_house"]["by_kind"] == {"delta": 4_000_000, "contribution": 1200}
    assert shown["left_the_house"]["readers"] == ["coordinator", "auditor-a"]
    (run,) = shown["runs"]
    assert [each["round"] for each in run["own_text"]] == [1, 2]
    assert {"budget": "cpu_hours", "used": 1.5, "limit": 100} in run["budgets"]
    assert shown["orders"] == [{"order": "pause", "until": "", "now": True, "at": LONG_AGO}]
    assert (shown["policy_problem"], shown["running"]) == ("", False)


def test_status_says_what_is_wrong_with_the_policy(home: ParticipantHome, capsys: Output) -> None:
    home.layout.policy.write_text("apiVersion: llmasos/v1\nanswer: perhaps\n")
    assert home.run("status") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "policy.yaml:2" in text
    assert "The last good one counts." in text


def test_egress_lists_what_left_with_sums(home: ParticipantHome, capsys: Output) -> None:
    home.book(*entries())
    assert home.run("egress") == 0
    shown = capsys.readouterr().out
    assert all(len(line) <= WIDTH for line in shown.splitlines())
    assert "delta" in shown
    assert "4,001,900" in shown
    assert home.run("egress", "--since", "7d", "--format", "json") == 0
    left = json.loads(capsys.readouterr().out)
    assert (left["bytes"], [entry["kind"] for entry in left["entries"]]) == (4_001_200, ["delta", "contribution"])


def test_egress_of_one_run(home: ParticipantHome, coordinator: Coordinator, capsys: Output) -> None:
    opened = coordinator.run.rounds[0].place.digest
    home.book(Egress(NOW, "reports", 90, opened, "127.0.0.1:7443"), *entries())
    assert home.run("egress", "--run", RUN[:6], "--format", "json") == 0
    left = json.loads(capsys.readouterr().out)
    assert [entry["kind"] for entry in left["entries"]] == ["reports"]
    assert home.run("egress", "--run", "unknown") == 2


def test_egress_of_nobody_and_since_nonsense(home: ParticipantHome, capsys: Output) -> None:
    assert home.run("egress") == 0
    assert capsys.readouterr().out == "Nothing left the house.\n"
    assert home.run("egress", "--since", "yesterday") == 2
    assert "expected a duration (7d, 12h) or RFC 3339" in capsys.readouterr().err


def test_log_shows_the_newest_events(home: ParticipantHome, capsys: Output) -> None:
    assert home.run("log") == 0
    assert capsys.readouterr().out == "Nothing has happened here yet.\n"
    keep(home)
    assert home.run("log") == 0
    assert capsys.readouterr().out == f"2026-01-01T00:00:00Z  plan answered  run={RUN}  accept=True  reasons=\n"
    assert home.run("log", "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)[0]["event"] == "plan answered"
