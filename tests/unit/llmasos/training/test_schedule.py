"""The learning rate's curve: a pure function of the global step."""

from __future__ import annotations

import pytest

from llmasos.training.schedule import learning_rate, total_rate, total_steps
from tests.support.plans import a_plan

LOCAL = a_plan(
    local={
        "steps": 25,
        "sequence_length": 16,
        "optimizer": {"type": "adamw", "learning_rate": "0.01"},
        "schedule": {"type": "cosine", "warmup_steps": 4, "final_fraction": "0.1"},
    },
    rounds=4,
)


def rate(step: int) -> float:
    return learning_rate(LOCAL.local, global_step=step, total=total_steps(LOCAL))


def test_warm_up_starts_above_zero_and_reaches_the_full_rate() -> None:
    assert [rate(step) for step in range(5)] == pytest.approx([0.002, 0.004, 0.006, 0.008, 0.01])


def test_the_rates_of_a_round_add_up() -> None:
    found = total_rate(LOCAL.local, first_step=50, steps=25, total=total_steps(LOCAL))
    assert found == pytest.approx(sum(rate(step) for step in range(50, 75)))


def test_cosine_ends_at_the_final_fraction_and_stays_there() -> None:
    assert total_steps(LOCAL) == 100
    assert rate(99) == pytest.approx(0.001)
    assert rate(250) == pytest.approx(0.001)
    assert all(rate(step) >= rate(step + 1) for step in range(4, 120))


def test_half_way_the_cosine_is_half_way() -> None:
    assert (rate(51) + rate(52)) / 2 == pytest.approx(0.0055, rel=1e-3)


def test_a_constant_schedule_stays_after_warm_up() -> None:
    plan = a_plan(local={"sequence_length": 16, "schedule": {"type": "constant", "warmup_steps": 1}})
    rates = [learning_rate(plan.local, global_step=step, total=10) for step in range(12)]
    assert rates == pytest.approx([0.001] + [0.002] * 11)


def test_a_warm_up_longer_than_the_run_never_ends_badly() -> None:
    plan = a_plan(local={"sequence_length": 16, "schedule": {"type": "cosine", "warmup_steps": 50}})
    assert learning_rate(plan.local, global_step=60, total=10) == pytest.approx(0.0002)
