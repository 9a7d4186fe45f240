"""Layers that each institution trains for itself: in no file of anybody else's, whole after a kill, measured with the rest."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from common.tensors import delta_size, model_size
from common.terminal import exit_code_of
from coordinator.cli import app as operators_app
from participant.config import HomeLayout
from participant.memory.journal import Journal
from tests.support.drafts import Draft
from tests.support.federations import Federation, until
from tests.support.texts import make_institutions

pytestmark = pytest.mark.torch

NAMES = ("bank", "clinic", "laboratory")
NUMBERS = 6
"""That many in a row come about by chance nowhere."""
MOST_WINDOWS = 150


def windows(file: Path) -> list[bytes]:
    """Pieces of each tensor of a file of personal layers, where training made them anything but constant."""
    from safetensors.numpy import load_file

    found = []
    for values in load_file(file).values():
        flat = np.ascontiguousarray(values).reshape(-1)
        for first in range(0, flat.size - NUMBERS, NUMBERS):
            piece = flat[first : first + NUMBERS]
            if len(np.unique(piece)) == NUMBERS:
                found.append(piece.tobytes())
    return found[:: max(1, len(found) // MOST_WINDOWS)]


def holders(pieces: list[bytes], folder: Path) -> list[Path]:
    """Files under a folder that hold any of the pieces."""
    wanted = set(pieces)
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            if any(piece in data for piece in wanted):
                found.append(path)
    return found


def test_no_byte_of_personal_layers_leaves_the_house(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from safetensors.numpy import load, load_file

    from llmasos.preparation import load_prepared
    from tests.support.jobs import a_training_plan, make_prepared

    plan = a_training_plan(
        rounds=3,
        quorum=3,
        personal=["ln_1", "ln_f", "mlp.c_fc"],
        local={"steps": 150},
        metrics_visibility="institution",
    )
    prepared = load_prepared(make_prepared(tmp_path / "plan", plan))
    manifest = prepared.draft.manifest
    own = {entry.name for entry in manifest if entry.group == "personal"}
    assert len(own) == 6
    with Federation(tmp_path / "federation", NAMES, worker=None) as federation:
        for name, folder in zip(NAMES, make_institutions(tmp_path / "text", count=3).values(), strict=True):
            folder.rename(federation.data(name) / "texts")
        federation.start_participants()
        run = federation.start_run(Draft(prepared.draft, prepared.folder))
        federation.wait_until_open(run, 2)
        snapshots = federation.home("clinic") / "jobs" / run / "personal"
        until((snapshots / "round-00000001.safetensors").exists, "clinic has trained a round")
        federation.kill_participant("clinic")
        federation.start_participant("clinic")
        ended = federation.wait_until_ended(run)
        assert ended.ended is not None
        assert ended.ended.reason == "rounds-done"
        assert exit_code_of(operators_app, ["verify", run, "--home", str(federation.coordinator_home)]) == 0
        blobs = [
            federation.blob(ended.model),
            *(
                federation.blob(entry.contribution.blobs["delta"])
                for record in ended.committed()
                for entry in record.contributions.values()
            ),
        ]
        for name in NAMES:
            folder = federation.home(name) / "jobs" / run / "personal"
            until(lambda job=folder.parent: os.listdir(job) == ["personal"], "the run's other files are gone")
            files = [folder / f"round-{number:08d}.safetensors" for number in (0, 2, 3)]
            assert sorted(folder.iterdir()) == files
            initial, before, after = (load_file(file) for file in files)
            assert initial.keys() == before.keys() == after.keys() == own
            for one, two in pairwise((initial, before, after)):
                assert all((one[key] != two[key]).any() for key in own)
            pieces = windows(files[1]) + windows(files[2])
            assert len(pieces) > 100
            assert holders(pieces, folder) == files[1:]
            assert holders(pieces, federation.coordinator_home) == []
            for other in set(NAMES) - {name}:
                assert holders(pieces, federation.home(other)) == []
        journal = Journal(HomeLayout(federation.home("bank")).journal)
        sent = [entry.bytes for entry in journal.egress() if entry.kind == "delta"]
        journal.close()
        assert sent == [delta_size(manifest)] * 3  # nobody killed the bank: not a byte of a blob more than its deltas
    assert all(not own & load(blob).keys() for blob in blobs)
    assert {len(blob) for blob in blobs} == {model_size(manifest), delta_size(manifest)}


def test_institutions_with_different_text_have_different_layers_and_one_shared_model(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from safetensors.numpy import load_file

    from llmasos.preparation import load_prepared
    from tests.support.jobs import a_training_plan, make_prepared

    prepared = load_prepared(make_prepared(tmp_path / "plan", a_training_plan(rounds=1, quorum=3, personal=["ln_1"])))
    with Federation(tmp_path / "federation", NAMES, worker=None) as federation:
        for name, folder in zip(NAMES, make_institutions(tmp_path / "text", count=3).values(), strict=True):
            folder.rename(federation.data(name) / "texts")
        federation.start_participants()
        run = federation.start_run(Draft(prepared.draft, prepared.folder))
        federation.wait_until_ended(run)
        files = [federation.home(name) / "jobs" / run / "personal" / "round-00000001.safetensors" for name in NAMES]
        layers = [load_file(file)["transformer.h.0.ln_1.weight"].tobytes() for file in files]
    assert len(set(layers)) == 3
