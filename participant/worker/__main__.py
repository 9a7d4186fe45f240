"""The worker process; participant.bench.worker_link starts it, and it starts the other ranks (participant.worker.peers).

python -m participant.worker --socket PATH --lifeline-fd N --ranks N --threads N --snapshot-seconds S --agent-uid N
    [--tensorboard DIR]
python -m participant.worker --connection-fd N --lifeline-fd N --rank R --ranks N --store PATH --threads N
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import get_args

from common.errors import LLMasOSError
from llmasos.extras import require_extra, require_train
from participant.bench.worker_protocol import Sharding, WorkerError
from participant.worker.agent_side import AgentSide
from participant.worker.isolation import watch_lifeline
from participant.worker.peers import Peers, keep_to_loopback

LOST_EXIT = 73
"""Exit code of a worker that lost one of its ranks."""


def main() -> int:
    arguments = _parse()
    watch_lifeline(arguments.lifeline_fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.umask(0o077)
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s", level=logging.INFO)
    with _connection(arguments) as connection:
        agent = AgentSide(connection)
        try:
            require_train("torch", "transformers", "tokenizers", "safetensors", task="train")
            if arguments.tensorboard is not None:
                require_extra("tracking", "tensorboard", task="write TensorBoard's event files (worker.tensorboard)")
            return _work(agent, arguments)
        except LLMasOSError as err:
            agent.send(WorkerError(code=err.code, message=err.message, fix=err.fix, ending=True))
            return err.exit_code


def _work(agent: AgentSide, arguments: argparse.Namespace) -> int:
    ranks, store, peers = _ranks(arguments.ranks), arguments.store, None
    if ranks > 1:
        keep_to_loopback()
        if arguments.rank == 0:  # before torch is imported here, so that all import it at the same time
            store = Path(tempfile.mkdtemp(prefix="ranks-")) / "store"  # the folder's mode is 0700
            words = ("--threads", str(arguments.threads), "--sharding", arguments.sharding, "--store", str(store))
            peers = Peers.start(ranks, words, on_lost=lambda error: _lost(agent, error, store))
    # Here and not above: torch takes seconds to import, and without it the agent must still hear why.
    from participant.worker.session import Session, Settings

    settings = Settings(
        threads=arguments.threads,
        snapshot_seconds=arguments.snapshot_seconds,
        agent_uid=arguments.agent_uid,
        rank=arguments.rank,
        ranks=ranks,
        sharding=arguments.sharding,
        store=store,
        tensorboard=arguments.tensorboard,
    )
    try:
        return Session.start(agent, settings, peers).run()
    finally:
        if peers is not None:
            peers.close()
            shutil.rmtree(store.parent, ignore_errors=True)


def _ranks(wanted: str) -> int:
    """`auto`: as many as there are CUDA devices to see, else 1."""
    if wanted != "auto":
        return int(wanted)
    import torch

    return max(1, torch.cuda.device_count())


def _lost(agent: AgentSide, error: LLMasOSError | None, store: Path) -> None:
    """A rank is gone, and this one may stand in a sum that never ends: so from outside of it."""
    logging.getLogger(__name__).error("a rank is lost: %s", error or "nobody waits")
    if error is not None:
        agent.send(WorkerError(code=error.code, message=error.message, fix=error.fix, ending=True))
    shutil.rmtree(store.parent, ignore_errors=True)
    _exit(LOST_EXIT)


def _connection(arguments: argparse.Namespace) -> socket.socket:
    """To the agent, or to rank 0."""
    if arguments.connection_fd is not None:
        return socket.socket(fileno=arguments.connection_fd)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(arguments.socket)
    return connection


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m participant.worker", description="The training process.")
    parser.add_argument("--socket", help="the agent's Unix socket")
    parser.add_argument("--connection-fd", type=int, help="of a rank above 0: its socket to rank 0")
    parser.add_argument("--lifeline-fd", type=int, required=True, help="inherited pipe; its closing ends this process")
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--ranks", default="1", help="processes that train together, or auto")
    parser.add_argument("--sharding", default="none", choices=get_args(Sharding), help="how ranks share out the model")
    parser.add_argument("--store", type=Path, help="of a rank above 0: where ranks meet")
    parser.add_argument("--threads", type=int, default=int(os.environ.get("LLMASOS_WORKER_THREADS", "1")))
    parser.add_argument("--snapshot-seconds", type=float, default=300.0)
    parser.add_argument("--tensorboard", type=Path, help="folder for TensorBoard's event files")
    parser.add_argument("--agent-uid", type=int, default=os.getuid(), help="the user whom the agent runs as")
    return parser.parse_args()


def _exit(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    # All files are closed; taking torch down in order takes seconds and frees nothing that exit does not.
    os._exit(code)


if __name__ == "__main__":
    _exit(main())
