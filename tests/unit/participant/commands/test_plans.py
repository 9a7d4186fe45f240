"""llmasos-participant plan: what it shows, how it decides, and its exit codes; without a daemon."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from common.homes import atomic_write
from common.resources import read_config
from common.tensors import delta_size
from common.terminal import WIDTH, exit_code_of
from participant.cli import app
from participant.commands.plans import plan_rows
from participant.config import HomeLayout
from participant.memory.journal import Journal, SignedSlot
from participant.memory.mirror import Mirror
from participant.memory.orders import Decision, Orders
from participant.policy import Usage
from participant.policy.rules import RULES
from participant.tasks import answer_slot
from tests.support.coordinators import Coordinator
from tests.support.participants import MANIFEST, RUN
from tests.support.plans import a_plan
from tests.support.statements import a_blob_ref, a_plan_statement

AT = "2026-11-21T22:12:00.000Z"
Output = pytest.CaptureFixture[str]


class Home:
    """What a daemon leaves in a home folder, without a daemon."""

    def __init__(self, folder: Path, coordinator: Coordinator, name: str = "north") -> None:
        folder.mkdir()
        self.layout, self._coordinator = HomeLayout(folder), coordinator
        configuration = read_config("participant.yaml").replace("institution: hospital-a", f"institution: {name}")
        atomic_write(self.layout.config, configuration.encode())
        atomic_write(self.layout.policy, read_config("policy.yaml").encode())
        atomic_write(self.layout.genesis, coordinator.genesis)

    def follow(self) -> None:
        """As the follower does."""
        journal = Journal(self.layout.journal)
        mirror = Mirror(journal, self._coordinator.genesis)
        found = self._coordinator.ledger.slice(mirror.state.size, max_bytes=2**20, wait_seconds=0)
        mirror.admit(found.first_index, found.envelopes)
        journal.close()

    def sign(self, slot: str, envelope: bytes, digest: str) -> None:
        journal = Journal(self.layout.journal)
        journal.sign(SignedSlot(slot, digest, envelope, b"", b"", AT))
        journal.close()

    def decision(self) -> Decision | None:
        """What a person decided about the run."""
        orders = Orders(self.layout.journal)
        try:
            return orders.decision(self._coordinator.run.place.digest)
        finally:
            orders.close()

    def edit(self, before: str, after: str) -> None:
        text = self.layout.policy.read_text()
        assert before in text
        self.layout.policy.write_text(text.replace(before, after))

    def run(self, *words: str) -> int:
        return exit_code_of(app, ["plan", *words, "--home", str(self.layout.home)])


@pytest.fixture
def home(tmp_path: Path, coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.delenv("LLMASOS_HOME", raising=False)
    return Home(tmp_path / "home", coordinator)


@pytest.fixture
def asked(home: Home, coordinator: Coordinator) -> Home:
    """A plan has come, and nobody has answered."""
    coordinator.start_run()
    home.follow()
    return home


def a_json(output: Output) -> Any:
    return json.loads(output.readouterr().out)


# --- list ------------------------------------------------------------------------------------------------------------


def test_before_the_daemon_ran_there_is_no_plan_and_nothing_is_written(home: Home, capsys: Output) -> None:
    assert home.run("list") == 0
    assert capsys.readouterr().out == "No plan has come yet.\n"
    journal = Journal(home.layout.journal)
    assert journal.ledger() == []
    journal.close()


def test_a_plan_that_awaits_an_answer_is_listed(asked: Home, capsys: Output) -> None:
    assert asked.run("list") == 0
    out = capsys.readouterr().out
    assert re.search(rf"^{RUN} +asked for 1 h; 0 of 3 answered +not answered *$", out, re.MULTILINE)
    assert max(map(len, out.splitlines())) <= WIDTH


def test_answers_and_rounds_show_in_the_list(home: Home, coordinator: Coordinator, capsys: Output) -> None:
    coordinator.start_run()
    coordinator["north"].answer()
    home.follow()
    assert home.run("list", "--format", "json") == 0
    assert a_json(capsys)[0]["here"]["state"] == "accepted"
    for name in ("east", "south"):
        coordinator[name].answer()
    coordinator.advance()
    home.follow()
    assert home.run("list") == 0
    assert re.search(rf"{RUN} +running, round 1 of 2 +accepted", capsys.readouterr().out)
    coordinator.play()
    home.follow()
    assert home.run("list") == 0
    assert re.search(rf"{RUN} +ended: rounds-done +accepted", capsys.readouterr().out)


def test_an_answer_on_its_way_is_listed_as_such(asked: Home, coordinator: Coordinator, capsys: Output) -> None:
    statement = coordinator["north"].an_answer(accept=False, reasons=["quorum-too-small"])
    asked.sign(answer_slot(coordinator.run), statement.envelope, statement.digest)
    assert asked.run("list") == 0
    assert "refused, being sent: quorum-too-small" in " ".join(capsys.readouterr().out.split())


# --- show ------------------------------------------------------------------------------------------------------------


def test_a_plan_is_shown_in_words_and_numbers(asked: Home, capsys: Output) -> None:
    assert asked.run("show", "tiny") == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= WIDTH
    for line in (
        "model       gpt2, 39 parameters; tokenizer: bytes",
        "rounds      2, each of up to 64 tokens of own text and at most 1 h",
        "quorum      3 contributors to each new model",
        "losses      shown: only as sums over 3 or more institutions",
        "deltas      read by the coordinator alone; kept of every round",
        "hours       not known before the worker has trained here",
    ):
        assert line in out
    size = delta_size(MANIFEST)
    assert re.search(rf"^traffic     about \d+(\.\d+)? k?B in all; a round \d+ B in, {size} B out$", out, re.MULTILINE)
    assert re.search(r"^memory      about 500 MB in training$", out, re.MULTILINE)
    assert "1. The coordinator opens a round" in out
    assert f"Next: llmasos-participant plan check {RUN}" in out


def test_a_plan_is_shown_to_programs(asked: Home, capsys: Output) -> None:
    assert asked.run("show", RUN, "--format", "json") == 0
    shown = a_json(capsys)
    assert shown["estimate"]["parameters"] == 39
    assert shown["usage"]["seconds_per_round"] is None
    assert shown["plan"]["quorum"] == 3


def test_a_run_that_is_not_known_is_an_error_with_what_to_do(asked: Home, capsys: Output) -> None:
    assert asked.run("show", "huge") == 2
    err = capsys.readouterr().err
    assert (
        "error [unknown-object]: Expected a run's id or a unique beginning of it, got 'huge': no run begins so." in err
    )
    assert "fix: See: llmasos-participant plan list." in err


# --- check -----------------------------------------------------------------------------------------------------------


def test_a_plan_that_keeps_all_rules_is_asked_about(asked: Home, capsys: Output) -> None:
    assert asked.run("check", RUN) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= WIDTH
    assert "BROKEN" not in out
    assert "the policy asks a person" in " ".join(out.split())
    assert all(rule.field in out for rule in RULES)


def test_the_policy_may_accept_without_asking(asked: Home, capsys: Output) -> None:
    asked.edit("answer: ask ", "answer: accept ")
    assert asked.run("check", RUN, "--format", "quiet") == 0
    assert capsys.readouterr().out == "accept\n"


def test_a_broken_rule_is_shown_with_its_line_and_exits_3(asked: Home, capsys: Output) -> None:
    asked.edit("min_quorum: 3 ", "min_quorum: 5 ")
    line = next(n for n, text in enumerate(asked.layout.policy.read_text().splitlines(), 1) if "min_quorum" in text)
    assert asked.run("check", RUN) == 3
    captured = capsys.readouterr()
    assert re.search(rf"^BROKEN +{line} +min_quorum +>= 5 +3 *$", captured.out, re.MULTILINE)
    assert (
        f"error [policy-refuses]: The policy refuses {RUN}. quorum-too-small: min_quorum (line {line}) "
        "wanted >= 5, got 3." in captured.err
    )


def test_a_rule_that_the_file_leaves_out_has_no_line(asked: Home, capsys: Output) -> None:
    asked.layout.policy.write_text("max_rounds: 1\n")
    assert asked.run("check", RUN, "--format", "json") == 3
    rules = {rule["rule"]: rule for rule in a_json(capsys)["rules"]}
    assert (rules["max_rounds"]["kept"], rules["max_rounds"]["line"]) == (False, 1)
    assert (rules["min_quorum"]["kept"], rules["min_quorum"]["line"]) == (True, None)


def test_every_rule_is_explained_on_request(asked: Home, capsys: Output) -> None:
    assert asked.run("check", RUN, "--explain") == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= WIDTH
    words = " ".join(out.split())
    assert all(f"{rule.field} [{rule.code}] {rule.why}" in words for rule in RULES)


@pytest.mark.parametrize("name", ["prepared", "prepared/draft.json"])
def test_a_draft_is_checked_before_any_run(
    home: Home, coordinator: Coordinator, tmp_path: Path, name: str, capsys: Output
) -> None:
    (tmp_path / "prepared").mkdir()
    (tmp_path / "prepared" / "draft.json").write_text(coordinator.draft(quorum=2).model_dump_json())
    assert home.run("check", str(tmp_path / name)) == 3
    assert "quorum-too-small" in capsys.readouterr().err


def test_a_file_that_is_no_draft_is_named(home: Home, tmp_path: Path, capsys: Output) -> None:
    draft = tmp_path / "draft.json"
    draft.write_text('{"run": "tiny-0a1b2c"}')
    assert home.run("check", str(draft)) == 2
    assert f"{draft}: expected the draft of a plan statement, got:" in capsys.readouterr().err


# --- accept, refuse --------------------------------------------------------------------------------------------------


def test_a_person_accepts_and_the_daemon_is_to_answer(asked: Home, capsys: Output) -> None:
    assert asked.run("accept", "tiny") == 0
    out = capsys.readouterr().out
    assert f"The acceptance of {RUN} is noted.\nThe daemon is not running; it signs and sends it when" in out
    decision = asked.decision()
    assert decision is not None
    assert (decision.accept, decision.agreement, decision.reasons) == (True, "", ())
    assert asked.run("list") == 0
    assert re.search(rf"{RUN} .* to accept", capsys.readouterr().out)


def test_an_acceptance_cites_an_agreement_by_digest(asked: Home, tmp_path: Path, capsys: Output) -> None:
    agreement = tmp_path / "agreement.pdf"
    agreement.write_bytes(b"we agree")
    digest = hashlib.sha256(b"we agree").hexdigest()
    for words in (("--agreement", str(agreement)), ("--agreement-sha256", digest)):
        assert asked.run("accept", RUN, *words, "--format", "json") == 0
        assert a_json(capsys) == {
            "run": RUN,
            "decision": "accept",
            "daemon_running": False,
            "agreement": digest,
            "reasons": [],
        }
        decision = asked.decision()
        assert decision is not None
        assert decision.agreement == digest


def test_the_policys_agreement_is_cited_where_none_is_named(asked: Home) -> None:
    asked.edit("agreement: null", f"agreement: {'ab' * 32}")
    assert asked.run("accept", RUN) == 0
    decision = asked.decision()
    assert decision is not None
    assert decision.agreement == "ab" * 32


AGREEMENTS: dict[str, tuple[Callable[[Path], list[str]], str]] = {
    "both": (lambda file: ["--agreement", str(file), "--agreement-sha256", "ab" * 32], "expected one of the two"),
    "short": (lambda file: ["--agreement-sha256", "abc"], "expected 64 lower-case hexadecimal digits, got 'abc'"),
    "missing": (lambda file: ["--agreement", str(file)], "expected a file to read, got: No such file"),
}


@pytest.mark.parametrize("name", AGREEMENTS)
def test_an_agreement_that_cannot_be_cited_is_refused(asked: Home, tmp_path: Path, name: str, capsys: Output) -> None:
    words, message = AGREEMENTS[name]
    assert asked.run("accept", RUN, *words(tmp_path / "none.pdf")) == 2
    assert message in capsys.readouterr().err
    assert asked.decision() is None


def test_what_the_policy_refuses_needs_a_word_more(asked: Home, capsys: Output) -> None:
    asked.edit("min_quorum: 3 ", "min_quorum: 5 ")
    assert asked.run("accept", RUN) == 3
    err = capsys.readouterr().err
    assert "error [policy-refuses]" in err
    assert "or accept it with --despite-policy" in err
    assert asked.decision() is None
    assert asked.run("accept", RUN, "--despite-policy") == 0
    decision = asked.decision()
    assert decision is not None
    assert decision.accept


def test_a_person_refuses_with_a_code(asked: Home, capsys: Output) -> None:
    assert asked.run("refuse", RUN, "--format", "quiet") == 0
    assert capsys.readouterr().out == "refuse\n"
    assert asked.run("refuse", RUN, "--reason", "ethics-board") == 0
    assert "The refusal (ethics-board) of" in capsys.readouterr().out
    decision = asked.decision()
    assert decision is not None
    assert (decision.accept, decision.reasons) == (False, ("ethics-board",))


def test_a_reason_is_a_code_and_no_sentence(asked: Home, capsys: Output) -> None:
    assert asked.run("refuse", RUN, "--reason", "Dr. Who says no") == 2
    assert "--reason expected a code" in capsys.readouterr().err
    assert asked.decision() is None


def test_an_answer_is_signed_once(asked: Home, coordinator: Coordinator, capsys: Output) -> None:
    coordinator["north"].answer()
    asked.follow()
    for word in ("accept", "refuse"):
        assert asked.run(word, RUN) == 3
        err = capsys.readouterr().err
        assert f"error [slot-taken]: {RUN} awaits no answer: north has accepted it" in err
        assert "llmasos-participant pause, or leave" in err


def test_a_signed_refusal_stays_too(asked: Home, coordinator: Coordinator, capsys: Output) -> None:
    statement = coordinator["north"].an_answer(accept=False, reasons=["quorum-too-small"])
    asked.sign(answer_slot(coordinator.run), statement.envelope, statement.digest)
    assert asked.run("accept", RUN) == 3
    err = capsys.readouterr().err
    assert "north has refused it" in err
    assert "start the run anew" in err


def test_a_run_that_ended_awaits_no_answer(asked: Home, coordinator: Coordinator, capsys: Output) -> None:
    coordinator.desk.control_run(RUN, "abort", "operator")
    coordinator.advance()
    asked.follow()
    assert asked.run("accept", RUN) == 2
    assert f"{RUN} awaits no answer: it has ended" in capsys.readouterr().err


def test_a_folder_that_holds_no_participant_is_told_apart(tmp_path: Path, capsys: Output) -> None:
    assert exit_code_of(app, ["plan", "list", "--home", str(tmp_path)]) == 2
    assert "error [not-initialised]" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_plan_that_trains_an_adapter_says_how_much_of_the_model_that_is_and_what_later_rounds_fetch() -> None:
    manifest = (
        {"name": "adapter", "shape": (1000,)},
        {"name": "embedding", "shape": (3, 1_048_576), "group": "frozen"},
    )
    initial = {"model": a_blob_ref(size=12_587_008), "tokenizer": a_blob_ref("tokenizer", size=300)}
    plan = a_plan(adapter={"type": "lora", "r": 4, "target_modules": ["c_attn"]})
    rows = dict(plan_rows(a_plan_statement(plan=plan, manifest=manifest, initial=initial), Usage()))
    assert rows["model"] == "gpt2, 3,146,728 parameters (1,000 trained: lora, r 4 on c_attn); tokenizer: bytes"
    assert rows["traffic"].endswith("a round 4.19 MB in, 4.13 kB out; 12.6 MB in the first")
    whole = dict(plan_rows(a_plan_statement(), Usage()))
    assert "trained" not in whole["model"]
    assert "in the first" not in whole["traffic"]
