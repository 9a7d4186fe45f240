"""The root of the family, and gRPC status codes by number."""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class Status(IntEnum):
    """gRPC status codes, by number, so that this module needs no grpc."""

    CANCELLED = 1
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class LLMasOSError(Exception):
    """Root of everything that users and peers may see.

    Args:
        message: one sentence: the object, what was expected, what came.
        fix: what to do; the class's `default_fix` where none is given.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[Status] = Status.INTERNAL
    exit_code: ClassVar[int] = 1
    default_fix: ClassVar[str] = "Report this with the log of the command that failed."

    def __init__(self, message: str, fix: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix or self.default_fix

    def __str__(self) -> str:
        return f"{self.message} [{self.code}] {self.fix}"
