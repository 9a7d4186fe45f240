"""The same bytes without a protocol around them: each peer takes a model and sends a delta, over gRPC with the same TLS.

Same certificates, same channel options, same message sizes, synchronous server, a process each; but no digests, no disk, no
statements: bytes come from one buffer and are dropped on arrival. What a round costs beyond this is what the system costs.

    server prints {"address": …}, then {"seconds": …, "processor_seconds": …} for each repetition: from the moment when all
    peers stand ready until the last one's last byte is in; each peer prints its own {"processor_seconds": …}.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc

from common.wire.channel import (
    MOST_PIECE_BYTES,
    ServerTls,
    piece_bytes,
    server_options,
    work_channel,
    work_server_credentials,
)

SERVICE = "llmasos.benchmarks.Bare"
CONTENT = memoryview(os.urandom(MOST_PIECE_BYTES))


def pieces(total: int, size: int) -> Iterator[bytes]:
    """`total` bytes in messages of `size`."""
    piece = bytes(CONTENT[:size])
    for _ in range(total // size):
        yield piece
    if total % size:
        yield piece[: total % size]


class Bare:
    """The server's side: a barrier, a source and a sink."""

    def __init__(self, peers: int, total: int) -> None:
        self._total, self._piece_bytes = total, piece_bytes(peers)
        self._started = self._used = 0.0
        self._ready = threading.Barrier(peers, action=self._start)
        self._done = threading.Barrier(peers, action=self._report)

    def ready(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self._ready.wait()
        return b""

    def done(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self._done.wait()
        return b""

    def download(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        return pieces(self._total, self._piece_bytes)

    def upload(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        return str(sum(len(piece) for piece in requests)).encode()

    def handler(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Ready": grpc.unary_unary_rpc_method_handler(self.ready),
                "Done": grpc.unary_unary_rpc_method_handler(self.done),
                "Download": grpc.unary_stream_rpc_method_handler(self.download),
                "Upload": grpc.stream_unary_rpc_method_handler(self.upload),
            },
        )

    def _start(self) -> None:
        self._started, self._used = time.perf_counter(), time.process_time()

    def _report(self) -> None:
        seconds, used = time.perf_counter() - self._started, time.process_time() - self._used
        say({"seconds": seconds, "processor_seconds": used})


def say(value: dict[str, object]) -> None:
    print(json.dumps(value), flush=True)


def serve(identity: Path, *, peers: int, total: int) -> None:
    """Listen until this process is ended."""
    server = grpc.server(futures.ThreadPoolExecutor(4 * peers), options=server_options())
    server.add_generic_rpc_handlers((Bare(peers, total).handler(),))
    files = (identity / name for name in ("tls.key.pem", "tls.pem", "ca.pem"))
    port = server.add_secure_port(
        "127.0.0.1:0", work_server_credentials(ServerTls(*(file.read_bytes() for file in files)))
    )
    server.start()
    say({"address": f"127.0.0.1:{port}"})
    server.wait_for_termination()


def take_part(options: argparse.Namespace) -> None:
    """Take the model and send the delta, as often as asked."""
    key, certificate = (options.identity / name for name in ("tls.key.pem", "tls.pem"))
    channel = work_channel(
        options.address,
        consortium=options.consortium,
        ca_pem=options.ca.read_bytes(),
        key_pem=key.read_bytes(),
        cert_pem=certificate.read_bytes(),
    )
    with channel:
        ready, done = (channel.unary_unary(f"/{SERVICE}/{name}") for name in ("Ready", "Done"))
        download, upload = channel.unary_stream(f"/{SERVICE}/Download"), channel.stream_unary(f"/{SERVICE}/Upload")
        for _ in range(options.repetitions):
            ready(b"", wait_for_ready=True)
            used = time.process_time()
            received = sum(len(piece) for piece in download(b""))
            taken = int(upload(pieces(options.bytes, piece_bytes(options.peers))))
            if (received, taken) != (options.bytes, options.bytes):
                raise RuntimeError(f"moved {received} and {taken} bytes, expected {options.bytes} each")
            say({"processor_seconds": time.process_time() - used})
            done(b"")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=("server", "peer"))
    parser.add_argument("--identity", type=Path, required=True, help="folder with tls.key.pem and tls.pem")
    parser.add_argument("--bytes", type=int, required=True)
    parser.add_argument("--peers", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--address")
    parser.add_argument("--consortium")
    parser.add_argument("--ca", type=Path)
    options = parser.parse_args()
    if options.role == "server":
        serve(options.identity, peers=options.peers, total=options.bytes)
    else:
        take_part(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
