"""Run a small federation and write what it said into docs/tour.md, between the markers: `make tour`.

Keys, digests and times differ from run to run. With --recording FILE nothing runs and the tour is made from that recording;
with --save FILE the recording is kept, as tests/support/tour_recording.json is.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from scripts.tour import before, outcome, work
from scripts.tour.ledger import TourLedger
from scripts.tour.markdown import markdown
from scripts.tour.recording import Recording, record

TOUR = Path(__file__).resolve().parents[1] / "docs" / "tour.md"
BEGIN, END = "<!-- tour:begin -->", "<!-- tour:end -->"


def render(recording: Recording) -> str:
    """The generated part of the tour."""
    ledger = TourLedger(recording)
    return markdown([step(ledger) for step in (*before.STEPS, *work.STEPS, *outcome.STEPS)])


def replaced(document: str, generated: str) -> str:
    """The document with another text between its markers.

    Raises:
        ValueError: it has not each marker once, in order.
    """
    before, begin, rest = document.partition(BEGIN)
    between, end, after = rest.partition(END)
    if not (begin and end) or BEGIN in between + after or END in after:
        raise ValueError(f"expected {BEGIN} and {END} once each, in this order")
    return f"{before}{BEGIN}\n\n{generated}\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the generated part of docs/tour.md.")
    parser.add_argument("--recording", type=Path, help="tell this recording instead of running a federation")
    parser.add_argument("--save", type=Path, help="keep the recording")
    arguments = parser.parse_args()
    if arguments.recording is not None:
        recording = Recording.from_json(arguments.recording.read_text())
    else:
        with tempfile.TemporaryDirectory() as folder:
            recording = record(Path(folder) / "consortium")
    if arguments.save is not None:
        arguments.save.write_text(recording.to_json())
    TOUR.write_text(replaced(TOUR.read_text(), render(recording)))


if __name__ == "__main__":
    main()
