"""An institution's home beside a coordinator in memory that asks for approvals: the proposal commands run against it.

homes = Homes(tmp_path, coordinator, monkeypatch)
homes["north"].run("proposal", "approve", "3f2a90c1", "--yes")
homes["north"].mirror                    # its own copy of the ledger, each entry checked by the rules
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from common.errors import LLMasOSError
from common.homes import atomic_write
from common.resources import read_config
from common.terminal import exit_code_of
from common.wire.messages import Approved, Proposal
from participant import proposals as proposals_module
from participant.cli import app
from tests.support.coordinators import Coordinator
from tests.support.standing import Standing


class DeskLine:
    """What a session is to the proposal commands; `failure` is raised after the coordinator did its part, once."""

    address = "memory"

    def __init__(self, coordinator: Coordinator, name: str) -> None:
        self._coordinator, self._name = coordinator, name
        self.failure: LLMasOSError | None = None
        self.shown: tuple[Proposal, ...] | None = None
        """What a coordinator that lies would list."""
        self.closed = 0

    def proposals(self) -> tuple[Proposal, ...]:
        return self._coordinator.desk.proposals() if self.shown is None else self.shown

    def approve(self, payload_sha256: str, signature: bytes) -> Approved:
        member = self._coordinator.state.member(self._name)
        assert member is not None
        approved = self._coordinator.desk.approve(member, payload_sha256, signature)
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        return approved

    def close(self) -> None:
        self.closed += 1


class Home(Standing):
    """A whole home folder, whose daemon does not run."""

    def __init__(self, folder: Path, coordinator: Coordinator, name: str) -> None:
        super().__init__(folder, coordinator, name)
        text = read_config("participant.yaml").replace("institution: hospital-a", f"institution: {name}")
        atomic_write(self.layout.config, text.encode())
        atomic_write(self.layout.policy, read_config("policy.yaml").encode())
        self.line = DeskLine(coordinator, name)
        self.catch_up()

    def run(self, *words: str) -> int:
        """A command's exit code."""
        return exit_code_of(app, [*words, "--home", str(self.layout.home)])


class Homes(dict[str, Home]):
    """One for each institution."""

    def __init__(self, folder: Path, coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in coordinator.participants:
            self[name] = Home(folder / name, coordinator, name)
        lines = {home.layout.home: home.line for home in self.values()}
        monkeypatch.setattr(proposals_module, "session_of", lambda home: lines[home])

    def catch_up(self) -> None:
        """As their daemons would."""
        for home in self.values():
            home.catch_up()

    def close(self) -> None:
        for home in self.values():
            home.close()


def open_ids(coordinator: Coordinator) -> list[str]:
    """Of the drafts that await approvals, oldest first."""
    return [hashlib.sha256(each.payload).hexdigest() for each in coordinator.desk.proposals()]
