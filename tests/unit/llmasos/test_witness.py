"""`llmasos witness`: it cosigns what goes on from what it saw, and nothing else, whenever a crash comes."""

from __future__ import annotations

import base64
import hashlib
import json
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from common.clock import ManualClock
from common.errors import (
    BadSignature,
    CoordinatorUnreachable,
    MalformedStatement,
    StorageFailure,
    TwoHistories,
    UnknownObject,
    UsageError,
)
from common.homes import HomeLock
from common.identity.authority import Authority
from common.identity.invitation import open_genesis
from common.identity.keys import SigningKey, TlsKey
from common.ledger.heads import log_key, tree_of
from common.ledger.notes import parse_note, read_checkpoint, verify_cosignature, verify_note
from common.statements.kinds import Genesis
from common.terminal import exit_code_of
from common.wire.channel import ServerTls, enrolment_server_credentials, server_options
from common.wire.convert_log import head_to_wire
from common.wire.messages import LogHead
from common.wire.v1 import log_pb2, log_pb2_grpc
from llmasos import witness as module
from llmasos.cli import app
from llmasos.witness import Witness, vkey
from tests.support.coordinators import Coordinator
from tests.support.participant_homes import ParticipantHome
from tests.support.signing_log import SigningLog

Output = pytest.CaptureFixture[str]


class Scene:
    """A coordinator whose log is in the test's hands, and a witness over a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.coordinator = Coordinator(folder / "coordinator")
        self.log = SigningLog(self.coordinator)
        self.genesis: Genesis = self.coordinator.state.genesis
        self.home, self.clock = folder / "witness", ManualClock()
        self.size = 3
        self.asked: list[int] = []

    def ask(self, old_size: int) -> LogHead:
        """An honest log of `size` entries."""
        self.asked.append(old_size)
        tree = tree_of(self.coordinator.envelopes()[: self.size])
        return LogHead(self.log.checkpoint(self.size), tuple(tree.consistency_proof(old_size)))

    def open(self, name: str | None = None) -> Witness:
        return Witness(self.home, self.genesis, self.clock, name)

    def conflicts(self) -> list[bytes]:
        return sorted(path.read_bytes() for path in self.home.glob("conflict-*.note"))


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.coordinator.close()


def test_each_longer_tree_is_cosigned_and_none_twice(scene: Scene) -> None:
    witness = scene.open("witness.example.org")
    first = witness.look(scene.ask)
    assert first is not None
    verify_note(first, log_key(scene.genesis))
    assert verify_cosignature(first, witness.key) == int(scene.clock.now().timestamp())
    assert witness.look(scene.ask) is None
    scene.size = 5
    second = witness.look(scene.ask)
    assert second is not None
    assert read_checkpoint(second, log_key(scene.genesis)) == scene.log.head(5)
    assert (scene.home / "checkpoint").read_bytes() == second.encode()
    assert scene.asked == [0, 3, 3]
    assert witness.seen == scene.log.head(5)


def test_its_key_is_its_own_and_stays(scene: Scene) -> None:
    one = scene.open("witness.example.org")
    assert stat.S_IMODE((scene.home / "key.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE(scene.home.stat().st_mode) == 0o700
    again = scene.open()
    assert again.key == one.key
    name, key_id, encoded = vkey(one.key).split("+", 2)
    raw = base64.b64decode(encoded)
    assert (name, raw[0], len(raw)) == ("witness.example.org", 4, 33)
    assert key_id == hashlib.sha256(name.encode() + b"\n" + raw).hexdigest()[:8]
    assert (scene.home / "vkey").read_text() == vkey(one.key) + "\n"
    with pytest.raises(UsageError, match=r"is called 'witness\.example\.org', not 'other'"):
        scene.open("other")


@pytest.mark.parametrize("name", ["two words", "a+b", "line\nbreak", "x" * 201])
def test_a_name_that_no_note_can_bear_is_refused(scene: Scene, name: str) -> None:
    with pytest.raises(UsageError, match=r"--name is .* no white space, no plus sign"):
        scene.open(name)


def test_without_a_name_it_is_named_after_its_key(scene: Scene) -> None:
    witness = scene.open()
    public = bytes.fromhex(witness.key.key.public)
    assert witness.key.name == f"witness-{hashlib.sha256(public).hexdigest()[:16]}"


def test_what_it_saw_is_on_disk_before_anything_is_signed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    witness = scene.open()

    def crash(*_: object, **__: object) -> None:
        raise RuntimeError("kill -9")

    with monkeypatch.context() as patched:
        patched.setattr(module, "cosign", crash)
        with pytest.raises(RuntimeError):
            witness.look(scene.ask)
    assert not (scene.home / "checkpoint").exists()
    again = scene.open()
    assert again.seen == scene.log.head(3)
    cosigned = again.look(scene.ask)
    assert cosigned is not None  # what the crash kept from being written
    assert (scene.home / "checkpoint").read_bytes() == cosigned.encode()


def forks(scene: Scene) -> dict[str, LogHead]:
    """What comes after three entries were cosigned."""
    proof = tuple(tree_of(scene.coordinator.envelopes()).consistency_proof(3))
    longer = scene.coordinator.state.size
    return {
        "the same size": LogHead(scene.log.checkpoint(3, bytes(32))),
        "a longer tree": LogHead(scene.log.checkpoint(longer, bytes(32)), proof),
        "a proof of nothing": LogHead(scene.log.checkpoint(longer), ()),
        "an old checkpoint": LogHead(scene.log.checkpoint(2)),
    }


@pytest.mark.parametrize("claim", ["the same size", "a longer tree", "a proof of nothing", "an old checkpoint"])
@pytest.mark.parametrize("restarted", [False, True])
def test_what_does_not_go_on_from_what_it_saw_is_kept_and_never_cosigned(
    scene: Scene, claim: str, restarted: bool
) -> None:
    witness = scene.open()
    assert witness.look(scene.ask) is not None
    if restarted:
        witness = scene.open()
    head, before = forks(scene)[claim], (scene.home / "checkpoint").read_bytes()
    with pytest.raises(TwoHistories) as caught:
        witness.look(lambda old_size: head)
    shown = read_checkpoint(parse_note(head.checkpoint), log_key(scene.genesis))
    for said in (scene.log.head(3), shown):
        assert f"{said.size}" in caught.value.message
        assert said.root.hex() in caught.value.message
    assert scene.conflicts() == sorted([scene.log.checkpoint(3), head.checkpoint])
    assert (scene.home / "checkpoint").read_bytes() == before
    with pytest.raises(TwoHistories, match=r"Two histories were found before: .*conflict-"):
        scene.open()


def test_a_log_that_knows_no_tree_as_large_as_the_one_it_signed_has_gone_back(scene: Scene) -> None:
    witness = scene.open()
    witness.look(scene.ask)

    def went_back(old_size: int) -> LogHead:
        if old_size > 2:
            raise UnknownObject("The log has 2 entries, so no tree of 3 is its beginning.")
        return LogHead(scene.log.checkpoint(2))

    with pytest.raises(TwoHistories, match=r"signed 3 entries .* and now 2 "):
        witness.look(went_back)

    def refuses(old_size: int) -> LogHead:
        if old_size > 0:
            raise UnknownObject("Not today.")
        return scene.ask(0)

    for path in scene.home.glob("conflict-*.note"):
        path.unlink()
    with pytest.raises(UnknownObject, match=r"Not today"):
        scene.open().look(refuses)


def test_damage_on_the_way_is_no_fork(scene: Scene) -> None:
    witness = scene.open()
    witness.look(scene.ask)
    scene.size = 5
    forged = SigningLog(scene.coordinator)
    forged._key = SigningKey.generate()
    for note, error in ((b"garbage", MalformedStatement), (forged.checkpoint(5), BadSignature)):
        with pytest.raises(error):
            witness.look(lambda old_size, note=note: LogHead(note))  # type: ignore[misc]
    assert scene.conflicts() == []
    assert witness.look(scene.ask) is not None


def test_a_folder_of_another_ledger_is_named(scene: Scene, tmp_path: Path) -> None:
    scene.open().look(scene.ask)
    other = Coordinator(tmp_path / "other", names=())
    with pytest.raises(StorageFailure, match=r"is no checkpoint of hospitals\.llmasos/ledger under the genesis"):
        Witness(scene.home, other.state.genesis, scene.clock)
    other.close()


# --- the command ------------------------------------------------------------------------------------------------------


class LogOfATest(log_pb2_grpc.LogServicer):  # type: ignore[misc]
    """Answers Head as the scene does, or with what a test sets."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.head: LogHead | None = None

    def Head(self, request: log_pb2.HeadRequest, context: object) -> log_pb2.HeadResponse:  # noqa: N802  gRPC's name
        return head_to_wire(self.head or self._scene.ask(request.old_size))


@contextmanager
def listening(scene: Scene) -> Iterator[tuple[str, LogOfATest]]:
    """An enrolment listener on loopback, under the consortium's authority."""
    authority, key = Authority.load(scene.coordinator.layout.identity), TlsKey.generate()
    now = scene.coordinator.clock.now()
    certificate = authority.issue_coordinator(key.csr("coordinator"), now=now, days=3650)
    server = grpc.server(ThreadPoolExecutor(2), options=server_options())
    servicer = LogOfATest(scene)
    log_pb2_grpc.add_LogServicer_to_server(servicer, server)
    tls = ServerTls(key.private_pem, certificate, authority.certificate_pem)
    port = server.add_secure_port("127.0.0.1:0", enrolment_server_credentials(tls))
    server.start()
    try:
        yield f"127.0.0.1:{port}", servicer
    finally:
        server.stop(grace=0).wait()


def run(scene: Scene, address: str, *words: str) -> int:
    genesis = str(scene.coordinator.layout.genesis)
    return exit_code_of(app, ["witness", address, "--genesis", genesis, "--home", str(scene.home), "--once", *words])


def test_the_command_cosigns_what_a_member_then_compares(scene: Scene, tmp_path: Path, capsys: Output) -> None:
    member = ParticipantHome(tmp_path / "north", scene.coordinator)
    member.follow()
    with listening(scene) as (address, _):
        assert run(scene, address, "--name", "witness.example.org") == 0
        captured = capsys.readouterr()
        assert captured.err.startswith("verifier key: witness.example.org+")
        assert "3 entries, root " in captured.out
        scene.size = 5
        assert run(scene, address, "--format", "json") == 0
        data = json.loads(capsys.readouterr().out)
        assert (data["size"], data["root"]) == (5, scene.log.head(5).root.hex())
        assert data["checkpoint"].encode() == (scene.home / "checkpoint").read_bytes()
        assert run(scene, address) == 0
        assert "nothing new since the last look" in capsys.readouterr().err
    assert member.run("checkpoint", "compare", str(scene.home / "checkpoint")) == 0
    text = capsys.readouterr().out
    assert "The same history: 5 entries" in text
    assert "Also signed by others, whose keys are not known here: witness.example.org." in text


def test_the_command_ends_with_1_at_a_fork(scene: Scene, capsys: Output) -> None:
    with listening(scene) as (address, servicer):
        assert run(scene, address) == 0
        servicer.head = LogHead(scene.log.checkpoint(3, bytes(32)))
        assert run(scene, address) == 1
        err = capsys.readouterr().err
        assert "error [two-histories]: The coordinator signed 3 entries" in err
        assert "fix: Keep the folder" in err
        assert len(scene.conflicts()) == 2
        servicer.head = None
        assert run(scene, address) == 1
        assert "Two histories were found before" in capsys.readouterr().err


def test_the_command_checks_the_fingerprint_before_it_asks_anybody(scene: Scene, capsys: Output) -> None:
    digest = open_genesis(scene.coordinator.genesis)[0].digest
    assert run(scene, "127.0.0.1:1", "--fingerprint", "00" * 32) == 3
    err = capsys.readouterr().err
    assert "wrong-fingerprint" in err
    assert digest in err
    assert run(scene, "127.0.0.1:1", "--fingerprint", "00") == 2
    assert "expected 64 hexadecimal digits" in capsys.readouterr().err
    with listening(scene) as (address, _):
        spaced = " ".join(digest[place : place + 4] for place in range(0, 64, 4)).upper()
        assert run(scene, address, "--fingerprint", spaced) == 0


def test_the_command_says_when_nobody_answers_and_that_another_one_runs(scene: Scene, capsys: Output) -> None:
    assert run(scene, "127.0.0.1:1") == CoordinatorUnreachable.exit_code
    assert "coordinator-unreachable" in capsys.readouterr().err
    with HomeLock(scene.home):
        assert run(scene, "127.0.0.1:1") == 1
    assert "home-locked" in capsys.readouterr().err
