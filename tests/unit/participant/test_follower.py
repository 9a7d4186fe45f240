"""Following the ledger: through outages and limits, never past a conflict or a refused certificate."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from common.clock import SystemClock
from common.errors import (
    BadSignature,
    CoordinatorRecovering,
    CoordinatorUnreachable,
    IdentityError,
    LedgerConflict,
    LLMasOSError,
    MalformedMessage,
    NewLineage,
    PortBlocked,
    TooManyRequests,
    TwoHistories,
    UnknownCertificate,
)
from common.identity.authority import Authority
from common.identity.keys import TlsKey
from common.wire.messages import Cosignature, Inquiry, LedgerEntries
from participant import follower as module
from participant.follower import Follower, FollowerPorts, diagnosis
from participant.memory.journal import Journal
from participant.memory.mirror import Mirror
from participant.witnessing import Witnessing, WitnessingPorts
from tests.support.api import Consortium, listening
from tests.support.coordinators import Coordinator
from tests.support.federations import until
from tests.support.networks import TlsServer, unused_port
from tests.support.signing_log import SigningLog

Answer = LLMasOSError | Callable[[], LedgerEntries]


class Ledger:
    """A session that only follows: `answers` first, in order, then the coordinator's ledger, then waiting until `close`."""

    def __init__(self, coordinator: Coordinator, *answers: Answer) -> None:
        self._coordinator, self._answers = coordinator, list(answers)
        self._closed = threading.Event()
        self.asked: list[int] = []
        self.cosignatures: list[Cosignature | None] = []
        self.cosigned_sizes: list[int] = []
        self.seen_sizes: list[int] = []

    def follow(
        self,
        *,
        from_index: int,
        wait_seconds: float,
        cosignature: Cosignature | None,
        cosigned_size: int,
        seen_size: int,
        lineage: int,
    ) -> LedgerEntries:
        assert lineage == 0
        self.asked.append(from_index)
        self.seen_sizes.append(seen_size)
        self.cosignatures.append(cosignature)
        self.cosigned_sizes.append(cosigned_size)
        if self._answers:
            answer = self._answers.pop(0)
            if isinstance(answer, LLMasOSError):
                raise answer
            return answer()
        envelopes = tuple(self._coordinator.envelopes()[from_index:])
        if not envelopes:
            self._closed.wait(wait_seconds)
        return LedgerEntries(from_index, envelopes, from_index + len(envelopes))

    def close(self) -> None:
        self._closed.set()


class Scene:
    """A follower with what it told; started by the test."""

    def __init__(
        self,
        mirror: Mirror,
        witnessing: Witnessing,
        session: Ledger,
        explain: Callable[[], LLMasOSError | None],
        inquire: Callable[[Sequence[Inquiry]], bool],
    ) -> None:
        self.mirror, self.witnessing, self.session = mirror, witnessing, session
        self.told: list[str] = []
        ports = FollowerPorts(session, mirror, witnessing, explain, self._tell, inquire)  # type: ignore[arg-type]
        self.follower = Follower(ports)

    def _tell(self, state: str, reason: str = "") -> None:
        self.told.append(state)

    def start(self) -> None:
        self.follower.start()

    def wait_for_ledger(self, size: int) -> None:
        assert self.mirror.wait_beyond(size - 1, 30).size == size

    def wait_for_failure(self) -> LLMasOSError:
        self.follower._thread.join(30)
        assert self.follower.failure is not None
        return self.follower.failure


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(module, "MOST_PAUSE_SECONDS", 0.005)


@pytest.fixture
def scene(coordinator: Coordinator, tmp_path: Path) -> Iterator[Callable[..., Scene]]:
    with closing(Journal(tmp_path / "journal.sqlite")) as journal:
        made: list[Scene] = []

        def make(
            *answers: Answer,
            explain: Callable[[], LLMasOSError | None] = lambda: None,
            inquire: Callable[[Sequence[Inquiry]], bool] = lambda inquiries: False,
        ) -> Scene:
            mirror, key = Mirror(journal, coordinator.genesis), coordinator["north"].key
            witnessing = Witnessing(WitnessingPorts("north", mirror, journal, lambda: key, coordinator.clock))
            made.append(Scene(mirror, witnessing, Ledger(coordinator, *answers), explain, inquire))
            return made[-1]

        yield make
        for one in made:
            one.session.close()
            one.follower.stop()


def test_each_reply_says_how_many_proposals_await_approval(scene: Callable[..., Scene]) -> None:
    counts: list[int] = []
    one = scene(lambda: LedgerEntries(1, (), 1, open_proposals=2), lambda: LedgerEntries(1, (), 1))
    one.follower._proposals = counts.append
    one.start()
    until(lambda: len(counts) >= 2, "two replies came")
    assert counts[:2] == [2, 0]


def test_the_ledger_is_followed_from_where_the_copy_ends(coordinator: Coordinator, scene: Callable[..., Scene]) -> None:
    one = scene()
    one.start()
    one.wait_for_ledger(coordinator.state.size)
    assert one.session.asked[0] == 1
    assert one.told[0] == "connected"
    assert one.mirror.state.active_trainers == ("east", "north", "south")


PASSING = (
    CoordinatorUnreachable("No answer."),
    TooManyRequests("More than 200 calls a second."),
    MalformedMessage("LedgerEntry.index: expected 1, got 2."),
)


@pytest.mark.parametrize("failure", PASSING, ids=lambda failure: failure.code)
def test_what_passes_is_tried_again(
    coordinator: Coordinator, scene: Callable[..., Scene], failure: LLMasOSError
) -> None:
    one = scene(failure, failure)
    one.start()
    one.wait_for_ledger(coordinator.state.size)
    assert one.follower.failure is None
    assert len(one.session.asked) >= 3


def test_an_outage_is_told_and_its_end(coordinator: Coordinator, scene: Callable[..., Scene]) -> None:
    one = scene(CoordinatorUnreachable("No answer."), CoordinatorUnreachable("No answer."))
    one.start()
    one.wait_for_ledger(coordinator.state.size)
    assert one.told[:3] == ["unreachable", "unreachable", "connected"]


def test_a_ledger_that_breaks_a_rule_ends_it_for_good(coordinator: Coordinator, scene: Callable[..., Scene]) -> None:
    envelopes = coordinator.envelopes()
    one = scene(lambda: LedgerEntries(1, (envelopes[2],), 2))
    one.start()
    failure = one.wait_for_failure()
    assert isinstance(failure, LedgerConflict)
    assert "Entry 1 of the ledger breaks a rule" in failure.message
    assert one.session.asked == [1]


def test_a_refused_certificate_ends_it_for_good(scene: Callable[..., Scene]) -> None:
    one = scene(UnknownCertificate("No active member holds this certificate."))
    one.start()
    assert isinstance(one.wait_for_failure(), UnknownCertificate)


def test_after_three_failures_the_other_listener_is_asked_why(scene: Callable[..., Scene]) -> None:
    asked: list[int] = []

    def explain() -> LLMasOSError | None:
        asked.append(len(one.session.asked))
        return IdentityError("The coordinator refuses this certificate.") if len(asked) == 2 else None

    one = scene(*[CoordinatorUnreachable("No answer.")] * 9, explain=explain)
    one.start()
    assert one.wait_for_failure().message == "The coordinator refuses this certificate."
    assert asked == [3, 6]


@pytest.mark.parametrize("answers", [True, False])
def test_an_inquiry_is_handed_on_and_the_ledger_goes_on(
    coordinator: Coordinator, scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    monkeypatch.setattr(module, "UNANSWERED_SECONDS", 0.001)
    inquiry, heard = Inquiry(b"x" * 16, b"{}"), list[Inquiry]()

    def inquire(inquiries: Sequence[Inquiry]) -> bool:
        heard.extend(inquiries)
        return answers

    one = scene(lambda: LedgerEntries(1, (), 1, (inquiry,)), inquire=inquire)
    one.start()
    one.wait_for_ledger(coordinator.state.size)
    assert heard == [inquiry]


def test_stopping_ends_a_poll_in_progress(coordinator: Coordinator, scene: Callable[..., Scene]) -> None:
    one = scene()
    one.start()
    one.wait_for_ledger(coordinator.state.size)
    one.session.close()
    one.follower.stop()
    assert not one.follower._thread.is_alive()


# --- checkpoints and cosignatures -------------------------------------------------------------------------------------


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[tuple[Coordinator, SigningLog]]:
    """A coordinator whose `north` is its one witness, and its log."""
    made = Coordinator(tmp_path / "witnessed", names=())
    made.enrol("north", ("trainer", "witness"))
    yield made, SigningLog(made)
    made.close()


def test_a_cosignature_goes_with_the_next_poll_and_what_it_covers_with_the_one_after(
    witness: tuple[Coordinator, SigningLog], tmp_path: Path
) -> None:
    coordinator, signing = witness
    one = made(coordinator, tmp_path, lambda: signing.reply(1), lambda: signing.reply(coordinator.state.size))
    one.start()
    until(lambda: len(one.session.asked) == 3, "the third poll", 30)
    size = coordinator.state.size
    assert [each and each.size for each in one.session.cosignatures] == [None, size, None]
    assert one.session.cosigned_sizes == [0, size, size]
    end(one)


def test_a_cosignature_goes_again_after_the_coordinator_was_away(
    witness: tuple[Coordinator, SigningLog], tmp_path: Path
) -> None:
    coordinator, signing = witness
    size = coordinator.state.size
    away = CoordinatorUnreachable("It is restarted.")
    one = made(coordinator, tmp_path, lambda: signing.reply(1), lambda: signing.reply(size), away)
    one.start()
    until(lambda: len(one.session.asked) == 4, "the fourth poll", 30)
    assert [each and each.size for each in one.session.cosignatures] == [None, size, None, size]
    end(one)


def test_a_cosignature_that_is_refused_does_not_go_again_and_following_goes_on(
    witness: tuple[Coordinator, SigningLog], tmp_path: Path
) -> None:
    coordinator, signing = witness
    size, refused = coordinator.state.size, BadSignature("The cosignature of north does not verify.")
    one = made(coordinator, tmp_path, lambda: signing.reply(1), refused, lambda: signing.reply(size))
    one.start()
    until(lambda: len(one.session.asked) == 4, "the fourth poll", 30)
    assert [each and each.size for each in one.session.cosignatures] == [None, size, None, None]
    assert one.follower.failure is None
    end(one)


def test_cosignatures_that_count_for_nothing_do_not_make_polls_a_race(
    coordinator: Coordinator, scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    signing, waits = SigningLog(coordinator), list[float]()
    size = coordinator.state.size
    reply = LedgerEntries(size, (), size, checkpoint=signing.checkpoint(), cosigned=(signing.cosigned(None, "south"),))
    one = scene(lambda: signing.reply(1), *[lambda: reply] * 5)
    monkeypatch.setattr(one.follower._stopping, "wait", waits.append)
    one.start()
    until(lambda: len(one.session.asked) == 7, "the seventh poll", 30)
    assert waits == [module.UNANSWERED_SECONDS] * 5


def test_two_histories_end_it_for_good_with_the_command_that_exports_the_evidence(
    coordinator: Coordinator, scene: Callable[..., Scene], caplog: pytest.LogCaptureFixture
) -> None:
    signing, size = SigningLog(coordinator), coordinator.state.size
    envelopes = tuple(coordinator.envelopes()[1:])
    one = scene(lambda: LedgerEntries(1, envelopes, size, checkpoint=signing.checkpoint(size, bytes(32))))
    one.start()
    failure = one.wait_for_failure()
    assert isinstance(failure, TwoHistories)
    assert f"The coordinator signed two histories of {size} entries" in failure.message
    assert "llmasos-participant evidence export FILE" in failure.fix
    (record,) = [record for record in caplog.records if record.getMessage() == "following stopped"]
    assert record.__dict__["fix"] == failure.fix


def test_an_entry_that_breaks_a_rule_does_not_hide_the_checkpoint_that_proves_it(
    coordinator: Coordinator, scene: Callable[..., Scene]
) -> None:
    signing, envelopes = SigningLog(coordinator), coordinator.envelopes()
    fork = signing.checkpoint(2, bytes(32))
    one = scene(lambda: LedgerEntries(1, (envelopes[1], envelopes[3]), 9, checkpoint=fork))
    one.start()
    assert isinstance(one.wait_for_failure(), TwoHistories)
    other = scene(lambda: LedgerEntries(2, (envelopes[3],), 9, checkpoint=b"damaged"))
    other.start()
    failure = other.wait_for_failure()
    assert (type(failure), "Entry 2 of the ledger breaks a rule" in failure.message) == (LedgerConflict, True)


def test_a_damaged_checkpoint_is_named_and_following_goes_on(
    coordinator: Coordinator, scene: Callable[..., Scene], caplog: pytest.LogCaptureFixture
) -> None:
    envelopes = tuple(coordinator.envelopes()[1:3])
    one = scene(lambda: LedgerEntries(1, envelopes, 3, checkpoint=b"damaged"))
    one.start()
    one.wait_for_ledger(coordinator.state.size)
    assert one.follower.failure is None
    assert one.session.asked[:2] == [1, 3]
    assert [each.__dict__["code"] for each in caplog.records if each.getMessage() == "following failed"] == [
        "malformed-statement"
    ]


def made(coordinator: Coordinator, folder: Path, *answers: Answer) -> Scene:
    """A scene of north's; ended by `end`."""
    mirror, key = Mirror(Journal(folder / "north.sqlite"), coordinator.genesis), coordinator["north"].key
    witnessing = Witnessing(WitnessingPorts("north", mirror, mirror._journal, lambda: key, coordinator.clock))
    return Scene(mirror, witnessing, Ledger(coordinator, *answers), lambda: None, lambda inquiries: False)


def end(one: Scene) -> None:
    one.session.close()
    one.follower.stop()
    one.mirror._journal.close()


# --- why a certificate is refused -------------------------------------------------------------------------------------


def _diagnosis(consortium: Consortium, certificate: Path, enrolment: str) -> Any:
    return diagnosis(enrolment, consortium.genesis, certificate)


def test_a_certificate_of_the_roster_is_not_the_reason(tmp_path: Path) -> None:
    consortium = Consortium(tmp_path)
    files = consortium.enrolled("north")
    with listening(consortium) as (_, addresses):
        assert _diagnosis(consortium, files.certificate, addresses.enrolment) is None


def test_a_certificate_that_is_refused_is_explained_with_its_code(tmp_path: Path) -> None:
    consortium = Consortium(tmp_path)
    files = consortium.tls("north")
    with listening(consortium) as (_, addresses):
        found = _diagnosis(consortium, files.certificate, addresses.enrolment)
    assert isinstance(found, IdentityError)
    assert "The coordinator refuses this certificate: No active member holds" in found.message
    assert found.message.endswith("(unknown-certificate)")


def test_when_nobody_answers_nothing_is_known(tmp_path: Path) -> None:
    consortium = Consortium(tmp_path)
    files = consortium.enrolled("north")
    with listening(consortium) as (_, addresses):
        gone = addresses.enrolment
    assert _diagnosis(consortium, files.certificate, gone) is None


# --- what stands in the way -------------------------------------------------------------------------------------------------


def test_what_stands_in_the_way_is_told_once_and_following_goes_on(
    coordinator: Coordinator, scene: Callable[..., Scene], caplog: pytest.LogCaptureFixture
) -> None:
    reason = PortBlocked("10.0.0.5:7443 refused the connection.")
    one = scene(*[CoordinatorUnreachable("No answer.")] * 9, explain=lambda: reason)
    told: list[tuple[str, ...]] = []
    one.follower._tell = lambda *words: told.append(words)
    one.start()
    one.wait_for_ledger(coordinator.state.size)
    assert one.follower.failure is None
    assert told[0] == ("unreachable",)
    assert ("unreachable", reason.message) in told
    assert told[told.index(("unreachable", reason.message)) :].count(("unreachable",)) == 0
    said = [record for record in caplog.records if getattr(record, "code", "") == "port-blocked"]
    assert [(each.getMessage(), each.__dict__["fix"]) for each in said] == [("coordinator unreachable", reason.fix)]


def test_a_good_certificate_leaves_the_way_to_be_looked_at(tmp_path: Path) -> None:
    consortium = Consortium(tmp_path)
    certificate = consortium.enrolled("north").certificate
    with listening(consortium) as (_, addresses), unused_port() as closed:
        work = f"127.0.0.1:{closed}"
        found = diagnosis(addresses.enrolment, consortium.genesis, certificate, work)
        assert diagnosis(addresses.enrolment, consortium.genesis, certificate, addresses.work) is None
    assert isinstance(found, PortBlocked)
    assert found.message.startswith(f"{work} refused")


def test_another_consortium_at_the_address_does_not_end_following(tmp_path: Path) -> None:
    consortium, now = Consortium(tmp_path), SystemClock().now()
    certificate = consortium.enrolled("north").certificate
    key = TlsKey.generate()
    banks = Authority.create("banks", now=now).issue_coordinator(key.csr("coordinator"), now=now, days=1)
    with TlsServer(key.private_pem, banks) as server:
        found = diagnosis(server.address, consortium.genesis, certificate, server.address)
    assert isinstance(found, CoordinatorUnreachable)
    assert "the coordinator of the consortium 'banks' answers" in found.message


def test_a_coordinator_that_recovers_is_given_what_it_lacks_and_followed_again(
    coordinator: Coordinator, scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RECOVERING_SECONDS", 0.001)
    coordinator.start_run()
    recovering = CoordinatorRecovering("The coordinator recovers: its ledger has 3 entries.")
    made, handed = scene(recovering, recovering), list[bool]()

    def hand_back() -> bool:
        assert made.follower.recovering
        handed.append(True)
        return len(handed) == 2

    made.follower._hand_back = hand_back
    made.start()
    made.wait_for_ledger(coordinator.state.size)
    until(lambda: made.follower.recoveries == 1, "it follows again")
    assert len(handed) == 2
    assert not made.follower.recovering
    assert made.follower.failure is None


def test_a_new_lineage_ends_it_whatever_words_came_with_it(
    coordinator: Coordinator, scene: Callable[..., Scene]
) -> None:
    """The coordinator's error is no statement: what the institution decides about was fetched and verified."""
    coordinator.start_run()
    one = scene(NewLineage("words of the coordinator"))
    one.follower._learn_lineage = lambda: NewLineage("Entry 7 of the ledger begins a new lineage.")
    one.start()
    failure = one.wait_for_failure()
    assert isinstance(failure, NewLineage)
    assert failure.message == "Entry 7 of the ledger begins a new lineage."
    assert failure.exit_code == 3
    assert "llmasos-participant lineage show" in failure.fix
