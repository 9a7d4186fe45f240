"""docs/tour.md tells what the code does: every place that it names exists, and the script tells a recorded run like it."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
from functools import cache
from pathlib import Path

import pytest

from common.statements.kinds import Kind
from scripts.make_tour import BEGIN, END, TOUR, render, replaced
from scripts.tour.markdown import fill, pretty
from scripts.tour.recording import Recording

ROOT = Path(__file__).resolve().parents[2]
RECORDING = ROOT / "tests" / "support" / "tour_recording.json"
MAX_COLUMNS = 120
NOT_BUILT = {Kind.ATTESTATION, Kind.RELEASE}

FILE = re.compile(r"`([A-Za-z0-9_/.]+/[A-Za-z0-9_]+\.py)(?::([A-Za-z0-9_.]+))?`")
CALL = re.compile(r"`(Work|Blobs|Operations|Enrolment)\.([A-Z][A-Za-z]+)`")


@pytest.fixture(scope="module")
def recording() -> Recording:
    return Recording.from_json(RECORDING.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def told(recording: Recording) -> str:
    return render(recording)


def document() -> str:
    return TOUR.read_text(encoding="utf-8")


def generated(text: str) -> str:
    return text.partition(BEGIN)[2].partition(END)[0]


@cache
def definitions(path: Path) -> frozenset[str]:
    """Functions, classes and their methods of a module, dotted."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, kinds):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{member.name}" for member in node.body if isinstance(member, kinds)}
    return frozenset(names)


def outline(text: str) -> list[str]:
    """What stays the same from run to run: headings, captions of tables, and the code that is named."""
    return [line for line in text.splitlines() if line.startswith("### ") or FILE.search(line)]


def missing(text: str) -> list[str]:
    """Named files and functions that are not there."""
    faults = []
    for path, name in FILE.findall(text):
        if not (ROOT / path).is_file():
            faults.append(path)
        elif name and name not in definitions(ROOT / path):
            faults.append(f"{path}:{name}")
    return faults


def test_every_file_and_function_that_the_tour_names_exists() -> None:
    assert len(FILE.findall(document())) > 80
    assert missing(document()) == []


def test_a_function_that_is_gone_is_noticed() -> None:
    assert missing("`participant/agent.py:Agent.run` `participant/agent.py:Agent.gone` `participant/gone.py`") == [
        "participant/agent.py:Agent.gone",
        "participant/gone.py",
    ]


def test_every_call_that_the_tour_names_is_in_the_wire_contract() -> None:
    called = set(CALL.findall(document()))
    assert {method for _, method in called} >= {"Follow", "Submit", "Report", "Begin", "Put", "Leaves", "Get", "Enrol"}
    for service, method in called:
        proto = (ROOT / "proto" / "llmasos" / "v1" / f"{service.lower()}.proto").read_text(encoding="utf-8")
        assert f"rpc {method}(" in proto, f"{service}.{method}"


def test_the_tour_dumps_a_statement_of_every_kind_that_is_built() -> None:
    dumped = set(re.findall(r'"predicateType": "https://llmasos.org/statement/([a-z-]+)/v1"', generated(document())))
    assert dumped == {kind.value for kind in set(Kind) - NOT_BUILT}


def test_every_dump_in_json_is_json() -> None:
    for block in re.findall(r"^```json\n(.*?)^```", document(), flags=re.MULTILINE | re.DOTALL):
        json.loads(block)


def test_no_line_but_those_of_tables_is_beyond_120_columns() -> None:
    lines = enumerate(document().splitlines(), start=1)
    assert [number for number, line in lines if len(line) > MAX_COLUMNS and not line.startswith("|")] == []


def test_the_tour_names_no_folder_of_the_machine_that_made_it(told: str) -> None:
    for text in (document(), told, RECORDING.read_text(encoding="utf-8")):
        assert re.findall(r"(?<![\w.`*])/(?:tmp|home|root|work|Users|var|private)/\S*", text) == []


def test_the_tour_in_the_repository_is_the_one_that_the_script_writes(told: str) -> None:
    assert outline(generated(document())) == outline(told), "run `make tour` and commit docs/tour.md"


def test_a_recording_survives_its_file(recording: Recording) -> None:
    assert Recording.from_json(recording.to_json()) == recording


def test_the_arithmetic_that_the_tour_prints_is_checked(recording: Recording) -> None:
    other = dataclasses.replace(recording, element=recording.element | {"new": 1.0})
    with pytest.raises(ValueError, match=r"element 0 of the model is 1\.0, by the formula -?\d"):
        render(other)


def test_only_what_is_between_the_markers_is_replaced() -> None:
    assert replaced(f"a\n{BEGIN}\nold\n{END}\nz\n", "new\n") == f"a\n{BEGIN}\n\nnew\n\n{END}\nz\n"
    for text in ("no markers", f"{END} {BEGIN}", f"{BEGIN} {BEGIN} {END}", f"{BEGIN} {END} {END}"):
        with pytest.raises(ValueError, match="once each, in this order"):
            replaced(text, "new")


def test_digests_are_cut_and_short_values_stay_on_their_line() -> None:
    assert pretty({"sha256": "ab" * 32, "size": 3}) == '{"sha256": "abababababab…", "size": 3}'
    assert pretty({"key": "x" * 120}) == '{"key": "' + "x" * 40 + '… (120 characters)"}'
    assert pretty({"names": ["institution"] * 12}).count("\n") == 15
    assert max(len(line) for line in fill("word " * 100).splitlines()) <= MAX_COLUMNS
