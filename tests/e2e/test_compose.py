"""docker-compose.yml, every service run with its command, environment and mounts, to a finished federation."""

from __future__ import annotations

import json
import socket
import sysconfig
from pathlib import Path

import pytest

from tests.support.compose import Compose, Stage, search_path
from tests.support.federations import until

pytestmark = [pytest.mark.torch, pytest.mark.slow]

REPOSITORY = Path(__file__).resolve().parents[2]
INSTITUTIONS = ("asyncio", "email", "multiprocessing")
SMALLER = {"rounds: 3": "rounds: 1", "steps: 10": "steps: 2", "max_tokens: 4096": "max_tokens: 512"}


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """The shipped plan, shorter."""
    text = (REPOSITORY / "configs" / "plans" / "compose.yaml").read_text()
    for before, after in SMALLER.items():
        assert text.count(before) == 1
        text = text.replace(before, after)
    path = tmp_path / "configs" / "compose.yaml"
    path.parent.mkdir()
    path.write_text(text)
    return path


def stage(tmp_path: Path, plan: Path) -> Stage:
    work, enrolment, bulk = free_ports(3)
    return Stage(
        Compose.load(REPOSITORY / "docker-compose.yml"),
        tmp_path,
        images={
            "/opt/llmasos/configs/plans/compose.yaml": plan,
            "/opt/llmasos/configs": REPOSITORY / "configs",
            "/usr/local/lib/python3.11": Path(sysconfig.get_path("stdlib")),
        },
        replaced={
            f"{host}:{port}": f"127.0.0.1:{free}"
            for host in ("0.0.0.0", "coordinator")
            for port, free in ((7443, work), (7444, enrolment), (7445, bulk))
        },
        # Another user takes root, and an account that only the image has.
        environment={
            "PATH": search_path(),
            "LLMASOS_PARTICIPANT_WORKER__USER": None,
            "OMP_NUM_THREADS": "1",
        },
    )


def test_compose_up_brings_a_run_to_its_end_and_up_again_changes_nothing(tmp_path: Path, plan: Path) -> None:
    pytest.importorskip("torch")
    with stage(tmp_path, plan) as one:
        one.up({"cpu"})
        assert "round 1 committed (train, all-contributed) 3/3" in one.log("run")
        assert "rounds-done" in one.log("run")
        model = one.volume("results") / "model.safetensors"
        before = model.read_bytes()
        draft = json.loads((one.volume("prepared") / "plan" / "draft.json").read_bytes())
        assert len(before) == draft["initial"]["model"]["size"]
        for name in INSTITUTIONS:
            until(lambda name=name: one.is_healthy(name), f"{name} is healthy", 30)
            home = one.volume(f"{name}-home")
            status = json.loads(
                one.exec(name, "llmasos-participant", "status", "--format", "json", "--home", str(home))
            )
            assert (status["institution"], status["running"]) == (name, True)
            secret = one.volume(f"{name}-invitation") / "invitation"
            assert secret.stat().st_mode & 0o077 == 0
        assert one.order.index("coordinator") < one.order.index("invitations") < one.order.index("join-email")
    with stage(tmp_path, plan) as again:
        again.up({"cpu"})
        assert "founded before" in again.log("founding")
        assert again.log("join-asyncio").endswith("joined before\n")
        assert model.read_bytes() == before
