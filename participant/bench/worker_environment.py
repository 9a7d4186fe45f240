"""What a worker process is given: an environment by allow-list, and the account it runs under.

Proxies, credentials, tracking services and the agent's own settings are left out by not being named here.
"""

from __future__ import annotations

import os
import pwd
import site
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from common.errors import InvalidConfiguration

_PASSED = (
    "PATH",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "PYTHONPATH",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "NVIDIA_VISIBLE_DEVICES",
)
_PASSED_PREFIX = "LLMASOS_"
_WITHHELD = ("LLMASOS_HOME", "LLMASOS_PARTICIPANT_", "LLMASOS_COORDINATOR_")
"""The agent's home and its settings lead to keys: the worker is not told where."""


def worker_environment(home: Path, threads: int, own: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The worker's whole environment, from what of `own` is allowed and from what it must have.

    Args:
        home: its home and its folder for temporary files; it may write there.
    """
    passed = {
        name: value
        for name, value in own.items()
        if name in _PASSED or (name.startswith(_PASSED_PREFIX) and not name.startswith(_WITHHELD))
    }
    return passed | {
        "HOME": str(home),
        "TMPDIR": str(home),
        # Packages installed for a user are found from here, since HOME is another.
        "PYTHONUSERBASE": site.getuserbase(),
        "LLMASOS_WORKER_THREADS": str(threads),
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        # A thread count that changes with load would change bits.
        "OMP_DYNAMIC": "FALSE",
        "MKL_DYNAMIC": "FALSE",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


@dataclass(frozen=True, slots=True)
class Account:
    """Another account for the worker."""

    uid: int
    gid: int


def account_of(worker_user: str | None) -> Account | None:
    """The account of that name; None for None.

    Raises:
        InvalidConfiguration: there is no such account, or this process may not switch to it.
    """
    if worker_user is None:
        return None
    try:
        entry = pwd.getpwnam(worker_user)
    except KeyError as err:
        raise InvalidConfiguration(f"worker.user: this machine has no account {worker_user!r}.") from err
    if os.geteuid() != 0:
        raise InvalidConfiguration(
            f"worker.user: only root can start a worker as {worker_user!r}.",
            "Start the agent as root, or leave worker.user out: the split then guards against accidents only.",
        )
    return Account(entry.pw_uid, entry.pw_gid)
