"""The same bytes through bare gRPC, a process for each side (bare_grpc.py), with a federation's own certificates."""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from llmasos.simulation.layout import Layout
from llmasos.simulation.processes import Child, Lines, Processes, failed
from measuring.federation import CONSORTIUM, Settings

SCRIPT = Path(__file__).resolve().parents[1] / "bare_grpc.py"
BARE_SECONDS = 1800.0


@dataclass(frozen=True, slots=True)
class Bare:
    """What each repetition took; processor seconds of the server, and of all peers together."""

    seconds: list[float]
    server_seconds: list[float]
    peer_seconds: list[float]

    @property
    def processor_seconds(self) -> tuple[float, float]:
        """Of the server and of all peers, means of a repetition."""
        return statistics.mean(self.server_seconds), statistics.mean(self.peer_seconds)

    @property
    def median_seconds(self) -> float:
        return statistics.median(self.seconds)


def measure_bare(settings: Settings, layout: Layout, processes: Processes) -> Bare:
    """As many repetitions as there are rounds; the federation in `layout` has run before, and left its identities.

    Raises:
        OperationError: a process failed, or all took longer than BARE_SECONDS.
    """
    script = [sys.executable, "-P", str(SCRIPT)]
    size = ["--bytes", str(settings.bytes), "--repetitions", str(settings.rounds)]
    identity = layout.coordinator / "identity"
    crowd = ["--peers", str(settings.participants)]
    listen = ["server", "--identity", str(identity), *crowd]
    server = processes.start("bare server", [*script, *listen, *size], log=layout.log("bare-server"), capture=True)
    address = str(json.loads(server.stdout.readline())["address"])
    dial = ["--address", address, "--consortium", CONSORTIUM, "--ca", str(identity / "ca.pem")]
    peers = [
        processes.start(
            f"bare peer {name}",
            [*script, "peer", "--identity", str(layout.participant(name) / "identity"), *crowd, *size, *dial],
            log=layout.log(f"bare-{name}"),
            capture=True,
        )
        for name in settings.names
    ]
    found = read_repetitions([server, *peers], settings.rounds)
    processes.stop([*peers, server])
    return Bare(
        [each["seconds"] for each in found[server]],
        [each["processor_seconds"] for each in found[server]],
        [sum(found[peer][index]["processor_seconds"] for peer in peers) for index in range(settings.rounds)],
    )


def read_repetitions(children: list[Child], count: int) -> dict[Child, list[dict[str, float]]]:
    """`count` lines of each child."""
    lines = Lines()
    for child in children:
        lines.add(child)
    found: dict[Child, list[dict[str, float]]] = {child: [] for child in children}
    deadline = time.monotonic() + BARE_SECONDS
    try:
        while any(len(each) < count for each in found.values()):
            for child, line in lines.wait(0.5):
                found[child].append(json.loads(line))
            for child in children:
                gone = child.exit_code is not None and len(found[child]) < count and child not in lines.open
                if child.exit_code not in {None, 0} or gone or time.monotonic() > deadline:
                    raise failed(child)
    finally:
        lines.close()
    return found
