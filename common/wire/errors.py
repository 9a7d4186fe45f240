"""How an error travels: its code picks the gRPC status, and an ErrorDetail in trailing metadata carries message and fix.

    LLMasOSError ── trailing_metadata() ──▶ `llmasos-error-bin` ── error_from_rpc() ──▶ the same class, message and fix

What a peer wrote about an error is cleaned before a person sees it: no control characters, bounded length.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import grpc
from google.protobuf.message import DecodeError

from common.errors import (
    CoordinatorUnreachable,
    InternalError,
    LLMasOSError,
    RefusalError,
    TooManyRequests,
    UnsupportedProtocol,
    all_errors,
)
from common.wire.v1 import common_pb2

ERROR_KEY = "llmasos-error-bin"
MAX_MESSAGE_BYTES = 2048
MAX_FIX_BYTES = 1024
_MAX_DETAIL_BYTES = 8192
_MAX_STATUS_TEXT = 120
_STATUS = {code.value[0]: code for code in grpc.StatusCode}


def status_of(error: LLMasOSError) -> grpc.StatusCode:
    """The gRPC status that `error` travels under."""
    return _STATUS[int(error.status)]


def status_text(error: LLMasOSError) -> str:
    """A short ASCII line for tools that show only the status; metadata as a whole must stay below 8 KiB."""
    return f"{error.code}: {error.message}"[:_MAX_STATUS_TEXT].encode("ascii", "replace").decode()


def trailing_metadata(error: LLMasOSError) -> tuple[tuple[str, bytes], ...]:
    """What a failed call ends with."""
    return ((ERROR_KEY, error_detail(error)),)


def error_detail(error: LLMasOSError) -> bytes:
    """An ErrorDetail message: all that travels of an error."""
    detail = common_pb2.ErrorDetail(
        code=error.code, message=_cut(error.message, MAX_MESSAGE_BYTES), fix=_cut(error.fix, MAX_FIX_BYTES)
    )
    return bytes(detail.SerializeToString(deterministic=True))


def error_from_detail(content: bytes) -> LLMasOSError:
    """The error that an ErrorDetail message tells of."""
    if len(content) <= _MAX_DETAIL_BYTES:
        try:
            return _rebuilt(common_pb2.ErrorDetail.FromString(content))
        except DecodeError:
            pass
    return CoordinatorUnreachable(f"The call failed, with {len(content):,} bytes that do not say why.")


def error_from_rpc(error: grpc.RpcError, *, address: str = "") -> LLMasOSError:
    """The error that the other side raised, rebuilt from its code; else what its absence means.

    Args:
        address: where the call went, for messages.
    """
    detail = _detail(error)
    if detail is not None:
        return _rebuilt(detail)
    where = f"the coordinator at {address}" if address else "the coordinator"
    code = error.code() if isinstance(error, grpc.Call) else None
    said = f"{code.name if code else type(error).__name__}: {_clean(_details(error), 300)}"
    match code:
        case grpc.StatusCode.UNIMPLEMENTED:
            return UnsupportedProtocol(f"Expected a call that {where} knows, got {said}.")
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return TooManyRequests(f"A limit of {where} or of the message size is reached, {said}.")
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.DEADLINE_EXCEEDED:
            return CoordinatorUnreachable(f"No answer from {where}, {said}.")
        case _:
            return CoordinatorUnreachable(f"The call to {where} broke off, {said}.")


def raise_from_rpc(error: grpc.RpcError, *, address: str = "") -> NoReturn:
    """
    Raises:
        LLMasOSError: `error_from_rpc(error)`, always.
    """
    raise error_from_rpc(error, address=address) from error


@contextmanager
def rpc_errors(address: str = "") -> Iterator[None]:
    """Within it, a failed call raises what the other side raised.

    Raises:
        LLMasOSError: for a grpc.RpcError.
        CoordinatorUnreachable: also when the channel was closed under the call (grpc says so by ValueError).
    """
    try:
        yield
    except grpc.RpcError as error:
        raise_from_rpc(error, address=address)
    except ValueError as error:
        if "closed channel" not in str(error):
            raise
        raise CoordinatorUnreachable("The connection was closed on this side while a call was made.") from error


def _detail(error: grpc.RpcError) -> common_pb2.ErrorDetail | None:
    if not isinstance(error, grpc.Call):
        return None
    for key, value in error.trailing_metadata() or ():
        if key == ERROR_KEY and len(value) <= _MAX_DETAIL_BYTES:
            try:
                return common_pb2.ErrorDetail.FromString(value)
            except DecodeError:
                return None
    return None


def _rebuilt(detail: common_pb2.ErrorDetail) -> LLMasOSError:
    message, fix = _clean(detail.message, MAX_MESSAGE_BYTES), _clean(detail.fix, MAX_FIX_BYTES)
    known = all_errors().get(detail.code)
    if known is None:
        return RefusalError(f"{message} (code {_clean(detail.code, 64)!r}, which this release does not know)", fix)
    if known is LLMasOSError:
        known = InternalError
    return known(message, fix)


def _details(error: grpc.RpcError) -> str:
    return str(error.details() or "") if isinstance(error, grpc.Call) else str(error)


def _clean(text: str, limit: int) -> str:
    """`text` as one line that a terminal shows and does not obey."""
    return "".join(character if character.isprintable() else " " for character in text[:limit])


def _cut(text: str, limit: int) -> str:
    return text.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore")
