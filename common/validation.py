"""What pydantic found wrong with data, as a person needs it: place, field, expected, got, and the nearest known field.

plan.yaml:7: local.stepz: unknown field; did you mean 'steps'?
plan.yaml:9: local.batch_size: expected a whole number, got 'many'
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

Path = tuple[str | int, ...]
MAX_SHOWN = 10

_EXPECTED: Mapping[str, str] = {
    "missing": "a value, for it has no default",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "decimal_type": "a number",
    "decimal_parsing": "a number",
    "finite_number": "a finite number",
    "string_type": "text; put quotes around it",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "dict_type": "fields and values",
    "model_type": "fields and values",
    "model_attributes_type": "fields and values",
    "list_type": "a list",
    "tuple_type": "a list",
    "path_type": "a path",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
    "enum": "{expected}",
    "union_tag_invalid": "one of {expected_tags}",
    "string_too_long": "at most {max_length} characters",
    "string_too_short": "at least {min_length} characters",
    "too_long": "at most {max_length} entries",
    "too_short": "at least {min_length} entries",
    "decimal_max_digits": "at most {max_digits} digits",
    "string_pattern_mismatch": "text that matches {pattern}",
}


def explain(error: ValidationError, model: type[BaseModel], data: Any, place: Callable[[Path], str]) -> list[str]:
    """One line for each thing wrong, at most MAX_SHOWN and a count of the rest.

    Args:
        model: what `data` was validated as; names the known fields.
        place: where the value at a path came from, `file:line` for instance.
    """
    details = error.errors(include_url=False)
    lines = [_line(detail, model, data, place) for detail in details[:MAX_SHOWN]]
    if len(details) > MAX_SHOWN:
        lines.append(f"and {len(details) - MAX_SHOWN} more")
    return lines


def _line(detail: ErrorDetails, model: type[BaseModel], data: Any, place: Callable[[Path], str]) -> str:
    path = _data_path(detail, data)
    if detail["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        discriminator = str(detail.get("ctx", {}).get("discriminator", "type")).strip("'")
        path = (
            *path,
            "type" if discriminator.endswith("()") else discriminator,
        )  # of a function pydantic knows no field
    field = ".".join(str(part) for part in path)
    return f"{place(path)}: {field + ': ' if field else ''}{_problem(detail, model)}"


def _problem(detail: ErrorDetails, model: type[BaseModel]) -> str:
    kind = detail["type"]
    context = detail.get("ctx", {})
    if kind == "extra_forbidden":
        return "unknown field" + _nearest(str(detail["loc"][-1]), _known_fields(model, detail["loc"][:-1]))
    if kind == "union_tag_not_found":
        return f"expected one of {_tags(model, detail['loc'])}, got nothing"
    if kind in {"value_error", "assertion_error"}:
        text = detail["msg"].partition(", ")[2] or detail["msg"]
        return text if isinstance(detail["input"], dict) or "got" in text else f"{text}, got {_shown(detail['input'])}"
    if kind == "union_tag_invalid":
        return f"expected one of {context['expected_tags']}, got {context['tag']!r}"
    expected = (
        _EXPECTED[kind].format(**context) if kind in _EXPECTED else detail["msg"].removeprefix("Input should be ")
    )
    return f"expected {expected}" + ("" if kind == "missing" else f", got {_shown(detail['input'])}")


def _shown(value: Any) -> str:
    if value is None:
        return "nothing (null)"
    if isinstance(value, dict):
        return f"fields ({', '.join(str(key) for key in list(value)[:4])})"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _nearest(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known here: {', '.join(names)}" if names else ""


def _data_path(detail: ErrorDetails, data: Any) -> Path:
    """pydantic's location without the union tags in it, which are no part of the data."""
    path: list[str | int] = []
    location = detail["loc"]
    for position, part in enumerate(location):
        inside = isinstance(data, dict) and part in data
        if inside or (isinstance(data, list) and isinstance(part, int) and part < len(data)):
            data = data[part]
            path.append(part)
        elif detail["type"] == "missing" and position == len(location) - 1:
            path.append(part)
    return tuple(path)


# --- what a model knows at a location -------------------------------------------------------------------------------


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _tag_of(model: type[BaseModel]) -> str:
    """The one value of a model's `type` or `mode` field, else its name, as pydantic's locations say it."""
    for name in ("type", "mode"):
        field = model.model_fields.get(name)
        if field is not None and get_origin(field.annotation) is Literal:
            return str(get_args(field.annotation)[0])
    return model.__name__


def _models_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[type[BaseModel]]:
    candidates = [model]
    for part in location:
        holders = [item for item in candidates if part in item.model_fields]
        if holders:
            candidates = [inner for item in holders for inner in _models_in(item.model_fields[str(part)].annotation)]
        elif isinstance(part, str):
            candidates = [item for item in candidates if _tag_of(item) == part] or candidates
    return candidates


def _known_fields(model: type[BaseModel], location: tuple[int | str, ...]) -> set[str]:
    return {name for item in _models_at(model, location) for name in item.model_fields}


def _tags(model: type[BaseModel], location: tuple[int | str, ...]) -> str:
    return ", ".join(repr(_tag_of(item)) for item in _models_at(model, location))
