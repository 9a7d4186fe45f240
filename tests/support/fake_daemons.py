"""Stand-ins for llmasos-coordinator and llmasos-participant, for tests of what starts them.

    python fake_daemons.py coordinator init|start|institution|run …
    python fake_daemons.py participant join|start …
    python fake_daemons.py coordinator|participant verify …

They take the same arguments, write the same few files and print the same lines, and do nothing else. `FAKES` is the pair of
commands. A file `script.json` in the coordinator's home says how `run watch` behaves: {"views": […], "exit": 0}; one named
`deaf` in any home makes the daemon ignore SIGTERM, one named `broken` makes it fail at once.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from common.resources import read_config
from llmasos.simulation.deployment import Commands

FAKES = Commands(
    coordinator=(sys.executable, __file__, "coordinator"), participant=(sys.executable, __file__, "participant")
)
NAMES = ("north", "south", "west")


def a_view(*, rounds: int = 2, ended: bool = True, losses: tuple[float, ...] = (6.0, 5.0, 4.0)) -> dict[str, Any]:
    """A run's view as `run watch` prints it: `rounds` committed rounds and the final evaluation, mean losses in nats."""

    def evaluations(loss: float) -> list[dict[str, Any]]:
        sums = [
            {
                "scope": name,
                "loss_sum_fixed": round((loss + place / 10) * 1000 * 2**16),
                "num_tokens": 1000,
                "institutions": 1,
            }
            for place, name in enumerate(NAMES)
        ]
        total = sum(round((loss + place / 10) * 1000 * 2**16) for place in range(len(NAMES)))
        return [{"scope": "pooled", "loss_sum_fixed": total, "num_tokens": 3000, "institutions": 3}, *sums]

    def entry(number: int) -> dict[str, Any]:
        task = "train" if number <= rounds else "evaluate"
        return {
            "round": number,
            "task": task,
            "outcome": "committed",
            "cohort": list(NAMES),
            "contributors": list(NAMES),
            "seconds": 1.5,
            "bytes_down": 300_000,
            "bytes_up": 150_000 if task == "train" else 0,
            "evaluations": evaluations(losses[number - 1]),
            "reason": "all-in",
        }

    return {
        "run": "tiny-abc123",
        "plan_name": "tiny",
        "phase": "ended" if ended else "collecting",
        "round": rounds + 1 if ended else rounds,
        "rounds_planned": rounds,
        "participants": [
            {"institution": name, "state": "contributed", "steps_done": 2, "steps_total": 2, "loss_fixed": 4 * 2**16}
            | {"tokens_done": 64, "tokens_per_second": 900.5, "bytes_up": 50_000, "bytes_down": 100_000}
            for name in NAMES
        ],
        "rounds": [entry(number) for number in range(1, rounds + (2 if ended else 0))],
        "end_reason": "rounds-done" if ended else "",
        "model": {"algorithm": "blake3", "size": 10, "root": "ab" * 32} if ended else None,
        "deadline": "",
    }


def _init(home: Path, options: Namespace) -> None:
    home.mkdir(parents=True, exist_ok=True)
    lines = f"listen:\n  work: {options.work_address}\n  enrolment: {options.enrolment_address}\n  bulk: auto\n"
    (home / "coordinator.yaml").write_text(lines)


def _join(home: Path, options: Namespace) -> None:
    home.mkdir(parents=True, exist_ok=True)
    (home / "participant.yaml").write_text(f"data: {options.data}\nthreads: {options.threads}\nranks: auto\n")
    (home / "policy.yaml").write_text(read_config("policy.yaml"))
    print(f"joined with {Path(options.invitation_file).read_text().strip()}")


def _start(home: Path, options: Namespace) -> None:
    """Listen to nothing until SIGTERM or the end of the lifeline."""
    if (home / "broken").exists():
        sys.exit("error [port-in-use]: broken as asked")
    if (home / "deaf").exists():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    addresses = {
        "work": "127.0.0.1:41234",
        "enrolment": "127.0.0.1:41235",
        "bulk": "127.0.0.1:41236",
        "pid": os.getpid(),
    }
    (home / "addresses.json").write_text(json.dumps(addresses))
    select.select([options.lifeline_fd], [], [])


def _watch(home: Path) -> None:
    script = json.loads((home / "script.json").read_text())
    for view in script["views"]:
        print(json.dumps(view), flush=True)
    sys.exit(script["exit"])


def _verify(home: Path) -> None:
    """As told by `verified.json` in the home, else verified; a home that is none gives no report."""
    told = home / "verified.json"
    report = json.loads(told.read_text()) if told.exists() else a_report()
    print(json.dumps(report))
    sys.exit({"verified": 0, "verified-with-gaps": 4, "failed": 1}[report["result"]])


def a_report(result: str = "verified", *findings: str) -> dict[str, Any]:
    """A verification's report as --format json prints it, as far as it is read."""
    found = [{"outcome": result, "leaf": 7, "text": text} for text in findings]
    rounds = {"name": "rounds", "examined": "2 of 2 recomputed here, equal in every bit", "findings": found}
    return {"result": result, "entries": 12, "root": "ab" * 32, "checks": [rounds]}


def _operate(home: Path, options: Namespace) -> None:
    match options.words:
        case ["invite", name]:
            print(f"invitation of {name}")
        case ["start", folder]:
            (home / "prepared").write_text(folder)
            print("run started\ntiny-abc123")
        case ["watch", _]:
            _watch(home)
        case ["export", _]:
            model = Path((home / "prepared").read_text()) / "model.safetensors"
            Path(options.out).write_bytes(model.read_bytes())
        case words:
            sys.exit(f"no fake of {words}")


def main() -> None:
    parser = ArgumentParser()
    parser.add_argument("role")
    parser.add_argument("command")
    parser.add_argument("words", nargs="*")
    for flag in ("home", "consortium", "work-address", "enrolment-address", "format", "out", "invitation-file", "data"):
        parser.add_argument(f"--{flag}")
    parser.add_argument("--text-column")
    parser.add_argument("--blobs")
    parser.add_argument("--no-fetch", action="store_true")
    parser.add_argument("--threads")
    parser.add_argument("--lifeline-fd", type=int)
    options = parser.parse_args()
    home = Path(options.home)
    match (options.role, options.command):
        case ("coordinator", "init"):
            _init(home, options)
        case ("participant", "join"):
            _join(home, options)
        case (_, "start"):
            _start(home, options)
        case (_, "verify"):
            _verify(home)
        case _:
            _operate(home, options)


if __name__ == "__main__":
    main()
