"""loops.c, where the installation could compile it: beside this file lies _loops.so, or nothing.

scripts/hatch_build.py compiles it when the package is installed or a wheel is made, if there is a C compiler. What uses it,
and the definition in numpy that it must equal in every bit, is common/reduce/loops.py.
"""

from __future__ import annotations

import ctypes
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import CompiledLoopsUnfit

SOURCE = Path(__file__).with_name("loops.c")
LIBRARY = Path(__file__).with_name("_loops.so")

_POINTER, _SIZE, _DOUBLE = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_double


class CompiledLoops:
    """The functions of a library. Arrays of another kind are a TypeError; each call gives up Python's lock while it runs."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            CompiledLoopsUnfit: no library that can be loaded here, or it was made from another loops.c.
        """
        try:
            library = ctypes.CDLL(str(path))
            made_from = library.llmasos_loops_source
        except (OSError, AttributeError) as err:
            raise CompiledLoopsUnfit(f"{path} cannot be loaded: {err}.") from err
        made_from.argtypes, made_from.restype = [], ctypes.c_uint32
        if made_from() != source_checksum(SOURCE.read_bytes()):
            raise CompiledLoopsUnfit(f"{path} was made from another version of {SOURCE.name}.")
        self._add_product = library.llmasos_add_product
        self._add_product.argtypes, self._add_product.restype = [_POINTER, _POINTER, _DOUBLE, _SIZE], None
        self._quotients = library.llmasos_quotients
        self._quotients.argtypes, self._quotients.restype = [_POINTER, _POINTER, _DOUBLE, _SIZE], None
        self._sum_of_squares = library.llmasos_sum_of_squares
        self._sum_of_squares.argtypes, self._sum_of_squares.restype = [_POINTER], _DOUBLE

    def add_product(
        self, sum_M: NDArray[np.float64], coefficient: float, delta_M: NDArray[np.float32], count: int
    ) -> None:
        """sum += coefficient × delta, over the first `count`."""
        self._add_product(_address(sum_M, np.float64), _address(delta_M, np.float32), coefficient, count)

    def quotients(self, sum_N: NDArray[np.float64], mean_N: NDArray[np.float32], divisor: float, count: int) -> None:
        """mean = float32(sum ÷ divisor); it may lie at the beginning of the sum's memory."""
        self._quotients(_address(sum_N, np.float64), _address(mean_N, np.float32), divisor, count)

    def sum_of_squares(self, leaf_L: NDArray[np.float32]) -> float:
        """Of a whole leaf, shape (65,536,)."""
        return float(self._sum_of_squares(_address(leaf_L, np.float32)))


def _address(array: NDArray[Any], dtype: type[np.float32 | np.float64]) -> int:
    # numpy's own check, np.ctypeslib.ndpointer, takes as long as a tenth of a block.
    if array.dtype != dtype or not array.flags.c_contiguous:
        raise TypeError(f"expected contiguous {dtype.__name__}, got {array.dtype}, strides {array.strides}")
    return array.ctypes.data


def source_checksum(source: bytes) -> int:
    """What the library says of the source that it was made from."""
    return zlib.crc32(source)


def find(path: Path = LIBRARY) -> CompiledLoops | None:
    """The library, or None where the installation made none.

    Raises:
        CompiledLoopsUnfit: there is one, and it cannot be used.
    """
    return CompiledLoops(path) if path.exists() else None
