"""Which residual a round starts from, which ones are kept, and that a crash leaves the old file or the new one."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from common.errors import StorageFailure
from common.ledger.state import Contributed, Place, RoundRecord, RunRecord
from common.statements.kinds import Kind
from participant.residuals import Residuals, counts, needed_rounds, starting_round
from tests.support.statements import a_contribution, a_plan_statement, a_round_closed, a_round_opened

PLACE = Place(0, "0" * 64, Kind.PLAN)
US, OTHERS = "clinic", ("bank", "laboratory")


def a_round(number: int, fate: str) -> RoundRecord:
    """A round by what became of our delta."""
    opened = a_round_opened("0" * 64, round=number, task="evaluate" if fate == "evaluation" else "train")
    if fate == "open":
        return RoundRecord(PLACE, opened)
    statuses = {"used": "used", "evaluation": "used", "late": "late", "unused": "unused", "abandoned": "unused"}
    inputs = [{"institution": name, "contribution": "1" * 64, "num_tokens": 1, "status": "used"} for name in OTHERS]
    if fate in statuses:
        inputs.append({"institution": US, "contribution": "2" * 64, "num_tokens": 1, "status": statuses[fate]})
    outcome = "abandoned" if fate == "abandoned" else "committed"
    inputs.sort(key=lambda entry: str(entry["institution"]))
    given = {US: Contributed(PLACE, a_contribution(US, round=number))} if fate in statuses else {}
    return RoundRecord(PLACE, opened, given, closed=a_round_closed({}, round=number, outcome=outcome, inputs=inputs))


def a_run(fates: Sequence[str]) -> RunRecord:
    rounds = tuple(a_round(number, fate) for number, fate in enumerate(fates, 1))
    return RunRecord(PLACE, a_plan_statement(), rounds=rounds)


@pytest.mark.parametrize(
    ("fates", "start", "needed"),
    [
        ((), None, set()),
        (("open",), None, {1}),
        (("used",), 1, {1}),
        (("used", "used"), 2, {2}),
        (("used", "open"), 1, {1, 2}),
        (("used", "abandoned"), 1, {1}),
        (("used", "abandoned", "abandoned"), 1, {1}),
        (("used", "absent"), 1, {1}),
        (("used", "late"), 1, {1}),
        (("used", "unused"), 1, {1}),
        (("used", "late", "used"), 3, {3}),
        (("abandoned",), None, set()),
        (("absent", "late", "abandoned"), None, set()),
        (("used", "evaluation"), 1, {1}),
        (("abandoned", "used", "absent", "open", "open"), 2, {2, 4, 5}),
        (("open", "used"), 2, {1, 2}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_the_next_round_starts_from_the_newest_delta_that_is_in_the_model(
    fates: Sequence[str], start: int | None, needed: set[int]
) -> None:
    run = a_run(fates)
    assert starting_round(run, US, len(fates) + 1) == start
    assert needed_rounds(run, US) == needed


def test_a_round_that_is_encoded_again_starts_from_where_it_did() -> None:
    run = a_run(("used", "used", "open"))
    assert starting_round(run, US, 3) == 2
    assert starting_round(a_run(("used", "used", "used")), US, 3) == 2
    assert starting_round(run, US, 2) == 1
    assert starting_round(run, US, 1) is None


def test_an_abandoned_round_counts_for_nobody_whatever_its_inputs_say() -> None:
    record = a_round(1, "used")
    assert record.closed is not None
    assert counts(record, US)
    assert not counts(record, "stranger")
    closed = record.closed.model_copy(update={"outcome": "abandoned"})
    assert not counts(RoundRecord(PLACE, record.opened, closed=closed), US)
    assert not counts(a_round(1, "evaluation"), US)


# --- files --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def residuals(tmp_path: Path) -> Residuals:
    return Residuals(tmp_path / "residuals")


def put(residuals: Residuals, run: str, number: int, content: bytes) -> None:
    with residuals.replace(run, number) as new:
        new.write(memoryview(content))
        new.commit()


def files(residuals: Residuals) -> list[str]:
    folder = residuals.path("r", 1).parents[1]
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_residual_is_its_owners_alone(residuals: Residuals) -> None:
    put(residuals, "run-a", 7, b"12345678")
    path = residuals.path("run-a", 7)
    assert (path.name, path.read_bytes()) == ("7.f32", b"12345678")
    modes = [stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent, path.parents[1])]
    assert modes == [0o600, 0o700, 0o700]
    with residuals.open("run-a", 7, 2) as file:
        assert file is not None
        assert file.read() == b"12345678"


def test_what_is_missing_or_has_another_size_is_lost(residuals: Residuals) -> None:
    with residuals.open("run-a", 1, 2) as file:
        assert file is None
    put(residuals, "run-a", 1, b"1234567")
    with residuals.open("run-a", 1, 2) as file:
        assert file is None


def test_a_link_in_its_place_is_not_followed(residuals: Residuals, tmp_path: Path) -> None:
    put(residuals, "run-a", 1, b"1234")
    (tmp_path / "key").write_bytes(b"1234")
    residuals.path("run-a", 2).symlink_to(tmp_path / "key")
    with pytest.raises(StorageFailure, match=r"2\.f32"), residuals.open("run-a", 2, 1):
        pass


def test_until_it_is_whole_the_old_one_stays(residuals: Residuals) -> None:
    put(residuals, "run-a", 1, b"old!")
    with residuals.replace("run-a", 1) as new:
        new.write(memoryview(b"ne"))
    assert residuals.path("run-a", 1).read_bytes() == b"old!"
    assert files(residuals) == ["run-a", "run-a/1.f32"]
    (residuals.path("run-a", 1).parent / "1.writing").write_bytes(b"half of it, by a killed process")
    put(residuals, "run-a", 1, b"new!")
    assert residuals.path("run-a", 1).read_bytes() == b"new!"
    assert files(residuals) == ["run-a", "run-a/1.f32"]


def test_exactly_what_is_needed_is_kept(residuals: Residuals) -> None:
    residuals.keep_only({})
    for run in ("run-a", "run-b"):
        for number in (1, 2, 3):
            put(residuals, run, number, b"1234")
    (residuals.path("run-a", 1).parent / "4.writing").write_bytes(b"12")
    residuals.keep_only({"run-a": {2, 3, 4}, "run-c": {1}})
    assert files(residuals) == ["run-a", "run-a/2.f32", "run-a/3.f32"]
    residuals.keep_only({"run-a": ()})
    assert files(residuals) == []
