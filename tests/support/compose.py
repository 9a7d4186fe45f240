"""docker-compose.yml without Docker: its services run as processes of this machine, in their order, to their end.

    compose = Compose.load(REPOSITORY / "docker-compose.yml")
    with Stage(compose, tmp_path, images=…, addresses=…) as stage:
        stage.up(profiles={"cpu"})                     # returns when every one-shot has ended well
        stage.volume("results")

Understood: entrypoint, command, environment, volumes, tmpfs, depends_on with its three conditions, healthchecks, profiles.
Users, capabilities, networks and limits are the kernel's and are not made here. Paths inside the image and inside volumes are
mapped to folders, and addresses to free ports, wherever they stand in a command or in the environment.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from llmasos.simulation.processes import Child, Processes

PATIENCE_SECONDS = 170.0
TICK_SECONDS = 0.1


@dataclass(frozen=True)
class Mount:
    """A named volume, a bind mount (source begins with . or /) or a tmpfs (no source)."""

    source: str
    target: str
    read_only: bool = False

    @property
    def is_named(self) -> bool:
        return bool(self.source) and self.source[0] not in "./~"


@dataclass(frozen=True)
class Service:
    """One service, as far as it says what runs."""

    name: str
    raw: Mapping[str, Any]

    @property
    def words(self) -> list[str]:
        return [*_words(self.raw.get("entrypoint")), *_words(self.raw.get("command"))]

    @property
    def environment(self) -> dict[str, str]:
        given = self.raw.get("environment") or {}
        pairs = (each.split("=", 1) for each in given) if isinstance(given, list) else given.items()
        return {str(name): str(value) for name, value in pairs}

    @property
    def mounts(self) -> list[Mount]:
        mounts = [_mount(each) for each in self.raw.get("volumes", [])]
        return mounts + [Mount("", target) for target in self.raw.get("tmpfs", [])]

    @property
    def profiles(self) -> set[str]:
        return set(self.raw.get("profiles", []))

    @property
    def waits_for(self) -> dict[str, str]:
        """Condition by service."""
        given = self.raw.get("depends_on") or {}
        if isinstance(given, list):
            return dict.fromkeys(given, "service_started")
        return {name: entry["condition"] for name, entry in given.items()}

    @property
    def health(self) -> list[str]:
        """The healthcheck's words, empty where there is none."""
        test = (self.raw.get("healthcheck") or {}).get("test", [])
        if isinstance(test, str):
            return ["/bin/sh", "-c", test]
        return ["/bin/sh", "-c", *test[1:]] if test[:1] == ["CMD-SHELL"] else list(test[1:])

    @property
    def networks(self) -> set[str]:
        return set(self.raw.get("networks", []))


@dataclass(frozen=True)
class Compose:
    """The whole file."""

    raw: Mapping[str, Any]

    @classmethod
    def load(cls, path: Path) -> Compose:
        return cls(yaml.safe_load(path.read_text(encoding="utf-8")))

    @property
    def services(self) -> dict[str, Service]:
        return {name: Service(name, raw) for name, raw in self.raw["services"].items()}

    def active(self, profiles: set[str]) -> dict[str, Service]:
        """Services without a profile, and those of these profiles."""
        return {name: each for name, each in self.services.items() if not each.profiles or each.profiles & profiles}


class Stage:
    """Folders for the volumes, free ports for the addresses, and the processes; all of them end with the `with` block.

    Args:
        images: folders of this machine that stand for folders of the image.
        replaced: text that is replaced in commands and environment: addresses.
        environment: variables that are added to, or (None) taken from, every service's.
    """

    def __init__(
        self,
        compose: Compose,
        folder: Path,
        *,
        images: Mapping[str, Path],
        replaced: Mapping[str, str],
        environment: Mapping[str, str | None],
    ) -> None:
        self._compose = compose
        self._folder = folder
        self._images = images
        self._replaced = replaced
        self._environment = environment
        self._processes = Processes()
        self.children: dict[str, Child] = {}
        self.order: list[str] = []

    def __enter__(self) -> Self:
        self._processes.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._processes.__exit__(kind, error, trace)

    def volume(self, name: str) -> Path:
        """A named volume's folder."""
        folder = self._folder / "volumes" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def log(self, name: str) -> str:
        """What a service wrote."""
        return (self._folder / "logs" / f"{name}.log").read_text(errors="replace")

    def up(self, profiles: set[str]) -> None:
        """Start every service when what it waits for is there; return when all that are no daemons have ended well.

        Raises:
            AssertionError: one failed, or not all ended in time.
        """
        services = self._compose.active(profiles)
        one_shots = {name for each in services.values() for name, how in each.waits_for.items() if _ends(how)}
        one_shots |= {name for name, each in services.items() if not each.raw.get("restart")}
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            for name, service in services.items():
                if name not in self.children and all(self._met(*each) for each in service.waits_for.items()):
                    self._start(service)
            self._check(services, one_shots)
            if all(name in self.children and self.children[name].exit_code == 0 for name in one_shots):
                return
            time.sleep(TICK_SECONDS)
        waiting = [name for name in services if name not in self.children or self.children[name].exit_code is None]
        raise AssertionError(f"not all ended within {PATIENCE_SECONDS:g} s; not started or running: {waiting}")

    def is_healthy(self, name: str) -> bool:
        """Run the service's healthcheck once."""
        service = self._compose.services[name]
        words = [self._mapped(word.replace("$$", "$"), service) for word in service.health]
        check = self._spawn(f"{name}.health", words, service)
        check.process.wait(60)
        return check.exit_code == 0

    def exec(self, name: str, *words: str) -> str:
        """What `docker compose exec NAME WORDS…` prints."""
        child = self._spawn(f"{name}.exec", list(words), self._compose.services[name], capture=True)
        output, _ = child.process.communicate(timeout=60)
        return output.decode()

    # --- how ---------------------------------------------------------------------------------------------------------

    def _met(self, name: str, condition: str) -> bool:
        child = self.children.get(name)
        if child is None:
            return False
        if _ends(condition):
            return child.exit_code == 0
        return condition == "service_started" or self.is_healthy(name)

    def _check(self, services: Mapping[str, Service], one_shots: set[str]) -> None:
        for name in services:
            child = self.children.get(name)
            code = child.exit_code if child is not None else None
            if code is not None and (code != 0 or name not in one_shots):
                raise AssertionError(f"{name} ended with {code}:\n{self.log(name)[-3000:]}")

    def _start(self, service: Service) -> None:
        words = [self._mapped(word.replace("$$", "$"), service) for word in service.words]
        self.children[service.name] = self._spawn(service.name, words, service)
        self.order.append(service.name)

    def _spawn(self, log: str, words: Sequence[str], service: Service, *, capture: bool = False) -> Child:
        given = {name: self._mapped(value.replace("$$", "$"), service) for name, value in service.environment.items()}
        for name, value in self._environment.items():
            given.pop(name, None)
            if value is not None:
                given[name] = value
        path = self._folder / "logs" / f"{log}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        assignments = [f"{name}={value}" for name, value in given.items()]
        return self._processes.start(log, ["/usr/bin/env", *assignments, *words], log=path, capture=capture)

    def _mapped(self, text: str, service: Service) -> str:
        for before, after in self._replaced.items():
            text = text.replace(before, after)
        targets = {mount.target: self._source(mount) for mount in service.mounts if mount.source}
        for target, folder in sorted({**self._images, **targets}.items(), key=lambda item: -len(item[0])):
            text = re.sub(rf"(?<![\w/]){re.escape(target)}(?=/|$|\s)", str(folder), text)
        return text

    def _source(self, mount: Mount) -> Path:
        return self.volume(mount.source) if mount.is_named else Path(mount.source)


def _words(given: Any) -> list[str]:
    return shlex.split(given) if isinstance(given, str) else [str(word) for word in given or []]


def _mount(given: Any) -> Mount:
    if isinstance(given, dict):
        return Mount(given.get("source", ""), given["target"], bool(given.get("read_only")))
    source, target, *options = given.split(":")
    return Mount(source, target, "ro" in options)


def _ends(condition: str) -> bool:
    return condition == "service_completed_successfully"


def scripts_folder() -> Path:
    """Where this environment's commands lie."""
    return Path(sys.executable).parent


def search_path() -> str:
    """PATH with this environment's commands first."""
    return os.pathsep.join([str(scripts_folder()), os.environ.get("PATH", os.defpath)])


def walk(value: Any) -> Iterator[str]:
    """Every text inside."""
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from walk(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from walk(inner)
    elif isinstance(value, str):
        yield value
