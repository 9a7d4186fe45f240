"""What this machine can do at best, measured in the same run as what is compared with it.

    memcpy, blake3, seal, open, sockets    GB a second of one thread's processor time, median of some repetitions
    cache_*                                the same for files in the page cache: new, written over, read
    disk_*                                 GB a second of elapsed time until a file is durable: new, written over
    fsync_ms                               elapsed milliseconds until 4 KiB more of a file are durable

seal and open are AES-128-GCM in records of 16 KiB, by OpenSSL; gRPC's BoringSSL has the same assembly. sockets is a TCP stream
over loopback, both ends together.
"""

from __future__ import annotations

import os
import platform
import socket
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from common.blobs import digest
from common.blobs.reference import CHUNK_BYTES
from common.wire.channel import MESSAGE_BYTES
from measuring.accounting import GIGABYTE, MEGABYTE

RECORD_BYTES = 16 * 1024
NONCE = bytes(12)
PAGE = 4096


@dataclass(frozen=True, slots=True)
class Effort:
    """How much each measurement moves, and how often it is repeated."""

    memory_bytes: int = 256 * MEGABYTE
    disk_bytes: int = 512 * MEGABYTE
    repeats: int = 5
    fsyncs: int = 50


QUICK = Effort(memory_bytes=32 * MEGABYTE, disk_bytes=16 * MEGABYTE, repeats=3, fsyncs=10)


@dataclass(frozen=True, slots=True)
class Limits:
    """GB/s, but for the last; see the module."""

    memcpy: float
    blake3: float
    seal: float
    open: float
    sockets: float
    cache_new: float
    cache_over: float
    cache_read: float
    disk_new: float
    disk_over: float
    fsync_ms: float

    @property
    def disk(self) -> float:
        """What the disk takes for good, GB/s: the better of its two rates, so that no bound is too kind."""
        return max(self.disk_new, self.disk_over)

    def report(self) -> dict[str, float]:
        return {name: round(value, 3) for name, value in asdict(self).items()}


def measure(folder: Path, effort: Effort) -> Limits:
    """Takes some seconds; `folder` is where the benchmark's files lie."""
    seal, opened = tls_rates(effort)
    disk = disk_rates(folder, effort)
    return Limits(
        memcpy=memcpy_rate(effort),
        blake3=blake3_rate(effort),
        seal=seal,
        open=opened,
        sockets=socket_rate(effort),
        **disk,
        fsync_ms=fsync_ms(folder, effort),
    )


def processor_seconds(work: Callable[[], object]) -> float:
    """Of this process, all threads together."""
    started = time.process_time()
    work()
    return max(time.process_time() - started, 1e-9)


def elapsed_seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def rate(nbytes: int, seconds: list[float]) -> float:
    """GB a second, by the median."""
    return nbytes / statistics.median(seconds) / GIGABYTE


def memcpy_rate(effort: Effort) -> float:
    source = np.ones(effort.memory_bytes // 4, np.float32)
    target = np.empty_like(source)
    np.copyto(target, source)  # its pages exist from here on
    times = [processor_seconds(lambda: np.copyto(target, source)) for _ in range(effort.repeats)]
    return rate(source.nbytes, times)


def blake3_rate(effort: Effort) -> float:
    """Of leaves, as blobs have them."""
    chunk = memoryview(os.urandom(CHUNK_BYTES))
    chunks = max(1, effort.memory_bytes // CHUNK_BYTES)

    def work() -> None:
        for _ in range(chunks):
            digest.leaf("blake3", chunk)

    return rate(chunks * CHUNK_BYTES, [processor_seconds(work) for _ in range(effort.repeats)])


def tls_rates(effort: Effort) -> tuple[float, float]:
    """Sealing and opening records."""
    cipher = AESGCM(os.urandom(16))
    plain = os.urandom(RECORD_BYTES)
    sealed = cipher.encrypt(NONCE, plain, None)
    records = effort.memory_bytes // RECORD_BYTES

    def seal() -> None:
        for _ in range(records):
            cipher.encrypt(NONCE, plain, None)  # one nonce for all: nobody is kept from reading what is thrown away

    def unseal() -> None:
        for _ in range(records):
            cipher.decrypt(NONCE, sealed, None)

    nbytes = records * RECORD_BYTES
    return (
        rate(nbytes, [processor_seconds(seal) for _ in range(effort.repeats)]),
        rate(nbytes, [processor_seconds(unseal) for _ in range(effort.repeats)]),
    )


def socket_rate(effort: Effort) -> float:
    """TCP over loopback in gRPC's message size."""
    content = os.urandom(MESSAGE_BYTES)
    messages = effort.memory_bytes // MESSAGE_BYTES

    def read_all(end: socket.socket) -> None:
        into = memoryview(bytearray(MESSAGE_BYTES))
        while end.recv_into(into):
            pass

    def work() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            sender = socket.create_connection(server.getsockname())
            receiver, _ = server.accept()
        with receiver:
            reading = threading.Thread(target=read_all, args=(receiver,))
            reading.start()
            with sender:
                for _ in range(messages):
                    sender.sendall(content)
            reading.join()

    return rate(messages * MESSAGE_BYTES, [processor_seconds(work) for _ in range(effort.repeats)])


def disk_rates(folder: Path, effort: Effort) -> dict[str, float]:
    """A new file, and the same written over; both through the page cache, then fsync."""
    path = folder / "disk-rate"
    chunk = memoryview(os.urandom(CHUNK_BYTES))
    chunks = max(1, effort.disk_bytes // CHUNK_BYTES)
    times: dict[str, list[float]] = {
        name: [] for name in ("cache_new", "cache_over", "cache_read", "disk_new", "disk_over")
    }

    def write(fd: int) -> None:
        for index in range(chunks):
            os.pwrite(fd, chunk, index * CHUNK_BYTES)

    def read(fd: int) -> None:
        into = memoryview(bytearray(CHUNK_BYTES))
        for index in range(chunks):
            os.preadv(fd, [into], index * CHUNK_BYTES)

    for _ in range(effort.repeats):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            for kind in ("new", "over"):
                started = time.perf_counter()
                times[f"cache_{kind}"].append(processor_seconds(lambda fd=fd: write(fd)))  # type: ignore[misc]
                os.fsync(fd)
                times[f"disk_{kind}"].append(time.perf_counter() - started)
            times["cache_read"].append(processor_seconds(lambda fd=fd: read(fd)))  # type: ignore[misc]
        finally:
            os.close(fd)
            path.unlink()
    return {name: rate(chunks * CHUNK_BYTES, found) for name, found in times.items()}


def fsync_ms(folder: Path, effort: Effort) -> float:
    """The median; as a database's log grows, a page a commit."""
    path = folder / "fsync"
    page = os.urandom(PAGE)
    with path.open("wb", buffering=0) as file:

        def commit() -> None:
            file.write(page)
            os.fsync(file.fileno())

        times = [elapsed_seconds(commit) for _ in range(effort.fsyncs)]
    path.unlink()
    return statistics.median(times) * 1000


def description() -> dict[str, object]:
    """What was measured on, and how busy it was."""
    return {
        "cores": os.cpu_count(),
        "memory_mb": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MEGABYTE,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "load": [round(each, 2) for each in os.getloadavg()],
    }
