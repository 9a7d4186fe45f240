"""SCAFFOLD at the worker and in the reducer together: what arXiv:1910.06378 says, whatever is interrupted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import safetensors.numpy  # noqa: E402

from common.reduce import Beside, ReduceJob, WeightedDelta, reduce_round  # noqa: E402
from common.reduce.selftest import MemoryBlob  # noqa: E402
from llmasos.models.build import build_model  # noqa: E402
from llmasos.models.tensors import by_name, read_tensors  # noqa: E402
from llmasos.training.device import Machine, set_up  # noqa: E402
from llmasos.training.schedule import learning_rate, total_steps  # noqa: E402
from participant.bench.worker_protocol import Progress, Result, Train  # noqa: E402
from participant.worker.agent_side import StopRequested  # noqa: E402
from tests.unit.participant.worker.test_session import Desk, round_file, without_time  # noqa: E402

pytestmark = pytest.mark.torch

SGD = {"type": "sgd", "learning_rate": "0.3", "weight_decay": "0.01"}
LOCAL = {"optimizer": SGD, "correction": {"type": "scaffold"}, "max_gradient_norm": "0.8"}
WEIGHTS = {"east": 3, "north": 1}
ACCEPTED = 3
"""One more than take part."""
Values = dict[str, Any]


@pytest.fixture(scope="module")
def machine() -> Machine:
    return set_up(1, allow_cuda=False)


@pytest.fixture
def desk(tmp_path: Path, machine: Machine) -> Iterator[Callable[..., Desk]]:
    made: list[Desk] = []

    def make(**plan: Any) -> Desk:
        made.append(Desk(tmp_path / str(len(made)), machine, **({"local": LOCAL, "rounds": 3} | plan)))
        made[-1].prepare()
        return made[-1]

    yield make
    for one in made:
        one.close()


def train(desk: Desk, number: int, start: int = 0, **changes: Any) -> tuple[Result, bytes, bytes]:
    """A round's result, delta and control. `start`: the round whose control variate it starts from."""
    state = "state" if (desk.job / "state").exists() else None
    fields = {"control": "k", "control_round": start, "server_state": state} | changes
    result, delta = desk.train(number, **fields)
    return result, delta, (desk.job / "k").read_bytes()


def reduced(desk: Desk, offered: dict[str, tuple[bytes, bytes]], accepted: int) -> None:
    """Put the next model and the next server_state where the next round starts from."""
    job = desk.session.job
    assert job is not None
    state = MemoryBlob((desk.job / "state").read_bytes()) if (desk.job / "state").exists() else None
    deltas = [
        WeightedDelta(name, WEIGHTS[name], MemoryBlob(delta), MemoryBlob(control))
        for name, (delta, control) in offered.items()
    ]
    base = MemoryBlob((desk.job / "base.safetensors").read_bytes())
    model, after = bytearray(), bytearray()
    reduce_job = ReduceJob(job.statement.plan, job.statement.manifest, base, deltas, state, accepted)
    reduce_round(reduce_job, model.extend, Beside(server_state=after.extend))
    (desk.job / "base.safetensors").write_bytes(model)
    (desk.job / "state").write_bytes(after)


def controls(desk: Desk) -> list[str]:
    return sorted(path.name for path in (desk.job / "control").iterdir())


class Paper:
    """Algorithm 1 with option II, as a reader of the paper would write it for two institutions."""

    def __init__(self, desk: Desk) -> None:
        job = desk.session.job
        assert job is not None
        self.plan, self.corpus = job.statement.plan, job.corpus
        self.model = build_model(self.plan.model, vocab_size=257, seed=self.plan.seed)
        read_tensors(self.model, desk.job / "base.safetensors", job.statement.manifest)
        self.weights = [weight for _, weight in self.model.named_parameters()]
        self.x = [weight.detach().clone() for weight in self.weights]
        self.c = [torch.zeros_like(value) for value in self.x]
        self.ci = {name: [torch.zeros_like(value) for value in self.x] for name in WEIGHTS}

    def trained(self, name: str, number: int, seed: int) -> tuple[list[Any], list[Any]]:
        """y and c_i⁺."""
        rates = []
        with torch.no_grad():
            for weight, value in zip(self.weights, self.x, strict=True):
                weight.copy_(value)
        for step in range(self.plan.local.steps):
            global_step = (number - 1) * self.plan.local.steps + step
            rates.append(learning_rate(self.plan.local, global_step=global_step, total=total_steps(self.plan)))
            batch = torch.from_numpy(self.corpus.batch(seed=seed, step=step)["tokens"])
            logits = self.model(input_ids=batch[:, :-1]).logits
            self.model.zero_grad()
            torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten()).backward()
            torch.nn.utils.clip_grad_norm_(self.weights, 0.8)
            with torch.no_grad():
                for weight, c, ci in zip(self.weights, self.c, self.ci[name], strict=True):
                    weight.sub_(rates[-1] * (weight.grad - ci + c + 0.01 * weight))
        y = [weight.detach().clone() for weight in self.weights]
        terms = zip(self.ci[name], self.c, self.x, y, strict=True)
        return y, [ci - c + (x - after) / sum(rates) for ci, c, x, after in terms]

    def round(self, number: int, seeds: dict[str, int]) -> None:
        done = {name: self.trained(name, number, seed) for name, seed in seeds.items()}
        total = sum(WEIGHTS[name] for name in done)
        for at, x in enumerate(self.x):
            self.x[at] = x + sum(WEIGHTS[name] * (y[at] - x) for name, (y, _) in done.items()) / total
            self.c[at] = self.c[at] + sum(ci[at] - self.ci[name][at] for name, (_, ci) in done.items()) / ACCEPTED
        for name, (_, ci) in done.items():
            self.ci[name] = ci


def test_three_rounds_of_two_institutions_are_the_papers(desk: Callable[..., Desk]) -> None:
    desks = {name: desk() for name in WEIGHTS}
    paper, seeds = Paper(desks["east"]), {"east": 5, "north": 6}
    for number in (1, 2, 3):
        offered = {name: train(one, number, number - 1, seed=seeds[name])[1:] for name, one in desks.items()}
        for one in desks.values():
            reduced(one, offered, ACCEPTED)
        paper.round(number, seeds)
    job = desks["east"].session.job
    assert job is not None
    read_tensors(job.model, desks["east"].job / "base.safetensors", job.statement.manifest)
    names = [name for name, _ in paper.model.named_parameters()]
    ours, c = by_name(job.model, job.statement.manifest), _server_control(desks["east"])
    moved = 0.0
    for at, name in enumerate(names):
        torch.testing.assert_close(ours[name].detach(), paper.x[at], rtol=1e-4, atol=1e-5, msg=name)
        torch.testing.assert_close(c[name], paper.c[at], rtol=1e-3, atol=2e-5, msg=name)
        for institution, one in desks.items():
            own = safetensors.numpy.load_file(one.job / "control" / round_file(3))[name]
            torch.testing.assert_close(torch.from_numpy(own), paper.ci[institution][at], rtol=1e-3, atol=2e-5)
            moved = max(moved, float(abs(own - c[name].numpy()).max()))
    assert moved > 1e-3, "the institutions' gradients differ, so that there was something to correct"


def _server_control(desk: Desk) -> Values:
    """c by tensor, read as safetensors and cut by the manifest."""
    job = desk.session.job
    assert job is not None
    flat = safetensors.numpy.load_file(desk.job / "state")["state"].reshape(-1)
    found, at = {}, 0
    for entry in job.statement.manifest:
        found[entry.name] = torch.from_numpy(flat[at : at + entry.elements].reshape(entry.shape).copy())
        at += entry.elements
    return found


def test_of_one_institution_it_is_plain_sgd(desk: Callable[..., Desk]) -> None:
    alone, plain = desk(), desk(local=LOCAL | {"correction": {"type": "none"}})
    for number in (1, 2, 3):
        result, delta, control = train(alone, number, number - 1)
        _, expected = plain.train(number)
        if number < 3:
            assert delta == expected, "c and c_i are the same bits"
        else:
            close = [safetensors.numpy.load(each) for each in (delta, expected)]
            for name, value in close[0].items():
                np.testing.assert_allclose(value, close[1][name], rtol=1e-3, atol=1e-6)
        assert result.deviations == ()
        reduced(alone, {"east": (delta, control)}, 1)
        (plain.job / "base.safetensors").write_bytes((alone.job / "base.safetensors").read_bytes())


def test_without_a_place_for_a_control_nothing_is_corrected_or_kept(desk: Callable[..., Desk]) -> None:
    one, plain = desk(), desk(local=LOCAL | {"correction": {"type": "none"}})
    assert one.train(1)[1] == plain.train(1)[1]
    assert not (one.job / "control").exists()


def test_after_an_abandoned_round_the_old_control_variate_counts(desk: Callable[..., Desk]) -> None:
    one = desk()
    _, delta, control = train(one, 1)
    reduced(one, {"east": (delta, control)}, ACCEPTED)
    kept = (one.job / "control" / round_file(1)).read_bytes()
    of_second = train(one, 2, 1)[1:]
    assert controls(one) == [round_file(1), round_file(2)]
    again = train(one, 3, 1, trained_rounds=1)[1:]  # round 2 was abandoned: the same round again
    assert again == of_second
    assert controls(one) == [round_file(1), round_file(3)]
    assert (one.job / "control" / round_file(1)).read_bytes() == kept
    assert (one.job / "control" / round_file(3)).stat().st_mode & 0o777 == 0o600


def test_after_a_roll_back_the_control_variate_of_the_round_that_counts_is_taken(desk: Callable[..., Desk]) -> None:
    one = desk()
    reduced(one, {"east": train(one, 1)[1:]}, ACCEPTED)
    files = [(one.job / name).read_bytes() for name in ("base.safetensors", "state")]
    second = train(one, 2, 1)[1:]
    reduced(one, {"east": second}, ACCEPTED)
    for name, content in zip(("base.safetensors", "state"), files, strict=True):
        (one.job / name).write_bytes(content)
    result, *again = train(one, 3, 1, trained_rounds=1, rolled_back=((2, 2),))
    assert (tuple(again), result.deviations) == (second, ()), "the same as if round 2 had never been"
    assert controls(one) == [round_file(1), round_file(3)], "round 2's goes"
    (one.job / "state").unlink()
    fresh = train(one, 4, 0, rolled_back=((1, 3),))[0]
    assert fresh.deviations == (), "at the run's beginning everybody starts from zeros: nothing is lost"
    assert controls(one) == [round_file(4)]


def test_a_restart_in_mid_round_changes_no_bit(desk: Callable[..., Desk]) -> None:
    whole, broken = desk(), desk()
    offered = [train(one, 1)[1:] for one in (whole, broken)]
    assert offered[0] == offered[1]
    for one in (whole, broken):
        reduced(one, {"east": offered[0]}, ACCEPTED)
    expected = train(whole, 2, 1)
    broken.agent.stop_at_step = 1
    with pytest.raises(StopRequested):
        train(broken, 2, 1)
    assert controls(broken) == [round_file(1)]
    broken.restart()
    broken.prepare()
    result, *made = train(broken, 2, 1, resume=True)
    assert made == list(expected[1:])
    assert without_time(result) == without_time(expected[0])
    assert next(one for one in broken.agent.heard if isinstance(one, Progress)).steps_done == 2
    again = train(broken, 2, 1, resume=True)[1:]
    assert again == expected[1:], "a finished round that is asked for again"


def test_a_lost_control_variate_is_told_and_zeros_taken(desk: Callable[..., Desk]) -> None:
    one = desk()
    reduced(one, {"east": train(one, 1)[1:]}, ACCEPTED)
    fresh = train(one, 2, 0)
    assert controls(one) == [round_file(2)], "round 1's is no start any more"
    result, delta, control = train(one, 2, 1)
    assert result.deviations == ("control-lost",)
    assert (delta, control) == fresh[1:]


def test_a_server_state_of_another_size_is_refused(desk: Callable[..., Desk]) -> None:
    one = desk()
    reduced(one, {"east": train(one, 1)[1:]}, ACCEPTED)
    (one.job / "state").write_bytes((one.job / "state").read_bytes()[:-4])
    answer = one.ask(
        Train(round=2, trained_rounds=1, seed=5, base="base.safetensors", delta="d", control="k", server_state="state")
    )
    assert (answer.code, "expected" in answer.message) == ("wrong-tensors", True)


def test_personal_layers_are_trained_uncorrected_and_in_no_control(desk: Callable[..., Desk]) -> None:
    one = desk(personal=["ln_1"])
    _, delta, control = train(one, 1)
    named = [safetensors.numpy.load(each).keys() for each in (delta, control)]
    assert named[0] == named[1]
    assert not any("ln_1" in name for name in named[1])
    reduced(one, {"east": (delta, control)}, ACCEPTED)
    assert train(one, 2, 1, personal=1)[0].deviations == ()
