"""Every party on a host of its own: network namespaces on one bridge, for root on Linux.

    with Hosts("coordinator", "clinic", "bank") as hosts:         # the first is the hub, which all others reach
        hosts.address("coordinator")                              # 10.77.0.1
        subprocess.run(hosts.on("clinic", "ip", "addr"))
        hosts.cut("bank")                                         # its cable is pulled
        hosts.mend("bank")

      clinic ──┐
      bank   ──┼── bridge ── coordinator          ports of the bridge but the hub's are isolated: they reach the hub alone

A host has its own interfaces, addresses, routes and ports; files are shared. Names are unique to this process and moment, so
that tests run side by side, and `with` takes every namespace away again, however it ends.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from llmasos.simulation.processes import Child, Processes

_SUBNET = "10.77.0"
_SWITCH = "switch"


def can_make_hosts() -> bool:
    """Whether this process may make network namespaces, and this system has what connects them."""
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    try:
        with Hosts("probe"):
            return True
    except subprocess.CalledProcessError:
        return False


class Hosts:
    """Hosts by name; the first is the hub."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self._prefix = f"llmasos-{os.getpid()}-{secrets.token_hex(3)}"

    def __enter__(self) -> Self:
        try:
            self._make_switch()
            for name in self.names:
                self._make_host(name)
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in (*self.names, _SWITCH):
            subprocess.run(("ip", "netns", "del", self._namespace(name)), capture_output=True, check=False)

    def address(self, name: str) -> str:
        """A host's IPv4 address."""
        return f"{_SUBNET}.{self.names.index(name) + 1}"

    def on(self, name: str, *argv: str) -> tuple[str, ...]:
        """The command that runs `argv` on a host."""
        return (str(shutil.which("ip")), "netns", "exec", self._namespace(name), *argv)

    def cut(self, name: str) -> None:
        """Pull a host's cable: what it sends is lost, and it notices."""
        self._ip(name, "link", "set", "eth0", "down")

    def mend(self, name: str) -> None:
        """Plug it in again."""
        self._ip(name, "link", "set", "eth0", "up")

    def _make_switch(self) -> None:
        _run("ip", "netns", "add", self._namespace(_SWITCH))
        self._ip(_SWITCH, "link", "add", "bridge", "type", "bridge")
        self._ip(_SWITCH, "link", "set", "bridge", "up")

    def _make_host(self, name: str) -> None:
        number = self.names.index(name) + 1
        port = f"port{number}"
        _run("ip", "netns", "add", self._namespace(name))
        pair = ("type", "veth", "peer", "name", port, "netns", self._namespace(_SWITCH))
        self._ip(name, "link", "add", "eth0", *pair)
        self._ip(_SWITCH, "link", "set", port, "master", "bridge")
        self._ip(_SWITCH, "link", "set", port, "up")
        if number > 1:
            self._ip(_SWITCH, "link", "set", port, "type", "bridge_slave", "isolated", "on")
        self._ip(name, "addr", "add", f"{self.address(name)}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            self._ip(name, "link", "set", device, "up")

    def _ip(self, name: str, *words: str) -> None:
        _run("ip", "-n", self._namespace(name), *words)

    def _namespace(self, name: str) -> str:
        return f"{self._prefix}-{name}"


class HostedProcesses(Processes):
    """Starts each command on the host that `places` names for it; on the host of the same name where it names none."""

    def __init__(self, hosts: Hosts, places: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._hosts, self._places = hosts, places or {}

    def start(
        self, name: str, argv: Sequence[str], *, log: Path, lifeline: bool = False, capture: bool = False
    ) -> Child:
        host = self._places.get(name, name)
        return super().start(name, self._hosts.on(host, *argv), log=log, lifeline=lifeline, capture=capture)


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)
