"""A command of ours as a process that must end well."""

from __future__ import annotations

import os
import subprocess

COMMAND_SECONDS = 60


def run_command(*argv: str) -> str:
    """What it wrote on stdout.

    Raises:
        AssertionError: it failed; with what it said.
    """
    environment = os.environ | {"NO_COLOR": "1", "COLUMNS": "80"}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=COMMAND_SECONDS, env=environment, check=False)
    assert done.returncode == 0, (argv, done.returncode, done.stdout, done.stderr)
    return done.stdout
