"""Local optimizers: each what torch alone would do, and the same bits after an interruption."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from common.errors import StorageFailure  # noqa: E402
from llmasos.training.loop import RoundSums, RoundWork  # noqa: E402
from llmasos.training.schedule import learning_rate  # noqa: E402
from llmasos.training.snapshot import SnapshotFolder, State  # noqa: E402
from tests.unit.llmasos.training.test_snapshot import a_record  # noqa: E402

pytestmark = pytest.mark.torch
Make = Callable[..., Any]

SECTIONS: dict[str, dict[str, Any]] = {
    "adamw": {"type": "adamw", "learning_rate": "0.01"},
    "adam": {"type": "adam", "learning_rate": "0.01", "weight_decay": "0.01"},
    "sgd": {"type": "sgd", "learning_rate": "0.2", "momentum": "0.9"},
    "adafactor": {"type": "adafactor", "learning_rate": "0.05", "weight_decay": "0.1"},
    "muon": {"type": "muon", "learning_rate": "0.01"},
}


def of_torch(name: str, model: torch.nn.Module) -> list[torch.optim.Optimizer]:
    """What somebody would write by hand for the same."""
    weights = dict(model.named_parameters())
    match name:
        case "adamw":
            return [torch.optim.AdamW(weights.values(), betas=(0.9, 0.95), weight_decay=0.1)]
        case "adam":
            return [torch.optim.Adam(weights.values(), weight_decay=0.01)]
        case "sgd":
            return [torch.optim.SGD(weights.values(), lr=0.2, momentum=0.9)]
        case "adafactor":
            return [torch.optim.Adafactor(weights.values(), weight_decay=0.1)]
    hidden = [weight for name, weight in weights.items() if ".h." in name and weight.ndim == 2]
    rest = [weight for name, weight in weights.items() if ".h." not in name or weight.ndim != 2]
    muon = torch.optim.Muon(hidden, momentum=0.95, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.AdamW(rest, betas=(0.9, 0.95), weight_decay=0.1, fused=True)]


@pytest.mark.parametrize("name", SECTIONS)
def test_steps_are_what_torch_alone_would_do(trainee: Make, name: str) -> None:
    one = trainee(local={"max_gradient_norm": "0.5", "optimizer": SECTIONS[name]})
    ours, plain = one.training(), one.model()
    optimizers = of_torch(name, plain)
    for step in range(6):
        batch = torch.from_numpy(one.draw(step)["tokens"])
        plain.zero_grad()
        logits = plain(input_ids=batch[:, :-1]).logits
        # Summed and divided as training does: Muon makes as much of a matrix's last bits as of its first ones.
        nats = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="none")
        (nats.sum() / nats.numel()).backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = learning_rate(one.plan.local, global_step=step, total=12)
            optimizer.step()
    one.run(ours)
    for (key, expected), value in zip(plain.named_parameters(), ours.weights().values(), strict=True):
        torch.testing.assert_close(value, expected.detach(), rtol=1e-4, atol=1e-5, msg=key)


@pytest.mark.parametrize("name", SECTIONS)
def test_a_round_that_goes_on_from_a_snapshot_ends_with_the_same_bits(trainee: Make, name: str, tmp_path: Path) -> None:
    one = trainee(local={"optimizer": SECTIONS[name]})
    whole, cut = one.training(), one.training()
    one.run(whole)
    work = RoundWork(trained_rounds=0, seed=5)

    class Cut(Exception):
        pass

    taken: list[RoundSums] = []

    def stop(boundary: Any) -> None:
        if boundary.step == 3:
            taken.append(boundary.sums)
            raise Cut

    with pytest.raises(Cut):
        cut.run_round(work, one.draw, stop)
    folder = SnapshotFolder(tmp_path / "snapshots")
    folder.write(a_record(), State(cut.weights(), cut.moments()))
    newest = folder.newest_of(a_record())
    assert newest is not None
    state, resumed = newest.load(), one.training()
    resumed.load_weights(state.weights)
    resumed.load_moments(state.moments)
    one.run(resumed, replace(work, done=taken[0]))
    for of in ("weights", "moments"):
        left, right = getattr(whole, of)(), getattr(resumed, of)()
        assert left.keys() == right.keys()
        assert all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.parametrize("name", ["adafactor", "muon"])
def test_moments_kept_and_reset_are_different_rounds(trainee: Make, name: str) -> None:
    one = trainee(local={"optimizer": SECTIONS[name]})
    first = one.training()
    one.run(first)
    ends = []
    for moments in (first.moments(), {}):
        second = one.training()
        second.load_weights(first.weights())
        second.load_moments({key: value.clone() for key, value in moments.items()})
        one.run(second, RoundWork(trained_rounds=1, seed=5))
        ends.append(second.weights())
    assert any(not torch.equal(value, ends[1][key]) for key, value in ends[0].items())


def test_adafactor_keeps_a_row_and_a_column_of_a_matrix_and_muon_one_number_of_hidden_matrices(trainee: Make) -> None:
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    for name in ("adafactor", "muon"):
        one = trainee(local={"steps": 1, "optimizer": SECTIONS[name]})
        training = one.training()
        one.run(training)
        shapes[name] = {key: tuple(value.shape) for key, value in training.moments().items()}
    assert shapes["adafactor"]["transformer.wte.weight.row_var"] == (257, 1)
    assert shapes["adafactor"]["transformer.wte.weight.col_var"] == (1, 32)
    assert shapes["adafactor"]["transformer.ln_f.bias.variance"] == (32,)
    assert shapes["muon"]["transformer.h.0.mlp.c_fc.weight.momentum_buffer"] == (32, 128)
    assert {key.rpartition(".")[2] for key in shapes["muon"] if "wte" in key or "wpe" in key or "bias" in key} == {
        "step",
        "exp_avg",
        "exp_avg_sq",
    }


def test_moments_of_another_optimizer_are_refused(trainee: Make) -> None:
    one, other = trainee(), trainee(local={"optimizer": SECTIONS["adafactor"]})
    training = one.training()
    one.run(training)
    with pytest.raises(StorageFailure, match=r"tensor transformer\.h\.0.*\.exp_avg is no moment of this training"):
        other.training().load_moments(training.moments())


def test_nothing_of_a_round_outlives_its_training(trainee: Make) -> None:
    """Moments are twice the model: a device has them for a round alone."""
    import weakref

    one = trainee()
    training = one.training()
    one.run(training)
    kept = [weakref.ref(value) for value in training.moments().values()]
    assert kept
    model = training.model
    del training
    assert [ref for ref in kept if ref() is not None] == []
    assert all(weight.grad is None for weight in model.parameters())
