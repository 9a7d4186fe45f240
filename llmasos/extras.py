"""What the extras bring, checked before it is imported, and kept from calling home."""

from __future__ import annotations

import os
import sys
import warnings
from importlib import import_module
from importlib.util import find_spec

from common.errors import MissingExtra

_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # a bar over a small local file is noise in a pipe
    "TRANSFORMERS_OFFLINE": "1",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
}


def require_train(*packages: str, task: str) -> None:
    """Make sure that `packages` can be imported, and that none of them reaches for the network.

    To be called before the first import of one of them. The hub's own switches are read when it is imported, so they are
    set here; they stay set for child processes, too.

    Raises:
        MissingExtra: names the task and the packages that are absent.
    """
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise MissingExtra(f"To {task}, {' and '.join(missing)} must be installed, and cannot be found.")
    os.environ.update(_OFFLINE)
    _import_bars_quietly()


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this; nothing is imported to find out."""
    shell = sys.modules.get("IPython")
    running = shell.get_ipython() if shell is not None else None
    return type(running).__name__ == "ZMQInteractiveShell"


def _import_bars_quietly() -> None:
    """transformers imports tqdm.auto, which in a notebook warns that it would rather have ipywidgets; text does as well."""
    if in_notebook() and "tqdm.auto" not in sys.modules and find_spec("tqdm") is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import_module("tqdm.auto")


def require_extra(extra: str, *packages: str, task: str) -> None:
    """Make sure that `packages`, which `extra` brings, can be imported.

    Raises:
        MissingExtra: names the task, the packages that are absent, and the extra.
    """
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise MissingExtra(
            f"To {task}, {' and '.join(missing)} must be installed, and cannot be found.",
            f"Install them: pip install 'llmasos[{extra}]'.",
        )


FLOWER_QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "RAY_USAGE_STATS_ENABLED": "0"}
"""Flower's and Ray's switches against calling home; for the processes that we start, unless somebody set them otherwise."""


def require_flower(*packages: str, task: str) -> None:
    """Make sure that flwr and `packages` can be imported.

    Raises:
        MissingExtra: names the task and the packages that are absent.
    """
    require_extra("flower", "flwr", *packages, task=task)
