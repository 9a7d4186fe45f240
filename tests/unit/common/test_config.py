"""One file, the environment and flags become one frozen model, or an error that says where and what."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from common.config import load_yaml
from common.errors import InvalidConfiguration


class Base(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Folder(Base):
    type: Literal["folder"] = "folder"
    path: str = "blobs"


class Bucket(Base):
    type: Literal["bucket"] = "bucket"
    name: str


class Work(Base):
    port: Annotated[int, Field(ge=0, le=65535)] = 7443
    rate: float = 50.0


class Settings(Base):
    consortium: str
    work: Work = Work()
    store: Annotated[Folder | Bucket, Field(discriminator="type")] = Folder()
    tags: tuple[str, ...] = ()
    debug: bool = False


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "settings.yaml"
    path.write_text("consortium: north\nwork:\n  port: 1\n")
    return path


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_file_becomes_a_frozen_model(file: Path) -> None:
    settings = load_yaml(file, Settings)
    assert settings == Settings(consortium="north", work=Work(port=1))
    with pytest.raises(ValueError, match="frozen"):
        settings.consortium = "south"


def test_numbers_with_fractions_fit_floats(file: Path) -> None:
    assert load_yaml(write(file, "consortium: a\nwork: {rate: 2.5}\n"), Settings).work.rate == 2.5


def test_a_flag_wins_over_the_environment_and_that_over_the_file(file: Path) -> None:
    environment = {"LLMASOS_WORK__PORT": "2", "LLMASOS_WORK__RATE": "0.5", "LLMASOS_HOME": "/x", "OTHER__PORT": "9"}
    assert load_yaml(file, Settings, environment=environment).work == Work(port=2, rate=0.5)
    merged = load_yaml(file, Settings, environment=environment, overrides={"work.port": 3, "consortium": None})
    assert merged.work == Work(port=3, rate=0.5)
    assert merged.consortium == "north"


def test_environment_values_are_yaml(file: Path) -> None:
    environment = {"LLMASOS_TAGS": "[a, b]", "LLMASOS_DEBUG": "true"}
    settings = load_yaml(file, Settings, environment=environment)
    assert settings.tags == ("a", "b")
    assert settings.debug


def test_variables_of_other_programs_and_purposes_are_no_fields(file: Path) -> None:
    environment = {"LLMASOS_X_HOME": "/x", "LLMASOS_X_WORK__PORT": "5", "LLMASOS_Y_WORK__PORT": "6", "LLMASOS_X_": ""}
    assert load_yaml(file, Settings, environment=environment, prefix="LLMASOS_X_").work.port == 5


def test_the_environment_is_asked_only_where_it_is_given(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMASOS_WORK__PORT", "2")
    assert load_yaml(file, Settings).work.port == 1


WRONG = {
    "an unknown field": (
        "consortium: a\nwork:\n  prot: 1\n",
        r"settings\.yaml:3: work\.prot: unknown field; did you mean 'port'\? \[invalid-configuration\]",
    ),
    "an unknown field far from any": (
        "consortium: a\nwork:\n  zzz: 1\n",
        r"settings\.yaml:3: work\.zzz: unknown field; known here: port, rate\.",
    ),
    "an unknown field of a union's member": (
        "consortium: a\nstore:\n  type: bucket\n  name: x\n  nmae: y\n",
        r"settings\.yaml:5: store\.nmae: unknown field; did you mean 'name'\?",
    ),
    "a wrong type": ("consortium: a\nwork:\n  port: many\n", r":3: work\.port: expected a whole number, got 'many'\."),
    "a fraction": ("consortium: a\nwork: {port: 1.5}\n", r":2: work\.port: expected a whole number, got 1\.5\."),
    "out of range": ("consortium: a\nwork:\n\n  port: 70000\n", r":4: work\.port: expected at most 65535, got 70000\."),
    "a missing field": ("work: {}\n", r"settings\.yaml:1: consortium: expected a value, for it has no default\."),
    "a missing field inside": (
        "consortium: a\nstore:\n  type: bucket\n",
        r"settings\.yaml:2: store\.name: expected a value, for it has no default\.",
    ),
    "an unknown tag": (
        "consortium: a\nstore:\n  type: tape\n",
        r"settings\.yaml:3: store\.type: expected one of 'folder', 'bucket', got 'tape'\.",
    ),
    "no tag": (
        "consortium: a\nstore: {path: x}\n",
        r":2: store\.type: expected one of 'folder', 'bucket', got nothing\.",
    ),
    "null": ("consortium: null\n", r":1: consortium: expected text; put quotes around it, got nothing \(null\)\."),
    "a number for text": ("consortium: 5\n", r":1: consortium: expected text; put quotes around it, got 5\."),
    "text for a section": ("consortium: a\nwork: fast\n", r":2: work: expected fields and values, got 'fast'\."),
    "a bad list entry": (
        "consortium: a\ntags:\n  - x\n  - [y]\n",
        r":4: tags\.1: expected text; put quotes around it, got \['y'\]",
    ),
    "a list at the top": ("- a\n", r"settings\.yaml:1: expected fields and values, got list\."),
    "broken YAML": ("consortium: [a\nwork: b\n", r"settings\.yaml:2: expected YAML, but "),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_with_file_line_field_expected_and_got(file: Path, name: str) -> None:
    text, message = WRONG[name]
    with pytest.raises(InvalidConfiguration, match=message):
        load_yaml(write(file, text), Settings)


def test_several_problems_are_told_at_once(file: Path) -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        load_yaml(write(file, "wrok: 1\nwork: {port: x}\n"), Settings)
    lines = caught.value.message.splitlines()
    assert lines[0] == f"{file}: 3 problems."
    assert [line.rpartition(f"{file}:")[2] for line in lines[1:]] == [
        "1: consortium: expected a value, for it has no default",
        "2: work.port: expected a whole number, got 'x'",
        "1: wrok: unknown field; did you mean 'work'?",
    ]


def test_a_bad_variable_or_flag_is_named_instead_of_a_line(file: Path) -> None:
    with pytest.raises(
        InvalidConfiguration, match=r"^environment variable LLMASOS_WORK__PORT: work\.port: expected a whole"
    ):
        load_yaml(file, Settings, environment={"LLMASOS_WORK__PORT": "x"})
    with pytest.raises(
        InvalidConfiguration, match=r"^flag for work\.port: work\.port: expected at most 65535, got 70000\."
    ):
        load_yaml(file, Settings, overrides={"work.port": 70000})
    with pytest.raises(InvalidConfiguration, match=r"^environment variable LLMASOS_WORK__PRT: .*did you mean 'port'"):
        load_yaml(file, Settings, environment={"LLMASOS_WORK__PRT": "1"})


def test_a_variable_inside_a_plain_value_is_refused(file: Path) -> None:
    message = r"LLMASOS_CONSORTIUM__X: consortium\.x: expected consortium to hold fields, got 'north' from .*settings\.yaml:1\."
    with pytest.raises(InvalidConfiguration, match=message):
        load_yaml(file, Settings, environment={"LLMASOS_CONSORTIUM__X": "1"})


def test_an_override_reaches_into_a_section_that_is_absent_or_null(file: Path) -> None:
    assert load_yaml(write(file, "consortium: a\n"), Settings, overrides={"work.port": 5}).work.port == 5
    assert load_yaml(write(file, "consortium: a\nwork:\n"), Settings, overrides={"work.port": 5}).work.port == 5


def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidConfiguration, match=r"none\.yaml: expected a file to read, got: no such file or directory\."
    ):
        load_yaml(tmp_path / "none.yaml", Settings)
    with pytest.raises(InvalidConfiguration, match=r"expected a file to read, got: is a directory\."):
        load_yaml(tmp_path, Settings)


def test_bytes_that_are_not_utf8_are_refused_with_their_line(file: Path) -> None:
    file.write_bytes(b"consortium: a\n# caf\xe9\n")
    with pytest.raises(InvalidConfiguration, match=r"settings\.yaml:2: expected UTF-8 text, got the byte 0xe9\."):
        load_yaml(file, Settings)


def test_a_byte_order_mark_is_no_text(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbfconsortium: a\n")
    assert load_yaml(file, Settings).consortium == "a"


def test_a_file_beyond_the_bound_is_not_read_whole(file: Path) -> None:
    with file.open("wb") as out:
        out.truncate(2**32)
    with pytest.raises(InvalidConfiguration, match=r"expected at most 1,048,576 bytes, got more\."):
        load_yaml(file, Settings)
