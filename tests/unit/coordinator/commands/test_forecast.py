"""A dry run's arithmetic: bytes, disk, time, hours, quorum."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from common.blobs.reference import CHUNK_BYTES
from common.codecs import CODECS
from common.statements.kinds import PlanStatement
from common.tensors import delta_size, model_size
from common.windows import Window
from coordinator.commands import dry_run
from coordinator.commands.forecast import Forecast, Measurement, Measuring, disk_of, finished, forecast, traffic_of
from coordinator.ports import EstimateView
from tests.support.blobs import leaves_and_ref, tensor_manifest
from tests.support.coordinators import BASE, TOKENIZER
from tests.support.participants import MANIFEST, RUN
from tests.support.plans import a_plan

MODEL, DELTA, TOKENS = model_size(MANIFEST), delta_size(MANIFEST), len(TOKENIZER)
THURSDAY_NOON = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
NIGHTS = "mon-fri 18:00-07:00 UTC"
HERE = Measuring(Measurement("cpu: x86_64", 90.0, 1000.0, 400_000_000, 0))


def a_draft(**plan: Any) -> PlanStatement:
    initial = {"model": leaves_and_ref(BASE)[1], "tokenizer": leaves_and_ref(TOKENIZER)[1]}
    return PlanStatement.model_validate({"run": RUN, "plan": a_plan(**plan), "manifest": MANIFEST, "initial": initial})


def word(name: str, verdict: str = "accept", seconds: float = 0.0, *hours: str) -> EstimateView:
    return EstimateView(name, verdict, (), seconds, hours)


def foretold(*words: EstimateView, measuring: Measuring = HERE, free: int = 10**12, **plan: Any) -> Forecast:
    return forecast(a_draft(**plan), words, measuring, free, THURSDAY_NOON)


# --- bytes ---------------------------------------------------------------------------------------------------------------


def test_traffic_is_a_model_down_and_a_delta_up_each_round_and_the_final_model() -> None:
    traffic = traffic_of(a_draft(rounds=5), cohort=3)
    assert (traffic.round_down, traffic.round_up) == (MODEL, DELTA)
    assert (traffic.institution_down, traffic.institution_up) == (6 * MODEL + TOKENS, 5 * DELTA)
    assert traffic.coordinator_down == 3 * traffic.institution_down


def test_of_a_model_with_an_adapter_rounds_after_the_first_fetch_the_chunks_that_change() -> None:
    manifest = tensor_manifest(trainable={"adapter": (10,)}, frozen={"embedding": (3, 1_048_576)})
    draft = a_draft(rounds=5).model_copy(update={"manifest": manifest})
    model, traffic = model_size(manifest), traffic_of(draft, cohort=3)
    assert (traffic.model, traffic.round_down, traffic.round_up) == (model, CHUNK_BYTES, delta_size(manifest))
    assert traffic.institution_down == TOKENS + model + 5 * CHUNK_BYTES
    told = " ".join(" ".join(dry_run._facts(replace(foretold(), traffic=traffic))).split())
    assert "fetches 4.2 MB and sends 168 B; the first fetches 12.6 MB" in told
    assert "; the first fetches" not in " ".join(dry_run._facts(foretold()))


@pytest.mark.parametrize("name", ["bfloat16", "int8", "int4"])
def test_deltas_travel_and_are_kept_as_the_codec_makes_them(name: str) -> None:
    draft = a_draft(rounds=5, codec={"type": name})
    encoded = CODECS[name].encoded_size(MANIFEST)
    assert encoded < DELTA
    assert traffic_of(draft, cohort=3).round_up == encoded
    assert disk_of(draft, 3) == 6 * MODEL + 15 * encoded + TOKENS


def test_disk_follows_retention() -> None:
    assert disk_of(a_draft(rounds=5), 3) == 6 * MODEL + 15 * DELTA + TOKENS, "everything is kept"
    assert disk_of(a_draft(rounds=50, retention={"delta_rounds": 1}), 3) == 4 * MODEL + 6 * DELTA + TOKENS
    few = disk_of(a_draft(rounds=50, retention={"delta_rounds": 1}), 3)
    assert disk_of(a_draft(rounds=5000, retention={"delta_rounds": 1}), 3) == few


def test_disk_follows_retention_by_bytes() -> None:
    """Five institutions, quorum 3: room for two rounds of three deltas, which have three base models with the open one."""
    bound = a_draft(rounds=50, retention={"delta_bytes": 6 * DELTA})
    assert disk_of(bound, 5) == 5 * MODEL + (6 + 5) * DELTA + TOKENS
    assert disk_of(a_draft(rounds=50, retention={"delta_bytes": 1}), 5) == 4 * MODEL + (5 + 5) * DELTA + TOKENS
    both = a_draft(rounds=50, retention={"delta_bytes": 10**9, "delta_rounds": 1})
    assert disk_of(both, 5) == disk_of(a_draft(rounds=50, retention={"delta_rounds": 1}), 5)
    wide = a_draft(rounds=5, retention={"delta_bytes": 10**9})
    assert disk_of(wide, 5) == disk_of(a_draft(rounds=5), 5)


def test_a_full_disk_is_a_warning() -> None:
    found = foretold(word("east"), word("north"), word("south"), free=100)
    assert any(warning.startswith("The coordinator's disk lacks room:") for warning in found.warnings)


# --- who takes part ------------------------------------------------------------------------------------------------------


def test_enough_accept() -> None:
    found = foretold(word("east"), word("north"), word("south"), word("west", "refuse"))
    assert (found.accept, found.ask, found.enough, found.cohort) == (3, 0, True, 3)
    assert found.warnings == ()
    assert dry_run.exit_code(found) == 0


def test_those_who_would_ask_a_person_count_with_a_warning() -> None:
    found = foretold(word("east"), word("north", "ask"), word("south", "ask"))
    assert (found.accept, found.ask, found.enough) == (1, 2, True)
    assert found.warnings == (
        "Quorum needs people: 1 would accept by themselves, the plan needs 3; 2 would ask somebody.",
    )


def test_too_few_is_exit_3() -> None:
    found = foretold(word("east"), word("north", "silent"), word("south", "refuse"))
    assert not found.enough
    assert dry_run.exit_code(found) == 3
    assert found.warnings[0] == ("Quorum cannot be met: 1 of 3 institutions would accept or ask, the plan needs 3.")


def test_the_slowest_who_would_take_part_sets_the_time() -> None:
    found = foretold(word("east", "accept", 30.0), word("north"), word("south", "refuse", 9999.0), rounds=4)
    assert [each.seconds_per_round for each in found.institutions] == [30.0, 90.0, 9999.0]
    assert [each.measured_there for each in found.institutions] == [True, False, True]
    assert (found.seconds_per_round, found.seconds) == (90.0, 360.0)


def test_without_any_measurement_nothing_is_invented() -> None:
    found = foretold(
        word("east"), word("north"), word("south"), measuring=Measuring(reason="torch is not installed here")
    )
    assert (found.seconds, found.measurement, found.worker_memory_measured) == (0.0, None, False)
    text = dry_run.in_words(found)
    assert "not on this machine: torch is not installed here" in text
    assert "time        unknown: nobody measured" in text
    assert "not measured" in text


def test_whoever_needs_longer_than_the_deadline_is_named() -> None:
    found = foretold(word("east", "accept", 4000.0), word("north"), word("south"), deadline_seconds=3600)
    assert found.warnings == ("east needs about 4,000 s a round, more than deadline_seconds, 3,600.",)


# --- hours ---------------------------------------------------------------------------------------------------------------


def test_work_pauses_outside_the_windows() -> None:
    windows = [Window.parse("daily 22:00-23:00 UTC")]
    assert finished(windows, THURSDAY_NOON, 600) == THURSDAY_NOON + timedelta(hours=10, minutes=10)
    assert finished(windows, THURSDAY_NOON, 5400) == THURSDAY_NOON + timedelta(hours=34, minutes=30)
    assert finished([], THURSDAY_NOON, 5400) == THURSDAY_NOON + timedelta(seconds=5400)


def test_hours_that_some_rounds_miss_are_a_warning_with_the_deadline_that_would_do() -> None:
    found = foretold(word("east", "accept", 60.0, NIGHTS), word("north"), word("south"), deadline_seconds=3600)
    (warning,) = found.warnings
    assert warning == (
        "east is available mon-fri 18:00-07:00 UTC: of a round that opens at 2026-01-03T07:00:00.000Z it would miss the "
        "deadline; all would be met with deadline_seconds 212,460."
    )


def test_hours_that_no_round_can_meet_are_said_so() -> None:
    found = foretold(
        word("east", "accept", 5400.0, "daily 22:00-23:00 UTC"), word("north"), word("south"), deadline_seconds=7200
    )
    (warning,) = found.warnings
    assert "cannot finish a round within deadline_seconds, 7,200: it takes" in warning


def test_hours_within_the_deadline_are_fine() -> None:
    found = foretold(word("east", "accept", 60.0, NIGHTS), word("north"), word("south"), deadline_seconds=400_000)
    assert found.warnings == ()


def test_hours_of_a_newer_release_do_not_break_the_forecast() -> None:
    found = foretold(word("east", "accept", 60.0, "whenever it rains"), word("north"), word("south"))
    assert found.warnings[0].startswith("east states hours that this release cannot read: ")


# --- in words ------------------------------------------------------------------------------------------------------------


def test_the_words_fit_80_columns_and_end_with_the_verdict() -> None:
    long = EstimateView("n" * 40, "refuse", ("budget-gpu-hours", "quorum-too-small", "metrics-visibility"), 0.0, ())
    text = dry_run.in_words(foretold(word("east", "accept", 60.0, NIGHTS), word("north", "ask"), word("south"), long))
    assert max(map(len, text.splitlines())) <= 80
    assert text.splitlines()[-1] == "Enough: 2 would accept, 1 would ask, quorum 3."
    assert "codes: budget-gpu-hours," in text
    assert "1.0 min" not in text


def test_as_data_it_is_json_with_the_verdict() -> None:
    data = dry_run.as_data(foretold(word("east"), word("north"), word("south")))
    assert data["enough"] is True
    assert data["measurement"]["device"] == "cpu: x86_64"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"device": "cpu", "seconds_per_round": "x"}'])
def test_output_that_is_no_measurement_is_said_so(text: str) -> None:
    assert dry_run._measurement(text).reason.startswith("`llmasos plan measure` printed something else")
