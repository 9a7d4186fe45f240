"""Why a coordinator is not reached: each cause by its own error, with what to do, and never a password."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from common.clock import ManualClock, SystemClock
from common.errors import LLMasOSError
from common.identity.authority import Authority
from common.identity.certificates import coordinator_dns
from common.identity.keys import TlsKey
from common.wire.channel import enrolment_channel
from common.wire.handshake import Expected
from common.wire.proxy import ignored_setting, proxy_for
from common.wire.reach import SocketAddress, Surroundings, described_way, explain, fault_on_the_way
from common.wire.v1 import enrolment_pb2, enrolment_pb2_grpc
from tests.support.api import CONSORTIUM, Consortium, Scene
from tests.support.networks import (
    CuttingServer,
    FakeProxy,
    ForeignAuthority,
    SayingServer,
    Server,
    TlsServer,
    unused_port,
)

NAME = "coordinator.example"
OURS = coordinator_dns(CONSORTIUM)
NOW = SystemClock().now()
FAST = Surroundings(environment={}, seconds=2.0)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create(CONSORTIUM, now=NOW)


@pytest.fixture(scope="module")
def expected(authority: Authority) -> Expected:
    return Expected(CONSORTIUM, authority.certificate_pem)


def coordinator_of(authority: Authority, *, days: int = 30) -> tuple[bytes, bytes]:
    """Key and certificate of its coordinator."""
    key = TlsKey.generate()
    return key.private_pem, authority.issue_coordinator(key.csr("coordinator"), now=NOW, days=days)


def check(fault: LLMasOSError | None, code: str, *words: str) -> str:
    """It has this code, and says all these words in message or fix."""
    assert fault is not None
    text = f"{fault.message} {fault.fix}"
    assert fault.code == code, text
    for each in words:
        assert each in text, text
    return text


# --- names and ports -------------------------------------------------------------------------------------------------------


def test_an_open_way_has_no_fault(scene: Scene) -> None:
    for address in (scene.addresses.work, scene.addresses.enrolment):
        assert explain(address, scene.consortium.genesis) is None


def unresolved(code: int, words: str) -> Callable[[str, int], list[SocketAddress]]:
    def resolve(host: str, port: int) -> list[SocketAddress]:
        raise socket.gaierror(code, words)

    return resolve


def test_a_name_without_address_is_told_with_the_resolvers_words(expected: Expected) -> None:
    way = replace(FAST, resolve=unresolved(socket.EAI_NONAME, "Name or service not known"))
    fault = fault_on_the_way("coordinatr.example:7444", expected, way)
    check(fault, "name-not-resolved", "'coordinatr.example'", "name or service not known", "/etc/resolv.conf")


def test_a_silent_name_server_is_not_waited_for(expected: Expected) -> None:
    released = socket.socketpair()

    def resolve(host: str, port: int) -> list[SocketAddress]:
        released[0].recv(1)
        return []

    try:
        fault = fault_on_the_way(f"{NAME}:7444", expected, replace(FAST, resolve=resolve, seconds=0.05))
        check(fault, "name-not-resolved", NAME, "within 0.05 seconds")
    finally:
        released[1].send(b".")
        for each in released:
            each.close()


def test_a_port_that_nobody_listens_on_refuses(expected: Expected) -> None:
    with unused_port() as port:
        check(
            fault_on_the_way(f"127.0.0.1:{port}", expected, FAST),
            "port-blocked",
            f"127.0.0.1:{port} refused",
            "nothing listens on this port",
            "coordinator runs",
        )


CONNECT_FAILURES = {
    "dropped": (TimeoutError("timed out"), "did not answer within 2 seconds: packets are dropped"),
    "no route": (OSError(errno.ENETUNREACH, "Network is unreachable"), "cannot be reached: network is unreachable"),
}


@pytest.mark.parametrize("how", CONNECT_FAILURES)
def test_a_silent_or_unreachable_host_is_told_from_one_that_refuses(expected: Expected, how: str) -> None:
    error, words = CONNECT_FAILURES[how]

    def connect(address: SocketAddress, seconds: float) -> socket.socket:
        raise error

    way = replace(FAST, connect=connect, resolve=lambda host, port: [("192.0.2.1", port), ("192.0.2.2", port)])
    fault = fault_on_the_way(f"{NAME}:7444", expected, way)
    check(fault, "port-blocked", f"{NAME}:7444 (192.0.2.1, 192.0.2.2) {words}")


def test_a_backlog_that_takes_no_more_is_a_silent_port(expected: Expected) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        filling = [socket.socket() for _ in range(4)]
        for each in filling:
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        try:
            fault = fault_on_the_way(f"127.0.0.1:{full.getsockname()[1]}", expected, replace(FAST, seconds=0.3))
            check(fault, "port-blocked", "did not answer within 0.3 seconds", "outgoing TCP")
        finally:
            for each in filling:
                each.close()


def test_the_second_address_of_a_name_is_tried_too(scene: Scene) -> None:
    port = int(scene.addresses.enrolment.rpartition(":")[2])
    genesis = scene.consortium.genesis

    def connect(address: SocketAddress, seconds: float) -> socket.socket:
        if address[0] == "192.0.2.1":
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        return socket.create_connection(address, seconds)

    way = replace(FAST, connect=connect, resolve=lambda host, port: [("192.0.2.1", port), ("127.0.0.1", port)])
    assert fault_on_the_way(f"{NAME}:{port}", Expected(CONSORTIUM, genesis.ca_certificate.encode()), way) is None


# --- certificates ------------------------------------------------------------------------------------------------------------


def test_a_device_that_inspects_tls_is_named_by_its_authority_even_if_it_copies_names(expected: Expected) -> None:
    key, certificate = ForeignAuthority("Clinic IT", "Clinic Web Gateway CA", NOW).issue("coordinator", OURS)
    with TlsServer(key, certificate) as server:
        fault = fault_on_the_way(server.address, expected, FAST)
    check(fault, "tls-intercepted", server.address, "CN=Clinic Web Gateway CA", "O=Clinic IT", "exempt this address")


def test_another_service_with_a_public_certificate_is_told_by_its_name(expected: Expected) -> None:
    key, certificate = ForeignAuthority("Public", "R3", NOW).issue("www.example", "www.example")
    with TlsServer(key, certificate) as server:
        fault = fault_on_the_way(server.address, expected, FAST)
    check(fault, "tls-intercepted", "'www.example'", "another service", "'hospitals'")


def test_another_consortiums_coordinator_has_a_wrong_fingerprint(expected: Expected) -> None:
    with TlsServer(*coordinator_of(Authority.create("banks", now=NOW))) as server:
        fault = fault_on_the_way(server.address, expected, FAST)
    check(fault, "wrong-fingerprint", "consortium 'banks' answers", "expected 'hospitals'", "Check the address")
    assert fault is not None
    assert fault.exit_code == 3


def test_a_consortium_founded_anew_under_the_same_name_has_a_wrong_fingerprint(expected: Expected) -> None:
    with TlsServer(*coordinator_of(Authority.create(CONSORTIUM, now=NOW))) as server:
        fault = fault_on_the_way(server.address, expected, FAST)
    check(fault, "wrong-fingerprint", "another consortium of the name 'hospitals'", "founded anew", "new invitation")


def test_an_institution_that_plays_the_coordinator_is_named(authority: Authority, expected: Expected) -> None:
    key = TlsKey.generate()
    certificate = authority.issue_institution(key.csr("mallory"), "mallory", now=NOW, days=30)
    with TlsServer(key.private_pem, certificate) as server:
        fault = fault_on_the_way(server.address, expected, FAST)
    check(fault, "tls-intercepted", "not its coordinator's, but 'mallory'", "Tell the operator")


def test_a_coordinator_whose_certificate_expired_is_told_with_both_times(authority: Authority) -> None:
    past = Authority.create(CONSORTIUM, now=NOW - timedelta(days=40))
    key = TlsKey.generate()
    certificate = past.issue_coordinator(key.csr("coordinator"), now=NOW - timedelta(days=40), days=30)
    with TlsServer(key.private_pem, certificate) as server:
        way = replace(FAST, clock=ManualClock(NOW))
        fault = fault_on_the_way(server.address, Expected(CONSORTIUM, past.certificate_pem), way)
    check(fault, "certificate-expired", "The coordinator's certificate has expired: valid from", "this machine's clock")


def test_a_server_without_http2_is_no_coordinator(authority: Authority, expected: Expected) -> None:
    with TlsServer(*coordinator_of(authority), alpn=("http/1.1",)) as server:
        fault = fault_on_the_way(server.address, expected, FAST)
    check(fault, "coordinator-unreachable", "not HTTP/2, expected a gRPC server", "load balancer")


def test_what_speaks_no_tls_is_another_service(expected: Expected) -> None:
    with SayingServer(b"SSH-2.0-OpenSSH_9.2\r\n") as server:
        fault = fault_on_the_way(server.address, expected, FAST)
    check(fault, "coordinator-unreachable", server.address, "does not speak TLS", "another service")


@pytest.mark.parametrize(("server", "how"), [(CuttingServer, "the connection was cut"), (Server, "no answer came")])
def test_a_handshake_that_is_cut_or_ignored_is_a_firewalls(server: type[Server], how: str, expected: Expected) -> None:
    with server() as running:
        fault = fault_on_the_way(running.address, expected, replace(FAST, seconds=0.3))
    check(fault, "port-blocked", running.address, how, "TLS handshake", "firewall")


# --- proxies -----------------------------------------------------------------------------------------------------------------


def through(proxy: FakeProxy, credentials: str | None = None) -> Surroundings:
    return replace(FAST, environment={"https_proxy": proxy.url(credentials)})


@pytest.fixture
def target(authority: Authority) -> Iterator[str]:
    """An address that only a proxy resolves."""
    with TlsServer(*coordinator_of(authority)) as server:
        yield f"{NAME}:{server.port}"


def test_a_tunnel_with_a_password_is_an_open_way(target: str, expected: Expected) -> None:
    with FakeProxy(credentials="it@clinic:p@ss:/#%w", names={NAME: "127.0.0.1"}) as proxy:
        way = through(proxy, "it%40clinic:p%40ss%3A%2F%23%25w")
        assert fault_on_the_way(target, expected, way) is None
        assert proxy.asked == [target]
        assert described_way(target, way.environment) == f"through the proxy 127.0.0.1:{proxy.port} (https_proxy)"


REFUSALS: dict[str, tuple[dict[str, Any], str | None, tuple[str, ...]]] = {
    "no password": (
        {"credentials": "it:secret"},
        None,
        ("asks for a user and a password", "https_proxy=http://USER:PASSWORD@127.0.0.1"),
    ),
    "wrong password": ({"credentials": "it:secret"}, "it:hunter2", ("user 'it'", "407", "%XX")),
    "other authentication": (
        {"credentials": "it:secret", "challenge": "Negotiate"},
        "it:hunter2",
        ("asks for Negotiate authentication", "only Basic", "exception"),
    ),
    "forbidden": ({"refuses": 403}, None, ("forbids CONNECT coordinator.example:7444", "allow CONNECT")),
    "not found by the proxy": ({"names": {NAME: "127.0.0.1"}}, None, ("itself not reach", "HTTP 502")),
    "strange": ({"refuses": 418}, None, ("HTTP 418, expected 200",)),
}


@pytest.mark.parametrize("how", REFUSALS)
def test_a_proxy_that_refuses_is_told_with_why_and_without_the_password(expected: Expected, how: str) -> None:
    settings, credentials, words = REFUSALS[how]
    with unused_port() as dead, FakeProxy(**settings) as proxy:
        port = dead if "names" in settings else 7444
        fault = fault_on_the_way(f"{NAME}:{port}", expected, through(proxy, credentials))
    text = check(fault, "proxy-refused", f"127.0.0.1:{proxy.port} (https_proxy)", *words)
    assert "hunter2" not in text


def test_a_proxy_that_is_not_there_or_no_proxy_is_told(expected: Expected) -> None:
    with unused_port() as port:
        way = replace(FAST, environment={"http_proxy": f"http://it:hunter2@127.0.0.1:{port}"})
        fault = fault_on_the_way(f"{NAME}:7444", expected, way)
    assert "hunter2" not in check(fault, "proxy-refused", "is not reached", "refused the connection", "http_proxy")
    with SayingServer(b"220 mail.example ESMTP\r\n") as server:
        way = replace(FAST, environment={"https_proxy": f"http://{server.address}"})
        check(fault_on_the_way(f"{NAME}:7444", expected, way), "proxy-refused", "no answer that is HTTP")


def test_tls_is_looked_at_behind_the_proxy_too(expected: Expected) -> None:
    key, certificate = ForeignAuthority("Clinic IT", "Gateway CA", NOW).issue(OURS, OURS)
    with TlsServer(key, certificate) as server, FakeProxy(names={NAME: "127.0.0.1"}) as proxy:
        fault = fault_on_the_way(f"{NAME}:{server.port}", expected, through(proxy))
    check(fault, "tls-intercepted", "Gateway CA")


A_PROXY = "http://proxy.example:3128"
CHOICES = {
    "the first that is set": ({"https_proxy": A_PROXY, "http_proxy": "http://other:1"}, "https_proxy"),
    "grpc_proxy before all": ({"grpc_proxy": A_PROXY, "https_proxy": "http://other:1"}, "grpc_proxy"),
    "empty: none": ({"grpc_proxy": "", "https_proxy": A_PROXY}, None),
    "exception by the end of the name": ({"https_proxy": A_PROXY, "no_proxy": "x, .example"}, None),
    "no_grpc_proxy hides no_proxy": (
        {"https_proxy": A_PROXY, "no_grpc_proxy": "other", "no_proxy": "example"},
        "https_proxy",
    ),
    "networks are no names": ({"https_proxy": A_PROXY, "no_proxy": "10.0.0.0/8"}, "https_proxy"),
    "another scheme": ({"https_proxy": "https://proxy.example:3128"}, None),
    "no scheme": ({"https_proxy": "proxy.example:3128"}, None),
    "upper case": ({"HTTPS_PROXY": A_PROXY}, None),
}


@pytest.mark.parametrize("how", CHOICES)
def test_the_proxy_is_chosen_as_grpc_does(how: str) -> None:
    environment, variable = CHOICES[how]
    proxy = proxy_for(NAME, environment)
    assert (proxy.variable if proxy else None) == variable


def test_exceptions_by_network_and_loopback_need_no_proxy() -> None:
    environment = {"https_proxy": A_PROXY, "no_proxy": "10.1.0.0/16,192.0.2.7"}
    assert proxy_for("10.1.200.3", environment) is None
    assert proxy_for("192.0.2.7", environment) is None
    assert proxy_for("10.2.0.1", environment) is not None
    for host in ("127.0.0.1", "::1", "localhost"):
        assert proxy_for(host, {"https_proxy": A_PROXY}) is None


def test_a_proxy_setting_that_is_not_used_is_pointed_out(expected: Expected) -> None:
    upper = {"HTTPS_PROXY": "http://it:hunter2@proxy.example:3128"}
    way = replace(FAST, environment=upper, resolve=unresolved(socket.EAI_AGAIN, "Temporary failure"))
    text = check(
        fault_on_the_way(f"{NAME}:7444", expected, way),
        "name-not-resolved",
        "HTTPS_PROXY is set, but only https_proxy, in lower case, is read",
    )
    assert "hunter2" not in text
    ignored = ignored_setting(NAME, {"https_proxy": "https://it:hunter2@proxy.example"})
    assert ignored == "https_proxy is set, but is not of the form http://USER:PASSWORD@HOST:PORT, so it is not used"
    assert ignored_setting("127.0.0.1", upper) is None


def test_a_proxys_password_is_in_no_repr() -> None:
    assert "hunter2" not in repr(proxy_for(NAME, {"https_proxy": "http://it:hunter2@proxy.example:3128"}))


# --- gRPC itself -------------------------------------------------------------------------------------------------------------


def diagnose(consortium: Consortium, address: str) -> None:
    genesis = consortium.genesis
    with enrolment_channel(address, consortium=CONSORTIUM, ca_pem=genesis.ca_certificate.encode()) as channel:
        stub = enrolment_pb2_grpc.EnrolmentStub(channel)
        certificate = consortium.tls("north").certificate.read_text()
        stub.Diagnose(enrolment_pb2.DiagnoseRequest(certificate_pem=certificate), timeout=20)


@pytest.mark.parametrize(
    ("password", "written"), [("secret", "secret"), ("p@ss:/#%w +", "p%40ss%3A%2F%23%25w%20%2B")], ids=["plain", "odd"]
)
def test_grpc_goes_through_a_proxy_with_a_password(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, password: str, written: str
) -> None:
    address = f"{NAME}:{scene.addresses.enrolment.rpartition(':')[2]}"
    with FakeProxy(credentials=f"it:{password}", names={NAME: "127.0.0.1"}) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url(f"it:{written}"))
        monkeypatch.delenv("no_proxy", raising=False)
        diagnose(scene.consortium, address)
        assert proxy.asked == [address]
        assert explain(address, scene.consortium.genesis) is None


def test_grpc_fails_where_this_module_finds_a_fault(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"{NAME}:{scene.addresses.enrolment.rpartition(':')[2]}"
    with FakeProxy(credentials="it:secret", names={NAME: "127.0.0.1"}) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url("it:hunter2"))
        monkeypatch.delenv("no_proxy", raising=False)
        with pytest.raises(grpc.RpcError):
            diagnose(scene.consortium, address)
        check(explain(address, scene.consortium.genesis), "proxy-refused", "user 'it'")


def test_a_path_is_not_an_address(tmp_path: Path, expected: Expected) -> None:
    with pytest.raises(LLMasOSError, match=r"is not an address, expected host:port"):
        fault_on_the_way(str(tmp_path), expected, FAST)
