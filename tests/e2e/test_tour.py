"""`make tour` still runs: a federation of processes is recorded, and its story has the steps of docs/tour.md."""

from __future__ import annotations

from pathlib import Path

from common.statements.kinds import Kind
from scripts.make_tour import TOUR, render
from scripts.tour.ledger import TourLedger
from scripts.tour.recording import record


def test_a_recorded_federation_tells_the_steps_that_the_tour_has(tmp_path: Path) -> None:
    recording = record(tmp_path / "consortium")
    ledger = TourLedger(recording)
    assert [entry.predicate["code"] for entry in ledger.all(Kind.REFUSAL)] == ["slot-taken", "bad-signature"]
    assert [entry.predicate["attribution"] for entry in ledger.all(Kind.REFUSAL)] == ["signed-by", "sent-on-connection"]
    assert [entry.predicate["outcome"] for entry in ledger.all(Kind.ROUND_CLOSED)] == ["committed", "committed"]
    told, kept = (
        [line for line in text.splitlines() if line.startswith("### ")]
        for text in (render(recording), TOUR.read_text(encoding="utf-8"))
    )
    assert told == kept
    assert str(tmp_path) not in recording.to_json()
