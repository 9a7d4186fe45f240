"""The way to the coordinator's two ports, what it says of this participant, and its clock."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime

from common.clock import parse_rfc3339, rfc3339
from common.errors import CoordinatorUnreachable
from common.wire.messages import Diagnosis
from common.wire.reach import described_way, explain
from common.wire.session import diagnose
from participant.doctor.finding import Finding, Subject
from participant.speed import limits_at

MAX_SKEW_SECONDS = 60.0
DAY_SECONDS = 86_400.0
"""Certificates begin a day before they are made: clocks that differ by more find them not yet valid."""


def speed(subject: Subject) -> Iterator[Finding]:
    """What transfers may take now, where the configuration limits them."""
    settings = subject.config.transfer
    if not settings.max_mbit_per_s:
        return
    limits = limits_at(settings, subject.clock.now())
    said = [f"{word} {mbit:g} Mbit/s" for word, mbit in (("up", limits.up), ("down", limits.down)) if mbit is not None]
    until = f" until {rfc3339(limits.until)}" if limits.until else ""
    yield Finding("speed", "ok", ("at most " + ", ".join(said) if said else "as fast as it goes") + until)


def work_port(subject: Subject) -> Iterator[Finding]:
    """The listener of members: everything but joining and renewing goes there."""
    yield _reached("work port", subject.config.coordinator.work, subject)


def enrolment_port(subject: Subject) -> Iterator[Finding]:
    """The listener of those who join, renew, or ask why they are refused."""
    yield _reached("enrol port", subject.config.coordinator.enrolment, subject)


def membership(subject: Subject) -> Iterator[Finding]:
    """Whether the coordinator accepts our certificate, and how far its clock is from ours."""
    asked = subject.clock.now()
    try:
        answer = diagnose(
            subject.config.coordinator.enrolment,
            consortium=subject.config.consortium,
            ca_pem=subject.genesis.ca_certificate.encode(),
            certificate_pem=subject.layout.tls_certificate.read_bytes(),
        )
    except CoordinatorUnreachable:
        unknown = "not known, since the enrolment port does not answer"
        yield Finding("membership", "warn", unknown, "First see to the enrol port.")
        yield Finding("clock", "warn", f"{unknown}; it is {rfc3339(asked)} here", "Compare it with another clock.")
        return
    yield _accepted(answer)
    yield _skew(answer, asked + (subject.clock.now() - asked) / 2)


def _reached(check: str, address: str, subject: Subject) -> Finding:
    fault = explain(address, subject.genesis)
    if fault is not None:
        return Finding(check, "fail", fault.message, fault.fix)
    return Finding(check, "ok", f"{address} answers {described_way(address, os.environ)}, as the coordinator")


def _accepted(answer: Diagnosis) -> Finding:
    if answer.code == "ok":
        return Finding("membership", "ok", "the coordinator accepts this participant's certificate")
    return Finding("membership", "fail", f"The coordinator refuses: {answer.message} ({answer.code})", answer.fix)


def _skew(answer: Diagnosis, here: datetime) -> Finding:
    """Args: here: this clock in the middle of the call."""
    try:
        seconds = (here - parse_rfc3339(answer.coordinator_time)).total_seconds()
    except ValueError:
        return Finding("clock", "warn", "not known: the coordinator told no time")
    if abs(seconds) <= MAX_SKEW_SECONDS:
        return Finding("clock", "ok", f"within {max(1.0, abs(seconds)):.0f} s of the coordinator's")
    beyond = abs(seconds) > DAY_SECONDS
    why = (
        "certificates are found expired or not yet valid by it, so that connections are refused"
        if beyond
        else "the policy's hours and the times that this institution signs are by it; deadlines are the coordinator's"
    )
    return Finding(
        "clock",
        "fail" if beyond else "warn",
        f"{abs(seconds):,.0f} s {'ahead of' if seconds > 0 else 'behind'} the coordinator's, expected at most "
        f"{MAX_SKEW_SECONDS:.0f}: {why}",
        "Set this machine's clock by NTP; if it is right, tell the operator.",
    )
