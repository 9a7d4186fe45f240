from __future__ import annotations

import grpc
import pytest

from common.errors import (
    CoordinatorUnreachable,
    CorruptChunk,
    InternalError,
    LLMasOSError,
    RefusalError,
    TooManyRequests,
    UnsupportedProtocol,
    all_errors,
)
from common.wire.errors import (
    ERROR_KEY,
    error_from_rpc,
    raise_from_rpc,
    rpc_errors,
    status_of,
    status_text,
    trailing_metadata,
)
from common.wire.v1 import common_pb2
from tests.support.rpc import FailedCall


def failed(error: LLMasOSError) -> FailedCall:
    return FailedCall(status_of(error), status_text(error), trailing_metadata(error))


@pytest.mark.parametrize("code", sorted(all_errors()))
def test_every_error_comes_out_of_the_wire_as_it_went_in(code: str) -> None:
    kind = all_errors()[code]
    error = error_from_rpc(failed(kind("what happened", "what to do")))
    assert (type(error), error.message, error.fix) == (kind, "what happened", "what to do")


@pytest.mark.parametrize("kind", all_errors().values())
def test_every_status_is_one_of_grpcs(kind: type[LLMasOSError]) -> None:
    assert status_of(kind("x")).name == kind.status.name


def test_the_rebuilt_error_names_its_cause() -> None:
    call = failed(CorruptChunk("chunk 3"))
    with pytest.raises(CorruptChunk) as error:
        raise_from_rpc(call)
    assert error.value.__cause__ is call


def test_a_code_that_this_release_does_not_know_is_a_refusal_with_its_text() -> None:
    detail = common_pb2.ErrorDetail(code="from-the-future", message="Not so.", fix="Upgrade.")
    error = error_from_rpc(FailedCall(grpc.StatusCode.INVALID_ARGUMENT, "", ((ERROR_KEY, detail.SerializeToString()),)))
    assert type(error) is RefusalError
    assert error.message == "Not so. (code 'from-the-future', which this release does not know)"
    assert error.fix == "Upgrade."


def test_what_a_peer_wrote_cannot_steer_a_terminal() -> None:
    error = error_from_rpc(failed(CorruptChunk("\x1b[2Jgone\r\nnew line", "\x07bell")))
    assert (error.message, error.fix) == (" [2Jgone  new line", " bell")


def test_a_detail_that_is_no_message_is_left_out() -> None:
    error = error_from_rpc(FailedCall(grpc.StatusCode.DATA_LOSS, "lost", ((ERROR_KEY, b"\xff\xff"),)))
    assert type(error) is CoordinatorUnreachable
    assert error.message == "The call to the coordinator broke off, DATA_LOSS: lost."


def test_metadata_stays_below_grpcs_limit_whatever_the_message() -> None:
    error = CorruptChunk("ß" * 10_000, "漢" * 10_000)
    [(_, detail)] = trailing_metadata(error)
    assert len(detail) < 4096
    assert len(status_text(error)) <= 120
    assert error_from_rpc(failed(error)).message == "ß" * 1024


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        (
            grpc.StatusCode.UNAVAILABLE,
            CoordinatorUnreachable,
            "No answer from the coordinator at h:1, UNAVAILABLE: refused.",
        ),
        (
            grpc.StatusCode.DEADLINE_EXCEEDED,
            CoordinatorUnreachable,
            "No answer from the coordinator at h:1, DEADLINE_EXCEEDED: refused.",
        ),
        (
            grpc.StatusCode.CANCELLED,
            CoordinatorUnreachable,
            "The call to the coordinator at h:1 broke off, CANCELLED: refused.",
        ),
        (
            grpc.StatusCode.UNIMPLEMENTED,
            UnsupportedProtocol,
            "Expected a call that the coordinator at h:1 knows, got UNIMPLEMENTED: refused.",
        ),
        (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            TooManyRequests,
            "A limit of the coordinator at h:1 or of the message size is reached, RESOURCE_EXHAUSTED: refused.",
        ),
    ],
)
def test_a_status_without_detail_says_what_it_means(code: grpc.StatusCode, kind: type, message: str) -> None:
    error = error_from_rpc(FailedCall(code, "refused"), address="h:1")
    assert (type(error), error.message) == (kind, message)


def test_an_internal_error_is_rebuilt_as_one() -> None:
    assert type(error_from_rpc(failed(InternalError("x")))) is InternalError


def test_a_closed_channel_reads_as_unreachable() -> None:
    def call() -> None:
        raise ValueError("Cannot invoke RPC on closed channel!")

    with pytest.raises(CoordinatorUnreachable, match="The connection was closed on this side"), rpc_errors():
        call()


def test_other_value_errors_pass() -> None:
    with pytest.raises(ValueError, match="a bug"), rpc_errors():
        raise ValueError("a bug")
