"""How the forward pass runs: with activations computed again, and compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from common.errors import UsageError  # noqa: E402
from llmasos.training import forward  # noqa: E402
from llmasos.training.loop import LocalTraining  # noqa: E402

pytestmark = pytest.mark.torch
Make = Callable[..., Any]
MODEL = {"type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 32, "n_positions": 32, "dropout": "0.1"}


def saved_bytes(training: LocalTraining, one: Any) -> int:
    """What the forward passes of a round keep for the backward pass."""
    total = 0

    def pack(value: torch.Tensor) -> torch.Tensor:
        nonlocal total
        total += value.numel() * value.element_size()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        one.run(training)
    return total


def test_gradient_checkpointing_keeps_less_and_changes_no_bit_not_of_dropout_either(trainee: Make) -> None:
    plain = trainee(model=MODEL, local={"steps": 2})
    again = trainee(model=MODEL, local={"steps": 2, "gradient_checkpointing": True})
    without, within = plain.training(), again.training()
    kept = saved_bytes(without, plain), saved_bytes(within, again)
    assert kept[1] < 0.5 * kept[0]
    for name, value in without.weights().items():
        assert torch.equal(value, within.weights()[name]), name


def test_a_model_that_another_plan_used_checkpoints_no_more(trainee: Make) -> None:
    again, plain = trainee(local={"gradient_checkpointing": True}), trainee()
    model = again.model()
    LocalTraining(again.plan, model, again.machine)
    assert model.transformer.gradient_checkpointing
    LocalTraining(plain.plan, model, plain.machine)
    assert not model.transformer.gradient_checkpointing


def test_a_model_that_cannot_checkpoint_is_refused_in_a_sentence(trainee: Make) -> None:
    one = trainee(local={"gradient_checkpointing": True})
    with pytest.raises(UsageError, match=r"plan has local.gradient_checkpointing, which Linear does not support"):
        LocalTraining(one.plan, torch.nn.Linear(2, 2), one.machine)


def test_a_machine_that_cannot_compile_trains_all_the_same_and_says_so(
    trainee: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, one = trainee(), trainee(local={"compile": True})
    monkeypatch.setattr(forward, "_lacks_for_compiling", lambda machine: "no C++ compiler was found")
    training, other = one.training(), plain.training()
    assert (training.deviations, other.deviations) == (("not-compiled",), ())
    one.run(training)
    plain.run(other)
    assert all(torch.equal(value, other.weights()[name]) for name, value in training.weights().items())


def test_a_missing_compiler_is_seen_before_the_first_step(trainee: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import cpp_builder, exc

    def missing() -> str:
        raise exc.InvalidCxxCompiler

    one = trainee(local={"compile": True})
    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", missing)
    assert one.training().deviations == ("not-compiled",)


def test_compiled_training_has_the_same_names_and_nearly_the_same_numbers(
    trainee: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the compiler's front alone: what follows it is torch's, and takes half a minute."""
    plain, one = trainee(), trainee(local={"compile": True})
    compiled: list[torch.nn.Module] = []

    def compile_front(model: torch.nn.Module) -> Any:
        compiled.append(model)
        return real(model, backend="aot_eager")

    real = torch.compile
    monkeypatch.setattr(forward, "_lacks_for_compiling", lambda machine: "")
    monkeypatch.setattr(torch, "compile", compile_front)
    training, other = one.training(), plain.training()
    one.run(training)
    plain.run(other)
    assert compiled == [training.model]
    assert training.weights().keys() == other.weights().keys()
    for name, value in training.weights().items():
        torch.testing.assert_close(value, other.weights()[name], rtol=1e-4, atol=1e-5, msg=name)
