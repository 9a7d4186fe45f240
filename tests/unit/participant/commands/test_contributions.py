"""contributions at an institution: its own row and nobody else's; at an auditor that the plan names, every row."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from common.contributions.figures import round_figures
from common.errors import CoordinatorUnreachable
from participant.commands import verifying
from tests.support.auditors import Auditor, Link
from tests.support.coordinators import Coordinator
from tests.support.participant_homes import ParticipantHome
from tests.support.participants import RUN

Output = pytest.CaptureFixture[str]
Start = Callable[..., ParticipantHome]


class Session(Link):
    """A session is closed when it is done with."""

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


@pytest.fixture
def start(tmp_path: Path, coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> Start:
    """A home after a run to its end, and a link to the coordinator under that institution's name."""
    monkeypatch.delenv("LLMASOS_HOME", raising=False)

    def begin(name: str = "north", **plan: Any) -> ParticipantHome:
        if name == "court-auditor":
            Auditor(tmp_path / "office", coordinator, name)
        coordinator.start_run(**{"contributions_visibility": "own"} | plan)
        coordinator.play()
        home = ParticipantHome(tmp_path / "home", coordinator, name)
        home.follow()
        monkeypatch.setattr(verifying, "member_session", lambda *_: Session(coordinator, name))
        return home

    return begin


def rows(capsys: Output) -> list[dict[str, Any]]:
    data = json.loads(capsys.readouterr().out)
    return [row for figures in data["rounds"] for row in figures["rows"]]


def test_an_institution_sees_its_own_row_with_the_operators_very_numbers(
    start: Start, coordinator: Coordinator, capsys: Output
) -> None:
    home = start()
    assert home.run("contributions", RUN, "--format", "json") == 0
    found = rows(capsys)
    assert [(row["round"], row["institution"]) for row in found] == [(1, "north"), (2, "north")]
    for row, record in zip(found, coordinator.run.committed(), strict=True):
        (_, north, _) = round_figures(coordinator.run, record, coordinator.blobs).rows
        assert (row["l2"], row["cosine"], row["share"]) == (north.l2, north.cosine, north.share)
    assert list(home.layout.home.rglob("*.blob")) == [], "what was fetched is deleted again"


def test_also_where_the_operator_sees_all(start: Start, tmp_path: Path, capsys: Output) -> None:
    home = start(contributions_visibility="operator", delta_audience=["court-auditor"])
    plot = tmp_path / "own.svg"
    assert home.run("contributions", RUN, "--plot", str(plot)) == 0
    out = capsys.readouterr().out
    assert "north" in out
    assert "south" not in out
    assert "south" not in plot.read_text()
    assert "rounds 1 to 2, north" in plot.read_text()


def test_where_the_plan_says_nothing_nobody_is_shown_anything(start: Start, capsys: Output) -> None:
    assert start(contributions_visibility="none").run("contributions", RUN) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert f"error [not-authorised]: The plan of {RUN} shows nobody what deltas did to the model" in err


def test_an_auditor_that_the_plan_names_sees_every_row(start: Start, capsys: Output) -> None:
    home = start("court-auditor", contributions_visibility="operator", delta_audience=["court-auditor"])
    assert home.run("contributions", RUN, "--round", "1", "--format", "json") == 0
    found = rows(capsys)
    assert [row["institution"] for row in found] == ["east", "north", "south"]
    assert all(row["cosine"] is not None for row in found)


@pytest.mark.parametrize(
    "plan",
    [
        {"contributions_visibility": "own", "delta_audience": ["court-auditor"]},
        {"contributions_visibility": "operator"},
    ],
    ids=["own", "not in the audience"],
)
def test_any_other_auditor_sees_none(start: Start, capsys: Output, plan: dict[str, Any]) -> None:
    assert start("court-auditor", **plan).run("contributions", RUN) == 2
    assert f"No delta that may be shown was used in these rounds of {RUN}." in capsys.readouterr().err


def test_without_a_coordinator_tokens_and_shares_are_known_and_the_rest_is_said(
    start: Start, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    home = start()

    def unreachable(*_: object) -> Session:
        raise CoordinatorUnreachable("127.0.0.1:7443 does not answer.")

    monkeypatch.setattr(verifying, "member_session", unreachable)
    assert home.run("contributions", RUN, "--round", "2") == 0
    out, err = capsys.readouterr()
    assert "going on with what is held here: 127.0.0.1:7443 does not answer." in err
    assert "Round 2, north: no norm and cosine: base model not held here." in out
    assert "34.1 %" in out, "15 of 44 tokens"
