"""What a plan's weighting asks for, and how it is told."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from common.plan.explain import explain
from tests.support.plans import a_plan

LOCAL = {"steps": 100, "batch_size": 1024, "sequence_length": 1024}
WIDE = {"type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 16, "n_positions": 1024}


def told(**changes: Any) -> str:
    return "\n".join(explain(a_plan(**changes)).prose)


def test_bytes_beyond_what_stays_exact_are_refused_with_the_product() -> None:
    with pytest.raises(
        ValidationError, match=r"weighting.max_bytes_a_token is 838,860,800, at most 536,870,911 a round"
    ):
        a_plan(model=WIDE, local=LOCAL, weighting={"type": "bytes"})
    a_plan(model=WIDE, local=LOCAL, weighting={"type": "bytes", "max_bytes_a_token": 5})


@pytest.mark.parametrize("section", [{"type": "capped-tokens"}, {"type": "capped-tokens", "cap": 0}, {"type": "heads"}])
def test_a_weighting_that_is_none_is_refused(section: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="weighting"):
        a_plan(weighting=section)


def test_what_deltas_are_weighted_by_is_told() -> None:
    assert "mean of the deltas, weighted by tokens." in told()
    assert "weighted by tokens up to 1,000." in told(weighting={"type": "capped-tokens", "cap": 1000})
    assert "weighted by heads, each the same." in told(weighting={"type": "equal"})
    in_bytes = told(weighting={"type": "bytes"}, rule={"type": "geometric-median", "byzantine": 1})
    assert "geometric median of the deltas, weighted by bytes of text." in in_bytes
    assert (
        "signs a contribution that names it, with how many tokens it trained on and how many bytes these say (above 512 is"
        in in_bytes
    )
