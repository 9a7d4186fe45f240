"""A virtual environment for each peer, made once and kept."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.peers.errors import PeerFailure

HERE = Path(__file__).resolve().parent
INSTALL_SECONDS = 900.0


def environment(folder: Path, requirements: str) -> Path:
    """The `bin` folder of an environment in `folder` that holds what the file of that name here asks for.

    Raises:
        PeerFailure: it cannot be installed.
    """
    wanted = HERE / requirements
    stamp, digest = folder / ".set-up", hashlib.sha256(wanted.read_bytes() + sys.version.encode()).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        print(f"making {folder}, once", file=sys.stderr, flush=True)
        _run([sys.executable, "-m", "venv", "--clear", str(folder)])
        _run([str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--requirement", str(wanted)])
        stamp.write_text(digest)
    return folder / "bin"


def version(binaries: Path, package: str) -> str:
    """The version of a package that is installed there."""
    code = f"import importlib.metadata; print(importlib.metadata.version({package!r}))"
    return _run([str(binaries / "python"), "-c", code]).strip()


def _run(argv: list[str]) -> str:
    with tempfile.TemporaryFile("w+") as output:
        try:
            done = subprocess.run(argv, stdout=output, stderr=subprocess.STDOUT, timeout=INSTALL_SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise PeerFailure(f"not installed after {INSTALL_SECONDS:.0f} s") from error
        output.seek(0)
        text = output.read()
    if done.returncode:
        last = next((line for line in reversed(text.splitlines()) if line.strip()), "pip said nothing")
        raise PeerFailure(f"not installable: {last.strip()}")
    return text
