"""The worker process; participant.bench.worker_link starts it.

python -m participant.worker --socket PATH --lifeline-fd N --threads N --snapshot-seconds S --agent-uid N [--tensorboard DIR]
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
from pathlib import Path

from common.errors import MissingExtra
from llmasos.extras import require_extra, require_train
from participant.bench.worker_protocol import WorkerError
from participant.worker.agent_side import AgentSide
from participant.worker.isolation import watch_lifeline


def main() -> int:
    arguments = _parse()
    watch_lifeline(arguments.lifeline_fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.umask(0o077)
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s", level=logging.INFO)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(arguments.socket)
        agent = AgentSide(connection)
        try:
            require_train("torch", "transformers", "tokenizers", "safetensors", task="train")
            if arguments.tensorboard is not None:
                require_extra("tracking", "tensorboard", task="write TensorBoard's event files (worker.tensorboard)")
        except MissingExtra as err:
            agent.send(WorkerError(code=err.code, message=err.message, fix=err.fix))
            return err.exit_code
        # Here and not above: torch takes seconds to import, and without it the agent must still hear why.
        from participant.worker.session import Session

        return Session.start(
            agent,
            threads=arguments.threads,
            snapshot_seconds=arguments.snapshot_seconds,
            agent_uid=arguments.agent_uid,
            tensorboard=arguments.tensorboard,
        ).run()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m participant.worker", description="The training process.")
    parser.add_argument("--socket", required=True, help="the agent's Unix socket")
    parser.add_argument("--lifeline-fd", type=int, required=True, help="inherited pipe; its closing ends this process")
    parser.add_argument("--threads", type=int, default=int(os.environ.get("LLMASOS_WORKER_THREADS", "1")))
    parser.add_argument("--snapshot-seconds", type=float, default=300.0)
    parser.add_argument("--agent-uid", type=int, default=os.getuid(), help="the user whom the agent runs as")
    parser.add_argument("--tensorboard", type=Path, help="folder for TensorBoard's event files")
    return parser.parse_args()


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(
        code
    )  # all files are closed; taking torch down in order takes seconds and frees nothing that exit does not
