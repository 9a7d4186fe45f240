"""A model is fitted by the loop of a federation, stops when told to, goes on with the same bits, and says what is wrong."""

from __future__ import annotations

import os
import signal
import termios
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from common.errors import InvalidConfiguration, TooLittleData, UsageError  # noqa: E402
from common.ledger.cohort import round_seed  # noqa: E402
from llmasos.datasets import Dataset, load_dataset  # noqa: E402
from llmasos.language_model import planning  # noqa: E402
from llmasos.language_model.base import LanguageModel  # noqa: E402
from llmasos.language_model.settings import LoggingSettings, TrainingSettings  # noqa: E402
from llmasos.losses import CausalLMLoss, CrossEntropyLoss  # noqa: E402
from llmasos.models import GPT, Llama  # noqa: E402
from llmasos.models.build import build_model  # noqa: E402
from llmasos.optimizers import SGD, Adafactor, Adam, AdamW, Muon  # noqa: E402
from llmasos.tokenizers import bytes_tokenizer, train, vocab_size_of  # noqa: E402
from llmasos.training.device import set_up  # noqa: E402
from llmasos.training.loop import LocalTraining, RoundWork  # noqa: E402

pytestmark = pytest.mark.torch


def weights(model: LanguageModel) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in model.module.parameters()])


def test_a_fit_lowers_the_loss_and_its_history_says_so(data: Dataset, tiny: GPT) -> None:
    history = tiny.fit(data.train, Adam(lr=1e-2), CrossEntropyLoss(), steps=40, validation=data.validation)
    assert [row["step"] for row in history] == list(range(1, 41))
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]
    assert history[-1]["tokens"] == 40 * 8 * 16
    assert history[-1]["validation_loss"] == pytest.approx(tiny.evaluate(data.validation).loss)
    assert all(row["validation_loss"] is None for row in history[:-1])
    assert (len(history), history.interrupted) == (40, False)


def test_a_fit_is_a_round_of_local_training_under_the_same_plan(data: Dataset, tiny: GPT) -> None:
    tiny.fit(data.train, AdamW(lr=3e-3), steps=3, batch_size=4, seed=5)
    settings = planning.Settings(steps=3, batch_size=4, sequence_length=16, optimizer=AdamW(lr=3e-3).section(), seed=5)
    plan = planning.plan_of(settings, model=tiny.section, task={"type": "causal-lm"})
    model = build_model(tiny.section, vocab_size=vocab_size_of(data.train.tokenizer), seed=0)
    seed = round_seed("5", 1)
    training = LocalTraining(plan, model, set_up(1, allow_cuda=False))
    with data.train.opened(plan) as opened:
        training.run_round(RoundWork(trained_rounds=0, seed=seed), lambda step: opened.batch(seed=seed, step=step))
    assert torch.equal(torch.cat([weight.detach().flatten() for weight in model.parameters()]), weights(tiny))


def torchs(optimizer: Any, parameters: Any) -> torch.optim.Optimizer:
    """torch's optimizer of the same name, with the same arguments."""
    settings = {name: getattr(optimizer, name) for name in optimizer.__dataclass_fields__}
    if isinstance(optimizer, Adafactor):
        settings["eps"] = (None, settings["eps"])
    found: torch.optim.Optimizer = getattr(torch.optim, type(optimizer).__name__)(parameters, **settings)
    return found


@pytest.mark.parametrize(
    "optimizer",
    [Adam(), AdamW(weight_decay=0.1), Adam(weight_decay=0.1), SGD(lr=0.1, momentum=0.9), SGD(), Adafactor()],
)
def test_optimizers_step_as_torchs_do(data: Dataset, optimizer: Any) -> None:
    ours = GPT(1, 2, 8, 8)
    plain = TrainingSettings(schedule="constant", warmup_steps=0, max_grad_norm=1e6)
    ours.fit(data.train, optimizer, steps=2, batch_size=2, training=plain)
    expected = build_model(ours.section, vocab_size=ours.vocab_size or 0, seed=0)
    other, seed = torchs(optimizer, expected.parameters()), round_seed("0", 1)
    settings = planning.Settings(steps=2, batch_size=2, sequence_length=8, optimizer=optimizer.section())
    plan = planning.plan_of(settings, model=ours.section, task={"type": "causal-lm"})
    with data.train.opened(plan) as opened:
        for step in range(2):
            tokens = torch.from_numpy(opened.batch(seed=seed, step=step)["tokens"])
            logits = expected(input_ids=tokens[:, :-1]).logits
            other.zero_grad()
            torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
            other.step()
    there = torch.cat([weight.detach().flatten() for weight in expected.parameters()])
    torch.testing.assert_close(weights(ours), there, rtol=1e-4, atol=1e-6)


def test_muon_and_every_schedule_train(data: Dataset) -> None:
    schedules = ["cosine", "constant", "linear", "warmup-stable-decay", "inverse-sqrt", {"type": "noam", "d_model": 8}]
    for schedule in schedules:
        history = GPT(1, 2, 8, 8).fit(
            data.train, Muon(lr=1e-2), steps=10, batch_size=4, training=TrainingSettings(schedule=schedule)
        )
        assert history[-1]["loss"] < history[0]["loss"], schedule


def test_epochs_are_counted_in_the_splits_tokens(data: Dataset, tiny: GPT) -> None:
    history = tiny.fit(data.train, epochs=2, batch_size=8, validation=data.validation)
    an_epoch = -(-data.train.num_tokens // (8 * 16))
    assert history.steps == 2 * an_epoch
    assert [row["step"] for row in history if row["validation_loss"] is not None] == [an_epoch, 2 * an_epoch]


def test_a_second_fit_trains_on_with_other_batches(data: Dataset, tiny: GPT) -> None:
    first = tiny.fit(data.train, steps=1)
    second = tiny.fit(data.train, SGD(lr=1e-9), steps=1)
    assert second[0]["loss"] != first[0]["loss"]


def test_ctrl_c_leaves_a_model_that_goes_on_with_the_same_bits(
    data: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(model: GPT, *, resume: bool = False, stop_at: int | None = None) -> None:
        def note(row: dict[str, object]) -> None:
            if row["step"] == stop_at:
                os.kill(os.getpid(), signal.SIGINT)

        history = model.fit(
            data.train, Adam(lr=1e-2), steps=6, batch_size=2, resume=resume, logging=LoggingSettings(log_to=note)
        )
        assert history.interrupted == (stop_at is not None)

    whole, cut = GPT(1, 2, 8, 16, dropout=0.1), GPT(1, 2, 8, 16, dropout=0.1)
    run(whole)
    run(cut, stop_at=3)
    assert "Stopped by Ctrl-C after step 3 of 6" in capsys.readouterr().err
    assert cut.generate_text("car", max_new_tokens=3).startswith("car")
    cut.save(tmp_path / "model")
    for model in (cut, GPT.load(tmp_path / "model")):
        run(model, resume=True)
        assert torch.equal(weights(model), weights(whole))


def test_a_fit_in_a_thread_takes_no_signals(data: Dataset, tiny: GPT) -> None:
    from threading import Thread

    before = signal.getsignal(signal.SIGINT)
    thread = Thread(target=lambda: tiny.fit(data.train, steps=1))
    thread.start()
    thread.join()
    assert tiny.num_parameters() > 0
    assert signal.getsignal(signal.SIGINT) is before


def test_torchs_deterministic_mode_is_as_it_was_after_a_fit(data: Dataset, tiny: GPT) -> None:
    torch.use_deterministic_algorithms(False)
    tiny.fit(data.train, steps=1)
    assert not torch.are_deterministic_algorithms_enabled()


def test_llama_learns_too(data: Dataset) -> None:
    model = Llama(16, 1, 2, max_position_embeddings=16)
    history = model.fit(data.train, Adam(lr=1e-2), CausalLMLoss(), steps=20)
    assert history[-1]["loss"] < history[0]["loss"]


def test_nothing_is_printed_in_a_pipe(data: Dataset, tiny: GPT, capfd: pytest.CaptureFixture[str]) -> None:
    tiny.fit(data.train, steps=1)
    assert capfd.readouterr() == ("", "")


def test_a_bar_is_shown_in_a_terminal(data: Dataset, tiny: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    with os.fdopen(ours, "rb", buffering=0) as screen, os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        tiny.fit(data.train, steps=2)
        terminal.flush()
        seen = screen.read(65536).decode()
    assert "2/2" in seen
    assert "loss" in seen


def test_a_bar_is_shown_when_it_is_asked_for(data: Dataset, tiny: GPT, capfd: pytest.CaptureFixture[str]) -> None:
    tiny.fit(data.train, steps=2, progress_bar=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "2/2" in err
    assert "loss" in err


SETTINGS = {
    "epochs and steps": ({"epochs": 1, "steps": 1}, "fit got both epochs and steps"),
    "no steps": ({"steps": 0}, "fit would train 0 steps, expected at least 1"),
    "a batch of nothing": ({"batch_size": 0}, r"fit: local\.batch_size: expected at least 1, got 0"),
    "sequences beyond the positions": (
        {"sequence_length": 17},
        r"fit: local\.sequence_length is 17, the model's context 16",
    ),
    "an unknown schedule": (
        {"training": TrainingSettings(schedule="zigzag")},
        r"fit: local\.schedule\.type: expected one of .*got 'zigzag'",
    ),
    "an unknown precision": (
        {"training": TrainingSettings(precision="float8")},
        r"fit: local\.precision: expected 'float32' or 'bfloat16'",
    ),
    "a learning rate of nothing": ({"optimizer": Adam(lr=0)}, r"learning_rate: expected more than 0, got 0"),
    "another device": ({"training": TrainingSettings(device="tpu")}, "device is 'tpu', expected 'cpu'"),
    "settings as a dict": (
        {"training": {"schedule": "cosine"}},
        r"fit's training is a dict, expected TrainingSettings",
    ),
    "settings of the other kind": (
        {"logging": TrainingSettings()},
        r"fit's logging is a TrainingSettings, expected Log",
    ),
    "an optimizer by name": (
        {"optimizer": "adam"},
        r"The optimizer is a str, expected one of llmasos\.optimizers.*Adam\(",
    ),
    "an optimizer's class": ({"optimizer": Adam}, r"The optimizer is the class Adam, expected .* As in"),
    "torch's optimizer": (
        {"optimizer": torch.optim.SGD([torch.zeros(1)])},
        r"The optimizer is a torch\.optim\.sgd\.SGD, expected one of llmasos\.optimizers",
    ),
    "torch's loss": (
        {"loss": torch.nn.CrossEntropyLoss()},
        r"The loss is a torch\..*CrossEntropyLoss, expected one of llm",
    ),
    "a loss's class": ({"loss": CrossEntropyLoss}, r"The loss is the class CrossEntropyLoss, expected .* As in"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_wrong_setting_is_named(data: Dataset, tiny: GPT, name: str) -> None:
    settings, message = SETTINGS[name]
    with pytest.raises(UsageError, match=message):
        tiny.fit(data.train, **{"steps": 1, **settings} if "epochs" not in settings else settings)


@pytest.mark.parametrize("settings", [{"logging_steps": 0}, {"eval_steps": -1}, {"eval_steps": 1.5}])
def test_steps_between_rows_are_whole_numbers_from_1(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfiguration, match=r"(logging|eval)_steps is .*, expected a whole number from 1"):
        LoggingSettings(**settings)


def test_nothing_is_logged_to_a_number() -> None:
    with pytest.raises(InvalidConfiguration, match=r"log_to is 7, expected a service, a function of a row, or a list"):
        LoggingSettings(log_to=7)  # type: ignore[arg-type]


def test_what_does_not_go_together_is_one_sentence(data: Dataset, folder: Path, tiny: GPT) -> None:
    with pytest.raises(UsageError, match="This GPT has no weights yet"):
        tiny.evaluate(data.validation)
    with pytest.raises(UsageError, match=r"fit expects one split, got a whole dataset.*model\.fit\(data\.train\)"):
        tiny.fit(data)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="There is no fit to resume"):
        tiny.fit(data.train, resume=True)
    with pytest.raises(UsageError, match="The tokenizer has 300 tokens, the model's embedding 257 rows"):
        GPT(1, 2, 8, 16, tokenizer=bytes_tokenizer()).fit(data.train)
    tiny.fit(data.train, steps=1)
    other = load_dataset(folder, tokenizer=train(folder, vocab_size=299))
    with pytest.raises(UsageError, match="loaded with another tokenizer than the model's"):
        tiny.evaluate(other.validation)
    with pytest.raises(UsageError, match="to resume trained with adamw, now sgd was given"):
        tiny.fit(data.train, SGD(), steps=2, resume=True)
    with pytest.raises(TooLittleData, match=r"The split test of .* is empty"):
        tiny.evaluate(load_dataset(folder, tokenizer=data.train.tokenizer, test=0).test)


def test_a_split_shorter_than_a_sequence_is_named(folder: Path) -> None:
    data = load_dataset(folder, validation=0.1, test=0)
    with pytest.raises(TooLittleData, match=r"The split train of .* holds [\d,]+ tokens, one sequence needs 16,385"):
        GPT(1, 2, 8, n_positions=16384).fit(data.train, sequence_length=16384)


def test_a_size_out_of_range_is_named() -> None:
    with pytest.raises(InvalidConfiguration, match="GPT: n_layer: expected at least 1, got 0"):
        GPT(n_layer=0)
    with pytest.raises(InvalidConfiguration, match="GPT: n_head must divide n_embd, got 3 and 8"):
        GPT(n_head=3, n_embd=8)


def test_log_to_gets_the_rows_of_the_history_and_changes_no_bits(data: Dataset, tiny: GPT) -> None:
    plain = GPT(n_layer=2, n_head=2, n_embd=16, n_positions=16)
    plain.fit(data.train, steps=3)
    rows: list[Any] = []
    more: list[Any] = []
    history = tiny.fit(data.train, steps=3, logging=LoggingSettings(log_to=[rows.append, more.append]))
    assert rows == more == list(history)
    assert torch.equal(weights(plain), weights(tiny))
    with pytest.raises(InvalidConfiguration, match="log_to is 'comet'"):
        tiny.fit(data.train, steps=3, logging=LoggingSettings(log_to="comet"))
