from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from common.errors import UsageError
from common.identity.authority import Authority
from common.identity.certificates import certificate_id, spiffe_id
from common.identity.keys import TlsKey
from common.wire.channel import (
    KEEPALIVE_SECONDS,
    MAX_MESSAGE_BYTES,
    MESSAGE_BYTES,
    ServedTls,
    ServerTls,
    channel_options,
    enrolment_channel,
    enrolment_server_credentials,
    server_options,
    split_address,
    work_channel,
    work_server_credentials,
)

NOW = datetime.now(UTC)  # TLS itself reads this machine's clock
Pair = tuple[bytes, bytes]


@functools.cache
def authority() -> Authority:
    return Authority.create("hospitals", now=NOW)


@functools.cache
def coordinator() -> Pair:
    key = TlsKey.generate()
    return key.private_pem, authority().issue_coordinator(key.csr("coordinator"), now=NOW, days=1)


@functools.cache
def institution(name: str = "north") -> Pair:
    key = TlsKey.generate()
    return key.private_pem, authority().issue_institution(key.csr(name), name, now=NOW, days=1)


def describe_peer(request: bytes, context: grpc.ServicerContext) -> bytes:
    facts = {name: [value.decode() for value in values] for name, values in context.auth_context().items()}
    return json.dumps(facts).encode()


def echo(request: bytes, context: grpc.ServicerContext) -> bytes:
    return request


@contextmanager
def listening(credentials: grpc.ServerCredentials) -> Iterator[str]:
    """A server of two methods on a free port of the loopback."""
    with ThreadPoolExecutor(max_workers=2) as threads:
        server = grpc.server(threads, options=server_options())
        methods = {name: grpc.unary_unary_rpc_method_handler(method) for name, method in METHODS.items()}
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test", methods)])
        port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(grace=None).wait()


METHODS = {"DescribePeer": describe_peer, "Echo": echo}


def call(channel: grpc.Channel, method: str = "DescribePeer", request: bytes = b"") -> bytes:
    with channel:
        return channel.unary_unary(f"/test/{method}")(request, timeout=20)  # type: ignore[no-any-return]


def work(address: str, pair: Pair, *, consortium: str = "hospitals", ca: Authority | None = None) -> grpc.Channel:
    ca_pem = (ca or authority()).certificate_pem
    return work_channel(address, consortium=consortium, ca_pem=ca_pem, key_pem=pair[0], cert_pem=pair[1])


def enrolment(address: str, *, consortium: str = "hospitals", ca: Authority | None = None) -> grpc.Channel:
    return enrolment_channel(address, consortium=consortium, ca_pem=(ca or authority()).certificate_pem)


def refused(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call(channel)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def test_mutual_tls_exposes_exactly_one_spiffe_id() -> None:
    with listening(work_server_credentials(ServerTls(*coordinator(), authority().certificate_pem))) as address:
        peer = json.loads(call(work(address, institution("north"))))
        again = json.loads(call(work(address, institution("south"))))
    assert peer["peer_spiffe_id"] == [spiffe_id("hospitals", "north")]
    assert again["peer_spiffe_id"] == [spiffe_id("hospitals", "south")]
    assert certificate_id(peer["x509_pem_cert"][0].encode()) == certificate_id(institution("north")[1])


def test_the_work_listener_refuses_whoever_has_no_certificate() -> None:
    with listening(work_server_credentials(ServerTls(*coordinator(), authority().certificate_pem))) as address:
        refused(enrolment(address))
        assert call(work(address, institution()))


def test_the_work_listener_refuses_another_authoritys_certificate() -> None:
    stranger, key = Authority.create("hospitals", now=NOW), TlsKey.generate()
    forged = stranger.issue_institution(key.csr("north"), "north", now=NOW, days=1)
    with listening(work_server_credentials(ServerTls(*coordinator(), authority().certificate_pem))) as address:
        refused(work(address, (key.private_pem, forged)))


def test_the_work_listener_refuses_the_coordinators_certificate_as_a_client() -> None:
    with listening(work_server_credentials(ServerTls(*coordinator(), authority().certificate_pem))) as address:
        refused(work(address, coordinator()))


def test_the_work_listener_refuses_an_expired_certificate() -> None:
    past, key = NOW - timedelta(days=30), TlsKey.generate()
    old = Authority.create("hospitals", now=past)
    server_key = TlsKey.generate()
    server = server_key.private_pem, old.issue_coordinator(server_key.csr("coordinator"), now=NOW, days=1)
    expired = old.issue_institution(key.csr("north"), "north", now=past, days=1)
    with listening(work_server_credentials(ServerTls(*server, old.certificate_pem))) as address:
        refused(work(address, (key.private_pem, expired), ca=old))


def test_the_enrolment_listener_asks_for_no_certificate() -> None:
    with listening(enrolment_server_credentials(ServerTls(*coordinator(), b""))) as address:
        peer = json.loads(call(enrolment(address)))
    assert "peer_spiffe_id" not in peer


def test_an_institutions_certificate_makes_no_server() -> None:
    with listening(enrolment_server_credentials(ServerTls(*institution(), b""))) as address:
        refused(enrolment(address))
        refused(work(address, institution("south")))


def test_a_server_under_another_authority_is_refused() -> None:
    with listening(enrolment_server_credentials(ServerTls(*coordinator(), b""))) as address:
        refused(enrolment(address, ca=Authority.create("hospitals", now=NOW)))


def test_another_consortiums_server_is_refused() -> None:
    with listening(enrolment_server_credentials(ServerTls(*coordinator(), b""))) as address:
        refused(enrolment(address, consortium="banks"))


def test_a_piece_passes_and_a_message_above_the_limit_does_not() -> None:
    with listening(enrolment_server_credentials(ServerTls(*coordinator(), b""))) as address:
        assert len(call(enrolment(address), "Echo", bytes(MESSAGE_BYTES))) == MESSAGE_BYTES
        with pytest.raises(grpc.RpcError) as caught:
            call(enrolment(address), "Echo", bytes(MAX_MESSAGE_BYTES + 1))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_two_servers_cannot_share_a_port() -> None:
    credentials = enrolment_server_credentials(ServerTls(*coordinator(), b""))
    with listening(credentials) as address, ThreadPoolExecutor(max_workers=1) as threads:
        second = grpc.server(threads, options=server_options())
        with pytest.raises(RuntimeError, match="Failed to bind"):
            second.add_secure_port(address, credentials)
        second.stop(grace=None).wait()


def test_both_ends_derive_keepalive_from_one_constant() -> None:
    server, client = dict(server_options()), dict(channel_options("a.example:1", authority="x"))
    for options in (server, client):
        assert options["grpc.keepalive_time_ms"] == 1000 * KEEPALIVE_SECONDS
        assert options["grpc.keepalive_permit_without_calls"] == 1
        assert options["grpc.http2.max_pings_without_data"] == 0
        assert options["grpc.http2.bdp_probe"] == 0
    permitted = server["grpc.http2.min_ping_interval_without_data_ms"]
    assert isinstance(permitted, int)
    assert permitted < 1000 * KEEPALIVE_SECONDS


@pytest.mark.parametrize(
    ("address", "proxy"),
    [("127.0.0.1:1", 0), ("127.9.9.9:1", 0), ("localhost:1", 0), ("[::1]:1", 0), ("10.0.0.1:1", 1), ("a.example:1", 1)],
)
def test_a_proxy_is_used_except_for_the_loopback(address: str, proxy: int) -> None:
    options = dict(channel_options(address, authority="coordinator.hospitals.internal"))
    assert options["grpc.enable_http_proxy"] == proxy
    assert options["grpc.ssl_target_name_override"] == "coordinator.hospitals.internal"


def test_a_proxy_in_the_environment_does_not_catch_the_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "http_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with listening(enrolment_server_credentials(ServerTls(*coordinator(), b""))) as address:
        assert call(enrolment(address), "Echo", b"direct") == b"direct"


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("127.0.0.1:7443", ("127.0.0.1", 7443)),
        ("coordinator.example:0", ("coordinator.example", 0)),
        ("my_host-1:65535", ("my_host-1", 65535)),
        ("[::1]:80", ("::1", 80)),
        ("[2001:db8:0::1]:80", ("2001:db8::1", 80)),
    ],
)
def test_an_address_is_split(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts


@pytest.mark.parametrize(
    "address",
    [
        "",
        "host",
        ":80",
        "host:",
        "host:http",
        "host:65536",
        "host:-1",
        "host:+1",
        "host: 1",
        "host:1 ",
        "host:٣",
        "a b:1",
        "::1:80",
        "[::1:80",
        "[host]:80",
        "dns:///host:1",
        "unix:/tmp/x:1",
        "https://host:1",
        "user@host:1",
        "host:1\n",
        "host:" + "0" * 5000 + "1",
    ],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match=r"is not an address, expected host:port"):
        split_address(address)


def test_what_is_served_is_replaced_only_when_it_changed() -> None:
    """Replaced at each handshake, as it once was, gRPC's server fell when hundreds of connections came at once."""
    served = [ServerTls(b"key", b"certificate", b"ca")]

    class Source:
        def current(self) -> ServerTls:
            return served[-1]

    made: list[ServerTls] = []
    listener = ServedTls(Source(), lambda tls: made.append(tls) or len(made))  # type: ignore[func-returns-value]
    assert (listener.first, made) == (1, served)
    assert [listener.changed() for _ in range(3)] == [None] * 3
    served.append(ServerTls(b"key", b"renewed", b"ca"))
    assert [listener.changed() for _ in range(3)] == [2, None, None]
    assert made == served
