"""Configuration: one YAML file, the environment and flags, merged once into a frozen model.

    file  <  environment (LLMASOS_<SECTION>__<FIELD>)  <  flags

    load_yaml(Path("coordinator.yaml"), CoordinatorConfig, environment=os.environ, overrides={"work.port": 7443})

Whatever is wrong, the message names the file and line (or the variable, or the flag), the field, what was expected and
what was there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from common import strict_yaml, validation
from common.errors import InvalidConfiguration

M = TypeVar("M", bound=BaseModel)
FieldPath = tuple[str | int, ...]


def load_yaml(
    path: Path,
    model: type[M],
    *,
    environment: Mapping[str, str] | None = None,
    prefix: str = "LLMASOS_",
    overrides: Mapping[str, Any] | None = None,
    beside: Path | None = None,
) -> M:
    """Read `path` as a `model`.

    Args:
        environment: variables that begin with `prefix` set fields: LLMASOS_WORK__PORT sets work.port. Their values are
            read as YAML. None: the environment is not asked.
        overrides: values by dotted field, as flags give them; None as a value means that the flag was not given.
        beside: the folder that relative paths in the file start from, for a model that reads what one names.

    Raises:
        InvalidConfiguration: unreadable, not YAML, or not what the model says.
    """
    text = _read_file(path)
    return _load(text, str(path), model, environment=environment, prefix=prefix, overrides=overrides, beside=beside)[0]


def load_yaml_with_lines(path: Path, model: type[M]) -> tuple[M, Mapping[str, int], str]:
    """A file as a `model`, the line of each field that stands in it, by dotted name, and the file's text.

    Raises:
        InvalidConfiguration: as `load_yaml`.
    """
    text = _read_file(path)
    loaded, document = _load(text, str(path), model)
    lines = {".".join(str(part) for part in place): line for place, line in document.lines.items() if place}
    return loaded, lines, text


def _load(
    text: str,
    source: str,
    model: type[M],
    *,
    environment: Mapping[str, str] | None = None,
    prefix: str = "",
    overrides: Mapping[str, Any] | None = None,
    beside: Path | None = None,
) -> tuple[M, strict_yaml.Document]:
    document = strict_yaml.read(text, source=source)
    if not isinstance(document.value, dict):
        raise InvalidConfiguration(f"{source}:1: expected fields and values, got {type(document.value).__name__}.")
    layers = _Layers(document.value, {path: f"{source}:{line}" for path, line in document.lines.items()})
    for variable, field, text in _variables(environment or {}, prefix, model):
        origin = f"environment variable {variable}"
        layers.put(field, strict_yaml.read(text, source=origin).value, origin)
    for dotted, value in (overrides or {}).items():
        if value is not None:
            layers.put(tuple(dotted.split(".")), value, f"flag for {dotted}")
    try:
        return model.model_validate(layers.data, context={"beside": beside}), document
    except ValidationError as error:
        raise InvalidConfiguration(_summary(source, layers.problems(error, model))) from error


class _Layers:
    """Data merged so far, and which file line, variable or flag each value came from."""

    def __init__(self, data: dict[str, Any], origins: dict[FieldPath, str]) -> None:
        self.data = data
        self._origins = origins

    def put(self, field: tuple[str, ...], value: Any, origin: str) -> None:
        """Set one field; what stood there before loses.

        Raises:
            InvalidConfiguration: a part of the path is a plain value, so that nothing can stand inside.
        """
        section = self.data
        for depth, part in enumerate(field[:-1]):
            inner = section.setdefault(part, {})
            if inner is None:
                inner = section[part] = {}
            if not isinstance(inner, dict):
                raise InvalidConfiguration(
                    f"{origin}: {'.'.join(field)}: expected {'.'.join(field[: depth + 1])} to hold fields, "
                    f"got {inner!r} from {self.place(field[: depth + 1])}."
                )
            section = inner
        section[field[-1]] = value
        self._origins = {path: text for path, text in self._origins.items() if path[: len(field)] != field}
        self._origins[field] = origin

    def place(self, path: FieldPath) -> str:
        """Origin of the value at `path`, or of the nearest section around it."""
        while path and path not in self._origins:
            path = path[:-1]
        return self._origins.get(path, "configuration")

    def problems(self, error: ValidationError, model: type[BaseModel]) -> list[str]:
        return validation.explain(error, model, self.data, self.place)


def _variables(
    environment: Mapping[str, str], prefix: str, model: type[BaseModel]
) -> list[tuple[str, tuple[str, ...], str]]:
    """Variables that set fields, sorted by name, with field and text.

    A name without `__` is a field at the top if there is one, else none of ours: LLMASOS_HOME, for instance.
    """
    names = sorted(name for name in environment if name.startswith(prefix))
    paths = {name: tuple(part for part in name[len(prefix) :].lower().split("__") if part) for name in names}
    return [
        (name, path, environment[name])
        for name, path in paths.items()
        if path and ("__" in name or path[0] in model.model_fields)
    ]


def _read_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(strict_yaml.MAX_BYTES + 1)
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        raise InvalidConfiguration(
            f"{path}: expected a file to read, got: {reason}.", "Name a file that exists and that you may read."
        ) from error
    if len(data) > strict_yaml.MAX_BYTES:
        raise InvalidConfiguration(f"{path}: expected at most {strict_yaml.MAX_BYTES:,} bytes, got more.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InvalidConfiguration(
            f"{path}:{line}: expected UTF-8 text, got the byte 0x{data[error.start]:02x}."
        ) from error


def _summary(source: str, problems: list[str]) -> str:
    if len(problems) == 1:
        return problems[0] if problems[0].endswith("?") else problems[0] + "."
    return f"{source}: {len(problems)} problems.\n" + "\n".join(f"  {problem}" for problem in problems)
