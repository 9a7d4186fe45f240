"""scripts/check_exactness.py: the reducer passes, and each way in which inexact arithmetic could come in is found."""

from __future__ import annotations

import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from scripts.check_exactness import FOLDERS, MATH, METHODS, NUMPY, REFUSED_METHODS, ROOT, check_source, main

HEAD = "import math\n\nimport numpy as np\n\n\ndef rule(a, b, out):\n"

REFUSED = {
    "a matrix product": ("return a @ b", "@: BLAS, whose sums change with processor"),
    "a matrix product in place": ("a @= b", "@: BLAS"),
    "np.dot": ("return np.dot(a, b)", "np.dot: BLAS"),
    "a dot of an array": ("return a.dot(b)", ".dot: BLAS"),
    "np.matmul": ("np.matmul(a, b, out=out)", "np.matmul: BLAS"),
    "np.einsum": ('return np.einsum("i,i->", a, b)', "np.einsum: BLAS or sums in an order that is not fixed"),
    "np.inner": ("return np.inner(a, b)", "np.inner: not on the list"),
    "a norm": ("return np.linalg.norm(a)", "np.linalg: BLAS and LAPACK"),
    "np.sum": ("return np.sum(a)", "np.sum: the order of its additions is numpy's"),
    "a sum of an array": ("return a.sum()", ".sum: the order of its additions is numpy's"),
    "a sum kept for later": ("total = a.sum\n    return total()", ".sum: the order of its additions"),
    "np.mean": ("return np.mean(a)", "np.mean: the order of its additions"),
    "a mean of an array": ("return a.mean()", ".mean: the order of its additions"),
    "a variance": ("return a.var()", ".var: a method of arrays that is not on the list"),
    "np.cumsum": ("return np.cumsum(a)", "np.cumsum: not on the list"),
    "a running sum of an array": ("return a.cumsum()", ".cumsum: a method of arrays"),
    "np.add.reduce": ("return np.add.reduce(a)", "np.add.reduce: its order is numpy's"),
    "np.add.accumulate": ("return np.add.accumulate(a)", "np.add.accumulate: a part of a part"),
    "a ufunc's method by another name": ("add = np.add\n    return add.reduce(a)", ".reduce: its order is numpy's"),
    "np.average": ("return np.average(a, weights=b)", "np.average: not on the list"),
    "np.median": ("return np.median(a)", "np.median: not on the list"),
    "np.exp": ("return np.exp(a)", "np.exp: not on the list"),
    "np.log": ("return np.log(a)", "np.log: not on the list"),
    "np.power": ("return np.power(a, 2)", "np.power: not on the list"),
    "np.float_power": ("return np.float_power(a, 2)", "np.float_power: not on the list"),
    "np.hypot": ("return np.hypot(a, b)", "np.hypot: not on the list"),
    "np.reciprocal": ("return np.reciprocal(a)", "np.reciprocal: not on the list"),
    "np.maximum": ("return np.maximum(a, b)", "np.maximum: which zero of -0.0 and +0.0"),
    "a largest of an array": ("return a.max()", ".max: which zero of -0.0 and +0.0"),
    "a power": ("return a**2", "**: pow, whose last bit differs"),
    "a power of a variable": ("return 2.0**a", "**: pow"),
    "a power in place": ("a **= 2", "**: pow"),
    "a root as a power": ("return a**0.5", "**: pow"),
    "the builtin pow": ("return pow(a, 2)", "pow: comes from the C library"),
    "the builtin sum": ("return sum(a)", "sum: adds floats in another way from Python 3.12 on"),
    "the builtin round": ("return round(a, 3)", "round: rounds by decimal digits"),
    "float16": ("return np.empty(3, dtype=np.float16)", "np.float16: no type of the protocol"),
    "float16 by its spelling": ('return np.frombuffer(a, dtype="<f2")', "dtype=<f2: no type of the protocol"),
    "longdouble": ("return np.zeros(3, dtype=np.longdouble)", "np.longdouble: 80 bits here"),
    "longdouble by its spelling": ('return np.zeros(3, dtype="g")', "dtype=g: no type of the protocol"),
    "float128": ("return np.float128(a)", "np.float128: not on the list"),
    "a dtype that does not show": ("return np.zeros(3, dtype=b)", "dtype=b: no type of the protocol, or one that does"),
    "a sum in a dtype": ("return np.multiply(a, b, dtype='<f2')", "dtype=<f2: no type of the protocol"),
    "a cast to an integer": ('return a.astype("<i4")', "astype(<i4): a cast to a float32 or float64"),
    "a cast to something": ("return a.astype(b)", "astype(b): a cast to a float32 or float64 that is named"),
    "an unsafe cast": ('np.copyto(out, a, casting="unsafe")', "casting: an unsafe cast gives what the processor likes"),
    "an order of equals left open": ("return np.sort(a)", 'sort(…): without kind="stable" equal numbers'),
    "an order in place left open": ("a.sort()", 'sort(…): without kind="stable"'),
    "ranks left open": ('return np.argsort(a, kind="quicksort")', 'argsort(…): without kind="stable"'),
    "the smaller of what may be floats": ("return np.minimum(a, b)", "np.minimum: which zero of -0.0 and +0.0"),
    "the smaller of floats": ("return np.minimum(a, b, dtype=np.float32)", "np.minimum: which zero of -0.0 and +0.0"),
    "the smaller as a function": ("return sorted(a, key=np.maximum)", "np.maximum: which zero of -0.0 and +0.0"),
    "a range of floats": ("return np.arange(0.0, 1.0, 0.1)", "np.arange(…): only of integers"),
    "options that do not show": ("np.add(a, b, **out)", "**: hides what numpy is told"),
    "numpy by another name": (
        "n = np\n    return n.einsum(a, b)",
        "np: may only be used with the name of what is meant",
    ),
    "a name given as text": ('return getattr(np, "dot")(a, b)', "getattr: hides what it names"),
    "code given as text": ('return eval("a @ b")', "eval: hides what it runs"),
    "fma": ("return math.fma(a, b, out)", "math.fma: rounds once where the protocol rounds twice"),
    "math.fsum": ("return math.fsum(a)", "math.fsum: another sum than the fixed tree's"),
    "math.exp": ("return math.exp(a)", "math.exp: not on the list"),
    "math.pow": ("return math.pow(a, 2)", "math.pow: not on the list"),
    "math.hypot": ("return math.hypot(a, b)", "math.hypot: not on the list"),
    "a name out of numpy": ("from numpy import dot", "from numpy import …: not on the list of imports"),
    "numpy under its own name": ("import numpy", "import numpy: not on the list of imports"),
    "a part of numpy": ("import numpy.linalg as np", "import numpy.linalg: not on the list of imports"),
    "a name out of math": ("from math import exp", "from math import …: not on the list of imports"),
    "scipy": ("import scipy.special", "import scipy.special: not on the list of imports"),
    "torch": ("from torch import add", "from torch import …: not on the list of imports"),
    "numba": ("import numba", "import numba: not on the list of imports"),
    "ctypes": ("import ctypes", "import ctypes: not on the list of imports"),
    "statistics": ("from statistics import fmean", "from statistics import …: not on the list of imports"),
    "functools": ("from functools import reduce", "from functools import …: not on the list of imports"),
    "random": ("import random", "import random: not on the list of imports"),
}

ALLOWED = {
    "the weighted mean": "np.multiply(a, 3.0, out=b)\n    np.add(out, b, out=out)\n    np.divide(out, 7.0, out=out)",
    "one rounding to float32": 'np.copyto(out, a, casting="same_kind")\n    return a.astype(np.float32)',
    "a root": "return math.sqrt(a) + float(np.sqrt(b)[0])",
    "an order of equals": 'return np.sort(a, kind="stable"), a.argsort(kind="stable")',
    "bits": 'return a.view(np.uint32) ^ np.uint32(5), np.frombuffer(b, dtype="<f4")',
    "blocks of whole numbers": (
        'codes = np.frombuffer(b, dtype="u1").reshape(-1, 128).view(np.int8)[:, 4:]\n'
        "    np.copyto(out, codes)\n"
        "    bits = a.view(np.uint32)\n"
        "    bits &= np.uint32(0x7FFFFFFF)\n"
        '    np.copyto(codes, bits.view(np.int32), casting="same_kind")\n'
        "    return bits.reshape(-1).take(bits.argmax(axis=1))"
    ),
    "the smaller of whole numbers": "return np.minimum(a, b, out=out, dtype=np.int32)",
    "a power of two": "return a * 2.0**-149 + 2**32",
    "scalars, one operation after the other": "total = 0.0\n    for each in a:\n        total += each * each\n    return total",
    "where something is not finite": "finite = np.isfinite(a)\n    return finite.all() or int(finite.argmin())",
}


@pytest.mark.parametrize("name", REFUSED)
def test_is_found(name: str) -> None:
    body, expected = REFUSED[name]
    findings = check_source(HEAD + f"    {body}\n", ROOT / "common" / "reduce" / "new_rule.py")
    line = HEAD.count("\n") + 1 + body.count("\n")
    texts = [str(finding) for finding in findings]
    assert any(
        re.fullmatch(rf"common/reduce/new_rule\.py:({line}|{line - 1}): {re.escape(expected)}.*", text)
        for text in texts
    ), texts


@pytest.mark.parametrize("name", ALLOWED)
def test_is_let_through(name: str) -> None:
    assert check_source(HEAD + f"    {ALLOWED[name]}\n") == []


def test_the_reducer_and_the_codecs_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert (main([]), capsys.readouterr().err) == (0, "")
    assert [folder.relative_to(ROOT).as_posix() for folder in FOLDERS] == ["common/reduce", "common/codecs"]


def test_a_violation_in_a_copy_of_the_reducer_is_shown_with_its_place_and_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "common" / "reduce", tmp_path / "reduce")
    module = tmp_path / "reduce" / "loops.py"
    lines = module.read_text(encoding="utf-8").splitlines()
    at = next(number for number, line in enumerate(lines) if "np.add(sum_B" in line)
    lines[at] = "            sum_B += (product_B[None] * 1.0).sum(axis=0)"
    module.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert main([str(tmp_path)]) == 1
    shown = capsys.readouterr().err
    assert f"reduce/loops.py:{at + 1}: .sum: the order of its additions is numpy's" in shown
    assert "fix: compute it with what scripts/check_exactness.py lists" in shown


def test_the_lists_name_what_there_is() -> None:
    assert [name for name in NUMPY if not hasattr(np, name)] == []
    assert [name for name in MATH if not hasattr(math, name)] == []
    assert [name for name in METHODS if not hasattr(np.ndarray, name)] == []
    assert {"sum", "mean", "dot", "cumsum", "prod", "std", "reduce", "accumulate", "max", "round"} <= REFUSED_METHODS
