"""llmasos-participant audit: an auditor recomputes rounds, and signs what came of it."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from common.blobs.store import FolderBlobStore
from common.clock import SystemClock
from common.errors import HomeLocked, UsageError
from common.homes import HomeLock
from common.identity.invitation import open_genesis
from common.identity.passphrase import read_passphrase
from common.ledger.finding import find_run
from common.terminal import FormatOption, HomeOption, OutputFormat, Terminal, resolve_home
from participant.commands.connection import member_session
from participant.config import HomeLayout, ParticipantConfig, load_config
from participant.identity.keys import SigningKeys
from participant.memory.journal import Journal
from participant.memory.mirror import Mirror

if TYPE_CHECKING:
    from common.wire.session import Session
    from participant.auditing import Audited

GAPS_EXIT_CODE = 4
_SHOWN = {"equal": "equal", "different": "DIFFERENT", "unknown": "not recomputed"}


def audit(
    run: Annotated[str, typer.Argument(help="The run's id, or a unique beginning of it.", show_default=False)],
    first: Annotated[int, typer.Option("--from", metavar="ROUND", min=1, help="First round.")] = 1,
    last: Annotated[
        int | None,
        typer.Option("--to", metavar="ROUND", min=1, help="Last round. Default: the newest.", show_default=False),
    ] = None,
    home: HomeOption = None,
    output: FormatOption = OutputFormat.HUMAN,
) -> None:
    """Recompute committed rounds and sign what came of it: for institutions with the role auditor.

    Models and deltas are fetched round by round, as far as the plan names this institution and the coordinator keeps them, and
    deleted again. Nothing leaves but signed attestations, for everybody to read. Interrupted, the same command goes on.
    Exit 0: all equal; 1: one is different; 4: some could not be recomputed.
    """
    if last is not None and last < first:
        raise UsageError(f"--to {last} comes before --from {first}.", "Name the first round, then the last.")
    layout = HomeLayout(resolve_home(home, "participant"))
    config = load_config(layout.home)
    genesis = open_genesis(layout.genesis.read_bytes())[1]
    with closing(Journal(layout.journal)) as journal, member_session(layout, config, genesis) as session:
        audited = _Audit(layout, config, journal, session, Terminal(output))
        raise typer.Exit(audited.run(run, first, last))


class _Audit:
    """One audit, from the own copy of the ledger to the exit code."""

    def __init__(
        self, layout: HomeLayout, config: ParticipantConfig, journal: Journal, session: Session, terminal: Terminal
    ) -> None:
        self._layout, self._config, self._terminal = layout, config, terminal
        self._journal, self._session, self._clock = journal, session, SystemClock()

    def run(self, prefix: str, first: int, last: int | None) -> int:
        """Audit, show each round and then all together; the exit code."""
        from participant.auditing import Auditing, AuditPorts, expect_auditor
        from participant.fetching import Fetched, folder_for_fetching

        name, mirror = self._config.institution, self._own_copy()
        expect_auditor(mirror.state, name)
        run, found = find_run(mirror.state, prefix), []
        with (
            closing(FolderBlobStore(self._layout.blobs)) as held,
            folder_for_fetching(self._layout.home) as fetched,
        ):
            blobs = Fetched(held, self._session, fetched, name, self._terminal.progress)
            key = self._keys(mirror).to_sign
            ports = AuditPorts(name, self._session, self._journal, blobs, key, self._clock)
            for each in Auditing(ports).audit(run, first, last):
                self._show(each)
                found.append(each)
        return self._put_out(run.run, found)

    def _own_copy(self) -> Mirror:
        """The own copy of the ledger: as the running daemon keeps it, else caught up here and now."""
        from participant.auditing import catch_up
        from participant.witnessing import Witnessing, WitnessingPorts

        genesis, name = self._layout.genesis.read_bytes(), self._config.institution
        try:
            with HomeLock(self._layout.home):
                mirror = Mirror(self._journal, genesis)
                key = self._keys(mirror).to_sign
                witnessing = Witnessing(WitnessingPorts(name, mirror, self._journal, key, self._clock))
                catch_up(self._session, mirror, witnessing)
                return mirror
        except HomeLocked:
            return Mirror(self._journal, genesis)

    def _keys(self, mirror: Mirror) -> SigningKeys:
        passphrase = read_passphrase(self._config.identity.passphrase_file)
        return SigningKeys(self._layout.signing_key, passphrase, self._config.institution, lambda: mirror.state)

    def _show(self, each: Audited) -> None:
        if self._terminal.output is OutputFormat.HUMAN:
            where = f" (ledger index {each.index})" if each.index is not None else ""
            self._terminal.result(f"round {each.round:<5} {_SHOWN[each.result]}: {each.text}{where}", data=None)

    def _put_out(self, run: str, found: list[Audited]) -> int:
        counts = Counter(each.result for each in found)
        verdict = "different" if counts["different"] else "gaps" if counts["unknown"] else "equal"
        text = (
            f"{len(found)} committed rounds of {run}: {counts['equal']} equal, {counts['different']} different, "
            f"{counts['unknown']} not recomputed."
        )
        data = {"run": run, "result": verdict, "rounds": [asdict(each) for each in found]}
        self._terminal.result(text, data=data, quiet=verdict)
        return {"equal": 0, "different": 1, "gaps": GAPS_EXIT_CODE}[verdict]
