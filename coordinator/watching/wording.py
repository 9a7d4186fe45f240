"""Neutral words for what is shown of peers.

A refusal names a code and where the evidence is, never an intention: a NaN is usually a bug.
"""

from __future__ import annotations

USUALLY = {
    "non-finite-delta": "usually a bug",
    "delta-too-long": "usually a learning rate that is too high",
    "model-overflow": "usually a learning rate that is too high",
    "wrong-tensors": "usually another release",
    "malformed-statement": "usually another release",
    "unsupported-protocol": "usually another release",
    "implausible-weight": "usually another plan or release",
    "corrupt-chunk": "usually a disk or memory fault",
    "truncated-chunk": "usually a broken transfer",
    "missing-blob": "usually a broken transfer",
    "round-not-open": "usually too late",
    "slot-taken": "usually a restored backup",
    "wrong-parent": "usually a restored backup",
    "bad-commitment": "usually another release",
    "not-in-cohort": "usually a message for another round",
}
"""What most often lies behind a refusal's code."""


def refused(code: str, *, round_number: int, run: bool = True) -> str:
    """`contribution refused: non-finite-delta (usually a bug)`.

    Args:
        round_number: 0 where the refusal concerns no round.
        run: whether it concerns a run.
    """
    what = "contribution" if round_number else "answer" if run else "statement"
    hint = f" ({USUALLY[code]})" if code in USUALLY else ""
    return f"{what} refused: {code}{hint}"


def attributed(attribution: str, institution: str) -> str:
    """Who stands for what was refused: its signer, or only the connection that it came on."""
    return f"signed by {institution}" if attribution == "signed-by" else f"sent on {institution}'s connection"
