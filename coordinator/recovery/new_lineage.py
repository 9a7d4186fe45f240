"""A new lineage: by an operator's decision the ledger goes on without entries that it signed for and that nobody holds.

    the newest checkpoint that is known beyond the ledger ──▶ control `recovery`, at the index of the first entry that lacks

Nothing of this is silent: institutions that saw what is given up stop, and follow again by a decision of their own alone.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from common.backup.restoring import restoration, settle
from common.clock import Clock, rfc3339
from common.errors import BadSignature, MalformedStatement, UsageError
from common.homes import HomeLock
from common.identity.keys import SigningKey
from common.identity.passphrase import read_passphrase
from common.ledger.heads import log_key, signed_checkpoint
from common.ledger.merkle import TreeHead
from common.ledger.notes import Note, parse_note, read_checkpoint
from common.statements.kinds import Control
from coordinator.config import CoordinatorConfig, HomeLayout
from coordinator.ledger import Ledger
from coordinator.log import HeadFile, expect_log_key
from coordinator.store.database import Database, file_url

REASON = "nobody-holds-the-rest"


@dataclass(frozen=True, slots=True)
class Begun:
    """Where a lineage began, and what it gives up."""

    index: int
    given_up: TreeHead


def begin_lineage(layout: HomeLayout, config: CoordinatorConfig, clock: Clock, *, reason: str = REASON) -> Begun:
    """Append the statement that gives up what lacks, and let the coordinator start from then on.

    Raises:
        UsageError: nothing is known to lack; or what lacks is not the end of this ledger, but others stand in its place.
        HomeLocked: the coordinator runs.
    """
    with HomeLock(layout.home):
        passphrase = read_passphrase(config.identity.passphrase_file)
        signing, log_signing = (SigningKey.load(file, passphrase) for file in (layout.statement_key, layout.log_key))
        with closing(Database(file_url(layout.state))) as database:
            ledger = Ledger(database, signing, clock, layout.genesis.read_bytes())
            log, head = expect_log_key(ledger.state.genesis, log_signing), HeadFile(layout.log_head)
            note = _newest(layout, ledger, head)
            given_up, index = read_checkpoint(note, log), ledger.state.size
            said = Control(
                action="recovery",
                issued_at=rfc3339(clock.now()),
                reason=reason,
                missing_from=index,
                given_up=note.encode().decode(),
            )
            ledger.append(said, ledger.state.roster_place or ledger.state.genesis_place)
            head.write(signed_checkpoint(ledger.tree(), ledger.state.genesis, log_signing))
            settle(layout.home, at=rfc3339(clock.now()), entries=ledger.state.size, given_up=given_up.size)
    return Begun(index, given_up)


def _newest(layout: HomeLayout, ledger: Ledger, head: HeadFile) -> Note:
    """The largest checkpoint that is known, of more entries than the ledger has.

    Raises:
        UsageError: there is none.
    """
    size, log = ledger.state.size, log_key(ledger.state.genesis)
    shown = (restoration(layout.home) or {}).get("newest")
    found = []
    if isinstance(shown, str):
        try:
            found.append(parse_note(shown.encode()))
        except (MalformedStatement, BadSignature) as err:
            raise UsageError(f"{layout.home}/restored.json holds a checkpoint that is none: {err.message}") from err
    beyond = head.beyond(size, log)
    found += [beyond] if beyond is not None else []
    largest = max(found, key=lambda note: read_checkpoint(note, log).size, default=None)
    if largest is None or read_checkpoint(largest, log).size <= size:
        raise UsageError(
            f"Nothing is known that lacks in the {size:,} entries of {layout.home}: no checkpoint beyond them was presented.",
            "Start the coordinator and let institutions present what they saw; if nothing was signed after the backup: "
            "llmasos-coordinator recover --nothing-newer.",
        )
    return largest
