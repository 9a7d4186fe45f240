"""What a daemon leaves in a participant's home folder, without a daemon: for tests of commands."""

from __future__ import annotations

from pathlib import Path

from common.homes import atomic_write
from common.resources import read_config
from common.terminal import exit_code_of
from participant.cli import app
from participant.config import HomeLayout
from participant.memory.journal import Egress, Journal
from participant.memory.mirror import Mirror
from participant.status import StatusFile
from tests.support.coordinators import Coordinator


class ParticipantHome:
    """A home folder of one institution of a coordinator in memory."""

    def __init__(self, folder: Path, coordinator: Coordinator, name: str = "north") -> None:
        folder.mkdir()
        self.layout, self._coordinator = HomeLayout(folder), coordinator
        configuration = read_config("participant.yaml").replace("institution: hospital-a", f"institution: {name}")
        atomic_write(self.layout.config, configuration.encode())
        atomic_write(self.layout.policy, read_config("policy.yaml").encode())
        atomic_write(self.layout.genesis, coordinator.genesis)

    def run(self, *words: str) -> int:
        """A command's exit code."""
        return exit_code_of(app, [*words, "--home", str(self.layout.home)])

    def follow(self) -> None:
        """As the follower does."""
        journal = Journal(self.layout.journal)
        mirror = Mirror(journal, self._coordinator.genesis)
        found = self._coordinator.ledger.slice(mirror.state.size, max_bytes=2**20, wait_seconds=0)
        if found.envelopes:
            mirror.admit(found.first_index, found.envelopes)
        journal.close()

    def book(self, *entries: Egress) -> None:
        journal = Journal(self.layout.journal)
        for entry in entries:
            journal.book(entry)
        journal.close()

    def status(self) -> StatusFile:
        """As a daemon in this process writes it."""
        return StatusFile(self.layout.status, self._coordinator.clock)
