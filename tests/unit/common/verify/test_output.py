"""Fingerprints, pins and places as people type them."""

from __future__ import annotations

import pytest

from common.errors import UsageError
from common.verify.output import parse_fingerprint, parse_pins

KEY = "0123456789abcdef" * 4


def test_pins_are_keys_by_institution() -> None:
    assert parse_pins(None) == parse_pins([]) == {}
    assert parse_pins([f"north={KEY}", f"south={KEY.upper()}"]) == {"north": KEY, "south": KEY}


REFUSED = {
    "no key": (["north"], "--pin north: the key has 0 characters, expected 64 hexadecimal digits."),
    "a short key": (["north=ab"], "--pin north: the key has 2 characters, expected 64 hexadecimal digits."),
    "letters that are no digits": ([f"north={'g' * 64}"], "the key has 64 characters, expected 64 hexadecimal digits"),
    "a name that is none": ([f"North Pole={KEY}"], "--pin 'North Pole="),
    "one twice": ([f"north={KEY}", f"north={KEY}"], "--pin names north twice."),
}


@pytest.mark.parametrize("claim", REFUSED)
def test_a_pin_of_another_form_is_refused_with_its_name(claim: str) -> None:
    given, text = REFUSED[claim]
    with pytest.raises(UsageError) as refused:
        parse_pins(given)
    assert text in refused.value.message
    assert refused.value.fix


def test_a_fingerprint_may_stand_in_groups_and_capitals() -> None:
    assert parse_fingerprint(None) is None
    grouped = ":".join(KEY[at : at + 4] for at in range(0, 64, 4))
    assert {parse_fingerprint(each) for each in (KEY, KEY.upper(), grouped, f"sha256:{KEY}")} == {KEY}


@pytest.mark.parametrize("given", ["", "zz", KEY[1:], "g" * 64])
def test_a_mistyped_fingerprint_is_no_failed_verification(given: str) -> None:
    with pytest.raises(UsageError, match=r"--fingerprint has \d+ characters, expected 64 hexadecimal digits"):
        parse_fingerprint(given)
