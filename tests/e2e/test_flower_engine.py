"""`simulate --engine flower`: the process engine's very bits, many institutions, and nothing left behind."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytest.importorskip("ray")
pytest.importorskip("flwr")
pytest.importorskip("torch")

from tests.support.jobs import TINY_LOCAL, TINY_MODEL
from tests.support.texts import make_institutions

PLAN = {
    "apiVersion": "llmasos/v1",
    "name": "tiny",
    "model": TINY_MODEL,
    "local": TINY_LOCAL,
    "rounds": 2,
    "seed": 7,
    "evaluation": {"max_tokens": 512},
}
pytestmark = [pytest.mark.torch, pytest.mark.slow, pytest.mark.xdist_group("ray")]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "llmasos.cli", "simulate", *arguments]


def simulate(*arguments: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command(*arguments), capture_output=True, text=True, check=False, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def digest(out: Path) -> str:
    return hashlib.sha256((out / "final.safetensors").read_bytes()).hexdigest()


def report(out: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((out / "report.json").read_text("utf-8"))
    return found


@pytest.mark.parametrize("codec", ["float32", "int8"])
def test_the_same_seeds_give_the_process_engines_model(tmp_path: Path, codec: str) -> None:
    """With int8 the residuals too, and a downlink with its server_state."""
    changes = {} if codec == "float32" else {"codec": {"type": codec}, "downlink": {"type": codec}}
    (tmp_path / "plan.yaml").write_text(json.dumps(PLAN | changes))
    folders = make_institutions(tmp_path / "data", count=3)
    institutions = [f"--institution={name}={folder}" for name, folder in folders.items()]
    processes, flower = tmp_path / "processes", tmp_path / "flower"
    simulate(str(tmp_path / "plan.yaml"), *institutions, "--no-baselines", f"--out={processes}")
    told = simulate(*institutions, "--engine=flower", f"--seeds-from={processes}", f"--out={flower}")
    assert digest(flower) == digest(processes)
    one, other = report(flower), report(processes)
    assert one["final"]["digest"] == other["final"]["digest"]  # type: ignore[index]
    assert one["final"]["perplexity"]["pooled"] == other["final"]["perplexity"]["pooled"]  # type: ignore[index]
    assert one["verification"] is None
    assert "Not verified: this engine signs nothing" in told


def test_a_hundred_institutions_share_one_text_and_the_same_seed_gives_the_same_model(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(json.dumps(PLAN | {"local": TINY_LOCAL | {"steps": 1}, "cohort": {"size": 30}}))
    make_institutions(tmp_path / "text", count=4, documents=400, words=40)
    digests = []
    for name in ("once", "again"):
        arguments = [f"--data={tmp_path / 'text'}", "--partition=dirichlet:100:20", "--engine=flower"]
        told = simulate(str(tmp_path / "plan.yaml"), *arguments, f"--out={tmp_path / name}")
        digests.append(digest(tmp_path / name))
        assert "round 1 opened to v" in told
        assert "(84 between)" in told
        rounds = report(tmp_path / name)["rounds"]
        assert [len(entry["contributors"]) for entry in rounds] == [30, 30, 100]  # type: ignore[attr-defined]
    assert digests[0] == digests[1]


def _interrupted(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Interrupts it in its second round and waits for its end; the processes that it had."""
    assert process.stderr is not None
    for line in process.stderr:
        if "round 2 opened" in line:
            break
    family = psutil.Process(process.pid).children(recursive=True)
    assert any("raylet" in one.name() for one in family)
    process.send_signal(signal.SIGINT)
    process.wait(60)
    process.stderr.close()
    return family


def test_an_interrupted_simulation_leaves_no_ray(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(json.dumps(PLAN | {"rounds": 10_000}))
    folders = make_institutions(tmp_path / "data", count=3)
    institutions = [f"--institution={name}={folder}" for name, folder in folders.items()]
    arguments = (str(tmp_path / "plan.yaml"), *institutions, "--engine=flower", f"--out={tmp_path / 'out'}")
    process = subprocess.Popen(command(*arguments), stderr=subprocess.PIPE, text=True)
    try:
        family = _interrupted(process)
    finally:
        process.kill()
    deadline = time.monotonic() + 30
    while any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in family):
        assert time.monotonic() < deadline, [one.cmdline() for one in family if one.is_running()]
        time.sleep(0.2)
    assert process.returncode != 0
