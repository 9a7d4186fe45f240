"""What a result was made with."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("llmasos", "torch", "transformers", "tokenizers", "numpy", "grpcio", "protobuf", "cryptography")


def versions() -> dict[str, str]:
    """Python, the machine and the packages that matter for results."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
