"""docker-compose.yml is a Compose file, and keeps the rules that a federation of institutions needs."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from tests.support.compose import Compose, Service, walk

REPOSITORY = Path(__file__).resolve().parents[2]
COMPOSE = Compose.load(REPOSITORY / "docker-compose.yml")
SERVICES = COMPOSE.services
INSTITUTIONS = ("asyncio", "email", "multiprocessing")
AGENTS = [name for base in INSTITUTIONS for name in (base, f"{base}-gpu")]
SECRET = re.compile(r"secret|password|passphrase|token|credential|private|api_?key", re.IGNORECASE)


def of_institution(name: str) -> list[Service]:
    return [SERVICES[f"join-{name}"], SERVICES[name], SERVICES[f"{name}-gpu"]]


def named(service: Service) -> set[str]:
    return {mount.source for mount in service.mounts if mount.is_named}


@pytest.fixture(scope="module")
def schema() -> Any:
    """The Compose Specification's own schema, as check-jsonschema ships it."""
    return json.loads((files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json").read_text())


def test_the_file_is_what_the_compose_specification_says(schema: Any) -> None:
    jsonschema.validate(COMPOSE.raw, schema)


def test_the_schema_notices_what_is_wrong(schema: Any) -> None:
    spoiled = json.loads(json.dumps(COMPOSE.raw))
    spoiled["services"]["run"]["depend_on"] = []
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(spoiled, schema)


def test_whatever_is_waited_for_mounted_or_joined_exists() -> None:
    for name, service in SERVICES.items():
        assert set(service.waits_for) <= set(SERVICES), name
        assert named(service) <= set(COMPOSE.raw["volumes"]), name
        assert service.networks <= set(COMPOSE.raw["networks"]), name


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_a_profile_is_whole_and_runs_each_institution_once(profile: str) -> None:
    active = COMPOSE.active({profile})
    for service in active.values():
        assert set(service.waits_for) <= set(active)
    daemons = [name for name in active if name in AGENTS]
    assert sorted(named(active[name]) for name in daemons) == [{f"{name}-home"} for name in INSTITUTIONS]


def test_cpu_is_what_runs_where_nothing_is_said() -> None:
    assert "COMPOSE_PROFILES=cpu" in (REPOSITORY / ".env").read_text().splitlines()


def test_only_the_gpu_profile_asks_for_a_device() -> None:
    for name, service in SERVICES.items():
        assert ("deploy" in service.raw) == (service.profiles == {"gpu"}), name
    for name in INSTITUTIONS:
        (device,) = SERVICES[f"{name}-gpu"].raw["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])


def test_nothing_is_published_but_on_loopback() -> None:
    for service in SERVICES.values():
        for port in service.raw.get("ports", []):
            host = port.get("host_ip", "") if isinstance(port, dict) else str(port).rpartition(":")[0]
            assert host.startswith(("127.0.0.1", "[::1]")), f"{service.name}: {port}"


def test_institutions_share_a_network_with_the_coordinator_and_with_nobody_else() -> None:
    for name in INSTITUTIONS:
        (network,) = set().union(*(service.networks for service in of_institution(name)))
        users = {each.name for each in SERVICES.values() if network in each.networks}
        assert users == {"coordinator", *(service.name for service in of_institution(name))}
        assert COMPOSE.raw["networks"][network]["internal"] is True


def test_who_has_no_network_of_its_own_says_so() -> None:
    for name, service in SERVICES.items():
        assert bool(service.networks) != (service.raw.get("network_mode") in ("none", "service:coordinator")), name


def test_an_institutions_volumes_are_its_own_and_its_invitation_is_read_only_there() -> None:
    for name in INSTITUTIONS:
        mine = set().union(*(named(service) for service in of_institution(name)))
        assert mine == {f"{name}-home", f"{name}-invitation"}
        others = {each.name for each in SERVICES.values() if named(each) & mine}
        assert others == {"invitations", *(service.name for service in of_institution(name))}
        (invitation,) = [each for each in SERVICES[f"join-{name}"].mounts if each.source == f"{name}-invitation"]
        assert invitation.read_only
        assert f"{name}-home" not in named(SERVICES["invitations"])


def test_no_service_sees_the_host() -> None:
    for name, service in SERVICES.items():
        assert all(mount.is_named or not mount.source for mount in service.mounts), name
        assert not {"privileged", "pid", "ipc", "devices"} & set(service.raw), name


def test_no_secret_stands_in_an_environment() -> None:
    for name, service in SERVICES.items():
        assert not [each for each in service.environment if SECRET.search(each)], name
    assert not [text for text in walk(COMPOSE.raw) if "BEGIN " in text]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_no_more_rights_than_it_needs(name: str) -> None:
    raw = SERVICES[name].raw
    assert raw["read_only"] is True
    assert raw["cap_drop"] == ["ALL"]
    assert raw["security_opt"] == ["no-new-privileges:true"]
    agent = name in AGENTS or name.startswith("join-")
    assert (raw.get("user") == "root") == agent
    allowed = {"CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID"} if agent else set()
    assert set(raw.get("cap_add", [])) == allowed


@pytest.mark.parametrize("name", AGENTS)
def test_the_worker_runs_as_another_user(name: str) -> None:
    account = SERVICES[name].environment["LLMASOS_PARTICIPANT_WORKER__USER"]
    dockerfile = (REPOSITORY / "Dockerfile").read_text()
    assert re.search(rf"^.*useradd --system .* {account}\b", dockerfile, re.MULTILINE)


def test_daemons_have_a_healthcheck_and_everything_else_ends() -> None:
    for name, service in SERVICES.items():
        assert bool(service.health) == bool(service.raw.get("restart")) == (name in {"coordinator", *AGENTS}), name


def test_scripts_exist_and_say_when_something_fails() -> None:
    scripts = {word for service in SERVICES.values() for word in service.words if word.endswith(".sh")}
    folder = REPOSITORY / "configs" / "compose"
    assert {f"/opt/llmasos/configs/compose/{path.name}" for path in folder.iterdir()} == scripts
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o111 == 0o111, path
        assert "\nset -eu\n" in path.read_text(), path


# --- the image --------------------------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (REPOSITORY / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n", " ", text).splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines) if word]


def test_the_image_ends_as_a_user_and_carries_no_tools_of_the_build() -> None:
    words = instructions()
    last = max(index for index, (word, _) in enumerate(words) if word == "FROM")
    assert [rest for word, rest in words[last:] if word == "USER"] == ["llmasos"]
    assert sum(word == "FROM" for word, _ in words) == 2
    assert not any("pip install" in rest for word, rest in words[last:])


def test_the_base_is_pinned_and_matches_the_paths_of_the_sample_text() -> None:
    (base,) = [rest for word, rest in instructions() if word == "ARG" and rest.startswith("PYTHON=")]
    version = re.fullmatch(r"PYTHON=(\d+\.\d+)-slim-\w+", base)
    assert version is not None
    for name in INSTITUTIONS:
        assert SERVICES[name].environment["TEXT"] == f"/usr/local/lib/python{version[1]}/{name}"


def test_what_the_build_copies_is_in_its_context() -> None:
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    kept = [line[1:] for line in lines if line.startswith("!")]
    assert "*" in lines
    assert all((REPOSITORY / path).exists() for path in kept)
    for needed in ("pyproject.toml", "constraints.txt", "configs", "common", "coordinator", "participant", "llmasos"):
        assert needed in kept
    assert ".env" not in kept


def test_folders_that_a_service_writes_to_are_made_for_its_user() -> None:
    made = " ".join(rest for word, rest in instructions() if word == "RUN" and "install -d" in rest)
    for service in SERVICES.values():
        for mount in service.mounts:
            if mount.is_named and not mount.read_only:
                assert f" {mount.target}" in made, f"{service.name}: {mount.target}"
