"""Joining, and working, from behind a firewall: proxies with passwords, and every cause that stands in the way by its name."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from common.clock import SystemClock
from common.identity.authority import Authority
from common.identity.certificates import coordinator_dns
from common.identity.invitation import parse_invitation
from common.identity.keys import TlsKey
from llmasos.simulation.deployment import edit_line
from llmasos.simulation.processes import child_environment
from participant.config import HomeLayout
from participant.status import read_status
from tests.support import null_worker
from tests.support.federations import CONSORTIUM, PARTICIPANT, Federation, until
from tests.support.networks import FakeProxy, ForeignAuthority, TlsServer, unused_port

NAME = "coordinator.example"
FAILED, REFUSED = 1, 3
PASSWORD, WRITTEN = "p@ss:/#%w", "p%40ss%3A%2F%23%25w"
PROXIES = ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy", "HTTPS_PROXY", "HTTP_PROXY")


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    with Federation(tmp_path_factory.mktemp("federation"), ()) as running:
        yield running


def environment(**settings: str) -> dict[str, str]:
    """This one without any proxy but those named."""
    kept = {name: value for name, value in os.environ.items() if name not in PROXIES}
    return child_environment(kept) | settings


def join(paper: Path, home: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    argv = (*PARTICIPANT, "join", str(paper), "--home", str(home))
    return subprocess.run(argv, env=environment(**settings), capture_output=True, text=True, timeout=60, check=False)


def port(federation: Federation, listener: str) -> str:
    return str(federation.addresses()[listener]).rpartition(":")[2]


def redirected(federation: Federation, name: str, enrolment: str, work: str = "") -> Path:
    """An invitation whose addresses are others than the coordinator's own, as behind a firewall."""
    invitation = parse_invitation(federation.invite(name))
    paper = federation.folder / f"{name}.inv"
    work = work or invitation.work_address
    paper.write_text(replace(invitation, enrolment_address=enrolment, work_address=work).armoured())
    return paper


def refused(done: subprocess.CompletedProcess[str], exit_code: int, code: str, *words: str) -> None:
    """Its error has this code, says all the words, says what to do, and is all that it says."""
    assert done.returncode == exit_code, done.stderr
    assert done.stdout == ""
    assert re.fullmatch(rf"error \[{code}\]: .+\n  fix: \S.+\n", done.stderr), done.stderr
    for each in words:
        assert each in done.stderr, done.stderr


def test_each_cause_is_told_apart_and_the_same_command_goes_on(federation: Federation, tmp_path: Path) -> None:
    home, now = tmp_path / "clinic", SystemClock().now()
    authority = ForeignAuthority("Clinic IT", "Web Gateway CA", now)
    inspected = authority.issue("coordinator", coordinator_dns(CONSORTIUM))
    key = TlsKey.generate()
    banks = Authority.create("banks", now=now).issue_coordinator(key.csr("coordinator"), now=now, days=1)
    invitation = federation.invite("clinic")
    paper = tmp_path / "clinic.inv"

    def tried(address: str) -> subprocess.CompletedProcess[str]:
        paper.write_text(replace(parse_invitation(invitation), enrolment_address=address).armoured())
        return join(paper, home)

    with unused_port() as closed:
        refused(tried(f"127.0.0.1:{closed}"), FAILED, "port-blocked", f"127.0.0.1:{closed} refused")
    with TlsServer(*inspected) as server:
        refused(tried(server.address), FAILED, "tls-intercepted", "Web Gateway CA", server.address)
    with TlsServer(key.private_pem, banks) as server:
        refused(tried(server.address), REFUSED, "wrong-fingerprint", "consortium 'banks'", "expected 'hospitals'")
    with FakeProxy(refuses=403) as proxy:
        paper.write_text(replace(parse_invitation(invitation), enrolment_address=f"{NAME}:7444").armoured())
        refused(join(paper, home, https_proxy=proxy.url()), FAILED, "proxy-refused", f"forbids CONNECT {NAME}:7444")
    # A name that no server may know (RFC 6761); without any server the resolver says so as well.
    refused(tried("coordinator.invalid:7444"), FAILED, "name-not-resolved", "'coordinator.invalid'")

    paper.write_text(invitation)
    done = join(paper, home)
    assert done.returncode == 0, done.stderr
    assert "clinic is a member of hospitals" in done.stdout


def test_an_institution_behind_a_proxy_with_a_password_joins_works_and_examines_itself(
    federation: Federation, tmp_path: Path
) -> None:
    work, enrolment = (f"{NAME}:{port(federation, each)}" for each in ("work", "enrolment"))
    paper, home = redirected(federation, "bank", enrolment, work), tmp_path / "bank"
    with FakeProxy(credentials=f"it:{PASSWORD}", names={NAME: "127.0.0.1"}) as proxy:
        wrong = join(paper, home, https_proxy=proxy.url("it:hunter2"))
        refused(wrong, FAILED, "proxy-refused", "does not accept the user 'it'", "%XX")
        assert "hunter2" not in wrong.stderr
        refused(join(paper, home, https_proxy=proxy.url()), FAILED, "proxy-refused", "asks for a user and a password")
        settings = {"https_proxy": proxy.url(f"it:{WRITTEN}")}
        done = join(paper, home, **settings)
        assert done.returncode == 0, done.stderr
        proxy.asked.clear()
        command = f"worker:\n  command: {json.dumps(list(null_worker.COMMAND))}"
        edit_line(HomeLayout(home).config, r"worker:", command)

        started = (*PARTICIPANT, "start", "--home", str(home))
        federation.processes.environment = environment(**settings)
        daemon = federation.processes.start("bank", started, log=federation.log("bank"), lifeline=True)
        status = HomeLayout(home).status
        until(lambda: read_status(status).get("connection") == "connected", "the daemon is connected")
        assert work in proxy.asked
        examined = subprocess.run(
            (*PARTICIPANT, "doctor", "--home", str(home)),
            env=environment(**settings),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert f"answers through the proxy 127.0.0.1:{proxy.port}" in re.sub(r"\s+", " ", examined.stdout)
        assert re.search(r"^ok    membership ", examined.stdout, re.MULTILINE), examined.stdout
    # The proxy is gone: after three failures the daemon knows why, and goes on trying.
    until(lambda: "is not reached" in read_status(status).get("connection_reason", ""), "the daemon knows why")
    assert read_status(status)["connection"] == "unreachable"
    assert "proxy-refused" in federation.log("bank").read_text()
    assert daemon.exit_code is None
