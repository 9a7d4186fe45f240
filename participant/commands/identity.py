"""llmasos-participant identity: who this institution is to the others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.clock import SystemClock, rfc3339
from common.errors import HomeLocked, NotInitialised
from common.terminal import FormatOption, HomeOption, OutputFormat, Terminal, new_app, resolve_home
from participant.config import HomeLayout, ParticipantConfig
from participant.memory.orders import Order, OrderKind, Orders

if TYPE_CHECKING:
    from common.ledger.state import LedgerState

app = new_app("identity", "Keys and certificate: show, renew, rotate.")


@app.command()
def show(home: HomeOption = None, output: FormatOption = OutputFormat.HUMAN) -> None:
    """Who this institution is: fingerprint, keys, certificate, and its place in the newest roster that it knows."""
    place = _place(home)
    known = _describe(place)
    rows = [
        ["institution", f"{known['institution']} of {known['consortium']}"],
        ["fingerprint", str(known["fingerprint"])],
        ["standing", f"{known['status']}, roles: {' '.join(known['roles']) or '-'}"],
        ["roster", f"ledger index {known['roster_index']}"],
        ["certificate", f"serial {known['certificate']['serial']}"],
        ["", f"from {known['certificate']['from']} until {known['certificate']['until']}"],
        ["signing key", _key_line(known["signing_key"])],
        ["next key", _key_line(known["next_signing_key"]) if known["next_signing_key"] else "none"],
        ["on disk", "encrypted" if known["encrypted"] else "not encrypted: identity.passphrase_file"],
    ]
    shown = "\n".join(f"{name:<13}{value}" for name, value in rows)
    Terminal(output).result(shown, data=known, quiet=str(known["fingerprint"]))


@app.command()
def renew(home: HomeOption = None, output: FormatOption = OutputFormat.HUMAN) -> None:
    """Get a new certificate now. It renews by itself when less than a third of its life is left, so this is rarely needed.

    Where a daemon runs on this home, it does it; else this command does.
    """
    from common.homes import HomeLock

    place = _place(home)
    try:
        with HomeLock(place.layout.home):
            until = _renew_here(place)
    except HomeLocked:
        _give(place.layout, "renew")
        said = "Ordered: the daemon renews the certificate.\nFollow it with: llmasos-participant identity show"
        Terminal(output).result(said, data={"renewed": False, "ordered": True}, quiet="ordered")
        return
    Terminal(output).result(
        f"The certificate is good until {until}.", data={"renewed": True, "until": until}, quiet=until
    )


@app.command()
def rotate(home: HomeOption = None, output: FormatOption = OutputFormat.HUMAN) -> None:
    """Replace the signing key, and the TLS key with it. The daemon does it once nothing that was signed is on its way.

    The old key's statements stay good. From the roster on that names the new key, the old one signs nothing any more.
    """
    place = _place(home)
    _give(place.layout, "rotate")
    Terminal(output).result(
        "Ordered: a new signing key. The daemon carries it out, at once or when it is started.\n"
        "Follow it with: llmasos-participant identity show",
        data={"ordered": True},
        quiet="ordered",
    )


# --- what stands behind ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Place:
    layout: HomeLayout
    config: ParticipantConfig


def _place(home: Path | None) -> _Place:
    from participant.config import load_config

    folder = resolve_home(home, "participant")
    return _Place(HomeLayout(folder), load_config(folder))


def _describe(place: _Place) -> dict[str, Any]:
    """Everything that `show` shows; reads public halves only, save to say a key's id."""
    from common.identity.certificates import certificate_id, validity
    from common.identity.keys import SigningKey, is_encrypted, key_id
    from common.identity.passphrase import read_passphrase
    from common.identity.tls_pair import TlsPair
    from participant.identity.keys import next_key_path

    layout, passphrase = place.layout, read_passphrase(place.config.identity.passphrase_file)
    if not layout.tls_certificate.exists():
        raise NotInitialised(f"{layout.home} holds no certificate.", "Join first: llmasos-participant join.")
    state = _ledger_copy(layout)
    member = state.member(place.config.institution)
    certificate = TlsPair(layout.tls_key, layout.tls_certificate, passphrase).read()[1]
    first, last = validity(certificate)
    signing, following = SigningKey.load(layout.signing_key, passphrase), next_key_path(layout.signing_key)
    named = member.signing_key if member else None

    def described(key: SigningKey) -> dict[str, Any]:
        return {"id": key_id(key.public), "public": key.public.public, "in_roster": key.public == named}

    return {
        "institution": place.config.institution,
        "consortium": place.config.consortium,
        "fingerprint": state.genesis_place.digest,
        "status": member.status if member else "not yet in this copy of the ledger",
        "roles": list(member.roles) if member else [],
        "roster_index": state.roster_place.index if state.roster_place else None,
        "certificate": {
            "serial": certificate_id(certificate).serial,
            "from": rfc3339(first),
            "until": rfc3339(last),
        },
        "signing_key": described(signing),
        "next_signing_key": described(SigningKey.load(following, passphrase)) if following.exists() else None,
        "encrypted": is_encrypted(layout.signing_key) and is_encrypted(layout.tls_key),
    }


def _ledger_copy(layout: HomeLayout) -> LedgerState:
    """This institution's own copy of the ledger, verified as the daemon does at its start."""
    from participant.memory.journal import Journal
    from participant.memory.mirror import Mirror

    journal = Journal(layout.journal)
    try:
        return Mirror(journal, layout.genesis.read_bytes()).state
    finally:
        journal.close()


def _renew_here(place: _Place) -> str:
    """Renew in this process; until when the new certificate is good."""
    from common.identity.certificates import validity
    from common.identity.invitation import open_genesis
    from common.identity.passphrase import read_passphrase
    from common.identity.tls_pair import TlsPair
    from common.wire.renewal import Renewer
    from participant.identity.keys import SigningKeys

    layout, config = place.layout, place.config
    passphrase = read_passphrase(config.identity.passphrase_file)
    tls = TlsPair(layout.tls_key, layout.tls_certificate, passphrase)
    tls.recover()
    state = _ledger_copy(layout)
    keys = SigningKeys(layout.signing_key, passphrase, config.institution, lambda: state)
    keys.take_over()
    statement, genesis = open_genesis(layout.genesis.read_bytes())
    member = state.member(config.institution)
    Renewer(config.coordinator.enrolment, genesis, bytes.fromhex(statement.digest), config.institution, tls).renew(
        keys.present, listed=member.certificates if member else (), new_key=keys.pending
    )
    return rfc3339(validity(tls.read()[1])[1])


def _give(layout: HomeLayout, kind: OrderKind) -> None:
    orders = Orders(layout.journal)
    try:
        orders.give(Order(kind, {}, rfc3339(SystemClock().now())))
    finally:
        orders.close()


def _key_line(key: dict[str, Any]) -> str:
    return key["id"] if key["in_roster"] else f"{key['id']} (not the one in the roster)"
