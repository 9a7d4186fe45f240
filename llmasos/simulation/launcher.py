"""Becomes the given command, after asking the kernel to end it when its parent dies (Linux).

    python -I launcher.py PARENT_PID /path/to/program argument …

The first net against orphans is the lifeline pipe that daemons watch; this is the second, for commands that watch none and
for parents that end by kill -9. The request outlives execv, and is made in the child itself instead of in a `preexec_fn`,
which may deadlock in a process with threads.

Source: prctl(2), PR_SET_PDEATHSIG.
"""

from __future__ import annotations

import os
import signal
import sys

PR_SET_PDEATHSIG = 1
EXIT_ORPHANED = 128 + signal.SIGTERM


def die_with_parent() -> None:
    """Ask for SIGTERM at the parent's death. Without prctl (other systems) the lifeline alone must do."""
    if sys.platform != "linux":
        return
    try:
        import ctypes
    except ImportError:  # a Python built without libffi
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def main(arguments: list[str]) -> None:
    """Replace this process by the command; returns never."""
    die_with_parent()
    if os.getppid() != int(arguments[1]):  # it died before the request was in place
        sys.exit(EXIT_ORPHANED)
    os.execv(arguments[2], arguments[2:])


if __name__ == "__main__":
    main(sys.argv)
