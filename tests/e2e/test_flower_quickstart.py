"""examples/flower as its README says: a SuperLink of its own, `flwr run`, two rounds, three nodes; no telemetry."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("ray")
pytest.importorskip("flwr")
pytest.importorskip("torch")

from safetensors.numpy import load_file

from llmasos.extras import FLOWER_QUIET
from llmasos.training.institution import initial_arrays
from tests.support.jobs import a_training_plan, make_prepared
from tests.support.texts import make_institutions

EXAMPLE = Path(__file__).parents[2] / "examples" / "flower"
BIN = Path(sys.executable).parent
SECONDS = 240.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(1.0)
        return client.connect_ex(("127.0.0.1", port)) == 0


def environment(home: Path) -> dict[str, str]:
    """Everything that Flower and Ray write goes below `home`, in a short path: Ray makes Unix sockets there."""
    variables = {
        "FLWR_HOME": str(home / "flwr"),
        "RAY_TMPDIR": str(home / "ray"),
        "PATH": f"{BIN}:{os.environ['PATH']}",
    }
    return {**os.environ, **FLOWER_QUIET, **variables, "OMP_NUM_THREADS": "1"}


@contextmanager
def superlink(port: int, home: Path) -> Iterator[None]:
    """A SuperLink in a process group of its own, which ends as a whole."""
    (home / "flwr").mkdir()
    (home / "ray").mkdir()
    (home / "flwr" / "config.toml").write_text(
        f'[superlink.here]\naddress = "127.0.0.1:{port}"\ninsecure = true\n', encoding="utf-8"
    )
    command = [str(BIN / "flower-superlink"), "--insecure", "--simulation", "--host", "127.0.0.1", "--port", str(port)]
    with (home / "superlink.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--disable-runtime-dependency-installation"],
            stdout=log,
            stderr=log,
            env=environment(home),
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + 60
            while not listens(port):
                assert process.poll() is None, (home / "superlink.log").read_text()
                assert time.monotonic() < deadline, "the SuperLink does not listen"
                time.sleep(0.2)
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(20)


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_the_quickstart_trains_and_leaves_a_model(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    prepared = make_prepared(tmp_path, a_training_plan())
    make_institutions(tmp_path / "data", count=3)
    shutil.copytree(EXAMPLE, tmp_path / "app", ignore=shutil.ignore_patterns("__pycache__"))
    home, port = Path("/tmp") / f"lf{os.getpid()}", free_port()
    home.mkdir(mode=0o700)
    paths = {"prepared": prepared, "data": tmp_path / "data", "state": tmp_path / "state", "out": tmp_path / "final"}
    settings = " ".join(f'{name}="{path}"' for name, path in paths.items())
    try:
        with superlink(port, home):
            command = [str(BIN / "flwr"), "run", str(tmp_path / "app"), "here", "--stream", "--run-config", settings]
            done = subprocess.run(
                [*command, "--federation-config", "num-supernodes=3"],
                capture_output=True,
                text=True,
                timeout=SECONDS,
                env=environment(home),
                check=False,
            )
            log = done.stdout + done.stderr
            assert done.returncode == 0, log
            assert log.count("aggregate_train: Received 3 results and 0 failures") == 2, log
            assert (tmp_path / "final").is_file(), log
    finally:
        shutil.rmtree(home, ignore_errors=True)
    initial, final = initial_arrays(prepared), load_file(tmp_path / "final")
    assert final.keys() == initial.keys()
    assert all((final[name] != initial[name]).any() for name in initial)
