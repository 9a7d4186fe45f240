"""Valid messages with a few bytes changed, over the wire: never a bug of ours, whatever comes. Seeded: a failure repeats."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common import strict_json
from common.statements.kinds import Kind
from common.wire.v1 import blobs_pb2, common_pb2, work_pb2
from llmasos.simulation.deployment import edit_line
from tests.support.blobs import leaves_and_ref
from tests.support.drafts import make_draft
from tests.support.lies import RUN, JsonLogging
from tests.support.mallory import METRICS, SALT, Mallory, credentials, work_address
from tests.support.mutations import mutated
from tests.support.statements import resealed
from tests.support.wire_client import WireClient, put_header, put_piece, refusal, wire_ref

pytestmark = pytest.mark.xdist_group("hostile-mutations")

MEMBERS = ("mallory", "oscar", "trudy")
OUR_FAULT = {"INTERNAL", "UNKNOWN", "UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED"}
gently = functools.partial(
    settings,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


class Unhurried(JsonLogging):
    """A federation whose coordinator answers as fast as it is asked."""

    def found(self) -> None:
        super().found()
        edit_line(
            self.coordinator_home / "coordinator.yaml", r"requests_per_second: \d+", "requests_per_second: 1000000"
        )


@dataclass
class Stage:
    """A round that is open for three members, none of whom has a daemon. Each has four deltas to begin, no more."""

    federation: Unhurried
    liars: dict[str, Mallory]

    @property
    def liar(self) -> Mallory:
        return self.liars["mallory"]

    def is_well(self) -> None:
        """Alive, no bug in its log, and a ledger that follows from itself."""
        assert self.federation.coordinator is not None
        assert self.federation.coordinator.exit_code is None
        assert [each for each in self.federation.events() if "traceback" in each or each["level"] == "error"] == []
        assert self.federation.state().size == len(self.federation.entries())
        assert not list(self.federation.of_kind(Kind.CONTRIBUTION))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with ExitStack() as stack:
        federation = Unhurried(tmp_path_factory.mktemp("mutations") / "federation", MEMBERS)
        stack.enter_context(federation)
        draft = make_draft(federation.folder / RUN, run=RUN, rounds=1)
        liars = {}
        for name in MEMBERS:
            peer = stack.enter_context(WireClient(work_address(federation), credentials(federation, name)))
            liars[name] = Mallory(federation, draft, peer, name)
        federation.start_run(draft)
        for liar in liars.values():
            liar.answer(accept=True)
        federation.wait_until_open(RUN, 1)
        yield Stage(federation, liars)


def submitting(liar: Mallory) -> bytes:
    envelope = common_pb2.Envelope(json=resealed(liar.payload(), liar.key))
    return work_pb2.SubmitRequest(envelope=envelope, metrics=METRICS, metrics_salt=SALT).SerializeToString()


def answering(liar: Mallory) -> bytes:
    predicate = {"institution": liar.name, "run": RUN, "accept": True, "nonce": "ab" * 32}
    payload = liar.statement("answer", predicate, "plan", liar.run.place.digest)
    return work_pb2.SubmitRequest(envelope=common_pb2.Envelope(json=resealed(payload, liar.key))).SerializeToString()


def beginning(liar: Mallory) -> bytes:
    leaves, ref = leaves_and_ref(liar.delta())
    request = blobs_pb2.BeginRequest(ref=wire_ref(ref), leaves=common_pb2.LeafList(hashes=leaves), purpose=liar.purpose)
    return request.SerializeToString()


def reporting(liar: Mallory) -> bytes:
    return work_pb2.ReportRequest(
        run=RUN, round=1, activity="paused", steps_done=1, steps_total=2, tokens_done=3, loss_fixed=-5,
        available_at="2026-11-21T22:12:00.000Z",
    ).SerializeToString()  # fmt: skip


def estimating(liar: Mallory) -> bytes:
    return work_pb2.EstimateRequest(
        id=b"i" * 16,
        verdict="refuse",
        codes=["min-quorum"],
        seconds_per_round=1.5,
        availability=["daily 22:00-06:00 UTC"],
    ).SerializeToString()


def reading(liar: Mallory) -> bytes:
    return blobs_pb2.GetRequest(ref=wire_ref(liar.run.model), first_chunk=0, chunks=1).SerializeToString()


MESSAGES: dict[str, tuple[str, Callable[[Mallory], bytes]]] = {
    "a contribution": ("Work/Submit", submitting),
    "an answer": ("Work/Submit", answering),
    "a beginning": ("Blobs/Begin", beginning),
    "a report": ("Work/Report", reporting),
    "an estimate": ("Work/Estimate", estimating),
    "a question for leaves": ("Blobs/Leaves", reading),
    "a wish to read": ("Blobs/Get", reading),
}


@pytest.mark.parametrize("what", MESSAGES)
def test_a_message_with_a_few_bytes_changed_is_no_bug(stage: Stage, what: str) -> None:
    method, make = MESSAGES[what]
    right = make(stage.liar)

    @gently(max_examples=250)
    @given(mutated(right))
    def check(content: bytes) -> None:
        found = refusal(lambda: stage.liar.peer.raw(method, content))
        assert found is None or found.status not in OUR_FAULT, (content, found)

    check()
    stage.is_well()


def test_a_stream_with_a_few_bytes_changed_is_no_bug(stage: Stage) -> None:
    liar = stage.liars["oscar"]
    leaves, ref = leaves_and_ref(liar.delta())
    liar.peer.begin(ref, leaves, liar.purpose)
    header = put_header(ref, liar.purpose).SerializeToString()
    piece = put_piece(0, 0, bytes(300)).SerializeToString()
    first = st.one_of(st.just(header), mutated(header))

    @gently(max_examples=250)
    @given(first, st.lists(mutated(piece), max_size=3))
    def check(head: bytes, pieces: list[bytes]) -> None:
        found = refusal(lambda: liar.peer.raw_stream("Blobs/Put", [head, *pieces]).result(timeout=30))
        assert found is None or found.status not in OUR_FAULT, (head, pieces, found)

    check()
    stage.is_well()


def test_a_statement_that_is_rightly_signed_and_otherwise_changed_is_no_bug(stage: Stage) -> None:
    """The signature is ours, so that what reads the payload is reached."""
    liar, key = stage.liar, stage.liar.key
    payload = strict_json.dumps(liar.payload())

    @gently(max_examples=500)
    @given(mutated(payload))
    def check(content: bytes) -> None:
        found = refusal(lambda: liar.peer.submit(resealed(content, key), METRICS, SALT))
        assert found is not None
        assert found.status not in OUR_FAULT, (content, found)

    check()
    stage.is_well()


def test_metrics_with_a_few_bytes_changed_are_no_bug(stage: Stage) -> None:
    liar = stage.liar  # its delta is not there, so no try takes the slot

    @gently(max_examples=250)
    @given(mutated(METRICS))
    def check(metrics: bytes) -> None:
        found = refusal(lambda: liar.submit_metrics(metrics))
        assert found is not None
        assert found.code in {"bad-commitment", "malformed-message", "missing-blob"}, (metrics, found)

    check()
    stage.is_well()


def test_the_headers_of_deltas_with_a_few_bytes_changed_are_no_bug(stage: Stage) -> None:
    """Four a round and member, so few; tests/unit/common/test_tensors.py has more."""
    liar, right = stage.liars["trudy"], stage.liar.delta()
    for number in range(2):
        ref = liar.send(right[:100] + bytes([255 - number]) + right[101:])
        found = refusal(lambda ref=ref: liar.submit(liar.payload(ref)))  # type: ignore[misc]
        assert found is not None
        assert found.code == "wrong-tensors"
    stage.is_well()
