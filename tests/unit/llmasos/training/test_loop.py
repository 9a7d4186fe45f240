"""The local optimizer: golden losses, the same bits twice, and what a plain torch loop would do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from common.errors import NonFiniteDelta, StorageFailure  # noqa: E402
from llmasos.evaluation.perplexity import LOSS_SCALE  # noqa: E402
from llmasos.models.adapters import tensor_name  # noqa: E402
from llmasos.training.loop import RoundSums, RoundWork  # noqa: E402
from llmasos.training.schedule import learning_rate  # noqa: E402

pytestmark = pytest.mark.torch

GOLDEN_NATS = [
    5.5332, 5.4976, 5.3953, 5.3099, 5.1623, 5.0659, 4.9863, 4.8937, 4.7662, 4.6779,
    4.5879, 4.4927, 4.3501, 4.2929, 4.1656, 4.0801, 4.0633, 3.9220, 3.8065, 3.7442,
]  # fmt: skip

Make = Callable[..., Any]


def bits(tensors: dict[str, torch.Tensor]) -> dict[str, bytes]:
    return {name: value.detach().numpy().tobytes() for name, value in tensors.items()}


def test_twenty_steps_give_the_golden_losses(trainee: Make) -> None:
    one = trainee(local={"steps": 20}, rounds=4)
    boundaries = one.run(one.training())
    assert [each.loss_fixed / LOSS_SCALE for each in boundaries] == pytest.approx(GOLDEN_NATS, abs=2e-3)
    assert boundaries[-1].sums == RoundSums(20, 20 * 4 * 32, sum(each.loss_fixed for each in boundaries))


def test_the_same_round_gives_the_same_bits_twice(trainee: Make) -> None:
    one = trainee()
    first, second = one.training(), one.training()
    one.run(first)
    one.run(second)
    assert bits(first.weights()) == bits(second.weights())
    assert bits(first.moments()) == bits(second.moments())


def test_a_step_is_what_torch_alone_would_do(trainee: Make) -> None:
    one = trainee(local={"max_gradient_norm": "0.5"})
    ours, plain = one.training(), one.model()
    adamw = torch.optim.AdamW(plain.parameters(), betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    for step in range(6):
        adamw.param_groups[0]["lr"] = learning_rate(one.plan.local, global_step=step, total=12)
        batch = torch.from_numpy(one.draw(step)["tokens"])
        logits = plain(input_ids=batch[:, :-1]).logits
        adamw.zero_grad()
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten()).backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        adamw.step()
    one.run(ours)
    for (name, expected), value in zip(plain.named_parameters(), ours.weights().values(), strict=True):
        torch.testing.assert_close(value, expected.detach(), rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("momentum", ["0", "0.9"])
def test_a_step_of_sgd_is_what_torch_alone_would_do(trainee: Make, momentum: str) -> None:
    section = {"type": "sgd", "learning_rate": "0.2", "momentum": momentum, "weight_decay": "0.01"}
    one = trainee(local={"max_gradient_norm": "0.5", "optimizer": section})
    ours, plain = one.training(), one.model()
    sgd = torch.optim.SGD(plain.parameters(), momentum=float(momentum), weight_decay=0.01)
    for step in range(6):
        sgd.param_groups[0]["lr"] = learning_rate(one.plan.local, global_step=step, total=12)
        batch = torch.from_numpy(one.draw(step)["tokens"])
        logits = plain(input_ids=batch[:, :-1]).logits
        sgd.zero_grad()
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten()).backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        sgd.step()
    one.run(ours)
    for (name, expected), value in zip(plain.named_parameters(), ours.weights().values(), strict=True):
        torch.testing.assert_close(value, expected.detach(), rtol=1e-4, atol=1e-6, msg=name)
    moments = {name.rpartition(".")[2] for name in ours.moments()}
    assert moments == (set() if momentum == "0" else {"momentum_buffer"})


def test_a_correction_turns_each_step_after_its_gradient_was_clipped(trainee: Make) -> None:
    section = {"type": "sgd", "learning_rate": "0.5"}
    one = trainee(local={"steps": 1, "max_gradient_norm": "0.001", "optimizer": section})
    without, turned = one.training(), one.training()
    name = next(iter(turned.weights()))
    turned.correct({name: torch.full_like(turned.weights()[name], 7.0)})
    for each in (without, turned):
        one.run(each)
    rate = learning_rate(one.plan.local, global_step=0, total=2)
    for key, value in turned.weights().items():
        moved = 7.0 * rate if key == name else 0.0
        torch.testing.assert_close(value, without.weights()[key] - moved, rtol=0, atol=1e-6)


def everything(training: Any) -> set[str]:
    return set(training.weights())


def test_a_fedprox_step_is_what_torch_alone_would_do(trainee: Make) -> None:
    """The hand-written loop adds mu / 2 × ‖weights − base‖² to the loss and lets torch differentiate it."""
    one, mu = trainee(local={"max_gradient_norm": "0.5", "fedprox_mu": "3"}), 3.0
    ours, plain, base = one.training(), one.model(), one.model()
    adamw = torch.optim.AdamW(plain.parameters(), betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    for step in range(6):
        adamw.param_groups[0]["lr"] = learning_rate(one.plan.local, global_step=step, total=12)
        batch = torch.from_numpy(one.draw(step)["tokens"])
        logits = plain(input_ids=batch[:, :-1]).logits
        adamw.zero_grad()
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        apart = sum(((w - b.detach()) ** 2).sum() for w, b in zip(plain.parameters(), base.parameters(), strict=True))
        (loss + mu / 2 * apart).backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        adamw.step()
    ours.anchor(everything(ours))
    one.run(ours)
    for (name, expected), value in zip(plain.named_parameters(), ours.weights().values(), strict=True):
        torch.testing.assert_close(value, expected.detach(), rtol=1e-4, atol=1e-5, msg=name)


def test_fedprox_keeps_weights_nearer_to_their_base(trainee: Make) -> None:
    apart = []
    for mu in ("0", "0.1", "10"):
        one = trainee(local={"fedprox_mu": mu, "max_gradient_norm": "1000"})
        training = one.training()
        training.anchor(everything(training))
        one.run(training)
        pairs = zip(training.weights().values(), one.model().parameters(), strict=True)
        apart.append(sum(float(((value - start.detach()) ** 2).sum()) for value, start in pairs))
    assert apart[0] > apart[1] > apart[2]


def test_fedprox_with_mu_zero_changes_no_bit(trainee: Make) -> None:
    without, zero = trainee(), trainee(local={"fedprox_mu": "0"})
    first, second = without.training(), zero.training()
    second.anchor(everything(second))
    without.run(first)
    zero.run(second)
    assert bits(first.weights()) == bits(second.weights())
    assert bits(first.moments()) == bits(second.moments())


def test_fedprox_pulls_only_what_is_anchored(trainee: Make) -> None:
    one = trainee(local={"fedprox_mu": "10"})
    free, held = one.training(), one.training()
    held.anchor(())
    one.run(free)
    one.run(held)
    assert bits(free.weights()) == bits(held.weights())


def test_accumulating_micro_batches_equals_the_whole_batch(trainee: Make) -> None:
    whole, small = trainee(), trainee(local={"micro_batch_size": 1})
    whole_training, small_training = whole.training(), small.training()
    losses = [
        [each.loss_fixed for each in one.run(it)] for one, it in ((whole, whole_training), (small, small_training))
    ]
    assert losses[0] == pytest.approx(losses[1], abs=20)
    for name, value in whole_training.weights().items():
        torch.testing.assert_close(small_training.weights()[name], value, rtol=1e-4, atol=2e-5, msg=name)


def test_dropout_is_a_function_of_seed_and_step(trainee: Make) -> None:
    one = trainee(model={"type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 32, "n_positions": 32, "dropout": "0.2"})
    first, second, other = one.training(), one.training(), one.training()
    one.run(first)
    torch.manual_seed(12345)
    one.run(second)
    one.run(other, RoundWork(trained_rounds=0, seed=6))
    assert bits(first.weights()) == bits(second.weights())
    assert bits(first.weights()) != bits(other.weights())


def test_later_rounds_go_on_along_the_schedule(trainee: Make) -> None:
    one = trainee()
    early, late = one.training(), one.training()
    one.run(early)
    one.run(late, RoundWork(trained_rounds=1, seed=5))
    length = {
        name: sum(
            float((value - start.detach()).norm())
            for value, start in zip(it.weights().values(), one.model().parameters(), strict=True)
        )
        for name, it in (("early", early), ("late", late))
    }
    assert length["late"] < length["early"]


def test_moments_reset_when_told(trainee: Make) -> None:
    one = trainee()
    training = one.training()
    one.run(training)
    assert training.moments()["transformer.wte.weight.step"] == 6
    training.load_moments({})
    assert training.moments() == {}


def test_diverging_training_is_refused_with_step_and_loss(trainee: Make) -> None:
    one = trainee()
    training = one.training()
    with torch.no_grad():
        next(training.model.parameters()).fill_(float("nan"))
    with pytest.raises(NonFiniteDelta, match=r"Step 1 of this round: loss is nan, gradient norm nan, expected finite"):
        one.run(training)


def test_moments_of_another_model_are_refused(trainee: Make) -> None:
    one = trainee()
    training = one.training()
    one.run(training)
    moments = dict(training.moments())
    moments["transformer.wpe.weight.exp_avg"] = torch.zeros(3, 3)
    with pytest.raises(
        StorageFailure, match=r"transformer.wpe.weight.exp_avg has shape \(3, 3\), the model's \(32, 32\)"
    ):
        one.training().load_moments(moments)
    del moments["transformer.wpe.weight.exp_avg"]
    with pytest.raises(StorageFailure, match=r"lacks tensor transformer.wpe.weight.exp_avg"):
        one.training().load_moments(moments)


def test_bfloat16_trains_where_the_device_has_it_and_is_recorded_where_not(trainee: Make) -> None:
    from dataclasses import replace

    from llmasos.training.loop import LocalTraining

    one = trainee(local={"precision": "bfloat16", "steps": 2})
    without = LocalTraining(one.plan, one.model(), replace(one.machine, has_bfloat16=False))
    assert without.deviations == ("precision-float32",)
    within = LocalTraining(one.plan, one.model(), replace(one.machine, has_bfloat16=True))
    assert within.deviations == ()
    close = [each.loss_fixed / LOSS_SCALE for each in one.run(within)]
    assert close == pytest.approx([each.loss_fixed / LOSS_SCALE for each in one.run(without)], abs=0.05)
    assert all(value.dtype == torch.float32 for value in within.weights().values())


def test_training_beside_frozen_weights_changes_the_adapter_alone_and_the_loss_falls(trainee: Make) -> None:
    pytest.importorskip("peft")
    adamw = {"type": "adamw", "learning_rate": "0.01"}
    whole = trainee(local={"steps": 60, "optimizer": adamw}, rounds=2)
    base = whole.training()
    whole.run(base)
    one = trainee(local={"steps": 30, "optimizer": adamw}, adapter={"type": "lora", "r": 4})
    training = one.training()
    named = {tensor_name(name): value for name, value in training.model.named_parameters()}
    with torch.no_grad():
        for name, value in base.weights().items():
            named[name].copy_(value)
    before = {name: value.detach().clone() for name, value in named.items()}
    boundaries: list[Any] = []
    training.run_round(RoundWork(trained_rounds=0, seed=5), lambda step: one.draw(0), boundaries.append)
    losses = [each.loss_fixed for each in boundaries]
    assert losses[-1] < 0.8 * losses[0]
    changed = {name for name, value in named.items() if not torch.equal(value, before[name])}
    assert changed == {name for name in named if ".lora_" in name} == set(training.weights())
    assert len(training.moments()) == 3 * len(changed), "nothing is kept for what is not trained"
