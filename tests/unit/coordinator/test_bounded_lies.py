"""What a member that lies can bring about at most: work, waiting, entries in the ledger, numbers."""

from __future__ import annotations

import hmac
import math
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings

from common.clock import rfc3339
from common.errors import DeltaTooLong, InvalidInvitation, LLMasOSError, NonFiniteDelta, RefusalError
from common.reduce import inspect_delta
from common.tensors import model_header
from common.wire.v1 import enrolment_pb2
from coordinator import inspections as inspections_module
from coordinator.api.convert import certificate_pem_from_wire, enrolment_offer_from_wire, renewal_offer_from_wire
from coordinator.api.enrolment import diagnose
from coordinator.ports import Activity
from coordinator.rounds.phases import deadline
from tests.support.blobs import delta_bytes, random_arrays
from tests.support.coordinators import Coordinator
from tests.support.mutations import mutated
from tests.support.participants import MANIFEST, RUN, FakeParticipant

QUIET = {"derandomize": True, "deadline": None, "database": None}
SHARED = [HealthCheck.function_scoped_fixture]


def filled(value: float) -> bytes:
    """A delta that is `value` everywhere."""
    arrays = random_arrays(MANIFEST, seed=1)
    return delta_bytes(MANIFEST, {name: np.full_like(array, value) for name, array in arrays.items()})


# --- work --------------------------------------------------------------------------------------------------------------------


def test_a_bad_delta_is_read_once_however_often_it_is_offered(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []

    def counted(*arguments: Any, **named: Any) -> Any:
        read.append(1)
        return inspect_delta(*arguments, **named)

    coordinator.open_round()
    monkeypatch.setattr(inspections_module, "inspect_delta", counted)
    north = coordinator["north"]
    ref, metrics = north.send(filled(float("nan"))), north.metrics()
    said = set()
    for tokens in range(1, 9):
        with pytest.raises(NonFiniteDelta) as error:
            north.submit(north.contribution(ref, metrics, num_tokens=tokens), metrics)
        said.add(error.value.message)
    assert len(read) == 1
    assert said == {"The delta holds nan in tensor 'embedding' at 0."}


def test_an_unknown_invitation_costs_the_work_of_a_known_one(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[int] = []
    real = hmac.compare_digest

    def counted(one: str, other: str) -> bool:
        compared.append(len(one))
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", counted)
    guest = FakeParticipant(coordinator, "west")
    invitation = coordinator.invite("west")
    for changes in ({"invitation_id": "00" * 16}, {"secret": bytes(32)}):
        with pytest.raises(InvalidInvitation, match="The invitation is not known here, or its secret is wrong"):
            coordinator.desk.enrol(guest.offer(invitation, **changes))
    assert compared == [64, 64]


# --- waiting -----------------------------------------------------------------------------------------------------------------


def test_who_is_always_back_a_second_before_the_deadline_holds_a_round_until_then_at_most(
    coordinator: Coordinator,
) -> None:
    record = coordinator.open_round(rounds=1, quorum=2, deadline_seconds=3600)
    for name in ("east", "south"):
        coordinator[name].contribute()
    back = rfc3339(deadline(record) - timedelta(seconds=1))
    for _ in range(119):
        coordinator.clock.advance(seconds=30)
        activity = Activity(RUN, 1, "outside-hours", available_at=back)
        assert coordinator.board.report(coordinator["north"].member, activity)
        coordinator.advance()
        assert coordinator.run.rounds[0].closed is None
    coordinator.clock.advance(seconds=31)
    coordinator.advance()
    closed = coordinator.run.rounds[0].closed
    assert closed is not None
    assert (closed.outcome, closed.reason) == ("committed", "deadline-passed")
    assert [entry.institution for entry in closed.inputs] == ["east", "south"]


# --- the ledger --------------------------------------------------------------------------------------------------------------


def test_old_rounds_are_no_places_to_fill_the_ledger_with(coordinator: Coordinator) -> None:
    coordinator.start_run(rounds=6)
    for _ in range(5):
        coordinator.advance()
        for participant in coordinator.participants.values():
            participant.act()
    north = coordinator["north"]
    assert north.round.number > 3
    before = len(coordinator.refusals())
    for _ in range(3):
        for number in range(1, north.round.number):
            for institution in ("north", "south"):
                with pytest.raises(RefusalError):
                    north.submit(north.contribution(round=number, institution=institution))
    assert len(coordinator.refusals()) - before == 2
    assert {(number, code) for _, number, code, _ in coordinator.refusals()} == {
        (None, "round-not-open"),
        (None, "wrong-signer"),
    }


# --- numbers -----------------------------------------------------------------------------------------------------------------


def test_deltas_as_long_as_any_plan_allows_are_summed_without_overflow(coordinator: Coordinator) -> None:
    """28 digits are the most that a plan's number has: a hundred times that is far below the largest float32."""
    most = {"max_delta_l2": "9" * 28, "server_optimizer": {"type": "sgd", "learning_rate": "100"}}
    coordinator.open_round(rounds=3, **most)
    for _ in range(2):
        for participant in coordinator.participants.values():
            participant.contribute(filled(1.6e27), num_tokens=64)
        coordinator.advance()
    outcomes = [entry.closed.outcome for entry in coordinator.run.rounds if entry.closed]
    assert outcomes == ["committed", "committed"]
    with coordinator.blobs.open(coordinator.run.model) as reader:
        inspect_delta(reader, model_header(MANIFEST), max_l2=math.inf)
    with pytest.raises(DeltaTooLong, match=r"The delta's L2 norm is 1\.8e\+39"):
        coordinator["north"].contribute(filled(3e38))


# --- strangers ---------------------------------------------------------------------------------------------------------------


def only_ours(call: Any) -> None:
    """Whatever comes: taken, or refused with a code."""
    try:
        call()
    except (LLMasOSError, DecodeError):
        return


def test_an_enrolment_with_a_few_bytes_changed_is_no_bug(coordinator: Coordinator) -> None:
    offer = FakeParticipant(coordinator, "west").offer(coordinator.invite("west"))
    request = enrolment_pb2.EnrolRequest(
        invitation_id=offer.invitation_id,
        secret=offer.secret,
        csr_der=offer.csr_der,
        signing_key=offer.signing_key,
        proof=offer.proof,
    ).SerializeToString()

    @settings(max_examples=500, suppress_health_check=SHARED, **QUIET)  # type: ignore[arg-type]
    @given(mutated(request))
    def check(content: bytes) -> None:
        only_ours(
            lambda: coordinator.desk.enrol(enrolment_offer_from_wire(enrolment_pb2.EnrolRequest.FromString(content)))
        )

    check()
    assert coordinator.refusals() == []


def test_a_request_for_a_certificate_with_a_few_bytes_changed_is_no_bug(coordinator: Coordinator) -> None:
    """Proof and secret are right, so that the authority reads it."""
    guest = FakeParticipant(coordinator, "west")

    @settings(max_examples=150, suppress_health_check=SHARED, **QUIET)  # type: ignore[arg-type]
    @given(mutated(guest.tls.csr("west")))
    def check(csr: bytes) -> None:
        only_ours(lambda: coordinator.desk.enrol(guest.offer(invitation, csr_der=csr)))

    invitation = coordinator.invite("west")
    check()
    member = coordinator.state.member("west")
    assert member is None or [each.name for each in coordinator.state.roster.members].count("west") == 1  # type: ignore[union-attr]


def test_a_renewal_with_a_few_bytes_changed_is_no_bug(coordinator: Coordinator) -> None:
    north = coordinator["north"]
    request = enrolment_pb2.RenewRequest(
        institution="north",
        replaces_serial=north.member.certificates[-1].serial,
        csr_der=north.tls.csr("north"),
        proof=bytes(64),
    ).SerializeToString()
    size = coordinator.state.size

    @settings(max_examples=500, suppress_health_check=SHARED, **QUIET)  # type: ignore[arg-type]
    @given(mutated(request))
    def check(content: bytes) -> None:
        only_ours(
            lambda: coordinator.desk.renew(renewal_offer_from_wire(enrolment_pb2.RenewRequest.FromString(content)))
        )

    check()
    assert coordinator.state.size == size


def test_a_certificate_with_a_few_bytes_changed_is_diagnosed(coordinator: Coordinator) -> None:
    north = coordinator["north"]
    invitation = coordinator.invite("west")
    pem = coordinator.desk.enrol(FakeParticipant(coordinator, "west").offer(invitation)).certificate_pem
    request = enrolment_pb2.DiagnoseRequest(certificate_pem=pem).SerializeToString()

    @settings(max_examples=500, suppress_health_check=SHARED, **QUIET)  # type: ignore[arg-type]
    @given(mutated(request))
    def check(content: bytes) -> None:
        def asked() -> None:
            wanted = certificate_pem_from_wire(enrolment_pb2.DiagnoseRequest.FromString(content))
            assert diagnose(wanted, coordinator.ledger, coordinator.clock).code

        only_ours(asked)

    check()
    assert north.member.status == "active"
