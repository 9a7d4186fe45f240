"""The output folder: claimed by one simulation, cleared of earlier ones only."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import AlreadyInitialised, HomeLocked
from llmasos.simulation.layout import OWNED, claim


def test_a_new_folder_is_made_and_a_second_simulation_starts_clean(tmp_path: Path) -> None:
    out = tmp_path / "out" / "demo"
    with claim(out) as layout:
        layout.data.mkdir()
        layout.report_json.write_text("{}")
    with claim(out) as layout:
        assert not layout.data.exists()
        assert not layout.report_json.exists()


def test_files_of_somebody_else_are_never_removed(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(AlreadyInitialised, match="is not empty and holds no earlier simulation"), claim(tmp_path):
        pass
    assert (tmp_path / "thesis.tex").exists()


def test_what_a_person_added_later_stays(tmp_path: Path) -> None:
    with claim(tmp_path):
        pass
    (tmp_path / "notes.txt").write_text("mine")
    with claim(tmp_path):
        assert (tmp_path / "notes.txt").exists()


def test_a_link_in_place_of_a_folder_is_removed_without_its_target(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    with claim(tmp_path / "out"):
        (tmp_path / "out" / "data").symlink_to(precious)
    with claim(tmp_path / "out"):
        assert (precious / "file").exists()


def test_two_simulations_never_share_a_folder(tmp_path: Path) -> None:
    with claim(tmp_path), pytest.raises(HomeLocked, match="Another simulation runs in"), claim(tmp_path):
        pass


def test_every_path_is_one_that_the_next_simulation_clears(tmp_path: Path) -> None:
    with claim(tmp_path) as layout:
        public = [name for name in dir(type(layout)) if not name.startswith("_")]
        paths = [value for name in public if isinstance(value := getattr(layout, name), Path)]
        paths += [layout.participant("a"), layout.invitation("a"), layout.log("a")]
        below = {path.relative_to(layout.root).parts[0] for path in paths if path != layout.root}
    assert below <= set(OWNED)
