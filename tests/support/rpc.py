"""A failed call as grpc raises it, made without grpc's core."""

from __future__ import annotations

from typing import Any

import grpc


class FailedCall(grpc.RpcError, grpc.Call):  # type: ignore[misc]  # grpc has no types
    """Status, text and trailing metadata of a call that failed."""

    def __init__(self, code: grpc.StatusCode, details: str = "", metadata: tuple[tuple[str, bytes], ...] = ()) -> None:
        super().__init__(details)
        self._code, self._details, self._metadata = code, details, metadata

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        return self._metadata

    def initial_metadata(self) -> tuple[tuple[str, bytes], ...]:
        return ()

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> float | None:
        return None

    def cancel(self) -> bool:
        return False

    def add_callback(self, callback: Any) -> bool:
        return False
