"""The operator's commands against a coordinator that listens on loopback, and what each says when it cannot work."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from common.clock import SystemClock
from common.identity.invitation import parse_invitation
from common.terminal import exit_code_of
from coordinator.app import CoordinatorApp, load_config
from coordinator.cli import app
from coordinator.members.founding import Founding, found
from tests.support.blobs import leaves_and_ref
from tests.support.coordinators import BASE, TOKENIZER
from tests.support.participants import MANIFEST, RUN
from tests.support.plans import a_plan


@dataclass
class Shell:
    """Runs commands in this process, each with the operator's home."""

    home: Path
    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str, home: Path | None = None) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        self.capture.readouterr()
        code = exit_code_of(app, [*arguments, "--home", str(home or self.home)])
        out, err = self.capture.readouterr()
        return code, out, err

    def json(self, *arguments: str) -> object:
        code, out, err = self(*arguments, "--format", "json")
        assert code == 0, err
        return json.loads(out)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A running coordinator's home."""
    folder = tmp_path_factory.mktemp("coordinator") / "home"
    found(folder, Founding("hospitals", "127.0.0.1:0", "127.0.0.1:0"), SystemClock())
    coordinator = CoordinatorApp(folder, load_config(folder))
    coordinator.start()
    yield folder
    coordinator.stop()
    assert not coordinator.engine_alive
    assert not (folder / "addresses.json").exists()


@pytest.fixture
def shell(home: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(home, capsys)


def prepared(folder: Path, run: str = RUN, **plan: object) -> Path:
    """What `llmasos plan prepare` would leave."""
    folder.mkdir()
    draft = {
        "run": run,
        "plan": a_plan(**plan).model_dump(mode="json"),
        "manifest": [tensor.model_dump(mode="json") for tensor in MANIFEST],
        "initial": {
            "model": leaves_and_ref(BASE)[1].model_dump(mode="json"),
            "tokenizer": leaves_and_ref(TOKENIZER)[1].model_dump(mode="json"),
        },
    }
    (folder / "draft.json").write_text(json.dumps(draft))
    (folder / "model.safetensors").write_bytes(BASE)
    (folder / "tokenizer.json").write_bytes(TOKENIZER)
    return folder


# --- founding --------------------------------------------------------------------------------------------------------


def test_init_founds_a_home_and_says_what_comes_next(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = shell("init", "--consortium", "banks", home=tmp_path / "home")
    assert code == 0
    assert f"Next: llmasos-coordinator start --home {tmp_path / 'home'}" in out
    code, _, err = shell("init", "--consortium", "banks", home=tmp_path / "home")
    assert code == 2
    assert err.startswith("error [already-initialised]: ")


def test_init_in_json_is_one_object(shell: Shell, tmp_path: Path) -> None:
    code, out, _ = shell("init", "--consortium", "banks", "--format", "json", home=tmp_path / "home")
    assert code == 0
    assert set(json.loads(out)) == {"consortium", "home", "fingerprint"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("start",),
        ("institution", "list"),
        ("institution", "invite", "north"),
        ("run", "list"),
        ("run", "watch", "tiny"),
        ("run", "abort", "tiny"),
        ("run", "show", "tiny"),
        ("run", "wait", "tiny", "--for", "ended"),
        ("run", "logs", "tiny"),
        ("status",),
    ],
    ids=" ".join,
)
def test_an_empty_home_is_a_usage_error_with_a_way_out(
    shell: Shell, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    code, out, err = shell(*arguments, home=tmp_path)
    assert (code, out) == (2, "")
    assert err.startswith("error [not-initialised]: ")
    assert "fix: " in err


# --- institutions ----------------------------------------------------------------------------------------------------


def test_an_invitation_is_all_that_stdout_holds(shell: Shell, home: Path) -> None:
    code, out, _ = shell("institution", "invite", "north", "--expires", "7d")
    assert code == 0
    invitation = parse_invitation(out)
    addresses = json.loads((home / "addresses.json").read_text())
    assert invitation.institution == "north"
    assert invitation.enrolment_address == addresses["enrolment"]
    assert invitation.work_address == addresses["work"]
    assert {"name": "north", "status": "invited"}.items() <= shell.json("institution", "list")[-1].items()  # type: ignore[index]


def test_the_list_of_institutions_is_a_table(shell: Shell) -> None:
    code, out, _ = shell("institution", "list")
    assert code == 0
    assert out.splitlines()[0].split() == ["INSTITUTION", "ROLES", "STATUS", "LAST", "SEEN", "CERTIFICATE"]
    assert "operator" in out


@pytest.mark.parametrize("expires", ["", "72", "0h", "-1h", "3w", "1.5h", "100000h"])
def test_a_time_that_is_none_is_a_usage_error(shell: Shell, expires: str) -> None:
    code, out, err = shell("institution", "invite", "south", f"--expires={expires}")
    assert (code, out) == (2, "")
    assert f"--expires is '{expires}', expected a number and h or d, such as 48h." in err


def test_a_name_that_is_none_or_taken_is_refused_by_the_coordinator(shell: Shell) -> None:
    code, _, err = shell("institution", "invite", "North")
    assert code == 2
    assert err.startswith("error [invalid-name]: 'North' is not a name.")
    code, _, err = shell("institution", "invite", "operator")
    assert code == 2
    assert "[already-initialised]: operator is a member of hospitals already." in err


# --- runs ------------------------------------------------------------------------------------------------------------


def test_a_run_is_started_listed_steered_exported_and_ended(shell: Shell, tmp_path: Path) -> None:
    folder = prepared(tmp_path / "prepared")
    code, out, err = shell("run", "start", str(folder))
    assert (code, out) == (0, f"{RUN}\n")
    assert f"sending model.safetensors ({len(BASE):,} bytes)" in err
    assert shell("run", "start", str(folder))[0] == 0, "the same again is the same run"
    (view,) = shell.json("run", "list")  # type: ignore[misc]
    assert (view["run"], view["phase"], view["rounds_planned"]) == (RUN, "answering", 2)
    for action in ("pause", "resume"):
        code, out, _ = shell("run", action, "tiny")
        assert (code, out.startswith(f"{action}: ledger index ")) == (0, True)
    code, out, _ = shell("run", "export", "tiny", "--out", str(tmp_path / "out" / "model.safetensors"))
    assert code == 0
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == BASE
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.safetensors"]
    code, _, err = shell("run", "export", "tiny", "--out", str(tmp_path / "out" / "model.safetensors"))
    assert code == 2
    assert "exists; it is not overwritten." in err
    assert shell("run", "abort", "tiny")[0] == 0
    code, out, err = shell("run", "watch", "tiny")
    assert code == 1
    assert f"{RUN}  ended: aborted" in out
    assert err.startswith("error [run-failed]: Run tiny ended: aborted.")
    code, out, _ = shell("run", "watch", "tiny", "--format", "json")
    assert json.loads(out.splitlines()[-1])["end_reason"] == "aborted"
    code, _, err = shell("run", "pause", "tiny")
    assert "has ended: aborted." in err


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"model": {"type": "bert"}}, "task causal-lm needs a model with head causal-lm"),
        ({"local": {"sequence_length": 17}}, "local.sequence_length is 17, the model's context 16."),
        ({"task": {"type": "seq2seq"}}, "task seq2seq needs a model with head seq2seq-lm (t5, "),
    ],
)
def test_a_draft_that_does_not_fit_together_is_not_started(
    shell: Shell, tmp_path: Path, plan: dict[str, Any], message: str
) -> None:
    folder = prepared(tmp_path / "prepared", run="unsound-0a1b2c")
    draft = json.loads((folder / "draft.json").read_bytes())
    draft["plan"] |= plan
    (folder / "draft.json").write_text(json.dumps(draft))
    code, _, err = shell("run", "start", str(folder))
    assert code == 2
    assert f"draft.json: {message}" in " ".join(err.split())
    assert "unsound" not in shell("run", "list")[1]


def test_a_folder_that_was_not_prepared_is_named(shell: Shell, tmp_path: Path) -> None:
    code, _, err = shell("run", "start", str(tmp_path))
    assert code == 2
    assert f"{tmp_path} holds no prepared plan." in err
    assert "llmasos plan prepare" in err


def test_a_model_that_is_not_the_drafts_is_not_sent(shell: Shell, tmp_path: Path) -> None:
    folder = prepared(tmp_path / "prepared", run="other-1")
    (folder / "model.safetensors").write_bytes(BASE[:-1] + b"x")
    code, _, err = shell("run", "start", str(folder))
    assert code == 3
    assert err.startswith("error [bad-blob-reference]: ")
    assert "the draft beside it says" in err


def test_a_draft_that_was_changed_is_named(shell: Shell, tmp_path: Path) -> None:
    folder = prepared(tmp_path / "prepared", run="other-2")
    (folder / "draft.json").write_text((folder / "draft.json").read_text().replace('"quorum": 3', '"quorum": 0'))
    code, _, err = shell("run", "start", str(folder))
    assert code == 2
    assert "draft.json: Input should be greater than or equal to 1." in err


@pytest.mark.parametrize("command", ["watch", "show", "logs", "pause", "resume", "abort"])
def test_a_run_that_is_not_there_is_named(shell: Shell, command: str) -> None:
    code, _, err = shell("run", command, "nothing")
    assert code == 2
    assert err.startswith("error [unknown-object]: 0 runs begin with 'nothing'")


def test_a_reason_that_is_no_code_is_a_clear_refusal(shell: Shell, tmp_path: Path) -> None:
    shell("run", "start", str(prepared(tmp_path / "prepared", run="other-3")))
    code, _, err = shell("run", "pause", "other-3", "--reason", "Because I say so")
    assert code == 2
    assert "--reason is 'Because I say so', expected a code: 1 to 63 lower-case letters, digits and hyphens" in err
    assert "The ledger keeps codes, not sentences" in err
    assert "Request" not in err, "no name of a message"
    assert shell.json("run", "pause", "other-3", "--reason", "maintenance")["action"] == "pause"  # type: ignore[call-overload]
    assert shell("run", "abort", "other-3")[0] == 0


def test_a_coordinator_that_does_not_run_is_unreachable(shell: Shell, tmp_path: Path) -> None:
    found(tmp_path / "home", Founding("banks", "127.0.0.1:1", "127.0.0.1:2"), SystemClock())
    code, _, err = shell("run", "list", home=tmp_path / "home")
    assert code == 1
    assert err.startswith("error [port-blocked]: ")
