"""A TLS key and its certificate change together: whatever point a crash comes at, a pair is read that fits."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.errors import StorageFailure
from common.identity.authority import Authority
from common.identity.certificates import certificate_id
from common.identity.keys import TlsKey
from common.identity.tls_pair import TlsPair
from tests.support.statements import NOW


class Killed(Exception):
    """Stands for kill -9."""


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("hospitals", now=NOW)


@pytest.fixture(params=[None, b"secret"], ids=["plain", "encrypted"])
def pair(request: pytest.FixtureRequest, tmp_path: Path, authority: Authority) -> TlsPair:
    made = TlsPair(tmp_path / "tls.key.pem", tmp_path / "tls.pem", request.param)
    key = TlsKey.generate()
    key.save(made.key, request.param)
    made.certificate.write_bytes(issue(authority, key))
    return made


def issue(authority: Authority, key: TlsKey) -> bytes:
    return authority.issue_institution(key.csr("north"), "north", now=NOW, days=30)


def fits(read: tuple[bytes, bytes], folder: Path) -> bool:
    path = folder / "read.key.pem"
    path.write_bytes(read[0])
    return certificate_id(read[1]).spki_sha256 == TlsKey.load(path).spki_sha256


def test_a_switch_changes_both(pair: TlsPair, authority: Authority, tmp_path: Path) -> None:
    before = pair.read()
    staged = pair.stage_key()
    assert pair.stage_key().spki_sha256 == staged.spki_sha256
    assert pair.read() == before
    certificate = issue(authority, staged)
    pair.switch(certificate)
    assert pair.read() == (staged.private_pem, certificate)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tls.key.pem", "tls.pem"]
    assert pair.stage_key().spki_sha256 != staged.spki_sha256


@pytest.mark.parametrize("kill_at", range(1, 30))
def test_a_crash_at_any_point_leaves_the_old_pair_or_the_new_one(
    pair: TlsPair, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill_at: int
) -> None:
    old, certificate = pair.read(), issue(authority, pair.stage_key())
    new = (pair.stage_key().private_pem, certificate)
    calls = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == kill_at:
                raise Killed
            return real(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for name in ("replace", "open", "fsync", "rename"):
            patch.setattr(os, name, counted(getattr(os, name)))
        with contextlib.suppress(Killed):
            pair.switch(certificate)
    again = TlsPair(pair.key, pair.certificate, pair.passphrase)
    assert again.read() in (old, new)
    again.recover()
    assert again.read() in (old, new)
    if again.read() == old:  # nothing had come: it is asked again, for the same key
        again.switch(issue(authority, again.stage_key()))
    assert again.read()[0] == new[0]
    assert fits(again.read(), tmp_path)
    assert not again.recover()


def test_between_the_two_renames_the_pair_that_fits_is_read(pair: TlsPair, authority: Authority) -> None:
    staged = pair.stage_key()
    certificate = issue(authority, staged)
    pair.next_certificate.write_bytes(certificate)
    pair.next_key.replace(pair.key)
    assert pair.read() == (staged.private_pem, certificate)
    assert pair.stage_key().spki_sha256 != staged.spki_sha256  # which recovered before
    assert pair.read() == (staged.private_pem, certificate)


def test_a_certificate_for_another_key_is_not_taken(pair: TlsPair, authority: Authority) -> None:
    before = pair.read()
    with pytest.raises(StorageFailure, match=r"is for another key than the one it was asked for"):
        pair.switch(issue(authority, TlsKey.generate()))
    assert pair.read() == before


def test_files_that_do_not_belong_together_are_told(pair: TlsPair, authority: Authority) -> None:
    pair.certificate.write_bytes(issue(authority, TlsKey.generate()))
    with pytest.raises(StorageFailure, match=r"tls\.pem is not the certificate of the key in .*tls\.key\.pem"):
        pair.read()


def test_no_key_shows(pair: TlsPair) -> None:
    assert "secret" not in repr(pair)
