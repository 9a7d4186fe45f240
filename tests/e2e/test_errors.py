"""Errors as a person meets them at the commands: an exit code, one clear sentence with its code and a fix, and nothing lost."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from common.identity.invitation import parse_invitation
from llmasos.simulation.deployment import edit_line
from tests.support.drafts import make_draft
from tests.support.federations import COORDINATOR, NAMES, PARTICIPANT, Federation, until

USAGE, FAILED, REFUSED = 2, 1, 3


def run(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    """A command, to its end; it never shows a traceback."""
    words = COORDINATOR if argv[0] == "coordinator" else PARTICIPANT
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LLMASOS_")}
    done = subprocess.run(
        [*words, *map(str, argv[1:])], capture_output=True, text=True, env=kept, timeout=120, check=False
    )
    assert "Traceback" not in done.stderr
    return done


def refused(done: subprocess.CompletedProcess[str], exit_code: int, code: str, message: str) -> None:
    """It failed as it should: stdout empty, on stderr code, message and a fix."""
    assert (done.returncode, done.stdout) == (exit_code, ""), done.stderr
    # The error is the end of stderr; a daemon's events come before it.
    shown = done.stderr[done.stderr.index("error [") :] if "error [" in done.stderr else done.stderr
    assert shown.startswith(f"error [{code}]: "), done.stderr
    assert re.search(message, shown), done.stderr
    assert re.search(r"\n  fix: \S.+\n\Z", shown), done.stderr


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    with Federation(tmp_path / "federation", ()) as running:
        yield running


def text_folder(tmp_path: Path) -> Path:
    (tmp_path / "text").mkdir(exist_ok=True)
    (tmp_path / "text" / "a.txt").write_text("words\n" * 100)
    return tmp_path / "text"


def join(invitation: Path, home: Path, data: Path) -> subprocess.CompletedProcess[str]:
    return run("participant", "join", "--invitation-file", invitation, "--home", home, "--data", data)


def test_homes_and_files_that_are_not_right_are_named(tmp_path: Path) -> None:
    home, empty = tmp_path / "coordinator", tmp_path / "empty"
    for words in (("start",), ("run", "list"), ("institution", "invite", "bank")):
        refused(run("coordinator", *words, "--home", empty), USAGE, "not-initialised", re.escape(str(empty)))
    for command in ("start", "status"):
        refused(run("participant", command, "--home", empty), USAGE, "not-initialised", re.escape(str(empty)))
    assert not empty.exists()
    bad_name = run("coordinator", "init", "--home", home, "--consortium", "Our Consortium")
    refused(bad_name, USAGE, "invalid-name", "Our Consortium")
    founded = run("coordinator", "init", "--home", home, "--consortium", "hospitals")
    assert (founded.returncode, founded.stderr) == (0, "")
    genesis = (home / "genesis.json").read_bytes()
    again = run("coordinator", "init", "--home", home, "--consortium", "hospitals")
    refused(again, USAGE, "already-initialised", re.escape(str(home)))
    assert (home / "genesis.json").read_bytes() == genesis

    shipped = (home / "coordinator.yaml").read_text()
    spoiled = {
        "listen: [": r"coordinator\.yaml:\d+: ",
        "lease_second: 5": r"coordinator\.yaml:\d+: .*lease_second\b.*lease_seconds",
        "lease_seconds: soon": r"coordinator\.yaml:\d+: .*lease_seconds.*'?soon'?",
    }
    for line, message in spoiled.items():
        (home / "coordinator.yaml").write_text(re.sub(r"(?m)^lease_seconds: .*$", line, shipped))
        refused(run("coordinator", "start", "--home", home), USAGE, "invalid-configuration", message)
    refused(run("coordinator", "start", "--hom", home), USAGE, "usage", "--hom")


def test_invitations_that_are_torn_wrong_expired_or_used_open_nothing(federation: Federation, tmp_path: Path) -> None:
    data, home = text_folder(tmp_path), tmp_path / "bank"
    first, paper = federation.invite("bank"), tmp_path / "bank.inv"
    invitation = federation.invite("bank")

    def tried(text: str) -> subprocess.CompletedProcess[str]:
        paper.write_text(text)
        return join(paper, home, data)

    refused(join(tmp_path / "nowhere.inv", home, data), REFUSED, "invalid-invitation", r"nowhere\.inv")
    refused(tried(invitation[:-200]), REFUSED, "invalid-invitation", "invitation")
    letter = invitation[200]
    changed = invitation[:200] + ("A" if letter != "A" else "B") + invitation[201:]
    refused(tried(changed), REFUSED, "invalid-invitation", "invitation")
    late = replace(parse_invitation(invitation), expires_at="2026-01-01T00:00:00.000Z").armoured()
    refused(tried(late), REFUSED, "invitation-expired", "bank expired at 2026-01-01")
    assert not home.exists()

    # A new invitation withdraws the one before. What it left, keys that nobody knows, does not stand in the way.
    refused(tried(first), REFUSED, "invalid-invitation", "not known here")
    paper.write_text(invitation)
    refused(join(paper, home, tmp_path / "nothing"), USAGE, "too-little-data", "nothing")
    (tmp_path / "void").mkdir()
    refused(join(paper, home, tmp_path / "void"), USAGE, "too-little-data", r"void holds no .*\.txt")
    joined = join(paper, home, data)
    assert joined.returncode == 0, joined.stderr
    assert "bank is a member of hospitals" in joined.stdout
    certificate = (home / "identity" / "tls.pem").read_bytes()

    refused(join(paper, home, data), USAGE, "already-initialised", re.escape(str(home)))
    refused(join(paper, tmp_path / "other", data), REFUSED, "invitation-used", "redeemed with other keys")
    # Interrupted before its last write, the same command goes on, to the same certificate.
    (home / "participant.yaml").unlink()
    assert join(paper, home, data).returncode == 0
    assert (home / "identity" / "tls.pem").read_bytes() == certificate
    taken = run("coordinator", "institution", "invite", "bank", "--home", federation.coordinator_home)
    refused(taken, USAGE, "already-initialised", "bank is a member of hospitals already")

    expiring = federation.invite("clinic")
    with closing(sqlite3.connect(federation.coordinator_home / "state.sqlite")) as state, state:
        state.execute("UPDATE invitations SET expires_at = '2026-01-01T00:00:00.000Z' WHERE institution = 'clinic'")
    home = tmp_path / "clinic"
    refused(tried(expiring), REFUSED, "invitation-expired", "clinic expired at 2026-01-01")
    assert [member.name for member in federation.state().roster.members] == ["bank", "operator"]  # type: ignore[union-attr]


def test_ports_homes_and_coordinators_that_are_taken_or_away(federation: Federation, tmp_path: Path) -> None:
    federation.join("bank")
    work = federation.addresses()["work"]
    second = tmp_path / "second"
    taken = ("--work-address", work, "--enrolment-address", "127.0.0.1:0")
    assert run("coordinator", "init", "--home", second, "--consortium", "banks", *taken).returncode == 0
    refused(run("coordinator", "start", "--home", second), FAILED, "port-in-use", re.escape(work))
    locked = run("coordinator", "start", "--home", federation.coordinator_home)
    refused(locked, FAILED, "home-locked", f"in use by the process {federation.coordinator.pid}")  # type: ignore[union-attr]
    bank = federation.start_participant("bank")

    def connection() -> str:
        path = federation.home("bank") / "status.json"
        return str(json.loads(path.read_bytes())["connection"]) if path.exists() else ""

    until(lambda: connection() == "connected", "the participant is connected")
    locked = run("participant", "start", "--home", federation.home("bank"))
    refused(locked, FAILED, "home-locked", f"in use by the process {bank.pid}")
    assert connection() == "connected"

    paper = tmp_path / "clinic.inv"
    paper.write_text(federation.invite("clinic"))
    federation.kill_coordinator()
    until(lambda: connection() == "unreachable", "the participant notices")
    shown = run("participant", "status", "--home", federation.home("bank"))
    assert re.search(r"connection +unreachable", shown.stdout)
    away = run("coordinator", "run", "list", "--home", federation.coordinator_home)
    refused(away, FAILED, "port-blocked", re.escape(work))
    home, data = tmp_path / "clinic", text_folder(tmp_path)
    enrolment = parse_invitation(paper.read_text()).enrolment_address
    refused(join(paper, home, data), FAILED, "port-blocked", re.escape(enrolment))
    key = (home / "identity" / "signing.key.pem").read_bytes()
    federation.start_coordinator()
    assert join(paper, home, data).returncode == 0
    assert (home / "identity" / "signing.key.pem").read_bytes() == key
    until(lambda: connection() == "connected", "the participant is connected again")
    assert bank.exit_code is None


def test_runs_that_cannot_start_or_do_not_exist_are_told_apart(tmp_path: Path) -> None:
    with Federation(tmp_path / "federation") as federation:
        home = federation.coordinator_home
        operate = ("--home", home)
        refused(run("coordinator", "run", "watch", "nope", *operate), USAGE, "unknown-object", "nope")
        unprepared = run("coordinator", "run", "start", tmp_path, *operate)
        refused(unprepared, USAGE, "not-initialised", "holds no prepared plan")
        draft = make_draft(tmp_path / "draft")
        changed = tmp_path / "changed"
        shutil.copytree(draft.folder, changed)
        with (changed / "model.safetensors").open("r+b") as file:
            file.seek(2000)
            file.write(b"\1\2\3\4")
        refused(
            run("coordinator", "run", "start", changed, *operate), REFUSED, "bad-blob-reference", "model.safetensors"
        )
        (changed / "draft.json").write_text("{}")
        refused(run("coordinator", "run", "start", changed, *operate), USAGE, "invalid-configuration", "draft.json")
        assert federation.state().runs == {}

        # Data that does not do is the institution's answer, as a code; with too few acceptances the run ends by itself.
        (federation.data("clinic") / "fail").write_text("too-little-data")
        edit_line(federation.home("bank") / "policy.yaml", "answer: accept", "answer: refuse")
        federation.start_participants()
        started = run("coordinator", "run", "start", draft.folder, *operate)
        assert (started.returncode, started.stdout) == (0, "tiny-000001\n")
        answers = federation.wait_for(
            lambda state: len(state.runs["tiny-000001"].answers) == 3 and state.runs["tiny-000001"].answers, "answers"
        )
        assert {name: answers[name].answer.reasons for name in NAMES} == {
            "bank": ("policy-refuses-all",),
            "clinic": ("too-little-data",),
            "laboratory": (),
        }
        watched = run("coordinator", "run", "watch", "tiny-000001", *operate)
        assert watched.returncode == FAILED
        assert re.search(r"clinic +refused +too-little-data", watched.stdout)
        refused(run("coordinator", "run", "abort", "tiny", *operate), USAGE, "unknown-object", "has ended: too-few")
        assert re.search(r"error \[run-failed\]: Run tiny-000001 ended: too-few-acceptances\.\n  fix: ", watched.stderr)
        (tmp_path / "model").write_text("mine")
        kept = run("coordinator", "run", "export", "tiny", "--out", tmp_path / "model", *operate)
        refused(kept, USAGE, "invalid-configuration", "exists; it is not overwritten")
        assert (tmp_path / "model").read_text() == "mine"
