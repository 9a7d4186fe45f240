"""The world: disk, network, a process."""

from __future__ import annotations

from common.errors.base import LLMasOSError, Status


class OperationError(LLMasOSError):
    """Something outside the program failed."""

    code = "operation"
    status = Status.UNAVAILABLE
    exit_code = 1


class CoordinatorUnreachable(OperationError):
    """No answer from the coordinator's address."""

    code = "coordinator-unreachable"
    default_fix = "Check that the coordinator runs and that its address and port are reachable from here."


class CoordinatorRecovering(CoordinatorUnreachable):
    """The coordinator may hold less of its ledger than was signed for: until it has what institutions saw it signs nothing."""

    code = "coordinator-recovering"
    default_fix = "Let institutions' daemons run: each presents what it saw. See docs/operations.md#backup."


class NameNotResolved(CoordinatorUnreachable):
    """The host's name has no address, as this machine's resolver says."""

    code = "name-not-resolved"
    default_fix = "Check the spelling of the host and this machine's DNS (/etc/resolv.conf), or use an IP address."


class PortBlocked(CoordinatorUnreachable):
    """The host is known, but its port refuses or does not answer."""

    code = "port-blocked"
    default_fix = (
        "Ask the network's owner to allow outgoing TCP to this address and port, and check the coordinator runs."
    )


class ProxyRefused(CoordinatorUnreachable):
    """The proxy of `https_proxy` did not open a tunnel."""

    code = "proxy-refused"
    default_fix = "Check https_proxy (http://USER:PASSWORD@HOST:PORT) and that the proxy allows CONNECT to this port."


class TlsIntercepted(CoordinatorUnreachable):
    """Something on the way answered TLS with a certificate of another authority."""

    code = "tls-intercepted"
    default_fix = "Ask the network's owner to exempt this address from TLS inspection; it cannot be accepted."


class DaemonNotRunning(OperationError):
    """The command needs the daemon of this home to run."""

    code = "daemon-not-running"
    default_fix = "Start it: llmasos-participant start."


class WaitTimedOut(OperationError):
    """What was waited for did not come in time."""

    code = "wait-timed-out"
    default_fix = "Wait longer with --timeout, or look at what holds the run up: llmasos-coordinator run show."


class PortInUse(OperationError):
    """An address to listen on is taken or not this machine's."""

    code = "port-in-use"
    default_fix = "Stop the other process, or choose another port in the configuration."


class HomeLocked(OperationError):
    """Another process already runs on this home folder."""

    code = "home-locked"
    default_fix = "Stop the other process first; two daemons never share a home."


class StorageFailure(OperationError):
    """Disk full, file unreadable, database locked."""

    code = "storage-failure"
    default_fix = "Check free space and permissions of the home folder."


class ReducerSelfTestFailed(OperationError):
    """This machine's arithmetic does not give the golden digest, so nothing may be aggregated here."""

    code = "reducer-self-test-failed"
    status = Status.INTERNAL
    default_fix = "Unset flush-to-zero settings and custom BLAS or numpy builds; see docs/protocol.md#arithmetic."


class CompiledLoopsUnfit(OperationError):
    """The compiled part of the reducer that lies in the installation cannot be used."""

    code = "compiled-loops-unfit"
    status = Status.INTERNAL
    default_fix = "Install again, or remove that file: numpy then computes the same bits, slower."


class WorkerFailed(OperationError):
    """The training process ended or reported a failure."""

    code = "worker-failed"
    status = Status.INTERNAL
    default_fix = "Look at worker.log in the participant's home folder."


class WorkerKilled(WorkerFailed):
    """The training process was ended from outside, by SIGKILL or another signal that asks a process to end."""

    code = "worker-killed"
    default_fix = "It is started again; if that goes on, find out who ends it, such as the kernel for want of memory."


class OutOfMemory(WorkerFailed):
    """Memory is too little for training, even one sequence at a time."""

    code = "out-of-memory"
    default_fix = "Free memory of this machine or its GPU, or train elsewhere: this plan needs more than there is."


class DeviceFailed(WorkerFailed):
    """The GPU or its driver failed at work; nothing more can be computed in that process."""

    code = "device-failed"
    default_fix = "The worker is started anew; if that goes on, look at nvidia-smi, the kernel's log and worker.log."


class RunFailed(OperationError):
    """A run ended without a model."""

    code = "run-failed"
    status = Status.ABORTED
    default_fix = "`llmasos-coordinator run watch RUN` names institution and cause for each round."


class InternalError(LLMasOSError):
    """A bug here: the detail stays in this side's log."""

    code = "internal"
