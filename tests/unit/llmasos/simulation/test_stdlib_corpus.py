"""The demo's text comes from any CPython's standard library."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import TooLittleData
from llmasos.simulation.stdlib_corpus import GROUPS, MIN_BYTES, copy_institution, copy_public_text, stdlib_folder


def written(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_every_institution_and_the_public_text_have_enough_here(tmp_path: Path) -> None:
    for name in GROUPS:
        folder = copy_institution(name, tmp_path / name)
        assert sum(path.stat().st_size for path in folder.rglob("*.py")) >= MIN_BYTES
    public = copy_public_text(tmp_path / "public")
    assert sum(path.stat().st_size for path in public.rglob("*.py")) >= MIN_BYTES


def test_no_module_belongs_to_two_institutions() -> None:
    names = [name for group in GROUPS.values() for name in group]
    assert len(names) == len(set(names))


def test_public_text_holds_nothing_of_an_institution(tmp_path: Path) -> None:
    public = written(copy_public_text(tmp_path / "public"))
    for name in GROUPS:
        assert not public & written(copy_institution(name, tmp_path / name))


def test_folders_that_slim_images_lack_are_never_used(tmp_path: Path) -> None:
    copied = written(copy_public_text(tmp_path / "public"))
    for name in GROUPS:
        copied |= written(copy_institution(name, tmp_path / name))
    parts = {part for path in copied for part in Path(path).parts}
    assert not parts & {"test", "tests", "idlelib", "tkinter", "site-packages", "dist-packages", "__pycache__"}


def test_copies_are_the_files_themselves(tmp_path: Path) -> None:
    folder = copy_institution("networking", tmp_path / "networking")
    assert (folder / "socket.py").read_bytes() == (stdlib_folder() / "socket.py").read_bytes()
    assert (folder / "http" / "client.py").is_file()


def test_a_package_and_a_module_of_one_name_are_both_found(tmp_path: Path) -> None:
    stdlib = tmp_path / "lib"
    (stdlib / "string").mkdir(parents=True)
    (stdlib / "string" / "__init__.py").write_text("x" * MIN_BYTES)
    (stdlib / "sysconfig.py").write_text("y" * MIN_BYTES)
    assert written(copy_institution("text-and-email", tmp_path / "text", stdlib=stdlib)) == {"string/__init__.py"}
    assert written(copy_institution("tools", tmp_path / "tools", stdlib=stdlib)) == {"sysconfig.py"}


@pytest.mark.parametrize("exists", [True, False])
def test_too_little_text_names_the_folder(tmp_path: Path, exists: bool) -> None:
    stdlib = tmp_path / "lib"
    if exists:
        stdlib.mkdir()
        (stdlib / "socket.py").write_text("import os\n")
    with pytest.raises(TooLittleData) as caught:
        copy_institution("networking", tmp_path / "copy", stdlib=stdlib)
    expected = f"The demo's text 'networking' has {10 if exists else 0} bytes in {stdlib}, at least 300,000 are needed."
    assert caught.value.message == expected
    with pytest.raises(TooLittleData, match="'public'"):
        copy_public_text(tmp_path / "public", stdlib=stdlib)
