"""Who may be shown what: nobody by default, and never another institution's rows to an institution."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.contributions.visibility import expect_shown_to_operator, rows_shown_to
from common.errors import NotAuthorised
from common.ledger.state import RunRecord
from tests.support.coordinators import Coordinator
from tests.support.plans import a_plan


@pytest.fixture
def run(tmp_path: Path) -> RunRecord:
    coordinator = Coordinator(tmp_path / "coordinator")
    coordinator.open_round()
    coordinator.close()
    return coordinator.run


def under(run: RunRecord, **plan: Any) -> RunRecord:
    return replace(run, statement=run.statement.model_copy(update={"plan": a_plan(**plan)}))


def test_by_default_nobody_is_shown_anything(run: RunRecord) -> None:
    with pytest.raises(NotAuthorised, match=r"shows nobody what deltas did .* contributions_visibility is none"):
        rows_shown_to(run, "north")
    with pytest.raises(NotAuthorised, match="shows nobody what deltas did"):
        expect_shown_to_operator(run)


def test_own_is_the_institutions_alone(run: RunRecord) -> None:
    own = under(run, contributions_visibility="own", delta_audience=["court-auditor"])
    assert rows_shown_to(own, "north") == {"north"}
    assert rows_shown_to(own, "court-auditor") == {"court-auditor"}
    with pytest.raises(
        NotAuthorised, match=r"shows each institution alone what deltas did .* is own, expected operator"
    ):
        expect_shown_to_operator(own)


def test_operator_shows_the_operator_and_named_auditors_all_rows_and_others_their_own(run: RunRecord) -> None:
    all_rows = under(run, contributions_visibility="operator", delta_audience=["court-auditor"])
    expect_shown_to_operator(all_rows)
    assert rows_shown_to(all_rows, "north") == {"north"}
    assert rows_shown_to(all_rows, "court-auditor") is None
    assert rows_shown_to(all_rows, "uni-auditor") == {"uni-auditor"}
