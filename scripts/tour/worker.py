"""The worker of the tour: the tests' null worker, which writes down each line that passes its socket.

The lines go to messages.jsonl in this process's HOME, which the agent sets to the folder of jobs.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # started with -P, and tests/ is not installed

from participant.bench.worker_protocol import Message, ToWorker
from participant.worker.agent_side import AgentSide
from participant.worker.isolation import watch_lifeline
from tests.support.null_worker import NullWorker

COMMAND = (sys.executable, "-P", str(Path(__file__).resolve()))
MESSAGES = "messages.jsonl"


class WrittenDown(AgentSide):
    """A connection to the agent, with a record of it."""

    def send(self, message: Message) -> None:
        _write("worker", message)
        super().send(message)

    def receive(self) -> ToWorker:
        message = super().receive()
        _write("agent", message)
        return message


def _write(speaker: str, message: Message) -> None:
    line = json.dumps({"from": speaker, "message": message.model_dump(mode="json")})
    with (Path(os.environ["HOME"]) / MESSAGES).open("a") as file:
        file.write(line + "\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", required=True)
    parser.add_argument("--lifeline-fd", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1)
    arguments, _ = parser.parse_known_args()
    watch_lifeline(arguments.lifeline_fd)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(arguments.socket)
        NullWorker(WrittenDown(connection), arguments.threads).run()


if __name__ == "__main__":
    main()
