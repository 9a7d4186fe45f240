"""What lies in the home folder: for its owner alone, openable, valid, readable."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from common.errors import LLMasOSError
from common.identity.certificates import check_validity, load_certificate
from common.identity.keys import EncryptionKey, SigningKey, TlsKey
from common.identity.passphrase import read_passphrase
from participant.datasets import check_data_set, data_sets
from participant.doctor.finding import Finding, Subject
from participant.policy import load_policy

RENEWED_AT = 3
"""A certificate is renewed in the last third of its life."""


def permissions(subject: Subject) -> Iterator[Finding]:
    """Folders 0700 and keys 0600; a worker's account of its own may pass through the home, to its job folder."""
    layout = subject.layout
    passing = 0o010 if subject.config.worker.user else 0
    expected = {layout.home: 0o700 | passing, layout.identity: 0o700}
    expected |= dict.fromkeys((layout.signing_key, layout.encryption_key, layout.tls_key), 0o600)
    wrong = [(path, _mode(path)) for path, mode in expected.items() if _mode(path) & ~mode]
    foreign = [path for path in expected if path.stat().st_uid != os.geteuid()]
    if wrong:
        shown = ", ".join(f"{path} has mode {mode:04o}" for path, mode in wrong)
        fixes = "; ".join(f"chmod {expected[path]:o} {path}" for path, _ in wrong)
        yield Finding("permissions", "fail", f"Others may look in: {shown}.", fixes)
    elif foreign:
        yield Finding(
            "permissions",
            "warn",
            f"{foreign[0]} belongs to another account (uid {foreign[0].stat().st_uid}) than this command's "
            f"({os.geteuid()}).",
            "Run commands and daemon under one account, the home's owner; what another one writes there it cannot change.",
        )
    else:
        yield Finding("permissions", "ok", "home and keys are for their owner alone")


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def keys(subject: Subject) -> Iterator[Finding]:
    layout = subject.layout
    passphrase = read_passphrase(subject.config.identity.passphrase_file)
    SigningKey.load(layout.signing_key, passphrase)
    EncryptionKey.load(layout.encryption_key, passphrase)
    TlsKey.load(layout.tls_key, passphrase)
    yield Finding("keys", "ok", f"three private keys open {'with the passphrase' if passphrase else 'without one'}")


def certificate(subject: Subject) -> Iterator[Finding]:
    pem, now = subject.layout.tls_certificate.read_bytes(), subject.clock.now()
    renew = "The daemon renews it by itself while it runs: llmasos-participant start."
    found = load_certificate(pem)
    first, last = found.not_valid_before_utc, found.not_valid_after_utc
    left = last - now
    if left < timedelta(0):
        yield Finding("certificate", "fail", f"expired {_days(-left)} ago, on {last:%Y-%m-%d}", renew)
        return
    check_validity(pem, now=now, what="This participant's certificate")
    if left < (last - first) / RENEWED_AT:
        yield Finding("certificate", "warn", f"ends in {_days(left)}, on {last:%Y-%m-%d}: its renewal is due", renew)
    else:
        yield Finding("certificate", "ok", f"valid for {_days(left)}, until {last:%Y-%m-%d}")


def _days(span: timedelta) -> str:
    return f"{span.days} days" if span.days >= 2 else f"{span.total_seconds() / 3600:.0f} hours"


def policy(subject: Subject) -> Iterator[Finding]:
    rules = load_policy(subject.layout.policy).policy
    hours = "; ".join(rules.windows) or "at any time"
    yield Finding("policy", "ok", f"valid; answers {rules.answer} to plans that break no rule; works {hours}")


def data(subject: Subject) -> Iterator[Finding]:
    """Names, sizes and rights of files; `data check` has the worker read them."""
    found = data_sets(subject.layout)
    if not found:
        yield Finding("data", "warn", "no data set yet: no run can train here", "llmasos-participant data add NAME DIR")
    for each in found:
        check = f"data {each.name}"
        try:
            contents = check_data_set(subject.layout, each)
        except LLMasOSError as err:
            yield Finding(check, "fail", err.message, err.fix)
        else:
            yield Finding(check, "ok", f"{each.folder}: {contents} ({contents.bytes:,} bytes)")
