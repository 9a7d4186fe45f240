"""What `institution invite` and `operator invite` share: the time, and the text that goes to stdout."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import cast

from common.errors import UsageError
from common.names import check_name
from common.statements.kinds import Role
from common.terminal import Terminal
from coordinator.commands.connection import operator_session


def print_invitation(home: Path, name: str, roles: Sequence[StrEnum], expires: str | None, terminal: Terminal) -> None:
    """Ask the coordinator for an invitation and print it, and nothing else, on stdout."""
    check_name(name)
    chosen = tuple(cast(Role, role) for role in dict.fromkeys(each.value for each in roles))
    with operator_session(home) as session:
        text = session.invite(name, expires_hours=hours(expires), roles=chosen)
    terminal.progress(f"{name} is invited as {', '.join(chosen)}. The text below holds a secret: send it with care.")
    terminal.result(
        text.rstrip("\n"),
        data={"institution": name, "roles": list(chosen), "invitation": text},
        quiet=text.rstrip("\n"),
    )


def hours(text: str | None) -> int:
    """Hours, or 0 for what the coordinator's configuration says."""
    if text is None:
        return 0
    match = re.fullmatch(r"([1-9]\d{0,4})([hd])", text)
    if match is None:
        raise UsageError(f"--expires is {text!r}, expected a number and h or d, such as 48h.")
    return int(match[1]) * (24 if match[2] == "d" else 1)
