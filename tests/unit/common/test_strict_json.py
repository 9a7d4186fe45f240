from __future__ import annotations

import json
import re
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from common.strict_json import MAX_INTEGER, JsonValue, StrictJsonError, dumps, loads, validate

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-MAX_INTEGER, MAX_INTEGER) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)


def read(data: bytes) -> JsonValue:
    return loads(data, max_bytes=10_000)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(VALUES)
def test_what_is_written_reads_back_equal_and_is_written_the_same_again(value: JsonValue) -> None:
    written = dumps(value)
    assert read(written) == value
    assert dumps(read(written)) == written


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=60) | st.text(alphabet='{}[]":,\\u0123e.- ', max_size=60).map(str.encode))
def test_any_bytes_are_a_value_or_a_strict_json_error(data: bytes) -> None:
    try:
        value = read(data)
    except StrictJsonError:
        return
    assert json.loads(data) == value


def test_the_canonical_spelling_sorts_keys_and_escapes_only_what_it_must() -> None:
    assert dumps({"b": [1, True, None], "a": 'é"\n'}) == '{"a":"é\\"\\n","b":[1,true,null]}'.encode()


REFUSED = {
    "a float": (b"[0.5]", "the number 0.5, expected integers or decimal text"),
    "a float that is whole": (b"1.0", "the number 1.0"),
    "an exponent": (b"1E5", "the number 1E5"),
    "an exponent beyond floats": (b"1e400", "the number 1e400"),
    "negative zero as a float": (b"-0.0", "the number -0.0"),
    "negative zero": (b"-0", "a negative zero, expected 0"),
    "NaN": (b"NaN", "the number NaN"),
    "infinity": (b"-Infinity", "the number -Infinity"),
    "2^53": (b"9007199254740992", "the integer 9007199254740992, at most ±9007199254740991"),
    "minus 2^53": (b"-9007199254740992", "the integer -9007199254740992"),
    "many digits": (b"1" * 9000, "an integer of 9000 characters"),
    "a duplicate key": (b'{"a":1,"b":2,"a":1}', "the key 'a' stands twice"),
    "a duplicate key by escapes": (b'{"a":1,"\\u0061":2}', "the key 'a' stands twice"),
    "a duplicate key inside": (b'[{"x":{"k":1,"k":2}}]', "the key 'k' stands twice"),
    "a lone surrogate": (b'["\\ud800"]', "a lone surrogate at character 0"),
    "a lone surrogate in a key": (b'{"ok\\udfff":1}', "a lone surrogate at character 2"),
    "an encoded surrogate": (b'"\xed\xa0\x80"', "byte 1 is not UTF-8"),
    "no UTF-8": (b'"\xff"', "byte 1 is not UTF-8"),
    "a byte order mark": (b"\xef\xbb\xbf1", "not JSON at character 0"),
    "trailing data": (b"{} {}", "not JSON at character 3: Extra data"),
    "nothing": (b"", "not JSON at character 0"),
    "a raw control character": (b'"\n"', "not JSON at character 1"),
    "a leading zero": (b"01", "not JSON at character 1"),
    "a trailing comma": (b"[1,]", "not JSON"),
    "33 arrays": (b"[" * 33 + b"]" * 33, "nested deeper than 32 at byte 32"),
    "33 objects": (b'{"":' * 33 + b"1" + b"}" * 33, "nested deeper than 32"),
    "too many bytes": (b" " * 10_001, "10,001 bytes, at most 10,000 allowed"),
}


@pytest.mark.parametrize(("data", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_it_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(StrictJsonError, match=re.escape(message)):
        read(data)


def test_the_bounds_themselves_are_allowed() -> None:
    assert read(b"9007199254740991") == 2**53 - 1
    assert read(b"[" * 32 + b"]" * 32) is not None
    assert loads(b"[[1]]", max_bytes=5, max_depth=2) == [[1]]


def test_a_surrogate_pair_is_one_character() -> None:
    assert read(b'"\\ud83d\\ude00"') == "😀"


def test_brackets_and_quotes_inside_strings_do_not_nest() -> None:
    text = '[{"' * 50 + "\\"
    assert read(json.dumps([text]).encode()) == [text]


@pytest.mark.parametrize("data", [b'"' + b'\\"' * 500_000, b'\\"' * 500_000, b"[]" * 500_000, b'{"a":"' * 160_000])
def test_a_megabyte_of_hostile_quotes_takes_linear_time(data: bytes) -> None:
    began = time.perf_counter()
    with pytest.raises(StrictJsonError):
        loads(data, max_bytes=2**20)
    assert time.perf_counter() - began < 5  # quadratic would be hours


UNWRITABLE: dict[str, tuple[object, str]] = {
    "a float": ({"a": [1.0]}, "a value of type float"),
    "bytes": ([b"x"], "a value of type bytes"),
    "2^53": (2**53, "an integer above"),
    "a key that is no text": ({1: "a"}, "a key of type int"),
    "a lone surrogate": ({"a": "\ud800"}, "a lone surrogate"),
}


@pytest.mark.parametrize(("value", "message"), UNWRITABLE.values(), ids=UNWRITABLE.keys())
def test_it_is_not_written(value: JsonValue, message: str) -> None:
    with pytest.raises(StrictJsonError, match=message):
        dumps(value)


def test_a_value_that_holds_itself_is_not_written() -> None:
    endless: list[JsonValue] = []
    endless.append(endless)
    with pytest.raises(StrictJsonError, match="nested too deeply"):
        dumps(endless)


class Point(BaseModel):
    model_config = ConfigDict(extra="forbid")

    x: int
    names: tuple[str, ...] = ()


def test_a_value_becomes_a_model() -> None:
    assert validate(Point, {"x": 3, "names": ["a"]}) == Point(x=3, names=("a",))


@pytest.mark.parametrize("wrong", ["3", True, None, [3]])
def test_nothing_is_coerced_to_an_integer(wrong: JsonValue) -> None:
    with pytest.raises(StrictJsonError, match=r"^x: Input should be a valid integer$"):
        validate(Point, {"x": wrong})


def test_a_wrong_field_is_named_without_its_content() -> None:
    with pytest.raises(StrictJsonError) as caught:
        validate(Point, {"names": ["a", 5], "secret" * 20: "hunter2", "x": 1})
    assert "names.1: Input should be a valid string" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert len(str(caught.value)) < 300
