"""What a wheel holds beside our packages: configs/ and proto/, inside the `llmasos` package, and the reducer's compiled loops.

An editable install finds configs/ and proto/ in the checkout: hatchling's own `force-include` would copy them into
site-packages/llmasos for an editable install too, and that folder, without an __init__.py, would stand before the checkout's
package. The loops are compiled in the checkout, beside their source, if there is a C compiler; without one the installation is
whole, and numpy does their work.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sysconfig
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

LOOPS = Path("common") / "compiled"
FLAGS = ("-std=c11", "-O3", "-ffp-contract=off", "-fPIC", "-shared", "-Wall", "-Wextra")


class ShippedFiles(BuildHookInterface):
    """Called by hatchling before it builds a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """
        Args:
            version: "standard" for a wheel, "editable" for an editable install.
        """
        library = compile_loops(Path(self.root), self.app.display_warning)
        if version == "standard":
            build_data["force_include"] |= {"configs": "llmasos/configs", "proto": "llmasos/proto"}
            if library is not None:
                build_data["force_include"][str(library)] = str(LOOPS / library.name)
                build_data["pure_python"] = False
                platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
                build_data["tag"] = f"py3-none-{platform}"  # no Python in it: one for all versions


def compile_loops(root: Path, warn: Callable[[str], object]) -> Path | None:
    """_loops.so beside loops.c; None, said by `warn`, where there is no compiler or it fails.

    $CC names the compiler, cc by default.
    """
    source, library = root / LOOPS / "loops.c", root / LOOPS / "_loops.so"
    unfinished = library.with_suffix(f".{os.getpid()}")
    library.unlink(missing_ok=True)
    command = [*shlex.split(os.environ.get("CC") or "cc"), *FLAGS]
    command += [f"-DLOOPS_SOURCE={zlib.crc32(source.read_bytes())}u", str(source), "-o", str(unfinished)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        why = (done.stderr.strip() or f"exit status {done.returncode}") if done.returncode else ""
    except OSError as err:
        why = str(err)
    if why:
        unfinished.unlink(missing_ok=True)
        warn(f"{source} was not compiled, so that numpy does its work, half as fast: {why}")
        return None
    unfinished.replace(library)
    return library
