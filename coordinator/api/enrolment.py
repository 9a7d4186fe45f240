"""Enrolment: the one door for those who hold no certificate yet."""

from __future__ import annotations

from cryptography import x509

from common.clock import Clock, rfc3339
from common.errors import RefusalError, UnknownCertificate
from common.identity.certificates import UNREADABLE, certificate_id, check_validity, load_certificate
from common.wire.convert import diagnosis_to_wire
from common.wire.messages import Diagnosis
from common.wire.v1 import enrolment_pb2
from coordinator.api.calls import Call
from coordinator.api.convert import (
    certificate_pem_from_wire,
    enrolled_to_wire,
    enrolment_offer_from_wire,
    renewal_offer_from_wire,
    renewed_to_wire,
)
from coordinator.ports import Desk, Members


class EnrolmentServicer:
    """The Enrolment service, docs/protocol.md#enrolment."""

    def __init__(self, desk: Desk, members: Members, clock: Clock) -> None:
        self._desk, self._members, self._clock = desk, members, clock

    def Enrol(self, request: enrolment_pb2.EnrolRequest, call: Call) -> enrolment_pb2.EnrolResponse:  # noqa: N802
        return enrolled_to_wire(self._desk.enrol(enrolment_offer_from_wire(request)))

    def Renew(self, request: enrolment_pb2.RenewRequest, call: Call) -> enrolment_pb2.RenewResponse:  # noqa: N802
        return renewed_to_wire(self._desk.renew(renewal_offer_from_wire(request)))

    def Diagnose(self, request: enrolment_pb2.DiagnoseRequest, call: Call) -> enrolment_pb2.DiagnoseResponse:  # noqa: N802
        return diagnosis_to_wire(diagnose(certificate_pem_from_wire(request), self._members, self._clock))


def diagnose(pem: bytes, members: Members, clock: Clock) -> Diagnosis:
    """Why the work listener refuses a certificate, or `ok`: the very checks that its door makes, as an answer."""
    now = rfc3339(clock.now())
    try:
        check_validity(pem, now=clock.now(), what="This certificate")
        certificate = certificate_id(pem)
        members.by_certificate(certificate.serial, certificate.spki_sha256, _spiffe_id(pem))
    except RefusalError as refusal:
        return Diagnosis(refusal.code, refusal.message, refusal.fix, now)
    return Diagnosis("ok", "This certificate is one that the roster names.", "", now)


def _spiffe_id(pem: bytes) -> str:
    try:
        names = load_certificate(pem).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except UNREADABLE as error:
        raise UnknownCertificate("This certificate names nobody: it has no readable alternative name.") from error
    identifiers = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(identifiers) != 1:
        raise UnknownCertificate(f"Expected a certificate with exactly one SPIFFE ID, got {len(identifiers)}.")
    return identifiers[0]
