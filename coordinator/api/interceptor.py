"""What all calls share, so that a servicer can decode, call, encode: admission, checks at each message, errors to status.

    request ─▶ door.admit ─▶ read (a unary request too, as a stream of one) ─▶ servicer ─▶ reply
                    │                     │                                       │
                    └── IdentityError     └── MalformedMessage                    └── any LLMasOSError: status + ErrorDetail
                                                                                      anything else: INTERNAL, detail in our log

A refusal is logged with who it concerns, and what a member sent to `Submit`, `Begin` and `Put` is recorded too (RECORDED).
However often something is tried, the log has one line a minute of it (CallLog).

Reading a unary request as a stream of one has a reason: grpc would wait for the message before it calls us, and a caller who
opens calls and sends nothing would hold every thread without ever being counted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NoReturn, Protocol, runtime_checkable

import grpc
from google.protobuf.message import DecodeError

from common.errors import (
    CoordinatorRecovering,
    InternalError,
    LLMasOSError,
    MalformedMessage,
    OperationError,
    RefusalError,
)
from common.wire.errors import status_of, status_text, trailing_metadata
from coordinator.api.call_log import CallLog
from coordinator.api.calls import Call, OpenCalls
from coordinator.api.doors import Door
from coordinator.api.limits import peer_address
from coordinator.ports import Refusals

logger = logging.getLogger(__name__)

WATCHES = frozenset({"/llmasos.v1.Operations/WatchRun", "/llmasos.v1.Operations/RunLogs"})
"""A watcher who goes away frees its slot at once, since the handler notices late. Every other call keeps its slot until its
handler is done: who could cancel it and begin again would have all threads at work, on a delta's inspection for instance.
"""

SUBMIT = "/llmasos.v1.Work/Submit"
RECORDED = frozenset({SUBMIT, "/llmasos.v1.Blobs/Begin", "/llmasos.v1.Blobs/Put"})
"""Where a member sends what counts. Of `Submit` only messages that hold no statement: the rest the desk records."""


@runtime_checkable
class WholeErrors(Protocol):
    """A context that takes an error as it is; grpc's takes status and metadata."""

    def abort_with(self, error: LLMasOSError) -> NoReturn: ...


class Interceptor(grpc.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """One for each listener.

    Args:
        pools: thread pools of services or methods by the longest matching prefix of the path; all others use the server's own.
        refusals: told of what members sent and was refused.
    """

    def __init__(
        self,
        door: Door,
        open_calls: OpenCalls,
        pools: Mapping[str, ThreadPoolExecutor],
        refusals: Refusals,
        call_log: CallLog,
    ) -> None:
        self._door, self._open_calls, self._refusals, self._log = door, open_calls, refusals, call_log
        self._pools = sorted(pools.items(), key=lambda item: -len(item[0]))

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        handler = continuation(details)
        if handler is None:
            return None
        if handler.response_streaming:
            behaviour, make = self._streaming(details.method, handler), grpc.stream_stream_rpc_method_handler
        else:
            behaviour, make = self._answering(details.method, handler), grpc.stream_unary_rpc_method_handler
        for prefix, pool in self._pools:
            if details.method.startswith(prefix):
                behaviour.experimental_thread_pool = pool  # read by grpc for each call
                break
        return make(behaviour, request_deserializer=None, response_serializer=handler.response_serializer)

    def _answering(self, method: str, handler: Any) -> Any:
        def answer(raw: Iterator[bytes], context: Any) -> Any:
            with self._handled(method, context) as call:
                servicer = handler.stream_unary if handler.request_streaming else handler.unary_unary
                return servicer(_request(handler, call, raw), call)

        return answer

    def _streaming(self, method: str, handler: Any) -> Any:
        def answers(raw: Iterator[bytes], context: Any) -> Iterator[Any]:
            with self._handled(method, context) as call:
                servicer = handler.stream_stream if handler.request_streaming else handler.unary_stream
                yield from call.sent(servicer(_request(handler, call, raw), call))

        return answers

    @contextmanager
    def _admitted(self, method: str, context: Any) -> Iterator[Call]:
        admitted = self._door.admit(method, context)
        admitted.call.method = method
        self._open_calls.add(admitted.call)
        try:
            if method in WATCHES:
                context.add_callback(admitted.leave)
            yield admitted.call
        except RefusalError as error:
            self._note(admitted.call, error)
            raise
        finally:
            admitted.leave()
            self._open_calls.remove(admitted.call)

    def _note(self, call: Call, error: RefusalError) -> None:
        if call.method not in RECORDED or not call.recorded or call.first_sha256 is None:
            return
        if call.method != SUBMIT or isinstance(error, MalformedMessage):
            self._refusals.note(call.member, error, call.purpose, call.first_sha256)

    @contextmanager
    def _handled(self, method: str, context: Any) -> Iterator[Call]:
        """The admitted call; ends it with what is raised in it.

        A peer's fault goes out whole. Of our own failures only the code does: messages of a failing disk or a bug name paths
        and values that are nobody else's business, and stand in our log.
        """
        call: Call | None = None
        try:
            with self._admitted(method, context) as call:
                yield call
        except grpc.RpcError:
            raise  # the caller went away; grpc knows its own exception again
        except CoordinatorRecovering as error:
            self._log.refused(call.institution if call else "", peer_address(context.peer()), method, error)
            _abort(context, error)
        except (OperationError, InternalError) as error:
            logger.exception("call failed", extra={"method": method, "code": error.code})
            _abort(context, type(error)("The coordinator could not do this; its log says why.", error.default_fix))
        except LLMasOSError as error:
            self._log.refused(call.institution if call else "", peer_address(context.peer()), method, error)
            _abort(context, error)
        except Exception:  # the last line of defence: a bug must not reach a peer as text
            logger.exception("bug in a call", extra={"method": method})
            _abort(context, InternalError("The coordinator failed at this call; its log has the detail."))


def _request(handler: Any, call: Call, raw: Iterator[bytes]) -> Any:
    messages = (_decoded(handler, content) for content in call.received(raw))
    if handler.request_streaming:
        return messages
    request = next(messages, None)
    if request is None:
        raise MalformedMessage("The call ended without its request message.")
    return request


def _decoded(handler: Any, content: bytes) -> Any:
    try:
        return handler.request_deserializer(content)
    except DecodeError as error:
        raise MalformedMessage(
            f"The request's {len(content):,} bytes are not the message that this call takes."
        ) from error


def _abort(context: Any, error: LLMasOSError) -> None:
    if isinstance(context, WholeErrors):
        context.abort_with(error)
    context.set_trailing_metadata(trailing_metadata(error))
    context.abort(status_of(error), status_text(error))
