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


def curve(schedule: dict[str, object], steps: int = 40, total: int = 40) -> list[float]:
    """Rates as shares of the highest, 0.01."""
    local = {"sequence_length": 16, "optimizer": {"learning_rate": "0.01"}, "schedule": schedule}
    plan = a_plan(local=local)
    return [learning_rate(plan.local, global_step=step, total=total) / 0.01 for step in range(steps)]


def test_a_linear_schedule_falls_straight_to_its_end_and_stays_there() -> None:
    found = curve({"type": "linear", "warmup_steps": 3, "final_fraction": "0.2"}, steps=60)
    assert found[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert found[3] - found[4] == pytest.approx(0.8 / 36)
    assert found[38] - found[39] == pytest.approx(0.8 / 36)
    assert found[39:] == pytest.approx([0.2] * 21)


def test_warmup_stable_decay_is_flat_but_for_its_ends() -> None:
    schedule = {"type": "warmup-stable-decay", "warmup_steps": 3, "decay_fraction": "0.25", "final_fraction": "0"}
    found = curve(schedule, steps=45)
    assert found[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert found[3:30] == pytest.approx([1.0] * 27)
    assert found[30:40] == pytest.approx([0.1 * (9 - step) for step in range(10)], abs=1e-12)
    assert found[39:] == [0.0] * 6


def test_warmup_stable_decay_that_decays_all_the_time_is_linear() -> None:
    shares = {"warmup_steps": 5, "final_fraction": "0.1"}
    falling = curve({"type": "warmup-stable-decay", "decay_fraction": "1"} | shares)
    assert falling == pytest.approx(curve({"type": "linear"} | shares))


def test_inverse_sqrt_falls_with_the_root_of_the_step_whatever_the_runs_length() -> None:
    found = curve({"type": "inverse-sqrt", "warmup_steps": 3}, steps=64)
    assert found[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert [found[15], found[63]] == pytest.approx([0.5, 0.25])
    assert found == curve({"type": "inverse-sqrt", "warmup_steps": 3}, steps=64, total=1000)


def test_noam_is_the_papers_formula() -> None:
    """arXiv:1706.03762, equation 3: steps count from 1."""
    schedule = {"type": "noam", "warmup_steps": 4000, "d_model": 512}
    plan = a_plan(local={"sequence_length": 16, "optimizer": {"learning_rate": "1"}, "schedule": schedule})
    for step in (1, 100, 4000, 4001, 100_000):
        expected = 512**-0.5 * min(step**-0.5, step * 4000**-1.5)
        assert learning_rate(plan.local, global_step=step - 1, total=9) == pytest.approx(expected, rel=1e-12)


def test_no_schedule_leaves_its_bounds_in_runs_of_any_length() -> None:
    for name in ("cosine", "constant", "linear", "warmup-stable-decay", "inverse-sqrt"):
        for total in (1, 2, 7, 40):
            assert all(0 < share <= 1 for share in curve({"type": name, "warmup_steps": 5}, 60, total)), (name, total)
