"""Becomes the worker's command, after giving up what the worker must not have: the network, the agent's account, new rights.

    python -P -m participant.worker.launch [--no-network | --loopback-only] [--uid N --gid N] -- PROGRAM ARGUMENT …

The network goes first, while there are rights to give it up: a network namespace of its own holds nothing but a loopback,
which is down unless several ranks are to speak through it. Then the account, then `no_new_privs`, so that no set-uid program
gives anything back; all of it outlives the exec. Made in the child itself and not in a `preexec_fn`, which may deadlock in a
process with threads. Imports nothing but the standard library, since it runs with the agent's rights.

Sources: unshare(2), user_namespaces(7), prctl(2). os.unshare exists from Python 3.12 on only.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

CLONE_NEWUSER, CLONE_NEWNET = 0x1000_0000, 0x4000_0000
PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 4, 38
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1
"""Source: netdevice(7)."""
EXIT_REFUSED = 77
"""Nothing was started; standard error holds the reason in one line."""


Network = Literal["all", "loopback", "none"]


def become(words: Sequence[str], *, network: Network, uid: int | None, gid: int | None) -> None:
    """Replace this process by `words`, kept apart as told. Returns never.

    Raises:
        OSError: the system does not allow it; nothing was started.
    """
    kept_apart = network == "all" or _leave_network()
    if kept_apart and network == "loopback":
        _raise_loopback()
    if uid is not None and gid is not None:
        _change_account(uid, gid)
    if not kept_apart:
        _leave_network_through_user_namespace()
        if network == "loopback":
            _raise_loopback()
    if sys.platform == "linux":
        _prctl(PR_SET_NO_NEW_PRIVS, 1)
    os.execvp(words[0], list(words))


def _leave_network() -> bool:
    """With the right to do so (CAP_SYS_ADMIN); False without it."""
    try:
        _unshare(CLONE_NEWNET)
    except PermissionError:
        return False
    return True


def _leave_network_through_user_namespace() -> None:
    """Without rights: a user namespace in which this account stays who it is, and which owns the new network namespace."""
    uid, gid = os.getuid(), os.getgid()
    _prctl(PR_SET_DUMPABLE, 1)  # a change of account made /proc/self root's
    _unshare(CLONE_NEWUSER | CLONE_NEWNET)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def _raise_loopback() -> None:
    """With the rights over a network namespace that whoever made it has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        fcntl.ioctl(asking, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))


def _change_account(uid: int, gid: int) -> None:
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def _unshare(flags: int) -> None:
    unshare = getattr(ctypes.CDLL(None, use_errno=True), "unshare", None)
    if unshare is None:
        raise OSError(errno.ENOSYS, "this system has no network namespaces")
    if unshare(flags) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def main(arguments: Sequence[str]) -> int:
    """Parse, become; the exit code where that failed."""
    end = arguments.index("--")
    flags, words = list(arguments[:end]), arguments[end + 1 :]
    numbers = {name: int(flags[flags.index(name) + 1]) if name in flags else None for name in ("--uid", "--gid")}
    network: Network = "none" if "--no-network" in flags else "loopback" if "--loopback-only" in flags else "all"
    try:
        become(words, network=network, uid=numbers["--uid"], gid=numbers["--gid"])
    except OSError as err:
        sys.stderr.write(f"{(err.strerror or str(err)).lower()}{f' ({err.filename})' if err.filename else ''}\n")
    return EXIT_REFUSED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
