"""What the worker answers and keeps on disk, without a process: a recorder stands where the socket is."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
import safetensors.numpy

from common.blobs.plain_file import open_as_blob
from common.blobs.reference import BlobRef
from llmasos.tokenizers import bytes_tokenizer, save
from llmasos.training.device import Machine, set_up
from llmasos.training.snapshot import SnapshotFolder
from participant.bench.worker_protocol import (
    DataSource,
    Evaluate,
    Message,
    Prepare,
    Prepared,
    Progress,
    Result,
    SnapshotTaken,
    Train,
    WorkerError,
)
from participant.worker.agent_side import StopRequested
from participant.worker.session import Session
from tests.support.jobs import TINY_MODEL, a_training_plan, make_job
from tests.support.tasks import MODELS

pytestmark = pytest.mark.torch


class Recorder:
    """An agent that keeps what it hears; once it hears of `stop_at_step` it wants the worker to end."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.snapshot_wanted = threading.Event()
        self.stop_wanted = threading.Event()
        self.stop_at_step: int | None = None

    def send(self, message: Message) -> None:
        self.heard.append(message)
        if isinstance(message, Progress) and message.steps_done == self.stop_at_step:
            self.stop_wanted.set()


class Desk:
    """Sessions on one job folder; each `restart` is a new process in all but name."""

    def __init__(self, root: Path, machine: Machine, snapshot_seconds: float = 300.0, **plan: Any) -> None:
        self.job, self.data = make_job(root, a_training_plan(**plan))
        self._machine = machine
        self._snapshot_seconds = snapshot_seconds
        self.restart()

    def restart(self) -> None:
        self.close()
        self.agent = Recorder()
        self.session = Session(self.agent, self._machine, self._snapshot_seconds, False)  # type: ignore[arg-type]

    def close(self) -> None:
        if hasattr(self, "session") and self.session.job is not None:
            self.session.job.close()

    def ask(self, message: Any) -> Any:
        self.agent.heard.clear()
        self.session._serve(message)
        return self.agent.heard[-1]

    def prepare(self, data: Path | None = None) -> Any:
        source = DataSource(name="notes", folder=str(data or self.data))
        return self.ask(Prepare(job=str(self.job), data=(source,)))

    def train(self, round_number: int = 1, **changes: Any) -> tuple[Any, bytes]:
        """The answer, and the delta's bytes."""
        fields: dict[str, Any] = {
            "trained_rounds": round_number - 1,
            "seed": 5,
            "base": "base.safetensors",
            "delta": "d",
        }
        answer = self.ask(Train(round=round_number, **(fields | changes)))
        assert isinstance(answer, Result), answer
        return answer, (self.job / "d").read_bytes()


@pytest.fixture(scope="module")
def machine() -> Machine:
    return set_up(1, allow_cuda=False)


@pytest.fixture
def desk(tmp_path: Path, machine: Machine) -> Iterator[Callable[..., Desk]]:
    made: list[Desk] = []

    def make(**changes: Any) -> Desk:
        made.append(Desk(tmp_path / str(len(made)), machine, **changes))
        return made[-1]

    yield make
    for one in made:
        one.close()


def without_time(result: Result) -> Result:
    return result.model_copy(update={"seconds": 0.0})


def test_training_before_preparing_is_an_error_and_the_worker_stays_usable(desk: Callable[..., Desk]) -> None:
    one = desk()
    answer = one.ask(Evaluate(round=1, base="base.safetensors"))
    assert (answer.code, answer.message) == ("worker-failed", "The worker has prepared no job.")
    (one.job / "empty").mkdir()
    answer = one.prepare(one.job / "empty")
    assert answer.code == "too-little-data"
    assert str(one.job / "empty") in answer.message
    assert isinstance(one.prepare(), Prepared)


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        (b'{"version": "1.0"', "is not a tokenizers JSON file."),
        (b"", "is not a tokenizers JSON file."),
        (None, "the run's tokenizer has no token [PAD], [CLS], [SEP], [MASK], which task masked-lm needs."),
    ],
)
def test_a_tokenizer_that_does_not_do_is_the_plans_fault_and_not_the_datas(
    desk: Callable[..., Desk], tokenizer: bytes | None, message: str
) -> None:
    one = desk(task={"type": "masked-lm"}, model=MODELS["masked-lm"])
    path = one.job / "tokenizer.json"
    path.unlink()
    if tokenizer is None:
        save(bytes_tokenizer(), path)
    else:
        path.write_bytes(tokenizer)
    answer = one.prepare()
    assert answer.code == "invalid-configuration"
    assert answer.message.startswith("The plan's tokenizer does not do: ")
    assert message in answer.message
    assert answer.fix.startswith("Refuse the plan")


def test_a_tokenizer_larger_than_the_embedding_is_told(desk: Callable[..., Desk]) -> None:
    one = desk(model={**TINY_MODEL, "vocab_size": 257})
    tokenizer = bytes_tokenizer()
    tokenizer.add_tokens(["many", "more"])
    (one.job / "tokenizer.json").unlink()
    save(tokenizer, one.job / "tokenizer.json")
    answer = one.prepare()
    assert answer.code == "invalid-configuration"
    assert answer.message == "The tokenizer has 259 tokens, the model's embedding 257 rows (model.vocab_size)."


def test_the_same_round_gives_the_same_delta_and_a_later_one_another(desk: Callable[..., Desk]) -> None:
    one = desk()
    one.prepare()
    first, second, later = one.train(), one.train(), one.train(2)
    assert without_time(first[0]) == without_time(second[0])
    assert first[1] == second[1]
    assert later[1] != first[1]


def test_a_delta_of_an_adapter_holds_its_tensors_alone(desk: Callable[..., Desk]) -> None:
    one = desk(adapter=LORA)
    one.prepare()
    _, delta = one.train()
    tensors = safetensors.numpy.load(delta)
    assert len(tensors) == 2 * 4
    assert all(name.endswith((".lora_A.weight", ".lora_B.weight")) and value.any() for name, value in tensors.items())
    snapshots = one.job / "snapshots" / "round-00000001-step-00000006" / "rank-00000.safetensors"
    kept = safetensors.numpy.load_file(snapshots)
    assert {name.removeprefix("weight.") for name in kept if name.startswith("weight.")} == set(tensors)


def test_a_rounds_delta_is_pulled_to_its_base_as_the_plan_says(desk: Callable[..., Desk]) -> None:
    lengths = []
    for mu in ("0", "10"):
        one = desk(local={"fedprox_mu": mu, "max_gradient_norm": "1000"})
        one.prepare()
        one.train()
        tensors = safetensors.numpy.load_file(one.job / "d")
        lengths.append(sum(float((value.astype("float64") ** 2).sum()) for value in tensors.values()))
    assert lengths[1] < lengths[0]


def test_evaluating_changes_nothing_and_measures_the_same(desk: Callable[..., Desk]) -> None:
    one = desk()
    one.prepare()
    trained, _ = one.train()
    base = (one.job / "base.safetensors").read_bytes()
    measured = one.ask(Evaluate(round=9, base="base.safetensors"))
    assert (measured.task, measured.delta, measured.evaluation) == ("evaluate", None, trained.evaluation)
    assert (one.job / "base.safetensors").read_bytes() == base


LORA = {"type": "lora", "r": 2, "lora_dropout": "0.1"}


def own_layers(desk: Desk) -> dict[str, bytes]:
    """The files of personal layers."""
    return {path.name: path.read_bytes() for path in sorted((desk.job / "personal").glob("*"))}


PLANS = {
    "moments kept": {},
    "moments reset": {"local": {"optimizer_state": "reset"}},
    "an adapter": {"adapter": LORA},
    "magnitudes": {"adapter": LORA | {"use_dora": True}},
    "vectors": {"adapter": {"type": "ia3"}},
    "a prefix": {"adapter": {"type": "prefix-tuning", "num_virtual_tokens": 4}, "local": {"sequence_length": 16}},
    "plain SGD": {"local": {"optimizer": {"type": "sgd"}}},
    "SGD with momentum": {"local": {"optimizer": {"type": "sgd", "momentum": "0.9"}}},
    "a pull to the base": {"local": {"fedprox_mu": "3"}},
    "personal layers": {"personal": ["ln_1", "mlp.c_fc"]},
    "personal layers of an adapter": {"adapter": LORA, "personal": ["lora_B"]},
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
def test_an_interrupted_round_goes_on_with_the_same_bits(desk: Callable[..., Desk], plan: dict[str, Any]) -> None:
    whole, broken = (desk(**plan) for _ in range(2))
    for one in (whole, broken):
        one.prepare()
        one.train(1)
    expected = whole.train(2, personal=1)
    broken.agent.stop_at_step = 1
    with pytest.raises(StopRequested):
        broken.train(2, personal=1)
    assert broken.agent.heard[-1] == SnapshotTaken(round=2, step=1)
    broken.restart()
    broken.prepare()
    result, delta = broken.train(2, personal=1, resume=True)
    assert delta == expected[1]
    assert own_layers(broken) == own_layers(whole)
    assert without_time(result) == without_time(expected[0])
    assert next(one for one in broken.agent.heard if isinstance(one, Progress)).steps_done == 2


def test_a_finished_round_that_is_asked_for_again_is_not_trained_again(desk: Callable[..., Desk]) -> None:
    one = desk()
    one.prepare()
    expected = one.train()
    one.restart()
    one.prepare()
    again = one.train(resume=True)
    assert again[1] == expected[1]
    assert without_time(again[0]) == without_time(expected[0])
    assert one.agent.heard == [again[0]]


def test_moments_live_on_across_rounds_and_restarts_or_not_as_the_plan_says(desk: Callable[..., Desk]) -> None:
    deltas = {}
    for state in ("keep", "reset"):
        for restarts in (False, True):
            one = desk(local={"optimizer_state": state})
            one.prepare()
            one.train(1)
            if restarts:
                one.restart()
                one.prepare()
            deltas[state, restarts] = one.train(2)[1]
    assert deltas["keep", False] == deltas["keep", True]
    assert deltas["reset", False] == deltas["reset", True]
    assert deltas["keep", False] != deltas["reset", False]


def test_a_round_trained_again_starts_from_the_moments_of_the_round_before(desk: Callable[..., Desk]) -> None:
    one = desk()
    one.prepare()
    one.train(1)
    assert one.train(2)[1] == one.train(2)[1]


def test_moments_of_rounds_that_the_run_took_back_are_not_used(desk: Callable[..., Desk]) -> None:
    deltas = {}
    for taken_back in ((), ((1, 1),), ((7, 9),)):
        one = desk()
        one.prepare()
        one.train(1)
        deltas[taken_back] = one.train(2, rolled_back=taken_back)[1]
    fresh = desk(local={"optimizer_state": "reset"})
    fresh.prepare()
    fresh.train(1)
    assert deltas[(1, 1),] == fresh.train(2)[1] != deltas[()]
    assert deltas[(7, 9),] == deltas[()]


def test_snapshots_are_taken_by_time_and_only_the_needed_ones_stay(desk: Callable[..., Desk]) -> None:
    one = desk(snapshot_seconds=0.0)
    one.prepare()
    one.train(1)
    one.train(2)
    taken = [each.step for each in one.agent.heard if isinstance(each, SnapshotTaken)]
    assert taken[0] == 1
    assert taken == sorted(set(taken) & {1, 2, 3, 4, 5}), "one at a time: others were left out"
    names = sorted(path.name for path in (one.job / "snapshots").iterdir())
    assert names == ["round-00000001-step-00000006", "round-00000002-step-00000006"]


def test_snapshots_at_each_step_change_no_bit(desk: Callable[..., Desk]) -> None:
    never, always = desk(), desk(snapshot_seconds=0.0)
    for one in (never, always):
        one.prepare()
    for number in (1, 2, 3):
        without, with_snapshots = never.train(number), always.train(number)
        assert with_snapshots[1] == without[1]
        assert without_time(with_snapshots[0]) == without_time(without[0])


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["rank-00000.safetensors", "snapshot.json"])
def test_a_round_whose_snapshot_is_damaged_begins_again_with_the_same_bits(
    desk: Callable[..., Desk], name: str
) -> None:
    whole, broken = desk(), desk()
    for one in (whole, broken):
        one.prepare()
    expected = whole.train()
    broken.agent.stop_at_step = 1
    with pytest.raises(StopRequested):
        broken.train()
    (snapshot,) = (broken.job / "snapshots").iterdir()
    flip(snapshot / name, -40)
    broken.restart()
    broken.prepare()
    result, delta = broken.train(resume=True)
    assert (without_time(result), delta) == (without_time(expected[0]), expected[1])
    assert any(isinstance(each, Progress) and each.steps_done == 1 for each in broken.agent.heard)


def test_a_base_model_that_changed_on_disk_is_not_trained_and_not_measured(desk: Callable[..., Desk]) -> None:
    one = desk()
    one.prepare()
    path = one.job / "base.safetensors"
    ref = blob_of(path)
    messages = (
        Train(round=1, trained_rounds=0, seed=5, base=path.name, delta="d", base_ref=ref),
        Evaluate(round=1, base=path.name, base_ref=ref),
    )
    for message in messages:
        assert isinstance(one.ask(message), Result)
    flip(path, -1)
    for message in messages:
        answer = one.ask(message)
        assert (answer.code, answer.message) == (
            "corrupt-chunk",
            f"The base model {path} is {blob_of(path)}, expected {ref}: it was damaged on disk.",
        )


def blob_of(path: Path) -> BlobRef:
    with open_as_blob(path, "blake3") as reader:
        return reader.ref


@pytest.mark.parametrize("name", ["rank-00000.safetensors", "snapshot.json"])
def test_damaged_moments_are_not_used_and_the_contribution_says_so_after_a_restart_too(
    desk: Callable[..., Desk], name: str
) -> None:
    one, fresh = desk(), desk()
    for each in (one, fresh):
        each.prepare()
    one.train(1)
    flip(next((one.job / "snapshots").glob(f"*/{name}")), -40)
    one.agent.stop_at_step = 1
    with pytest.raises(StopRequested):
        one.train(2)
    one.restart()
    one.prepare()
    result, delta = one.train(2, resume=True)
    assert (result.deviations, delta) == (("moments-lost",), fresh.train(2)[1])


def test_going_on_in_another_environment_is_recorded(
    desk: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = desk()
    one.prepare()
    one.train()
    record = next((one.job / "snapshots").glob("*/snapshot.json"))
    fields = json.loads(record.read_text())
    del fields["check"]
    record.write_text(json.dumps(fields | {"threads": 8}))
    assert one.train(resume=True)[0].deviations == ("environment-changed",)
    assert one.train()[0].deviations == ()


def test_a_snapshot_of_another_base_model_is_not_gone_on_from(desk: Callable[..., Desk]) -> None:
    one = desk()
    one.prepare()
    one.train()
    changed = bytearray((one.job / "base.safetensors").read_bytes())
    changed[-1] ^= 1
    (one.job / "other.safetensors").write_bytes(changed)
    one.train(resume=True, base="other.safetensors")
    assert any(isinstance(each, Progress) and each.activity == "evaluating" for each in one.agent.heard)


def test_a_plan_whose_tensors_this_release_does_not_build_is_refused(desk: Callable[..., Desk]) -> None:
    one = desk()
    plan = one.job / "plan.json"
    plan.write_text(plan.read_text().replace('"transformer.wpe.weight"', '"transformer.other.weight"'))
    answer = one.prepare()
    assert answer.code == "wrong-tensors"
    assert answer.message == (
        "The plan lists tensor transformer.other.weight (32, 32) trainable, "
        "this release builds transformer.wpe.weight (32, 32) trainable."
    )


def test_an_unreadable_plan_is_told(desk: Callable[..., Desk]) -> None:
    one = desk()
    (one.job / "plan.json").write_text("{}")
    answer = one.prepare()
    assert isinstance(answer, WorkerError)
    assert "plan.json is not a readable plan: ValidationError" in answer.message


def test_a_full_disk_is_told_and_the_worker_stays_usable(
    desk: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = desk()
    one.prepare()
    with monkeypatch.context() as patch:

        def full(*arguments: object) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr("llmasos.training.state_file.write", full)
        answer = one.ask(Train(round=1, trained_rounds=0, seed=5, base="base.safetensors", delta="d"))
        assert answer.code == "storage-failure"
        assert "No space left on device" in answer.message
    assert isinstance(one.train()[0], Result)
    assert SnapshotFolder(one.job / "snapshots").newest_finished_before("tiny-abc123", 2) is not None


# --- personal layers -------------------------------------------------------------------------------------------------


OWN = {"personal": ["ln_1", "mlp.c_fc"]}
OWN_NAMES = {f"transformer.h.0.{layer}.{kind}" for layer in ("ln_1", "mlp.c_fc") for kind in ("weight", "bias")}


def round_file(number: int) -> str:
    return f"round-{number:08d}.safetensors"


def test_personal_layers_are_in_no_delta_and_no_model_and_lie_in_the_job_folder(desk: Callable[..., Desk]) -> None:
    one = desk(**OWN)
    one.prepare()
    _, delta = one.train(1)
    named = safetensors.numpy.load(delta)
    assert not OWN_NAMES & named.keys()
    assert not OWN_NAMES & safetensors.numpy.load((one.job / "base.safetensors").read_bytes()).keys()
    files = own_layers(one)
    assert list(files) == [round_file(0), round_file(1)]
    before, after = (safetensors.numpy.load(files[round_file(number)]) for number in (0, 1))
    assert before.keys() == after.keys() == OWN_NAMES
    assert all((before[name] != after[name]).any() for name in OWN_NAMES)
    assert (one.job / "personal" / round_file(1)).stat().st_mode & 0o777 == 0o600


def test_a_round_starts_from_the_personal_layers_that_it_is_told_and_keeps_both_until_its_fate_is_known(
    desk: Callable[..., Desk],
) -> None:
    one = desk(**OWN, local={"optimizer_state": "reset"})
    one.prepare()
    one.train(1)
    first = own_layers(one)[round_file(1)]
    _, of_first = one.train(2, personal=1)
    assert list(own_layers(one)) == [round_file(0), round_file(1), round_file(2)]
    assert own_layers(one)[round_file(1)] == first
    _, abandoned = one.train(3, personal=1, trained_rounds=1)  # round 2 was abandoned: the same round again
    assert abandoned == of_first
    assert list(own_layers(one)) == [round_file(0), round_file(1), round_file(3)]


def test_an_evaluation_measures_the_institutions_own_layers(desk: Callable[..., Desk]) -> None:
    one = desk(**OWN, local={"steps": 30})
    one.prepare()
    one.train(1)
    losses = [
        one.ask(Evaluate(round=2, base="base.safetensors", personal=number)).evaluation.loss_sum_fixed
        for number in (0, 1, 0)
    ]
    assert losses[0] == losses[2]
    assert losses[1] < losses[0]


def test_lost_personal_layers_are_told_and_initial_ones_taken(desk: Callable[..., Desk]) -> None:
    one, other = (desk(**OWN, local={"optimizer_state": "reset"}) for _ in range(2))
    other.prepare()
    _, fresh = other.train(2)
    one.prepare()
    one.train(1)
    result, lost = one.train(2, personal=1)
    assert (result.deviations, lost != fresh) == ((), True)
    (one.job / "personal" / round_file(1)).unlink()
    result, lost = one.train(2, personal=1)
    assert (result.deviations, lost == fresh) == (("personal-lost",), True)
    path = one.job / "personal" / round_file(2)
    path.write_bytes(path.read_bytes()[:-4])
    measured = one.ask(Evaluate(round=3, base="base.safetensors", personal=2))
    assert measured.deviations == ("personal-lost",)


def test_fedprox_does_not_pull_personal_layers(desk: Callable[..., Desk]) -> None:
    moved = []
    for mu in ("0", "100"):
        one = desk(**OWN, local={"fedprox_mu": mu, "max_gradient_norm": "1000"})
        one.prepare()
        one.train(1)
        before, after = (safetensors.numpy.load(own_layers(one)[round_file(number)]) for number in (0, 1))
        moved.append(sum(float(abs(after[name] - before[name]).sum()) for name in OWN_NAMES))
    assert moved[1] > moved[0] / 4


def test_without_personal_layers_there_is_no_folder(desk: Callable[..., Desk]) -> None:
    one = desk()
    one.prepare()
    one.train(1)
    assert not (one.job / "personal").exists()


def test_bytes_are_said_where_the_plan_weighs_by_them_also_of_a_round_that_was_interrupted(
    desk: Callable[..., Desk],
) -> None:
    plain, one = desk(), desk(weighting={"type": "bytes"})
    for each in (plain, one):
        each.prepare()
    tokens, both = plain.train()[0], one.train()[0]
    assert (tokens.num_bytes, tokens.num_tokens) == (None, both.num_tokens)
    assert 0.9 * both.num_tokens < both.num_bytes <= both.num_tokens  # a byte a token, but for ends of documents
    one.restart()
    one.prepare()
    assert one.train(resume=True)[0].num_bytes == both.num_bytes


def test_between_rounds_nothing_of_the_training_is_left_on_the_device(
    desk: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without waiting for the garbage collector: others may want the device's memory now."""
    import gc
    import weakref

    from participant.worker import rounds

    one, made, devices = desk(), [], []
    one.prepare()

    class Seen(rounds.LocalTraining):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(weakref.ref(self))

    monkeypatch.setattr(rounds, "LocalTraining", Seen)
    model = one.session.job.model
    to = model.to
    monkeypatch.setattr(model, "to", lambda device: (devices.append(str(device)), to(device))[1])
    gc.collect()
    gc.disable()
    try:
        one.train(1)
        one.train(2)
        assert [ref() for ref in made] == [None, None]
        assert all(weight.grad is None for weight in model.parameters())
    finally:
        gc.enable()
    assert devices[-1] == "cpu"
    one.ask(Evaluate(round=3, base="base.safetensors"))
    assert devices[-1] == "cpu"


def test_event_files_show_the_steps_of_the_run_and_change_no_bits(desk: Callable[..., Desk], tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    plain, shown = desk(), desk()
    plain.prepare()
    shown.session.tensorboard = tmp_path / "board"
    shown.prepare()
    deltas = [one.train(number)[1] for one in (plain, shown) for number in (1, 2)]
    assert deltas[:2] == deltas[2:]
    (run,) = (tmp_path / "board").iterdir()
    found = events.EventAccumulator(str(run)).Reload()
    assert [point.step for point in found.Scalars("loss")] == list(range(1, 13))
    assert all(0 < point.value < 6 for point in found.Scalars("loss"))
    assert {point.value > 0 for point in found.Scalars("tokens_per_second")} == {True}


def test_a_folder_that_refuses_event_files_costs_no_round(
    desk: Callable[..., Desk], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("tensorboard")
    one = desk()
    one.prepare()
    (tmp_path / "file").write_text("")
    one.session.tensorboard = tmp_path / "file"
    assert one.train()[0].num_tokens == 6 * 4 * 32
    assert "no event files are written in the rest of this round" in caplog.text
