"""Transfers over a long, lossy way beside iperf3 with as many streams: 100 ms there and back, 1 % of the packets lost.

    python -m benchmarks.wan --streams 1,4,8                # as root; iperf3 where it is installed, else plain TCP sockets

One blob goes up and one comes down between two network namespaces (tests/support/longlink.py), through the real listener with
mutual TLS, digests and files, at one end and the participant's session at the other: over the bulk listener, as agents do, or
over gRPC with a window. `ratio` is ours by the yardstick's, in payload bits a second, each from the first byte to the last; the
yardstick runs for `--seconds`, before and after ours.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.blobs.reference import CHUNK_BYTES, BlobRef
from common.blobs.store import FolderBlobStore
from common.statements.kinds import Genesis
from common.wire.pacing import BYTES_PER_MBIT
from common.wire.session import Session, TlsFiles
from coordinator.api.server import ListenerSettings
from tests.support.api import ROUND, Consortium, listening
from tests.support.longlink import LongLink, Way, why_not

ROOT = Path(__file__).resolve().parents[1]
PORT, YARDSTICK_PORT = 7443, 5201
MIB = 1024 * 1024
PIECE = bytes(256 * 1024)


# --- ours -------------------------------------------------------------------------------------------------------------


def serve(folder: Path, address: str, window_mib: int) -> None:
    """A coordinator's listener; each line on standard input is a size, and answered with a blob of it to be fetched."""
    consortium = Consortium(folder)
    consortium.enrolled("north")
    (folder / "genesis.json").write_text(consortium.genesis.model_dump_json())
    settings = ListenerSettings(
        f"{address}:{PORT}",
        f"{address}:{PORT + 1}",
        bulk_address=None if window_mib else f"{address}:{PORT + 2}",
        window_bytes=max(1, window_mib) * MIB,
    )
    with listening(consortium, settings):
        print("ready", flush=True)
        for line in sys.stdin:
            for held, _ in tuple(consortium.store.list()):
                consortium.store.delete(held)
            made = random_blob(consortium.store, folder / "random", int(line))
            consortium.ports.access.allow("north", made)
            print(made.model_dump_json(), flush=True)


def move(folder: Path, address: str, blob: BlobRef, streams: int) -> dict[str, float]:
    """Fetch the blob, and send one of the same size; Mbit/s of each."""
    genesis = Genesis.model_validate_json((folder / "genesis.json").read_text())
    tls = TlsFiles(folder / "north.key.pem", folder / "north.pem")
    with tempfile.TemporaryDirectory(dir=folder) as own:
        store = FolderBlobStore(Path(own))
        with Session(f"{address}:{PORT}", genesis, tls, streams=streams) as session:
            session.round_trip_seconds()
            down = timed(lambda: session.download(blob, store, "north"))
            mine = random_blob(store, Path(own) / "random", blob.size)
            with store.open(mine) as reader:
                up = timed(lambda: session.upload(reader, ROUND))
        store.close()
    return {"up": blob.size / up / BYTES_PER_MBIT, "down": blob.size / down / BYTES_PER_MBIT}


def random_blob(store: FolderBlobStore, path: Path, size: int) -> BlobRef:
    with path.open("wb") as file:
        for start in range(0, size, CHUNK_BYTES):
            file.write(os.urandom(min(CHUNK_BYTES, size - start)))
    return store.ingest(path, "blake3", move=True)


def timed(action: Any) -> float:
    started = time.monotonic()
    if not action():
        raise RuntimeError("the transfer did not end")
    return time.monotonic() - started


# --- the yardstick ----------------------------------------------------------------------------------------------------


def plain_server(address: str) -> None:
    """What iperf3 does, where there is none: takes connections; the first byte says who sends."""
    listener = socket.create_server((address, YARDSTICK_PORT), backlog=64)
    print("ready", flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_plain, args=(connection,), daemon=True).start()


def _plain(connection: socket.socket) -> None:
    with connection:
        if connection.recv(1) == b"u":
            count = 0
            while data := connection.recv(len(PIECE)):
                count += len(data)
            connection.sendall(str(count).encode())
            return
        try:
            while True:
                connection.sendall(PIECE)
        except OSError:
            return


def plain_client(address: str, streams: int, seconds: float, direction: str) -> float:
    """Mbit/s that arrived over so many connections."""
    moved, started = [0] * streams, time.monotonic()
    ends = started + seconds

    def stream(number: int) -> None:
        with socket.create_connection((address, YARDSTICK_PORT)) as connection:
            connection.sendall(b"u" if direction == "up" else b"d")
            while time.monotonic() < ends:
                moved[number] += connection.send(PIECE) if direction == "up" else len(connection.recv(len(PIECE)))
            if direction == "up":
                connection.shutdown(socket.SHUT_WR)
                moved[number] = int(connection.recv(64))

    threads = [threading.Thread(target=stream, args=(number,)) for number in range(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(moved) / (time.monotonic() - started) / BYTES_PER_MBIT


@dataclass(frozen=True, slots=True)
class Yardstick:
    """iperf3, or plain sockets."""

    link: LongLink
    iperf3: str | None

    @property
    def name(self) -> str:
        return "iperf3" if self.iperf3 else "plain TCP"

    @contextmanager
    def serving(self) -> Iterator[None]:
        address = self.link.address("far")
        argv = (self.iperf3, "-s", "-B", address) if self.iperf3 else (*module("plain-server"), address)
        server = subprocess.Popen(self.link.on("far", *argv), cwd=ROOT, stdout=subprocess.DEVNULL)
        time.sleep(1.0)
        try:
            yield
        finally:
            server.kill()
            server.wait()

    def measure(self, streams: int, seconds: float, direction: str) -> float:
        """Mbit/s that arrived."""
        address = self.link.address("far")
        with self.serving():
            if self.iperf3 is None:
                argv = (*module("plain-client"), address, str(streams), str(seconds), direction)
                return float(run(self.link.on("near", *argv)))
            reverse = ("-R",) if direction == "down" else ()
            argv = (self.iperf3, "-c", address, "-P", str(streams), "-t", f"{seconds:g}", "-J", *reverse)
            found = json.loads(run(self.link.on("near", *argv)))
        return float(found["end"]["sum_received"]["bits_per_second"]) / 1e6


# --- side by side -----------------------------------------------------------------------------------------------------


class Ours:
    """A coordinator's listener on the far host."""

    def __init__(self, link: LongLink, folder: Path, window_mib: int) -> None:
        self._link, self._folder = link, folder
        argv = link.on("far", *module("serve"), str(folder), link.address("far"), str(window_mib))
        self._server = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer()

    def measure(self, streams: int, size: int) -> dict[str, float]:
        assert self._server.stdin is not None
        self._server.stdin.write(f"{size}\n")
        self._server.stdin.flush()
        blob = self._answer()
        argv = (*module("move"), str(self._folder), self._link.address("far"), blob, str(streams))
        found: dict[str, float] = json.loads(run(self._link.on("near", *argv)))
        return found

    def close(self) -> None:
        self._server.kill()
        self._server.communicate()

    def _answer(self) -> str:
        assert self._server.stdout is not None
        line = self._server.stdout.readline().strip()
        if not line:
            raise RuntimeError("the listener ended")
        return line


def compare(link: LongLink, streams: int, window_mib: int, seconds: float, iperf3: str | None) -> dict[str, Any]:
    """One row: the yardstick before and after ours."""
    yardstick = Yardstick(link, iperf3)
    before = {way: yardstick.measure(streams, seconds, way) for way in ("up", "down")}
    # As long as the yardstick by its own speed, and some chunks for each stream.
    size = max(int(seconds * max(before.values()) * BYTES_PER_MBIT), 4 * streams * CHUNK_BYTES)
    with tempfile.TemporaryDirectory(prefix="wan-") as folder:
        ours = Ours(link, Path(folder), window_mib)
        try:
            found = ours.measure(streams, size)
        finally:
            ours.close()
    after = {way: yardstick.measure(streams, seconds, way) for way in ("up", "down")}
    row: dict[str, Any] = {"streams": streams, "window_mib": window_mib, "yardstick": yardstick.name, "mb": size / 1e6}
    for way in ("up", "down"):
        measured = (before[way] + after[way]) / 2
        row[way] = {
            "yardstick_mbit": round(measured, 1),
            "each": [round(before[way], 1), round(after[way], 1)],
            "ours_mbit": round(found[way], 1),
            "ratio": round(found[way] / measured, 2),
        }
    return row


def module(*words: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "benchmarks.wan", *words)


def run(argv: tuple[str, ...]) -> str:
    return subprocess.run(argv, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def bench(options: argparse.Namespace) -> int:
    lacking = why_not()
    if lacking is not None:
        print(f"error: {lacking}", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the namespaces go, too
    way = Way(options.delay_ms / 1000, options.loss_percent / 100, options.rate_mbit)
    with LongLink(way) as link:
        if options.congestion:
            for host in ("near", "far"):
                link.congestion_control(host, options.congestion)
        usual = run(link.on("near", "sysctl", "-n", "net.ipv4.tcp_congestion_control")).strip()
        control = options.congestion or usual
        print(f"{2 * options.delay_ms:g} ms there and back, {options.loss_percent:g} % lost, {link.kind}, {control}")
        print(f"{'streams':>7}  {'window':>6}  {'MB':>6}  {'way':<4} {'yardstick':>16}  {'ours':>14}  ratio")
        rows = []
        for streams, window_mib in itertools.product(numbers(options.streams), numbers(options.window_mib)):
            window = window_mib or "bulk"
            row = compare(link, streams, window_mib, options.seconds, options.iperf3)
            rows.append(row)
            for direction in ("up", "down"):
                each = row[direction]
                print(
                    f"{streams:>7}  {window:>6}  {row['mb']:>6.0f}  {direction:<4} {each['yardstick_mbit']:>9.1f} Mbit/s"
                    f"  {each['ours_mbit']:>7.1f} Mbit/s  {each['ratio']:>5.2f}",
                    flush=True,
                )
    if options.json:
        machine = {"cores": os.cpu_count(), "load": os.getloadavg()[0], "kernel": platform.release()}
        said = {"link": link.kind, "congestion_control": control, "rows": rows, "machine": machine}
        Path(options.json).write_text(json.dumps(said, indent=2) + "\n")
    return 0


def numbers(text: str) -> list[int]:
    return [int(each) for each in text.split(",")]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", default="1,4,8", help="how many, one row each")
    parser.add_argument("--window-mib", default="0,1", help="0: the bulk listener; else gRPC, limits.window_mib")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement of the yardstick")
    parser.add_argument("--delay-ms", type=float, default=50.0, help="each way")
    parser.add_argument("--loss-percent", type=float, default=1.0, help="each way")
    parser.add_argument("--rate-mbit", type=float, default=0.0, help="of the link; 0: as much as the machine carries")
    parser.add_argument("--congestion", help="TCP's, such as cubic or bbr; default: the system's")
    parser.add_argument("--iperf3", default=shutil.which("iperf3"), help="default: from PATH; else plain TCP sockets")
    parser.add_argument("--json", metavar="FILE", help="where all figures go, too")
    return parser.parse_args()


def main() -> int:
    match sys.argv[1:]:
        case ["serve", folder, address, window_mib]:
            serve(Path(folder), address, int(window_mib))
        case ["move", folder, address, blob, streams]:
            print(json.dumps(move(Path(folder), address, BlobRef.model_validate_json(blob), int(streams))))
        case ["plain-server", address]:
            plain_server(address)
        case ["plain-client", address, streams, seconds, direction]:
            print(plain_client(address, int(streams), float(seconds), direction))
        case _:
            return bench(parse_arguments())
    return 0


if __name__ == "__main__":
    sys.exit(main())
