"""Times that signed neighbours allow, and those that they rule out; who may be wrong without anybody being accused."""

from __future__ import annotations

import pytest

from common.ledger.notes import COSIGNATURE, NoteKey
from common.ledger.rules import admit, start
from common.statements.kinds import Control, PublicKey
from common.verify.changes import COORDINATOR, Changes, SignedTime
from common.verify.checkpoints import Cosigned
from common.verify.report import Outcome
from common.verify.times import TOLERANCE_SECONDS, check_times, moment
from tests.support.story import tell

NOON = 1_767_268_800
"""2026-01-01T12:00:00Z."""


def changes(*times: SignedTime, witnesses: tuple[str, ...] = ("a", "b", "c")) -> Changes:
    """These times, under a roster that names these witnesses from the beginning."""
    key = NoteKey("log/w", PublicKey(scheme="ed25519", public="00" * 32), COSIGNATURE)
    return Changes(list(times), {name: [(0, key)] for name in witnesses})


def at(index: int, seconds: float, signer: str = COORDINATOR) -> SignedTime:
    return SignedTime(index, "pause" if signer == COORDINATOR else "leave", NOON + seconds, signer)


def seen(size: int, seconds: int, *by: str) -> Cosigned:
    return Cosigned(size, dict.fromkeys(by, NOON + seconds))


ALLOWED = {
    "nothing is signed": ((), ()),
    "nobody else says when": ((at(3, 0),), ()),
    "back by less than the tolerance": ((at(3, 0), at(5, -TOLERANCE_SECONDS)), ()),
    "cosigned at once": ((at(3, 0),), (seen(4, 0, "a", "b", "c"),)),
    "cosigned a year later": ((at(3, 0),), (seen(4, 31_536_000, "a", "b", "c"),)),
    "one witness saw it before it was": ((at(3, 0),), (seen(4, -86_400, "a"), seen(4, 1, "b", "c"))),
    "one witness saw the ledger without it a day later": ((at(3, 0),), (seen(3, 86_400, "a"), seen(3, -1, "b", "c"))),
    "two of three are no majority of five": ((at(3, 0),), (seen(4, -86_400, "a", "b"),)),
}
WITNESSES_OF = {"two of three are no majority of five": ("a", "b", "c", "d", "e")}


@pytest.mark.parametrize("claim", ALLOWED)
def test_a_time_that_its_neighbours_allow_is_verified(claim: str) -> None:
    times, cosigned = ALLOWED[claim]
    check = check_times(changes(*times, witnesses=WITNESSES_OF.get(claim, ("a", "b", "c"))), cosigned)
    assert check.findings == ()
    assert check.examined.startswith(f"{len(times)} entries carry a signed time")


RULED_OUT = {
    "the coordinator goes back": (
        (at(3, 0), at(5, -TOLERANCE_SECONDS - 1)), (), 5,
        "The coordinator's time goes back: entry 5 (pause) was dated back, or entry 3 (pause) forward.",
        f"not before {moment(NOON)} (within 600 s)",
    ),
    "two of three had not seen it yet": (
        (at(3, 0),), (seen(3, 3600, "a", "b"), seen(4, 4000, "a", "b", "c")), 3,
        "Entry 3 (pause) was dated back: a majority of witnesses had not seen it yet at a later time than it claims.",
        f"not before {moment(NOON + 3600)} (within 600 s)",
    ),
    "two of three had cosigned it before": (
        (at(3, 0),), (seen(4, -3600, "a", "b"),), 3,
        "Entry 3 (pause) was dated forward: a majority of witnesses had cosigned it before the time that it claims.",
        f"not after {moment(NOON - 3600)} (within 600 s)",
    ),
    "the least of a majority decides": (
        (at(3, 0),), (seen(3, 90_000, "a"), seen(3, 3600, "b"), seen(4, 90_000, "a", "b", "c")), 3,
        "Entry 3 (pause) was dated back", f"not before {moment(NOON + 3600)} (within 600 s)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("claim", RULED_OUT)
def test_a_time_that_its_neighbours_rule_out_fails_with_both_times(claim: str) -> None:
    times, cosigned, leaf, text, expected = RULED_OUT[claim]
    (finding,) = check_times(changes(*times), cosigned).findings
    assert (finding.outcome, finding.leaf, finding.signer) == (Outcome.FAILED, leaf, COORDINATOR)
    assert finding.text.startswith(text)
    assert finding.expected == expected
    assert finding.got == moment(times[-1].seconds)


@pytest.mark.parametrize("seconds", [-86_400, 86_400])
def test_an_institution_with_a_wrong_clock_is_doubted_and_accuses_nobody(seconds: int) -> None:
    check = check_times(changes(at(2, 0), at(3, seconds, "north"), at(4, 1)), ())
    (finding,) = check.findings
    assert (finding.outcome, finding.leaf, finding.signer) == (Outcome.GAPS, 3, "north")
    assert finding.text == "The leave of north contradicts the coordinator's times: one of two clocks is wrong."


def test_one_entry_dated_forward_accuses_one_neighbour_and_not_all_after_it() -> None:
    times = [at(1, 0), at(2, 86_400), *(at(index, index) for index in range(3, 20))]
    assert [finding.leaf for finding in check_times(changes(*times), ()).findings] == [3]


def test_a_time_before_the_first_year_or_after_the_last_breaks_nothing() -> None:
    """A deadline in year 1 less a plan's deadline_seconds; a cosignature's seconds up to 2^63."""
    check = check_times(changes(at(3, -(10**14)), at(4, 0)), (seen(5, 2**62, "a", "b", "c"), seen(4, 2**62, "a", "b")))
    assert {finding.outcome for finding in check.findings} == {Outcome.FAILED}
    assert moment(2.0**62).endswith(" s after 1970")


def test_times_are_read_from_genesis_openings_and_controls() -> None:
    story = tell()
    recorded = Changes()
    genesis = start(story.federation.genesis.envelope)
    recorded.record(genesis)
    opened = admit(story.at["answered"], story.said["opened"].envelope)
    recorded.record(opened)
    end = next(each for each in story.said.values() if isinstance(each.predicate, Control))
    recorded.record(admit(story.at["closed"], end.envelope))
    assert [each.signer for each in recorded.times] == [COORDINATOR] * 3
    allowed = opened.state.runs[opened.statement.predicate.run].statement.plan.deadline_seconds  # type: ignore[union-attr]
    assert recorded.times[1].what == "opening of round 1 of tiny-0a1b2c"
    assert moment(recorded.times[1].seconds + allowed) == opened.statement.predicate.stages[-1].deadline  # type: ignore[union-attr]
