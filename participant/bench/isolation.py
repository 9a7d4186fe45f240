"""How far the worker is kept apart from the agent, as `worker.user` and `worker.isolate_network` say.

    isolation = Isolation.of("llmasos-worker", isolate_network=True)
    isolation.check(words[0])                          # does this system allow it?
    scratch = isolation.open_way(home, jobs)
    subprocess.Popen(isolation.command(words), …)
    isolation.hand_over(job)                           # the worker owns its job folder, and reads what the agent put in

Without an account of its own the worker is the agent's user: the split then guards against accidents only.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import InvalidConfiguration, StorageFailure
from participant.bench.worker_environment import Account, account_of

CHECK_SECONDS = 30.0
EXIT_REFUSED = 77
"""Of participant.worker.launch: nothing was started, and standard error says why."""
_MAY_RUN = '[ -x "$(command -v "$1")" ]'
SCRATCH = "scratch"
_WAY_MODE, _OWN_MODE, _READ_MODE = 0o710, 0o700, 0o640


@dataclass(frozen=True, slots=True)
class Isolation:
    """What a worker is started with."""

    account: Account | None = None
    network: bool = False
    loopback: bool = False
    """In a network namespace of its own, loopback is up: several ranks speak through it."""

    @classmethod
    def of(cls, user: str | None, *, isolate_network: bool, loopback: bool = False) -> Isolation:
        """
        Raises:
            InvalidConfiguration: no such account, or this process may not start a worker under it.
        """
        return cls(account_of(user), isolate_network, loopback)

    @property
    def wanted(self) -> bool:
        """Whether anything at all keeps the worker apart."""
        return self.account is not None or self.network

    def command(self, words: Sequence[str]) -> tuple[str, ...]:
        """`words` behind the launcher; `words` themselves where nothing is wanted."""
        if not self.wanted:
            return tuple(words)
        launcher = [sys.executable, "-P", "-m", "participant.worker.launch"]
        if self.network:
            launcher.append("--loopback-only" if self.loopback else "--no-network")
        if self.account is not None:
            launcher += ["--uid", str(self.account.uid), "--gid", str(self.account.gid)]
        return (*launcher, "--", *words)

    def check(self, program: str = sys.executable) -> None:
        """Start a process that ends at once, kept apart as the worker will be.

        Raises:
            InvalidConfiguration: this system does not allow it, or the account cannot run `program`.
        """
        if not self.wanted:
            return
        done = subprocess.run(
            self.command(("/bin/sh", "-c", _MAY_RUN, "sh", program)),
            capture_output=True,
            text=True,
            cwd="/",
            timeout=CHECK_SECONDS,
            check=False,
        )
        if done.returncode == EXIT_REFUSED:
            raise self._refused(done.stderr.strip() or "no reason")
        if done.returncode != 0:
            raise InvalidConfiguration(
                f"worker.user: expected an account that may run {program}, got one that may not.",
                "Install LLMasOS where that account can read and run it, such as /opt/llmasos.",
            )

    def open_way(self, home: Path, jobs: Path) -> Path:
        """Let the worker's account pass through HOME and HOME/jobs, which stay the agent's; its own scratch folder.

        Passing needs to know a name: the account lists neither folder, and everything else in HOME stays private.

        Raises:
            StorageFailure: a folder cannot be changed.
        """
        if self.account is None:
            return jobs
        scratch = jobs / SCRATCH
        try:
            for folder in (home, jobs):
                if not folder.stat().st_mode & stat.S_IXOTH:  # whoever may pass already, as through /tmp, needs no way
                    os.chown(folder, -1, self.account.gid)
                    folder.chmod(_WAY_MODE)
            scratch.mkdir(mode=_OWN_MODE, exist_ok=True)
            os.chown(scratch, self.account.uid, self.account.gid, follow_symlinks=False)
        except OSError as err:
            raise StorageFailure(f"{err.filename or jobs} cannot be opened to the worker's account: {err}.") from err
        return scratch

    def hand_over(self, job: Path) -> None:
        """Give the job folder to the worker's account, and let it read the files that the agent put there.

        The files stay the agent's: of the base model, which is a second name of a blob, the worker can change nothing.

        Raises:
            StorageFailure: something there cannot be changed.
        """
        if self.account is None:
            return
        try:
            os.chown(job, self.account.uid, self.account.gid, follow_symlinks=False)
            for entry in os.scandir(job):
                found = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid():
                    self._let_read(entry.path)
        except OSError as err:
            raise StorageFailure(f"{err.filename or job} cannot be given to the worker's account: {err}.") from err

    def _let_read(self, path: str) -> None:
        """One file, by descriptor: the folder's owner may put a link in its place at any time."""
        gid = self.account.gid if self.account else -1
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid():
                os.fchown(descriptor, -1, gid)
                os.fchmod(descriptor, _READ_MODE)
        finally:
            os.close(descriptor)

    def _refused(self, reason: str) -> InvalidConfiguration:
        if self.network:
            return InvalidConfiguration(
                f"worker.isolate_network: expected that a worker can get a network namespace of its own, got: {reason}.",
                "Start the agent as root (CAP_SYS_ADMIN), or allow unprivileged user namespaces (sysctl "
                "user.max_user_namespaces, kernel.unprivileged_userns_clone), or set isolate_network: false; `status` "
                "then says that the split guards against accidents only.",
            )
        return InvalidConfiguration(
            f"worker.user: expected that the agent may start a process under another account, got: {reason}.",
            "Start the agent as root, with the capabilities SETUID and SETGID.",
        )
