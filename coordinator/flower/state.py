"""What a Flower strategy keeps between rounds, as files: a restarted coordinator goes on with the same momenta.

HOME/flower/RUN/
    00000003.npz        after round 3; two rounds are kept, since a round may be combined again after a crash

Kept is every attribute that holds arrays: by name, in a list, or as an ArrayRecord. No pickle.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray

from common.blobs import disk
from common.errors import ModelOverflow, StorageFailure
from common.homes import atomic_write

_FORMS = ("dict", "list", "record")
_NUMPY = (np.ndarray, np.generic)
"""Arithmetic on an array of no dimensions gives a scalar."""
Arrays = dict[str, NDArray[Any]]


def collect(strategy: object, fresh: object) -> Arrays:
    """Its arrays by `ATTRIBUTE/FORM/KEY`.

    Args:
        fresh: the same strategy, unused: what is as there is no state.

    Raises:
        ModelOverflow: it keeps something else, which could not be stored.
    """
    found: Arrays = {}
    for attribute, value in vars(strategy).items():
        parts = _parts(value)
        if not parts and value is not (before := vars(fresh).get(attribute)) and not _same(value, before):
            name = type(strategy).__name__
            kind = type(value).__name__
            raise ModelOverflow(f"{name} keeps {attribute}, a {kind}, between rounds; only arrays can be stored.")
        for form, key, values in parts:
            found[f"{attribute}/{form}/{key}"] = values
    return found


def _same(value: object, before: object) -> bool:
    """As far as can be told: plain values, and empty containers; bound functions are of their own strategy."""
    if callable(value) and callable(before):
        return True
    return type(value) is type(before) and bool(value == before)


def restore(strategy: object, arrays: Arrays) -> None:
    """Give it back what `collect` took.

    Raises:
        StorageFailure: the arrays are of another strategy.
    """
    gathered: dict[tuple[str, str], Arrays] = {}
    for name, values in arrays.items():
        attribute, form, key = name.split("/", 2)
        gathered.setdefault((attribute, form), {})[key] = values
    for (attribute, form), members in gathered.items():
        if form not in _FORMS or attribute not in vars(strategy):
            raise StorageFailure(f"A state of another strategy: {type(strategy).__name__} has no {attribute}.")
        setattr(strategy, attribute, _joined(form, members))


def _parts(value: object) -> list[tuple[str, str, NDArray[Any]]]:
    if isinstance(value, ArrayRecord):
        return [("record", key, array.numpy()) for key, array in value.items()]
    if isinstance(value, dict) and value and all(isinstance(each, _NUMPY) for each in value.values()):
        return [("dict", str(key), np.asarray(each)) for key, each in value.items()]
    if isinstance(value, list) and value and all(isinstance(each, _NUMPY) for each in value):
        return [("list", f"{index:08d}", np.asarray(each)) for index, each in enumerate(value)]
    return []


def _joined(form: str, members: Arrays) -> object:
    if form == "dict":
        return members
    if form == "list":
        return [members[key] for key in sorted(members)]
    return ArrayRecord({key: Array(values) for key, values in members.items()})


class StateFolder:
    """One run's states."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def after(self, round_number: int) -> Arrays | None:
        """The state at the end of that round; None where it is not here.

        Raises:
            StorageFailure: the file cannot be read.
        """
        path = self._path(round_number)
        try:
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, zipfile.BadZipFile) as err:
            raise StorageFailure(f"{path} could not be read: {err}.") from err

    def write(self, round_number: int, arrays: Arrays, *, keep: int | None) -> None:
        """Durably; `keep` is the round before, whose state is kept too, all others go."""
        content = io.BytesIO()
        np.savez(content, **arrays)  # type: ignore[arg-type]  # its signature has a flag of its own
        path = self._path(round_number)
        with disk.storage("write", path):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            atomic_write(path, content.getvalue())
            for other in self._folder.glob("*.npz"):
                if other not in (path, None if keep is None else self._path(keep)):
                    other.unlink()

    def _path(self, round_number: int) -> Path:
        return self._folder / f"{round_number:08d}.npz"
