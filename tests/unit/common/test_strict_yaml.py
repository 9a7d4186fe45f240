"""YAML as plain data with line numbers, and what no file may do."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import strict_yaml
from common.errors import InvalidConfiguration


def read(text: str) -> strict_yaml.Document:
    return strict_yaml.read(text, source="x.yaml")


def test_each_path_knows_its_line() -> None:
    document = read("a: 1\nb:\n  - x\n  - c: 2\n")
    assert document.value == {"a": 1, "b": ["x", {"c": 2}]}
    assert document.lines[("a",)] == 1
    assert document.lines[("b",)] == 2
    assert document.lines[("b", 0)] == 3
    assert document.lines[("b", 1, "c")] == 4


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("1e-3", Decimal("0.001")),
        ("0.10", Decimal("0.10")),
        (".5", Decimal("0.5")),
        ("-7", -7),
        ("1_000", 1000),
        ("12:30", "12:30"),
        ("2026-11-21", "2026-11-21"),
        ("0755", "0755"),
        ("127.0.0.1:7443", "127.0.0.1:7443"),
        ("~", None),
        ("", None),
        (".nan", ".nan"),
        ("'5'", "5"),
    ],
)
def test_scalars_are_those_of_the_core_schema(text: str, value: object) -> None:
    result = read(f"x: {text}\n").value["x"]
    assert result == value
    assert type(result) is type(value)


def test_an_empty_text_is_an_empty_mapping() -> None:
    assert read("# nothing\n").value == {}


HOSTILE = {
    "a duplicate key": ("a: 1\nb:\n  c: 1\n  c: 2\n", r"x\.yaml:4: the field 'c' stands twice, first on line 3\."),
    "a tab": ("a:\n\t- x\n", r"x\.yaml:2: expected YAML, but found character '\\t' that cannot start any token\."),
    "two documents": ("a: 1\n---\nb: 1\n", r"x\.yaml:2: expected YAML, but found another document\."),
    "a python tag": (
        "a: !!python/object/apply:os.system [ls]\n",
        r"x\.yaml:1: expected plain data, got the tag .*os\.system",
    ),
    "an unknown tag": ("a: !secret x\n", r"x\.yaml:1: expected plain data, got the tag !secret\."),
    "a merge key": ("a: &a {x: 1}\nb:\n  <<: *a\n", r"x\.yaml:3: merge keys \(<<\) are not supported"),
    "a collection as key": ("? [a]\n: 1\n", r"x\.yaml:1: expected a word as field name, got a collection\."),
    "an alias of itself": (
        "a: &a [*a]\n",
        r"x\.yaml:1: expected at most 50,000 values in 32 levels, aliases included\.",
    ),
    "a laugh": (
        "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
        + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcde", "bcdef", strict=True)),
        "expected at most 50,000 values in 32 levels, aliases included",
    ),
    "depth": ("a: " + "[" * 5000, r"x\.yaml:1: expected at most 32 levels, got more\."),
    "block depth": ("\n".join(" " * i + "a:" for i in range(100)), "expected at most 32 levels, got more"),
    "many values": ("[" + "1," * 60_000 + "1]", r"expected at most 50,000 values, got more\."),
    "size": ("#" * (strict_yaml.MAX_BYTES + 1), "expected at most 1,048,576 bytes, got 1,048,577"),
    "a NUL": ("a: \x00", "expected YAML, but unacceptable character #x0000"),
    "a huge number": ("a: " + "1" * 5000, r"x\.yaml:1: expected a number of at most 40 digits, got 5000\."),
    "an unknown alias": ("a: *b\n", r"x\.yaml:1: expected YAML, but found undefined alias 'b'\."),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_with_its_line(name: str) -> None:
    text, message = HOSTILE[name]
    with pytest.raises(InvalidConfiguration, match=message):
        read(text)


# PyYAML writes Unicode's own line breaks unescaped and reads them as spaces: nothing that a plan holds.
_text = st.text(st.characters(exclude_characters="\x85\u2028\u2029", exclude_categories=["Cs"]), max_size=12)
_keys = _text.filter(lambda key: key != "<<")
_scalars = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | _text
_values = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_keys, inner, max_size=4), max_leaves=12
)


@given(st.dictionaries(_keys, _values, max_size=5))
def test_what_is_dumped_reads_back_equal(value: dict[str, object]) -> None:
    assert read(strict_yaml.dump(value)).value == value


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**12), max_value=10**12, places=9))
def test_numbers_keep_their_digits(value: Decimal) -> None:
    assert Decimal(read(strict_yaml.dump({"x": value})).value["x"]) == value


@pytest.mark.parametrize("text", ["no", "1e-3", "0x10", "12:30", "null", "2026-11-21", "<<", "a: b", "- x", ""])
def test_words_that_look_like_something_else_stay_words(text: str) -> None:
    assert read(strict_yaml.dump({"x": text})).value == {"x": text}
