"""Nothing inexact in the reducer: what its modules may use of numpy, of math and of Python, and what they may not, by syntax.

    python -m scripts.check_exactness           common/reduce, and common/codecs, whose decoding is part of the arithmetic
    python -m scripts.check_exactness FOLDER…

Allowed is what the tables below list, whose bits IEEE 754 or the operation's definition fixes on every machine
(docs/protocol.md#arithmetic). Everything else of numpy is refused, known or new. No line can be exempted: what is needed and
exact is put on a list, with its reason, for all to see. What syntax does not show, such as a variable's type, is not found;
the tests in tests/unit/common/reduce compare bits.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = (ROOT / "common" / "reduce", ROOT / "common" / "codecs")

NUMPY = {
    "add": "rounded once",
    "subtract": "rounded once",
    "multiply": "rounded once",
    "divide": "rounded once",
    "sqrt": "rounded once",
    "greater": "by comparison",
    "less": "by comparison",
    "isfinite": "looks at bits",
    "all": "of booleans",
    "sort": "by comparison; stable, so that -0.0 and +0.0 keep their order",
    "argsort": "by comparison; stable",
    "partition": "by comparison; only of integers, of which equal ones are the same",
    "searchsorted": "by comparison: how many are less",
    "minimum": "by comparison; only of whole numbers, by dtype=np.int32, which refuses floats when it runs",
    "maximum": "by comparison; only of whole numbers, by dtype=np.int32, which refuses floats when it runs",
    "flatnonzero": "which are not zero",
    "packbits": "bits",
    "unpackbits": "bits",
    "copyto": "copies, and casts a float64 to float32 with one rounding",
    "empty": "memory",
    "zeros": "memory",
    "full": "memory",
    "arange": "of integers",
    "frombuffer": "bytes as they are",
    "errstate": "what is warned about",
    "float32": "binary32",
    "float64": "binary64",
    "uint32": "bits",
    "uint16": "bits",
    "uint8": "bytes",
    "int64": "whole numbers",
    "int32": "whole numbers",
    "int8": "whole numbers",
    "bool_": "booleans",
}
"""What of `np` may be named, and why its bits are fixed."""

MATH = {"sqrt": "rounded once", "isfinite": "looks at bits", "inf": "a number", "nan": "none"}
"""What of `math` may be named."""

METHODS = {
    "all": "of booleans",
    "any": "of booleans",
    "argmin": "the first of the smallest",
    "argmax": "the first of the largest",
    "argsort": "by comparison; stable",
    "astype": "a cast to a float that is named",
    "copy": "copies",
    "dumps": "json's; an array's writes its bytes",
    "fill": "one value",
    "item": "one element",
    "reshape": "a view",
    "sort": "by comparison; stable",
    "take": "copies",
    "tobytes": "bytes as they are",
    "tolist": "numbers as they are",
    "view": "the same bits",
}
"""Which methods of an array may be named; a method of that name of anything else may be too."""

REFUSED_METHODS = {
    name
    for kind in (np.ndarray, np.ufunc)
    for name in dir(kind)
    if not name.startswith("_") and callable(getattr(kind, name)) and name not in METHODS
}

IMPORTS = {
    "__future__", "abc", "collections", "collections.abc", "concurrent.futures", "dataclasses", "decimal", "hashlib",
    "itertools", "json", "math", "numpy", "numpy.typing", "pathlib", "sys", "threading", "typing",
}  # fmt: skip
"""Modules that may be imported beside common.*; numpy only whole and as `np`, math only whole, so that every use shows."""

BUILTINS = {
    "sum": "adds floats in another way from Python 3.12 on",
    "pow": "comes from the C library, whose last bit differs",
    "round": "rounds by decimal digits",
    "divmod": "is for integers, which have // and %",
    "complex": "has no fixed product",
    "eval": "hides what it runs",
    "exec": "hides what it runs",
    "compile": "hides what it runs",
    "getattr": "hides what it names",
    "globals": "hides what it names",
    "vars": "hides what it names",
    "__import__": "hides what it names",
}
"""Which names of Python may not be used."""

OPERATORS = (
    ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod,
    ast.LShift, ast.RShift, ast.BitOr, ast.BitAnd, ast.BitXor,
)  # fmt: skip

DTYPES = {"<f4", "<f8", "<u4", "<u2", "u1", "float32", "float64", "uint32", "uint16", "uint8", "int32", "int8", "bool"}
FLOATS = {"<f4", "<f8", "float32", "float64"}
INTEGERS = {"<u4", "uint32"}
OF_WHOLE_NUMBERS = {"minimum", "maximum"}
"""What of `np` may only be called with `dtype=np.int32`."""

WHY = {
    "dot": "BLAS, whose sums change with processor, block size and threads",
    "matmul": "BLAS, whose sums change with processor, block size and threads",
    "einsum": "BLAS or sums in an order that is not fixed",
    "linalg": "BLAS and LAPACK",
    "sum": "the order of its additions is numpy's, not the fixed tree's: common.reduce.scalar.tree_sum",
    "mean": "the order of its additions is numpy's, not the fixed tree's: common.reduce.scalar.tree_sum",
    "reduce": "its order is numpy's, not the fixed tree's: common.reduce.scalar.tree_sum",
    "float16": "no type of the protocol",
    "longdouble": "80 bits here, 128 or 64 there",
    "max": "which zero of -0.0 and +0.0 it gives is not fixed",
    "min": "which zero of -0.0 and +0.0 it gives is not fixed",
    "maximum": "which zero of -0.0 and +0.0 it gives is not fixed",
    "minimum": "which zero of -0.0 and +0.0 it gives is not fixed",
    "fma": "rounds once where the protocol rounds twice",
    "fsum": "another sum than the fixed tree's: common.reduce.scalar.tree_sum",
}
"""What to say of the likeliest; of others, that they are not listed."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that may not be there."""

    path: Path
    line: int
    what: str
    why: str

    def __str__(self) -> str:
        path = self.path.relative_to(ROOT) if self.path.is_relative_to(ROOT) else self.path
        return f"{path}:{self.line}: {self.what}: {self.why}"


def check_folder(folder: Path) -> list[Finding]:
    """What may not be there, in every module below `folder`."""
    return [
        finding
        for path in sorted(folder.rglob("*.py"))
        for finding in check_source(path.read_text(encoding="utf-8"), path)
    ]


def check_source(source: str, path: Path = Path("source.py")) -> list[Finding]:
    """What may not be there, in the order of lines."""
    tree = ast.parse(source, str(path))
    members = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    members |= {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call) and _of_int32(node)}
    found = [
        Finding(path, getattr(node, "lineno", 1), what, why)
        for node in ast.walk(tree)
        for what, why in _faults(node, bare=id(node) not in members)
    ]
    return sorted(found, key=lambda finding: finding.line)


def _faults(node: ast.AST, *, bare: bool) -> Iterator[tuple[str, str]]:
    match node:
        case ast.Import() | ast.ImportFrom():
            yield from _import_faults(node)
        case ast.BinOp() | ast.AugAssign():
            yield from _operator_faults(node)
        case ast.Attribute():
            yield from _attribute_faults(node, bare=bare)
        case ast.Call():
            yield from _call_faults(node)
        case ast.Name(id="np" | "math" as name) if bare:
            yield name, "may only be used with the name of what is meant, so that every use shows"
        case ast.Name(id=name) if name in BUILTINS:
            yield name, BUILTINS[name]


def _import_faults(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.ImportFrom):
        module = node.module or "."
        if module in ("numpy", "math") or not _may_be_imported(module):
            yield f"from {module} import …", "not on the list of imports; numpy and math are imported whole"
        return
    for alias in node.names:
        expected = "np" if alias.name == "numpy" else None
        if alias.asname != expected or not _may_be_imported(alias.name) or alias.name.startswith("numpy."):
            yield f"import {alias.name}", "not on the list of imports; numpy is imported as np"


def _may_be_imported(module: str) -> bool:
    return module in IMPORTS or module.split(".")[0] == "common"


def _operator_faults(node: ast.BinOp | ast.AugAssign) -> Iterator[tuple[str, str]]:
    if isinstance(node.op, ast.MatMult):
        yield "@", WHY["matmul"]
    elif isinstance(node.op, ast.Pow):
        if not (isinstance(node, ast.BinOp) and _is_power_of_two(node)):
            yield "**", "pow, whose last bit differs; only a power of a literal 2 is exact"
    elif not isinstance(node.op, OPERATORS):
        yield type(node.op).__name__, "not on the list of operators"


def _is_power_of_two(node: ast.BinOp) -> bool:
    exponent = node.right.operand if isinstance(node.right, ast.UnaryOp) else node.right
    base = node.left.value if isinstance(node.left, ast.Constant) else None
    return base in (2, 2.0) and isinstance(exponent, ast.Constant) and isinstance(exponent.value, int)


def _attribute_faults(node: ast.Attribute, *, bare: bool) -> Iterator[tuple[str, str]]:
    match node.value:
        case ast.Name(id="np"):
            if node.attr not in NUMPY or (node.attr in OF_WHOLE_NUMBERS and bare):
                yield f"np.{node.attr}", WHY.get(node.attr, "not on the list of what is exact")
        case ast.Name(id="math"):
            if node.attr not in MATH:
                yield f"math.{node.attr}", WHY.get(node.attr, "not on the list of what is exact")
        case ast.Attribute(value=ast.Name(id="np")):
            yield f"{ast.unparse(node)}", WHY.get(node.attr, "a part of a part of numpy is on no list")
        case _ if node.attr in REFUSED_METHODS:
            yield f".{node.attr}", WHY.get(node.attr, "a method of arrays that is not on the list of what is exact")


def _call_faults(node: ast.Call) -> Iterator[tuple[str, str]]:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    keywords = {keyword.arg: keyword.value for keyword in node.keywords}
    if name in ("sort", "argsort") and _constant(keywords.get("kind")) != "stable":
        yield f"{name}(…)", 'without kind="stable" equal numbers, such as -0.0 and +0.0, end up in any order'
    if "casting" in keywords and _constant(keywords["casting"]) not in ("no", "equiv", "safe", "same_kind"):
        yield "casting", "an unsafe cast gives what the processor likes for a number out of range"
    if None in keywords and ast.unparse(node.func).startswith("np."):
        yield "**", "hides what numpy is told"
    if name == "astype":
        target = keywords.get("dtype") or (node.args[0] if node.args else None)
        if _dtype(target) not in FLOATS:
            yield f"astype({_dtype(target)})", "a cast to a float32 or float64 that is named is exact, or rounds once"
    elif name == "arange" and _dtype(keywords.get("dtype")) not in INTEGERS:
        yield "np.arange(…)", "only of integers, with dtype=np.uint32"
    elif "dtype" in keywords and _dtype(keywords["dtype"]) not in DTYPES:
        yield f"dtype={_dtype(keywords['dtype'])}", "no type of the protocol, or one that does not show"


def _of_int32(call: ast.Call) -> bool:
    return any(keyword.arg == "dtype" and _dtype(keyword.value) == "int32" for keyword in call.keywords)


def _constant(node: ast.expr | None) -> object:
    return node.value if isinstance(node, ast.Constant) else None


def _dtype(node: ast.expr | None) -> str:
    """How a dtype is named: `np.float32` and "float32" are both float32."""
    match node:
        case ast.Constant(value=str() as name):
            return name
        case ast.Attribute(value=ast.Name(id="np"), attr=name):
            return name.removesuffix("_")
        case None:
            return "…"
        case _:
            return ast.unparse(node)


def main(arguments: Sequence[str]) -> int:
    findings = [finding for folder in arguments or FOLDERS for finding in check_folder(Path(folder).resolve())]
    for finding in findings:
        print(finding, file=sys.stderr)
    if findings:
        print(
            "fix: compute it with what scripts/check_exactness.py lists, or list it there with the reason why it is exact",
            file=sys.stderr,
        )
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
