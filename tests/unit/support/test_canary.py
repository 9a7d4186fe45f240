"""The search finds a sentinel in whatever form it left: a test that cannot fail proves nothing."""

from __future__ import annotations

import base64
import gzip
import html
import io
import json
import random
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.canary import Canaries, find, find_in_text

NOTE = Canaries().note
LINE = f"2026-01-01 INFO worker: text={NOTE} and more"


def zipped(text: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner.txt", text)
    return file.getvalue()


def tarred(text: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        entry = tarfile.TarInfo("inner.txt")
        entry.size = len(text.encode())
        archive.addfile(entry, io.BytesIO(text.encode()))
    return file.getvalue()


FORMS: dict[str, Callable[[str], bytes]] = {
    "plain": str.encode,
    "utf-16": lambda text: text.encode("utf-16"),
    "utf-32": lambda text: text.encode("utf-32-be"),
    "latin-1": lambda text: text.encode("latin-1"),
    "json": lambda text: json.dumps(text).encode(),
    "json in json": lambda text: json.dumps({"inner": json.dumps(text)}).encode(),
    "python": lambda text: ascii(text).encode(),
    "bytes of python": lambda text: repr(text.encode()).encode(),
    "url": lambda text: quote(text).encode(),
    "html": lambda text: html.escape(text).encode("ascii", "xmlcharrefreplace"),
    "lower case": lambda text: text.lower().encode(),
    "hex": lambda text: text.encode().hex().encode(),
    "hex with spaces": lambda text: text.encode().hex(" ").encode(),
    "base64": lambda text: base64.b64encode(text.encode()),
    "base64, one later": lambda text: base64.b64encode(b"x" + text.encode()),
    "base64, two later": lambda text: base64.b64encode(b"xy" + text.encode()),
    "base64 for urls": lambda text: base64.urlsafe_b64encode(text.encode()),
    "base64 in lines": lambda text: base64.encodebytes(text.encode() * 3),
    "base64 of json": lambda text: base64.b64encode(json.dumps(text).encode()),
    "gzip": lambda text: gzip.compress(text.encode()),
    "zip": zipped,
    "tar.gz": tarred,
    "zip of base64": lambda text: zipped(base64.b64encode(text.encode()).decode()),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_sentinel_is_found_as(form: str, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    path = tmp_path / "logs" / "agent.log"
    path.write_bytes(random.Random(form).randbytes(501) + b"\n")
    assert find([NOTE], [tmp_path]) == []
    content = FORMS[form](LINE)
    path.write_bytes(content if "z" in form else path.read_bytes() + content + b"\n tail")
    assert {found.sentinel for found in find([NOTE], [tmp_path])} == {NOTE}


def test_a_sentinel_is_found_in_a_database_in_a_deleted_row_and_across_pages(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "state.sqlite")
    connection.execute("PRAGMA secure_delete=OFF")
    connection.execute("CREATE TABLE t (a TEXT)")
    connection.execute("INSERT INTO t VALUES (?)", ("other",))
    connection.commit()
    assert find([NOTE], [tmp_path]) == []
    for value in ("x" * 4080 + NOTE * 2 + "x" * 5000, json.dumps([1, NOTE])):
        connection.execute("INSERT INTO t VALUES (?)", (value,))
        connection.commit()
        assert any(found.where.endswith("state.sqlite:t") for found in find([NOTE], [tmp_path]))
        connection.execute("DELETE FROM t WHERE a != 'other'")
        connection.commit()
    assert find([NOTE], [tmp_path])
    connection.close()


def test_names_of_files_are_searched_and_folders_left_out(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "tokens").write_text(NOTE)
    assert find([NOTE], [tmp_path], without=[tmp_path / "jobs"]) == []
    (tmp_path / f"{NOTE}.txt").touch()
    found = find([NOTE], [tmp_path], without=[tmp_path / "jobs"])
    assert {one.where for one in found} == {f"name of {tmp_path}/{NOTE}.txt"}


def test_a_quotation_that_is_cut_off_holds_a_whole_sentinel() -> None:
    text = " ".join([NOTE] * 20)
    assert all(find_in_text([NOTE], text[start : start + 2 * len(NOTE) + 2], "error") for start in range(30))


def test_no_sentinel_is_part_of_another() -> None:
    birds = Canaries().all
    assert not [(one, other) for one in birds for other in birds if one is not other and one in other]
