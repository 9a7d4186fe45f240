"""Every public name says what it does: its arguments, shapes, errors, and where a method comes from."""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest

pytest.importorskip("torch")

from common import errors

MODULES = ("", ".models", ".datasets", ".tokenizers", ".losses", ".optimizers", ".adapters", ".charts")
FLOWER = (".flower",) if find_spec("flwr") else ()
OURS = ("llmasos", "common")
ARRAYS = re.compile(r"\b(NDArray|Tokens|Array|ndarray)\b|torch\.Tensor")
SOURCE = re.compile(r"\b(Source: |arXiv:)")
PUBLISHED = ("models", "optimizers", "adapters")
NOT_PUBLISHED = {"LanguageModel", "Optimizer", "load"}
"""Bases and helpers beside the published architectures and methods."""


def is_ours(thing: Any) -> bool:
    return str(getattr(thing, "__module__", "")).partition(".")[0] in OURS


def named_in(module: Any) -> list[str]:
    """What `__all__` promises; without one, what is defined there."""
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    return list(getattr(module, "__all__", None) or [name for name in own if not name.startswith("_")])


def says(thing: Any) -> str:
    """Its own docstring: not a base's, and not the signature that dataclass writes where there is none."""
    text = thing.__dict__.get("__doc__") if inspect.isclass(thing) else thing.__doc__
    return "" if text is None or text.startswith(f"{thing.__name__}(") else str(text)


def methods_of(kind: type) -> Iterator[tuple[str, Any]]:
    """Public functions and properties of a class and its bases, as functions; not those that a foreign base explains."""
    foreign = {name for base in kind.__mro__ if not is_ours(base) for name in vars(base)}
    for base in filter(is_ours, kind.__mro__):
        for name, member in vars(base).items():
            function = getattr(member, "__func__", None) or getattr(member, "fget", None) or member
            if not inspect.isfunction(function) or name.startswith("_") or name in foreign:
                continue
            if says(function) or not inspect.getdoc(member):  # what a base of ours explains, help() shows
                yield f"{base.__name__}.{name}", function


def public() -> dict[str, Any]:
    """Everything that a researcher is promised, each thing once."""
    found: dict[str, Any] = {}
    for suffix in MODULES + FLOWER:
        module = importlib.import_module(f"llmasos{suffix}")
        for name in named_in(module):
            thing = getattr(module, name)
            if inspect.ismodule(thing) or not is_ours(thing) or not callable(thing):
                continue
            found[f"{suffix[1:]}.{name}".lstrip(".")] = thing
            if inspect.isclass(thing):
                found.update(methods_of(thing))
    return found


PUBLIC = public()
FUNCTIONS = {name: thing for name, thing in PUBLIC.items() if inspect.isfunction(thing)}


def raised_in(function: Any) -> set[str]:
    """Names of errors that its body raises itself."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    raised = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise) and node.exc is not None]
    called = [one.func.id for one in raised if isinstance(one, ast.Call) and isinstance(one.func, ast.Name)]
    return {name for name in called if hasattr(errors, name) or hasattr(builtins, name)}


def errors_section(text: str) -> str:
    found = re.search(r"^ *Raises:\n(.*?)(?:\n\s*\n|\Z)", text, flags=re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


def test_the_walk_finds_what_the_page_names() -> None:
    assert {"simulate", "models.GPT", "Trained.fit", "datasets.load_dataset", "optimizers.Muon"} <= set(PUBLIC)
    assert len(PUBLIC) > 100


@pytest.mark.parametrize("name", PUBLIC)
def test_it_says_what_it_does(name: str) -> None:
    assert len(says(PUBLIC[name]).strip()) >= 15, f"{name} has no docstring"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_argument_is_named_unless_its_type_says_all(name: str) -> None:
    function, text = FUNCTIONS[name], says(FUNCTIONS[name])
    silent = []
    for argument, parameter in inspect.signature(function).parameters.items():
        typed = re.sub("[^a-z]", "", str(parameter.annotation).lower())
        if argument not in ("self", "cls") and argument.replace("_", "").rstrip("s") not in typed:
            silent += [] if re.search(rf"\b{argument}\b", text) else [argument]
    assert silent == [], f"{name} does not say what these are"


@pytest.mark.parametrize("name", [name for name, thing in PUBLIC.items() if "Args:" in says(thing)])
def test_where_arguments_of_a_class_are_listed_all_are(name: str) -> None:
    fields = getattr(PUBLIC[name], "__dataclass_fields__", {})
    assert [field for field in fields if not re.search(rf"\b{field}\b", says(PUBLIC[name]))] == []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_it_raises_is_listed_and_exists(name: str) -> None:
    section = errors_section(says(FUNCTIONS[name]))
    known = {word for word in re.findall(r"\b[A-Z]\w+", section) if hasattr(errors, word) or hasattr(builtins, word)}
    listed = [getattr(errors, word, None) or getattr(builtins, word) for word in known]
    kinds = tuple(kind for kind in listed if inspect.isclass(kind))
    for error in raised_in(FUNCTIONS[name]):
        assert issubclass(getattr(errors, error, None) or getattr(builtins, error), kinds), f"{name} raises {error}"
    for line in re.findall(r"^\s+([A-Z][\w, ]+):", section, flags=re.MULTILINE):
        assert set(re.findall(r"\w+", line)) <= known | {"raises"}, f"{name}: no such errors"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_of_arrays_the_shape_is_said(name: str) -> None:
    function = FUNCTIONS[name]
    annotations = [str(value) for value in function.__annotations__.values()]
    if any(ARRAYS.search(annotation) for annotation in annotations):
        assert re.search(r"shape", says(function)), f"{name} says no shape"


@pytest.mark.parametrize("name", [name for name in PUBLIC if name.partition(".")[0] in PUBLISHED])
def test_of_what_was_published_the_source_is_named(name: str) -> None:
    short = name.partition(".")[2]
    if short not in NOT_PUBLISHED and inspect.isclass(PUBLIC[name]):
        assert SOURCE.search(says(PUBLIC[name])), f"{name} names no source"
