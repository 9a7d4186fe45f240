"""Contribution, round-closed, refusal and control: one thing spoiled at a time, and the code that says so."""

from __future__ import annotations

import pytest

from common.statements.envelope import Parent, sign
from tests.support.statements import NAMES, RUN, a_blob_ref, a_contribution
from tests.support.story import Spoiled, Story

MODEL_1 = a_blob_ref("model 1")
DELTA = {"delta": a_blob_ref("delta of north")}


def tokens(count: int) -> dict[str, object]:
    return {"mode": "clear", "num_tokens": count}


def inputs(s: Story, *, of: tuple[str, ...] = NAMES, **first: object) -> list[dict[str, object]]:
    """Every contribution; arguments change the first."""
    entries: list[dict[str, object]] = [
        {"institution": name, "contribution": s.said[name].digest, "num_tokens": 64, "status": "used"} for name in of
    ]
    return [entries[0] | first, *entries[1:]]


CONTRIBUTIONS = (
    Spoiled(
        "a contribution to no run",
        "opened",
        lambda s: s.contribution("north", run="other"),
        "wrong-parent",
        r"No run 'other' is in the ledger\.",
    ),
    Spoiled(
        "a contribution before any round",
        "answered",
        lambda s: s.contribution("north"),
        "wrong-parent",
        rf"Round 1 of {RUN} does not exist; the newest is 0\.",
    ),
    Spoiled(
        "a contribution to a future round",
        "opened",
        lambda s: s.contribution("north", round=2),
        "wrong-parent",
        rf"Round 2 of {RUN} does not exist; the newest is 1\.",
    ),
    Spoiled(
        "a contribution to another opening",
        "opened",
        lambda s: s.contribution("north", parent=s.said["plan"]),
        "wrong-parent",
        r"A contribution names plan [0-9a-f]{16}… as its parent, expected round-opened",
    ),
    Spoiled(
        "a contribution whose parent is named by another kind",
        "opened",
        lambda s: sign(
            a_contribution("north"),
            parent=Parent("plan", s.said["opened"].digest),
            key=s.federation.institutions["north"],
        ),
        "wrong-parent",
        r"A contribution names plan ",
    ),
    Spoiled(
        "the last round's contribution under a new number",
        "opened-2",
        lambda s: s.contribution("north", round=2),
        "wrong-parent",
        r"A contribution names round-opened [0-9a-f]{16}… as its parent, expected round-opened",
    ),
    Spoiled(
        "the very bytes of the last round's contribution",
        "opened-2",
        lambda s: s.said["north"],
        "wrong-parent",
        r"This contribution stands in the ledger already, at \d+\.",
    ),
    Spoiled(
        "a contribution to a closed round",
        "closed",
        lambda s: s.contribution("north", blobs={"delta": MODEL_1}),
        "round-not-open",
        rf"Round 1 of {RUN} is closed\.",
    ),
    Spoiled(
        "a contribution to an earlier round",
        "opened-2",
        lambda s: s.contribution("north", blobs={"delta": MODEL_1}),
        "round-not-open",
        rf"Round 1 of {RUN} is closed\.",
    ),
    Spoiled(
        "a contribution to a run that has ended",
        "ended",
        lambda s: s.contribution("north", blobs={"delta": MODEL_1}),
        "round-not-open",
        rf"Run {RUN} has ended: rounds-done\.",
    ),
    Spoiled(
        "a second contribution with another delta",
        "contributed",
        lambda s: s.contribution("north", blobs={"delta": MODEL_1}),
        "slot-taken",
        rf"north has contributed to round 1 of {RUN} already\.",
    ),
    Spoiled(
        "a second contribution with another weight",
        "contributed",
        lambda s: s.contribution("north", weight=tokens(63)),
        "slot-taken",
        rf"north has contributed to round 1 of {RUN} already\.",
    ),
    Spoiled(
        "a contribution signed by another member",
        "opened",
        lambda s: s.contribution("north", by="south"),
        "bad-signature",
        r"This contribution statement is signed by key",
    ),
    *(
        Spoiled(
            f"a contribution of {count:,} tokens",
            "opened",
            lambda s, count=count: s.contribution("north", weight=tokens(count)),  # type: ignore[misc]
            "implausible-weight",
            rf"num_tokens is {count:,}, expected 1 to 64 in a round of this plan\.",
        )
        for count in (0, 65, 2**29 - 1)
    ),
    Spoiled(
        "a contribution without a delta",
        "opened",
        lambda s: s.contribution("north", blobs={}),
        "malformed-statement",
        r"A contribution to a round of task train holds blobs \[\], expected \['delta'\]\.",
    ),
    Spoiled(
        "a contribution with a blob too many",
        "opened",
        lambda s: s.contribution("north", blobs=DELTA | {"control": MODEL_1}),
        "malformed-statement",
        r"holds blobs \['control', 'delta'\], expected \['delta'\]\.",
    ),
    Spoiled(
        "a masked blob in a run whose rule masks could be summed for",
        "opened",
        lambda s: s.contribution("north", blobs={"masked": MODEL_1}),
        "malformed-statement",
        r"holds blobs \['masked'\], expected \['delta'\]\.",
    ),
    Spoiled(
        "a contribution with a masked weight",
        "opened",
        lambda s: s.contribution("north", weight={"mode": "masked"}),
        "malformed-statement",
        r"The weight is masked, expected clear: this plan masks nothing\.",
    ),
    Spoiled(
        "a contribution with fields of later protocols",
        "opened",
        lambda s: s.contribution("north", relays=[{"to": "south", "message": MODEL_1}]),
        "malformed-statement",
        r"A contribution holds relays: not of this protocol version\.",
    ),
    Spoiled(
        "an evaluation with a delta",
        "evaluating",
        lambda s: s.contribution("north", parent=s.said["evaluating"], round=2, weight=tokens(0)),
        "malformed-statement",
        r"A contribution to a round of task evaluate holds blobs \['delta'\], expected \[\]\.",
    ),
    Spoiled(
        "an evaluation with a weight",
        "evaluating",
        lambda s: s.contribution("north", parent=s.said["evaluating"], round=2, blobs={}),
        "implausible-weight",
        r"num_tokens is 64, expected 0 to 0 in a round of this plan\.",
    ),
)

CLOSINGS = (
    Spoiled(
        "a closing of a round that is not open",
        "closed",
        lambda s: s.closed(reason="again"),
        "wrong-parent",
        rf"Round 1 of {RUN} is not open\.",
    ),
    Spoiled(
        "a closing after the plan",
        "contributed",
        lambda s: s.closed(parent=s.said["plan"]),
        "wrong-parent",
        r"A round-closed names plan [0-9a-f]{16}… as its parent, expected round-opened",
    ),
    Spoiled(
        "a closing with an input of one who gave none",
        "opened",
        lambda s: s.closed(),
        "ledger-conflict",
        r"Round 1 closes with an input of east that is not in the ledger\.",
    ),
    Spoiled(
        "a closing with another contribution of an institution",
        "contributed",
        lambda s: s.closed(inputs=inputs(s, contribution="ab" * 32)),
        "ledger-conflict",
        r"Round 1 closes with an input of east that is not in the ledger\.",
    ),
    Spoiled(
        "a closing with another weight",
        "contributed",
        lambda s: s.closed(inputs=inputs(s, num_tokens=63)),
        "ledger-conflict",
        r"Round 1 closes with an input of east that is not in the ledger\.",
    ),
    Spoiled(
        "a closing that leaves one out",
        "contributed",
        lambda s: s.closed(inputs=inputs(s, of=("east", "north"))),
        "ledger-conflict",
        r"Round 1 closes without a word on one of its contributions\.",
    ),
    Spoiled(
        "a commit with fewer used than the quorum",
        "contributed",
        lambda s: s.closed(inputs=inputs(s, status="unused")),
        "ledger-conflict",
        r"Round 1 was committed with 2 contributions, its quorum is 3\.",
    ),
    Spoiled(
        "an abandoned round with a used contribution",
        "contributed",
        lambda s: s.closed(outcome="abandoned", outputs={"model": a_blob_ref("model 0")}),
        "ledger-conflict",
        r"Round 1 was abandoned, and marks a contribution otherwise than unused\.",
    ),
    Spoiled(
        "an evaluation that nobody measured",
        "evaluating",
        lambda s: s.closed_evaluation(inputs=()),
        "ledger-conflict",
        r"Round 2 was committed with 0 contributions, its quorum is 1\.",
    ),
    Spoiled(
        "an abandoned round that changes the model",
        "contributed",
        lambda s: s.closed(outcome="abandoned", inputs=[{**each, "status": "unused"} for each in inputs(s)]),
        "ledger-conflict",
        r"Round 1 \(abandoned, train\) may not change the model\.",
    ),
    Spoiled(
        "an evaluation that changes the model",
        "evaluating",
        lambda s: s.closed_evaluation(outcome="abandoned", outputs={"model": a_blob_ref("model 2")}),
        "ledger-conflict",
        r"Round 2 \(abandoned, evaluate\) may not change the model\.",
    ),
    Spoiled(
        "a closing by another rule",
        "contributed",
        lambda s: s.closed(rule="median"),
        "ledger-conflict",
        r"Round 1 was closed by rule median, the plan says weighted-mean\.",
    ),
    Spoiled(
        "a closing with a server_state that its plan makes none of",
        "contributed",
        lambda s: s.closed(outputs={"model": MODEL_1, "server_state": MODEL_1}),
        "ledger-conflict",
        r"Round 1 closes with server_state of \d+ bytes, by its plan None\.",
    ),
)

OTHERS = (
    Spoiled(
        "a refusal of a round that hangs on the roster",
        "opened",
        lambda s: s.refusal(parent=s.said["roster"]),
        "wrong-parent",
        r"A refusal names roster [0-9a-f]{16}… as its parent, expected round-opened",
    ),
    Spoiled(
        "a refusal of a run that hangs on its round",
        "opened",
        lambda s: s.refusal(parent=s.said["opened"], round=None),
        "wrong-parent",
        r"A refusal names round-opened [0-9a-f]{16}… as its parent, expected plan",
    ),
    Spoiled(
        "a refusal that hangs on nothing",
        "plan",
        lambda s: s.refusal(parent=s.said["closed"], run=None, round=None),
        "wrong-parent",
        r"A refusal names round-closed [0-9a-f]{16}… as its parent, expected roster",
    ),
    Spoiled(
        "a control of a run that has ended",
        "ended",
        lambda s: s.control("pause", parent=s.said["closed"]),
        "round-not-open",
        rf"Run {RUN} has ended: rounds-done\.",
    ),
    Spoiled(
        "a control of no run",
        "closed",
        lambda s: s.control("pause", parent=s.said["closed"], run=None),
        "wrong-parent",
        r"No run None is in the ledger\.",
    ),
    Spoiled(
        "a control that hangs on the plan though a round was closed",
        "closed",
        lambda s: s.control("pause", parent=s.said["plan"]),
        "wrong-parent",
        r"A control names plan [0-9a-f]{16}… as its parent, expected round-closed",
    ),
    Spoiled(
        "an end while a round is open",
        "opened",
        lambda s: s.control("run-ended", parent=s.said["plan"], model=a_blob_ref("model 0")),
        "ledger-conflict",
        rf"Run {RUN} ends while round 1 is open\.",
    ),
    Spoiled(
        "an end that names another model than the newest",
        "closed",
        lambda s: s.control("run-ended", parent=s.said["closed"], model=a_blob_ref("model 0")),
        "ledger-conflict",
        rf"Run {RUN} ends with model .*, the newest committed is blake3:",
    ),
    *(
        Spoiled(
            f"a control {action}",
            "closed",
            lambda s, action=action: s.control(action, parent=s.said["closed"]),  # type: ignore[misc]
            "malformed-statement",
            rf"Control {action} is not of this protocol version\.",
        )
        for action in ("abort",)
    ),
)

ALL = (*CONTRIBUTIONS, *CLOSINGS, *OTHERS)


@pytest.mark.parametrize("spoiled", ALL, ids=str)
def test_it_is_refused_and_nothing_changes(story: Story, spoiled: Spoiled) -> None:
    spoiled.check(story)
