"""A coordinator that cheats and signs everything anew with its real keys: what gives it away, cheat by cheat.

Each cheat begins with an honest run of four institutions (tests.support.cheats) and says which check finds it, in which words,
and whose signature stands under what is wrong. A reader holds the ledger, the blobs and the checkpoints that it saw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import pytest

from common.blobs.reference import CHUNK_BYTES
from common.blobs.store import FolderBlobStore
from common.clock import parse_rfc3339, rfc3339
from common.errors import BadBlobReference, CorruptChunk
from common.identity.keys import SigningKey
from common.statements.envelope import UnverifiedStatement, parse, sign
from common.statements.kinds import (
    Contribution,
    Control,
    PlanStatement,
    Predicate,
    Roster,
    RoundClosed,
    RoundOpened,
)
from common.verify.material import Material
from common.verify.report import Outcome
from common.verify.text import as_html, as_text
from common.verify.verify import verify
from tests.support.blobs import leaves_and_ref
from tests.support.cheats import WITNESSES, Change, Scene, failures

HISTORY, WITNESSED, TIMES, ROUNDS, OWN = "history", "witnesses", "times", "rounds", "own"
COORDINATOR, LOG = "coordinator", "log"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    made = Scene(tmp_path_factory.mktemp("cheating") / "coordinator")
    yield made
    made.close()


@dataclass(frozen=True)
class Cheat:
    """What is done, and what a reader is told of it."""

    claim: str
    made: Callable[[Scene], Material]
    found_by: str
    says: str
    signer: str = COORDINATOR


def test_nothing_is_wrong_with_the_honest_run(scene: Scene) -> None:
    report = verify(
        scene.material(own=scene.own("north"), pins={name: scene[name].key.public.public for name in WITNESSES})
    )
    assert report.outcome is Outcome.VERIFIED, as_text(report)
    assert scene.rewritten(lambda statement: statement.predicate) == scene.entries


# --- what statements say instead --------------------------------------------------------------------------------------


def rewrites(change: Change) -> Callable[[Scene], Material]:
    """The ledger with a change, carried forward and signed anew by the coordinator alone."""
    return lambda scene: scene.material(scene.rewritten(change), checkpoints=())


def says(kind: type[Predicate], number: int | None = None, **changed: object) -> Change:
    """Statements of a kind, of one round or of all, say something else."""

    def change(statement: UnverifiedStatement) -> Predicate:
        said = statement.predicate
        is_meant = isinstance(said, kind) and (number is None or getattr(said, "round", None) == number)
        return said.model_copy(update=changed) if is_meant else said

    return change


def drops(*names: str, number: int) -> Change:
    """These never contributed to the round, says the ledger, and it was committed without them."""

    def change(statement: UnverifiedStatement) -> Predicate | None:
        said = statement.predicate
        if isinstance(said, Contribution) and said.round == number and said.institution in names:
            return None
        if isinstance(said, RoundClosed) and said.round == number:
            return said.model_copy(
                update={"inputs": tuple(each for each in said.inputs if each.institution not in names)}
            )
        return said

    return change


def silences(name: str) -> Change:
    """Its contribution stays where it is, and the round is closed as if it were not there."""

    def change(statement: UnverifiedStatement) -> Predicate:
        said = statement.predicate
        if isinstance(said, RoundClosed) and said.round == 1:
            return said.model_copy(update={"inputs": tuple(each for each in said.inputs if each.institution != name)})
        return said

    return change


def another_weight(statement: UnverifiedStatement) -> Predicate:
    said = statement.predicate
    if isinstance(said, RoundClosed) and said.round == 1:
        first = said.inputs[0].model_copy(update={"num_tokens": said.inputs[0].num_tokens + 1})
        return said.model_copy(update={"inputs": (first, *said.inputs[1:])})
    return said


def starts_from(number: int, **changed: object) -> Change:
    def change(statement: UnverifiedStatement) -> Predicate:
        said = statement.predicate
        if isinstance(said, RoundOpened) and said.round == number:
            return said.model_copy(update={"inputs": said.inputs.model_copy(update=changed)})
        return said

    return change


def another_beginning(statement: UnverifiedStatement) -> Predicate:
    said = statement.predicate
    if isinstance(said, PlanStatement):
        model = said.initial.model.model_copy(update={"root": "77" * 32})
        return said.model_copy(update={"initial": said.initial.model_copy(update={"model": model})})
    return said


def smaller_cohorts(statement: UnverifiedStatement) -> Predicate:
    """The plan asks for three, says the coordinator now, and so one institution is never heard."""
    said = statement.predicate
    if isinstance(said, PlanStatement):
        cohort = said.plan.cohort.model_copy(update={"size": 3})
        return said.model_copy(update={"plan": said.plan.model_copy(update={"cohort": cohort})})
    return said


def one_left_out(statement: UnverifiedStatement) -> Predicate:
    said = statement.predicate
    return said.model_copy(update={"cohort": said.cohort[:-1]}) if isinstance(said, RoundOpened) else said


def a_stranger(statement: UnverifiedStatement) -> Predicate:
    said = statement.predicate
    if isinstance(said, RoundOpened) and said.round == 2:
        return said.model_copy(update={"cohort": (*said.cohort, "zebra")})
    return said


def hides_round_2(statement: UnverifiedStatement) -> Predicate | None:
    said = statement.predicate
    hidden = isinstance(said, RoundOpened | RoundClosed | Contribution) and said.round == 2
    return None if hidden else said


def strikes_out_east(statement: UnverifiedStatement) -> Predicate:
    said = statement.predicate
    if isinstance(said, Roster) and said.version > 2:
        return said.model_copy(update={"members": tuple(each for each in said.members if each.name != "east")})
    return said


def swaps_the_last_model(scene: Scene) -> Material:
    """Round 2 ends with a model that nobody's deltas give; nothing was built on it yet."""
    stale = scene.run.statement.initial.model

    def change(statement: UnverifiedStatement) -> Predicate:
        said = statement.predicate
        if isinstance(said, RoundClosed) and said.round == 2:
            return said.model_copy(update={"outputs": said.outputs.model_copy(update={"model": stale})})
        return said

    closing = scene.run.rounds[1].closed_place
    assert closing is not None
    return scene.material(scene.rewritten(change)[: closing.index + 1], checkpoints=())


def swaps_the_server_state(scene: Scene) -> Material:
    state = scene.run.statement.initial.model
    return rewrites(starts_from(2, server_state=state))(scene)


def swaps_the_base_model(scene: Scene) -> Material:
    stale = scene.run.statement.initial.model.model_copy(update={"root": "77" * 32})
    return rewrites(starts_from(2, model=stale))(scene)


REWRITTEN = (
    Cheat("drops a contribution and commits", rewrites(drops("north", number=1)), HISTORY, "names round-opened", "east"),
    Cheat("closes a round as if a contribution were not there", rewrites(silences("north")), HISTORY,
          "closes without a word on one of its contributions"),
    Cheat("changes a weight", rewrites(another_weight), HISTORY, "closes with an input of east that is not in the ledger"),
    Cheat("swaps the model of a round", swaps_the_last_model, ROUNDS,
          "Round 2 of tiny-0a1b2c was committed with another model than its contributions give."),
    Cheat("swaps the model that a round starts from", swaps_the_base_model, HISTORY, "Round 2 of tiny-0a1b2c: model is"),
    Cheat("swaps the server state", swaps_the_server_state, HISTORY, "Round 2 of tiny-0a1b2c: server_state is"),
    Cheat("swaps the initial weights", rewrites(another_beginning), HISTORY, "A answer names plan", "east"),
    Cheat("commits without quorum", rewrites(drops("north", "south", "west", number=1)), HISTORY,
          "Round 1 was committed with 1 contributions, its quorum is 2."),
    Cheat("puts a stranger into the cohort", rewrites(a_stranger), HISTORY, "Round 2 of tiny-0a1b2c: cohort is"),
    Cheat("leaves an institution out of every cohort", rewrites(one_left_out), HISTORY, "Round 1 of tiny-0a1b2c: cohort is"),
    Cheat("grinds the cohort by its size in the plan", rewrites(smaller_cohorts), HISTORY, "A answer names plan", "east"),
    Cheat("grinds a round's seed", rewrites(says(RoundOpened, 2, seed=7)), HISTORY, "Round 2 of tiny-0a1b2c: seed is 7"),
    Cheat("hides a round", rewrites(hides_round_2), HISTORY, "names round-closed"),
    Cheat("strikes a member out of the roster", rewrites(strikes_out_east), HISTORY, "east was active and is absent"),
    Cheat("renames a closed round's rule", rewrites(says(RoundClosed, 1, rule="median")), HISTORY, "closed by rule median"),
)  # fmt: skip


# --- keys that count no more -------------------------------------------------------------------------------------------


def signed_by(key: Callable[[Scene], SigningKey], wanted: Callable[[Predicate], bool]) -> Callable[[Scene], Material]:
    """One statement under another key than the one that the roster of its leaf allows."""

    def made(scene: Scene) -> Material:
        index = scene.index(lambda statement: wanted(statement.predicate))
        statement = parse(scene.entries[index])
        forged = sign(statement.predicate, parent=statement.parent, key=key(scene)).envelope
        return scene.material([*scene.entries[:index], forged, *scene.entries[index + 1 :]], checkpoints=())

    return made


def of_south_in(number: int) -> Callable[[Predicate], bool]:
    return lambda said: isinstance(said, Contribution) and (said.institution, said.round) == ("south", number)


def is_closing(said: Predicate) -> bool:
    return isinstance(said, RoundClosed)


KEYS = (
    Cheat("accepts a contribution under an institution's retired key",
          signed_by(lambda scene: scene.retired, of_south_in(2)), HISTORY, "is signed by key", "south"),
    Cheat("accepts a contribution under a key that takes over later",
          signed_by(lambda scene: scene["south"].key, of_south_in(1)), HISTORY, "is signed by key", "south"),
    Cheat("signs an institution's contribution with its own key",
          signed_by(lambda scene: scene.coordinator_key, of_south_in(2)), HISTORY, "is signed by key", "south"),
    Cheat("signs with another key than genesis names, such as one of before",
          signed_by(lambda scene: SigningKey.generate(), is_closing), HISTORY, "is signed by key"),
    Cheat("signs with the log's key what the coordinator's key must sign",
          signed_by(lambda scene: scene.log_key, is_closing), HISTORY, "is signed by key"),
)  # fmt: skip


# --- leaves that nothing rests on --------------------------------------------------------------------------------------


def without_the_pause(statement: UnverifiedStatement) -> Predicate | None:
    said = statement.predicate
    return None if isinstance(said, Control) and said.action in ("pause", "resume") else said


def another_reason(statement: UnverifiedStatement) -> Predicate:
    said = statement.predicate
    return said.model_copy(update={"reason": "maintenance"}) if isinstance(said, Control) else said


def with_answers_swapped(scene: Scene) -> list[bytes]:
    first = scene.index(lambda statement: statement.kind == "answer")
    entries = scene.entries
    return [*entries[:first], entries[first + 1], entries[first], *entries[first + 2 :]]


def resigned(entries: Callable[[Scene], Sequence[bytes]], *, kept: bool) -> Callable[[Scene], Material]:
    """Another history that follows by every rule, under checkpoints of its own; or beside those that the reader had seen."""

    def made(scene: Scene) -> Material:
        ledger = list(entries(scene))
        assert [finding for name, finding in failures(scene.material(ledger, checkpoints=())) if name == HISTORY] == []
        return scene.material(ledger, checkpoints=scene.notes if kept else scene.notes_of(ledger))

    return made


def last_said(**changed: object) -> Callable[[Scene], list[bytes]]:
    """The very last statement, after all contributions, says something else: nothing in the ledger shows it."""
    is_last = says(Control, **changed)

    def change(statement: UnverifiedStatement) -> Predicate | None:
        said = statement.predicate
        return is_last(statement) if isinstance(said, Control) and said.action == "run-ended" else said

    return lambda scene: scene.rewritten(change)


LEAVES = (
    Cheat("deletes leaves that nothing rests on, and signs the log anew",
          resigned(lambda scene: scene.rewritten(without_the_pause), kept=False), WITNESSED,
          "The log signed two histories: the checkpoint that east acted on is larger than this ledger was then.", LOG),
    Cheat("drops a contribution of the last round, on which nothing rests",
          lambda scene: scene.material(scene.rewritten(drops("north", number=3)), checkpoints=()), WITNESSED,
          "The log signed two histories: the checkpoint that south acted on is larger than this ledger was then.", LOG),
    Cheat("rewrites a leaf that nothing rests on, and signs the log anew",
          resigned(lambda scene: scene.rewritten(another_reason), kept=False), WITNESSED,
          "entries: the checkpoint that east acted on is of another one than this.", LOG),
    Cheat("reorders leaves, and signs the log anew", resigned(with_answers_swapped, kept=False), WITNESSED,
          "entries: the checkpoint that east acted on is of another one than this.", LOG),
    Cheat("rewrites the last leaf, which no contribution covers, for a reader who saw the first version",
          resigned(last_said(reason="target-reached"), kept=True), WITNESSED,
          "The log signed two histories of 33 entries: a checkpoint held here, cosigned by east, north, south, west,", LOG),
    Cheat("forks after the last contribution, and shows one participant each; their checkpoints meet",
          lambda scene: scene.material(checkpoints=scene.notes_of(last_said(reason="forked")(scene), only=())[-1:]),
          WITNESSED, "The log signed two histories of 33 entries: a checkpoint held here is of another one than this.", LOG),
    Cheat("signs two histories that are both longer than what is held here",
          lambda scene: scene.material(scene.entries[:20], checkpoints=[scene.notes[-1], *scene.notes_of(
              last_said(reason="forked")(scene))[-1:]]),
          WITNESSED, "The log signed two histories of 33 entries", LOG),
    Cheat("hands out a checkpoint under another key than genesis names for the log",
          lambda scene: scene.material(checkpoints=[scene.notes[-1].replace(b"AA", b"AB", 1).replace(b"A", b"B", 1)]),
          WITNESSED, "A checkpoint held here is not one that this log signed", ""),
)  # fmt: skip


# --- old checkpoints ---------------------------------------------------------------------------------------------------


def acted_on(checkpoint: Callable[[Scene], str], number: int) -> Callable[[Scene], Material]:
    """North's contribution to a round names another checkpoint, and the coordinator took it."""

    def made(scene: Scene) -> Material:
        def change(statement: UnverifiedStatement) -> Predicate:
            said = statement.predicate
            if isinstance(said, Contribution) and (said.institution, said.round) == ("north", number):
                return said.model_copy(update={"checkpoint": checkpoint(scene)})
            return said

        cut = scene.run.rounds[number - 1].closed_place
        assert cut is not None
        entries = scene.rewritten(change, colluding={"north": scene["north"].key})[: cut.index + 1]
        return scene.material(entries, checkpoints=())

    return made


def replayed(scene: Scene) -> str:
    """A true checkpoint, of before the opening of round 2."""
    return scene.note(scene.entries, scene.run.rounds[1].place.index).encode().decode()


def of_nobody(scene: Scene) -> str:
    return scene.checkpoint(20).replace("hospitals.llmasos/ledger\n", "hospitals.llmasos/other\n", 1)


def of_a_fork(scene: Scene) -> str:
    return scene.note(scene.rewritten(another_reason), 20).encode().decode()


def of_the_future(scene: Scene) -> str:
    return scene.note(scene.entries, 33).encode().decode()


OLD = (
    Cheat("replays an old checkpoint, which does not hold the round's opening", acted_on(replayed, 2), WITNESSED,
          "north contributed on an old checkpoint, which does not hold the opening of its round.", "north"),
    Cheat("replays a checkpoint that is older than the last one shown",
          acted_on(lambda scene: scene.note(scene.entries, 12).encode().decode(), 2), WITNESSED,
          "north contributed on an old checkpoint", "north"),
    Cheat("takes a contribution with a checkpoint that the log did not sign", acted_on(of_nobody, 2), WITNESSED,
          "The contribution of north names a checkpoint that the log did not sign", "north"),
    Cheat("shows one participant another history, and takes its contribution", acted_on(of_a_fork, 2), WITNESSED,
          "The log signed two histories of 20 entries: the checkpoint that north acted on", LOG),
    Cheat("takes a contribution whose checkpoint is of later entries", acted_on(of_the_future, 2), WITNESSED,
          "the checkpoint that north acted on is larger than this ledger was then.", LOG),
)  # fmt: skip


# --- times -------------------------------------------------------------------------------------------------------------


def at(scene: Scene, seconds: float) -> str:
    """That long after the run's end as it was."""
    ended = parse(scene.entries[-1]).predicate
    assert isinstance(ended, Control)
    return rfc3339(parse_rfc3339(ended.issued_at) + timedelta(seconds=seconds))


def dated(seconds: float) -> Callable[[Scene], Material]:
    """The run's end claims another time from the beginning on: the very tree that the witnesses saw and cosigned."""

    def made(scene: Scene) -> Material:
        ledger = last_said(issued_at=at(scene, seconds))(scene)
        return scene.material(ledger, checkpoints=scene.notes_of(ledger))

    return made


BACKDATED = (
    Cheat("dates a statement back behind its own earlier ones", dated(-86_400), TIMES,
          "The coordinator's time goes back: entry 32 (run-ended) was dated back"),
    Cheat("dates a statement back behind what witnesses had seen", dated(-1700), TIMES,
          "Entry 32 (run-ended) was dated back: a majority of witnesses had not seen it yet at a later time"),
    Cheat("dates a statement forward", dated(86_400), TIMES,
          "Entry 32 (run-ended) was dated forward: a majority of witnesses had cosigned it before"),
)  # fmt: skip


# --- institutions that cheat -------------------------------------------------------------------------------------------


def twice_in_a_slot(scene: Scene) -> Material:
    """North signs two contributions to round 2, and the coordinator takes both."""
    index = scene.index(lambda each: isinstance(each.predicate, Contribution)
                        and (each.predicate.institution, each.predicate.round) == ("north", 2))  # fmt: skip
    statement = parse(scene.entries[index])
    assert isinstance(statement.predicate, Contribution)
    weight = statement.predicate.weight.model_copy(update={"num_tokens": 11})
    second = sign(
        statement.predicate.model_copy(update={"weight": weight}), parent=statement.parent, key=scene["north"].key
    )
    return scene.material([*scene.entries[: index + 1], second.envelope, *scene.entries[index + 1 :]], checkpoints=())


def another_than_the_journals(scene: Scene) -> Material:
    slot = f"contribution/{scene.run.rounds[1].place.digest}"
    return scene.material(own=scene.own("north", **{slot: "11" * 32}))


INSTITUTIONS = (
    Cheat("puts two contributions into one slot", twice_in_a_slot, HISTORY,
          "north has contributed to round 2 of tiny-0a1b2c already", "north"),
    Cheat("signs two contributions for one slot, and sends one", another_than_the_journals, OWN,
          "Another contribution to round 2 of tiny-0a1b2c is in the ledger than the one in the journal: two were signed.",
          "north"),
    Cheat("denies a contribution that bears its signature", lambda scene: scene.material(own=scene.own("north", without=2)),
          OWN, "The ledger holds a contribution to round 2 of tiny-0a1b2c that this institution's journal does not know.",
          "north"),
)  # fmt: skip

CHEATS = (*REWRITTEN, *KEYS, *LEAVES, *OLD, *BACKDATED, *INSTITUTIONS)


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda cheat: cheat.claim)
def test_a_cheat_is_found_with_leaf_reason_and_signer(scene: Scene, cheat: Cheat) -> None:
    found = [finding for name, finding in failures(cheat.made(scene)) if name == cheat.found_by]
    assert found, f"{cheat.found_by} found nothing: {failures(cheat.made(scene))}"
    assert cheat.says in found[0].text
    assert found[0].signer == cheat.signer
    assert (found[0].leaf is not None) == bool(cheat.signer)
    assert found[0].expected


def test_every_cheat_reads_well_on_a_terminal_and_in_a_browser(scene: Scene) -> None:
    for cheat in CHEATS:
        report = verify(cheat.made(scene))
        assert max(map(len, as_text(report).splitlines())) <= 80
        assert "FAILED: something is not as it must be" in as_text(report)
        assert "FAILED" in as_html(report)


# --- what shows to one reader alone, or at another door ------------------------------------------------------------------


def test_a_contribution_dropped_at_the_very_end_shows_to_its_owner_alone(scene: Scene) -> None:
    """West's was the very last one, so nobody else's checkpoint holds it. Its owner does, and whoever sees its receipt."""
    entries = scene.rewritten(drops("west", number=scene.run.rounds[-1].number))
    assert failures(scene.material(entries, checkpoints=())) == []
    report = verify(scene.material(entries, checkpoints=(), own=scene.own("west")))
    (check,) = [each for each in report.checks if each.name == OWN]
    assert "is not in the ledger" in check.findings[0].text


def test_what_an_institution_denies_is_proven_to_everybody_else(scene: Scene) -> None:
    report = verify(scene.material(own=scene.own("east")))
    assert report.outcome is Outcome.VERIFIED


def test_another_base_model_is_refused_where_it_is_downloaded(scene: Scene) -> None:
    """The coordinator serves one participant other bytes under the root that the ledger names."""
    ref = scene.run.rounds[0].opened.inputs.model
    with scene.coordinator.blobs.open(scene.run.model) as reader:
        served = bytes(reader.read_chunk(0, memoryview(bytearray(CHUNK_BYTES))))
    leaves, other = leaves_and_ref(served)
    assert other != ref
    store = FolderBlobStore(scene.coordinator.layout.home / "a-participants-blobs")
    with pytest.raises(BadBlobReference):
        store.begin(ref, leaves, owner="north")
    with scene.coordinator.blobs.open(ref) as reader:
        honest = reader.leaves
    upload = store.begin(ref, honest, owner="north")
    with pytest.raises(CorruptChunk):
        upload.write(0, served)
    store.close()


def test_another_base_model_that_was_trained_on_fails_the_recomputation(scene: Scene) -> None:
    path = scene.coordinator.blobs.path(scene.run.rounds[1].opened.inputs.model)
    kept = path.read_bytes()
    path.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    try:
        found = failures(scene.material())
    finally:
        path.write_bytes(kept)
    assert [name for name, _ in found] == [ROUNDS]
    assert "Round 2 of tiny-0a1b2c cannot be recomputed" in found[0][1].text


def test_one_witness_with_a_wrong_clock_changes_nothing(scene: Scene) -> None:
    """A day fast, or a day slow: an honest ledger stays verified."""
    for wrong in (-86_400, 86_400):
        notes = list(scene.notes)
        for each in scene.seen:
            off = type(each)(each.size, each.seconds + wrong, each.by)
            notes.append(scene.cosigned(scene.entries, each.size, off, only=("north",)))
        others = [scene.cosigned(scene.entries, each.size, each, only=("east", "south", "west")) for each in scene.seen]
        assert verify(scene.material(checkpoints=others + notes[len(scene.notes) :])).outcome is Outcome.VERIFIED


def test_a_cosignature_that_does_not_verify_is_found(scene: Scene) -> None:
    note = scene.notes[-1]
    broken = bytearray(note)
    broken[-10] = ord("B") if broken[-10] != ord("B") else ord("C")
    found = failures(scene.material(checkpoints=[*scene.notes, bytes(broken)]))
    assert [(name, finding.signer) for name, finding in found] == [(WITNESSED, "west")]
    assert "A cosignature on the checkpoint of 33 entries is not what it says" in found[0][1].text


def test_a_round_that_no_majority_saw_is_a_gap_with_its_number(scene: Scene) -> None:
    report = verify(scene.material(checkpoints=scene.notes_of(scene.entries, only=("north", "east"))))
    assert report.outcome is Outcome.GAPS
    texts = [finding.text for check in report.checks for finding in check.findings]
    assert texts == [
        f"The opening of round {number} of tiny-0a1b2c is covered by no majority of witnesses among what is held here: "
        "2 of 4."
        for number in (1, 2, 3)
    ]


def test_a_signature_of_somebody_who_was_no_witness_counts_for_nothing(scene: Scene) -> None:
    """South's retired key on a tree in which its new one stands."""
    forged = type(scene.seen[-1])(33, scene.seen[-1].seconds, {"south": scene.retired})
    report = verify(scene.material(checkpoints=[*scene.notes, scene.cosigned(scene.entries, 33, forged)]))
    assert report.outcome is Outcome.GAPS
    texts = [finding.text for check in report.checks for finding in check.findings]
    assert texts == [
        "hospitals.llmasos/south signed the checkpoint of 33 entries and was no witness then: it counts for nothing."
    ]
