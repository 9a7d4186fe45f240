"""One run of spin over round.pml.

    check(Question("safety", ("CRASHES=1",)), folder)      # Verdict(states=..., seconds=..., broken="")

spin writes a verifier in C, which the C compiler builds. Nothing is sampled or hashed away: every state is stored.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

MODEL = Path(__file__).with_name("round.pml")
LACKING = next(
    (
        f"{name} is not installed (Debian: apt install {package})"
        for name, package in (("spin", "spin"), ("cc", "gcc"))
        if shutil.which(name) is None
    ),
    "",
)
"""What stands in the way of checking, or nothing."""
MOST_SECONDS = 540


@dataclass(frozen=True, slots=True)
class Question:
    """What to check.

    Args:
        promise: `safety` are the assertions, in any state; `every-round-ends` holds for all fair runs: no process that
            can go on is passed over for ever.
        defines: sizes and mistakes of round.pml, each NAME or NAME=VALUE.
    """

    promise: Literal["safety", "every-round-ends"]
    defines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What spin found: how many states it stored, and what it says is broken, or nothing."""

    states: int
    seconds: float
    broken: str


SMALL = {
    "two institutions, one death": Question("safety", ("CRASHES=1",)),
    "one of two lies": Question("safety", ("LIAR", "ROUNDS=1", "CRASHES=1")),
    "every round ends": Question("every-round-ends", ("ROUNDS=1", "CRASHES=1")),
}
LARGE = {
    "two institutions, two deaths": Question("safety", ("CRASHES=2",)),
    "three institutions, one death": Question("safety", ("N=3", "ROUNDS=1", "CRASHES=1")),
    "one of two lies, two deaths": Question("safety", ("LIAR", "ROUNDS=1", "CRASHES=2")),
    "every round ends": Question("every-round-ends", ("CRASHES=1",)),
}
MISTAKES = {
    "ACKNOWLEDGES_FIRST": Question("safety", ("MUTANT_ACKNOWLEDGES_FIRST",)),
    "TAKES_WHAT_IS_LATE": Question("safety", ("MUTANT_TAKES_WHAT_IS_LATE",)),
    "TAKES_OVER": Question("safety", ("MUTANT_TAKES_OVER", "LIAR", "ROUNDS=1")),
    "SENDS_FIRST": Question("safety", ("MUTANT_SENDS_FIRST",)),
    "COMMITS_ALWAYS": Question("safety", ("MUTANT_COMMITS_ALWAYS",)),
    "WAITS_FOR_ALL": Question("every-round-ends", ("MUTANT_WAITS_FOR_ALL", "ROUNDS=1", "CRASHES=1")),
}


def check(question: Question, folder: Path) -> Verdict:
    """Visit every state, or as many as lie before the first that breaks the promise.

    Raises:
        RuntimeError: spin, the compiler or the verifier failed, or did not come to the end; with what it said.
    """
    started = time.monotonic()
    _run(["spin", *(f"-D{each}" for each in question.defines), "-a", str(MODEL)], folder)
    for_ever = question.promise == "every-round-ends"
    build = ["-DNFAIR=3"] if for_ever else ["-DSAFETY", "-DNOCLAIM"]
    _run(["cc", "-w", "-O2", "-DCOLLAPSE", *build, "-o", "pan", "pan.c"], folder)
    said = _run([str(folder / "pan"), "-m1000000", *(["-a", "-f"] if for_ever else [])], folder)
    states = re.search(r"([\d.e+]+) states, stored", said)
    errors = re.search(r"errors: (\d+)", said)
    if states is None or errors is None or "max search depth too small" in said:
        raise RuntimeError(f"spin did not come to the end:\n{said[-2000:]}")
    broken = re.search(r"pan:\d+: (.*) \(at depth", said)
    if (broken is not None) != (errors[1] != "0"):
        raise RuntimeError(f"spin counts {errors[1]} errors and names another number:\n{said[-2000:]}")
    return Verdict(int(float(states[1])), time.monotonic() - started, broken[1] if broken else "")


def _run(argv: list[str], folder: Path) -> str:
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=MOST_SECONDS, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{argv[0]} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout
