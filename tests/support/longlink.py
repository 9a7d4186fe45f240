"""Two hosts with a long, lossy way between them: network namespaces, for root on Linux.

    with LongLink(Way(delay_seconds=0.05, loss=0.01)) as link:        # each way: a round trip takes 100 ms
        subprocess.run(link.on("far", "iperf3", "-s"))
        link.address("far")                                           # 10.78.0.2

`tc netem` on a pair of virtual cables where the kernel has it. Elsewhere a process carries packets of 1500 bytes between two
TUN devices, holds each for the delay and drops some: the same delay and loss, and no more speed than that process has.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import random
import secrets
import select
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

NAMES = ("near", "far")
_SUBNET = "10.78.0"
_PACKET_BYTES = 1500
_QUEUE_SECONDS = 0.1
"""How long a packet may wait where the way has a rate, before the newest are dropped."""
_NETEM_PACKETS = 100_000
_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TUN_NO_PI = 0x0001 | 0x1000
_READ_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Way:
    """What happens to packets, in each direction; `rate_mbit` 0: no limit."""

    delay_seconds: float = 0.05
    loss: float = 0.01
    rate_mbit: float = 0.0


def why_not() -> str | None:
    """What this machine lacks for a long link; None: nothing."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces need root on Linux"
    if shutil.which("ip") is None or shutil.which("tc") is None:
        return "`ip` and `tc` (iproute2) are not installed"
    try:
        with LongLink(Way(0.0, 0.0)):
            return None
    except (subprocess.CalledProcessError, OSError) as err:
        return f"no network namespace, or neither netem nor a TUN device: {err}"


class LongLink:
    """Hosts `near` and `far`; `kind` says what makes the way long."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self._prefix = f"llmasos-{os.getpid()}-{secrets.token_hex(3)}"
        self._carriers: list[subprocess.Popen[bytes]] = []
        self.kind: Literal["netem", "tun"] = "netem"

    def __enter__(self) -> Self:
        try:
            for name in NAMES:
                _run("ip", "netns", "add", self._namespace(name))
                self._ip(name, "link", "set", "lo", "up")
            if not self._by_netem():
                self.kind = "tun"
                self._by_tun()
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for carrier in self._carriers:
            carrier.send_signal(signal.SIGKILL)
            carrier.wait()
        for name in NAMES:
            subprocess.run(("ip", "netns", "del", self._namespace(name)), capture_output=True, check=False)

    def address(self, name: str) -> str:
        """A host's IPv4 address."""
        return f"{_SUBNET}.{NAMES.index(name) + 1}"

    def on(self, name: str, *argv: str) -> tuple[str, ...]:
        """The command that runs `argv` on a host."""
        return (str(shutil.which("ip")), "netns", "exec", self._namespace(name), *argv)

    def congestion_control(self, name: str, algorithm: str) -> None:
        """What TCP connections that the host makes from now on do about losses."""
        # By route: the setting of a namespace takes only what the system allows everybody.
        (peer,) = (other for other in NAMES if other != name)
        self._ip(name, "route", "replace", self.address(peer), "dev", "eth0", "congctl", algorithm)

    def _by_netem(self) -> bool:
        near, far = NAMES
        self._ip(near, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", self._namespace(far))
        for name in NAMES:
            netem = ("delay", f"{self._way.delay_seconds * 1000:g}ms", "loss", f"{self._way.loss * 100:g}%")
            rate = ("rate", f"{self._way.rate_mbit:g}mbit") if self._way.rate_mbit else ()
            argv = ("qdisc", "add", "dev", "eth0", "root", "netem", *netem, *rate, "limit", str(_NETEM_PACKETS))
            made = subprocess.run(("tc", "-n", self._namespace(name), *argv), capture_output=True, check=False)
            if made.returncode != 0:
                self._ip(near, "link", "del", "eth0")
                return False
            self._ip(name, "addr", "add", f"{self.address(name)}/24", "dev", "eth0")
            self._ip(name, "link", "set", "eth0", "up")
        return True

    def _by_tun(self) -> None:
        way = (str(self._way.delay_seconds), str(self._way.loss), str(self._way.rate_mbit))
        spaces = [self._namespace(name) for name in NAMES]
        carrier = subprocess.Popen((sys.executable, "-I", __file__, *spaces, *way), stdout=subprocess.PIPE)
        self._carriers.append(carrier)
        if carrier.stdout is None or not carrier.stdout.readline():
            raise OSError("the process that carries packets did not start")
        carrier.stdout.close()
        for name, peer in (NAMES, NAMES[::-1]):
            self._ip(name, "addr", "add", self.address(name), "peer", self.address(peer), "dev", "eth0")
            self._ip(name, "link", "set", "eth0", "mtu", str(_PACKET_BYTES), "txqueuelen", "10000", "up")

    def _ip(self, name: str, *words: str) -> None:
        _run("ip", "-n", self._namespace(name), *words)

    def _namespace(self, name: str) -> str:
        return f"{self._prefix}-{name}"


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)


# --- the process that carries packets ---------------------------------------------------------------------------------


def _tun(namespace: str) -> int:
    """A TUN device `eth0` in that namespace; it is there for as long as the descriptor is open."""
    libc = ctypes.CDLL(None, use_errno=True)
    place = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    if libc.setns(place, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
    os.close(place)
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"eth0", _IFF_TUN_NO_PI))
    return device


def _carry(source: int, sink: int, way: Way) -> None:
    """Packets of one direction, for ever."""
    seconds_per_byte = 8 / (way.rate_mbit * 1e6) if way.rate_mbit else 0.0
    waiting: deque[tuple[float, bytes]] = deque()
    chance, clock = random.Random(), time.monotonic
    poller = select.epoll()
    poller.register(source, select.EPOLLIN)
    free_at = 0.0
    while True:
        now = clock()
        while waiting and waiting[0][0] <= now:
            with contextlib.suppress(OSError):  # the other device is not up yet, or full: lost
                os.write(sink, waiting.popleft()[1])
        poller.poll(max(0.0, waiting[0][0] - clock()) if waiting else 1.0)
        now = clock()
        try:
            for _ in range(_READ_AT_ONCE):
                packet = os.read(source, 65535)
                if chance.random() < way.loss:
                    continue
                free_at = max(free_at, now)
                if free_at - now <= _QUEUE_SECONDS:
                    free_at += len(packet) * seconds_per_byte
                    waiting.append((free_at + way.delay_seconds, packet))
        except BlockingIOError:
            pass
        except OSError:
            time.sleep(0.001)  # not up yet


def _main(near: str, far: str, delay: str, loss: str, rate: str) -> None:
    way = Way(float(delay), float(loss), float(rate))
    devices = _tun(near), _tun(far)
    parent = os.getpid()
    if os.fork():
        print("ready", flush=True)
        _carry(*devices, way)
    else:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: ends with the other half
        if os.getppid() == parent:
            _carry(*devices[::-1], way)


if __name__ == "__main__":
    _main(*sys.argv[1:])
