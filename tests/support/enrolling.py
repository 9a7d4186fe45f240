"""Enrolment without a network: `join` speaks with a coordinator in memory.

desk = Desk(coordinator)
monkeypatch.setattr(participant.joining, "enrol", desk.enrol)
"""

from __future__ import annotations

from collections.abc import Callable

from common.wire.messages import Enrolment, EnrolmentRequest
from coordinator.ports import EnrolmentOffer
from tests.support.coordinators import CONSORTIUM, Coordinator


class Desk:
    """The enrolment listener without its network; `failure` is raised after the coordinator did its part, once."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self.requests: list[EnrolmentRequest] = []
        self.failure: Exception | None = None
        self.certificate: Callable[[str], str] = lambda pem: pem

    def enrol(self, address: str, *, consortium: str, ca_pem: bytes, request: EnrolmentRequest) -> Enrolment:
        assert (address, consortium) == ("127.0.0.1:7444", CONSORTIUM)
        assert ca_pem == self._coordinator.state.genesis.ca_certificate.encode()
        self.requests.append(request)
        enrolled = self._coordinator.desk.enrol(
            EnrolmentOffer(
                request.invitation_id,
                request.secret,
                request.csr_der,
                request.signing_key,
                request.proof,
                request.encryption_key,
            )
        )
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        return Enrolment(self.certificate(enrolled.certificate_pem), enrolled.roster_index)
