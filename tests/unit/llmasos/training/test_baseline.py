"""Baselines: what participants draw, without a federation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from common.errors import InvalidConfiguration, UsageError  # noqa: E402
from common.ledger.cohort import local_seed, round_seed  # noqa: E402
from llmasos.tasks.causal_lm import TOKENS, NextToken  # noqa: E402
from llmasos.training.baseline import Config, Draws, Institution, load_config, main, train_baseline  # noqa: E402
from llmasos.training.corpus import Source, prepare_corpus  # noqa: E402
from llmasos.training.device import Machine  # noqa: E402
from llmasos.training.loop import LocalTraining, RoundWork  # noqa: E402
from tests.support.jobs import a_training_plan, make_prepared  # noqa: E402
from tests.support.texts import make_institutions  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture
def fields(tmp_path: Path, machine: Machine) -> dict[str, Any]:
    folders = make_institutions(tmp_path / "data", count=2)
    institutions = [{"name": name, "folder": str(folder)} for name, folder in folders.items()]
    return {
        "draft": str(make_prepared(tmp_path, a_training_plan())),
        "train": institutions,
        "evaluate": institutions,
        "steps": 9,
        "round_seeds": [11],
        "tokens": str(tmp_path / "tokens"),
    }


def corpora(fields: dict[str, Any]) -> dict[str, Any]:
    tokenizer, root = Path(fields["draft"]) / "tokenizer.json", Path(fields["tokens"])
    return {
        one["name"]: prepare_corpus([Source(Path(one["folder"]))], tokenizer, root, a_training_plan())
        for one in fields["train"]
    }


def test_pooled_draws_what_all_participants_draw_in_that_step(fields: dict[str, Any]) -> None:
    every = corpora(fields)
    draws = Draws(Config.model_validate(fields), a_training_plan(), every)
    expected = [every[name].batch(seed=local_seed(11, name), step=3)[TOKENS] for name in ("clinic", "bank")]
    assert (draws.batch(0, 3)[TOKENS] == np.concatenate(expected)).all()
    later = [
        every[name].batch(seed=local_seed(round_seed("0", 2), name), step=3)[TOKENS] for name in ("clinic", "bank")
    ]
    assert (draws.batch(1, 3)[TOKENS] == np.concatenate(later)).all()
    for one in every.values():
        one.close()


def test_other_multipliers_go_round_the_institutions(fields: dict[str, Any]) -> None:
    every = corpora(fields)

    def batch(multiplier: int, step: int) -> Any:
        config = Config.model_validate(fields | {"batch_multiplier": multiplier})
        return Draws(config, a_training_plan(), every).batch(0, step)[TOKENS]

    assert (batch(1, 0) == every["clinic"].batch(seed=local_seed(11, "clinic"), step=0)[TOKENS]).all()
    assert (batch(1, 1) == every["bank"].batch(seed=local_seed(11, "bank"), step=1)[TOKENS]).all()
    assert batch(3, 0).shape == (12, 33)
    assert not (batch(3, 0)[:4] == batch(3, 0)[8:]).all()
    for one in every.values():
        one.close()


def test_alone_trains_on_the_bits_that_its_participant_trains_on(fields: dict[str, Any], machine: Machine) -> None:
    config = Config.model_validate(fields | {"train": fields["train"][:1], "steps": 6})
    outcome = train_baseline(config, lambda advance: None)
    plan, every = a_training_plan(), corpora(fields)
    from llmasos.evaluation.perplexity import LOSS_SCALE, evaluate
    from llmasos.models.build import build_model

    seed = local_seed(11, "clinic")
    training = LocalTraining(plan, build_model(plan.model, vocab_size=257, seed=plan.seed), machine)
    sums = training.run_round(RoundWork(0, seed), lambda step: every["clinic"].batch(seed=seed, step=step))
    assert outcome.train_loss == (sums.mean_loss_fixed or 0) / LOSS_SCALE
    for name, corpus in every.items():
        assert outcome.evaluations[name] == evaluate(training.model, NextToken(), corpus.held_out_rows(), batch_size=4)
        corpus.close()


def test_the_command_prints_progress_and_a_result_and_exports(
    fields: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(fields | {"out": str(tmp_path / "model")}))
    assert main([str(tmp_path / "config.json")]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-2]["steps_done"] == lines[-2]["steps_total"] == 9
    assert lines[-2]["tokens_done"] == 9 * 2 * 4 * 32
    assert lines[-1]["event"] == "result"
    assert set(lines[-1]["evaluations"]) == {"clinic", "bank"}
    assert lines[-1]["evaluations"]["bank"]["num_tokens"] == 512
    assert 0 < lines[-1]["train_loss"] < 6
    assert (tmp_path / "model" / "config.json").exists()


def test_a_wrong_configuration_names_file_and_field(fields: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with pytest.raises(UsageError, match=r"config.json could not be read: No such file"):
        load_config(path)
    path.write_text(json.dumps(fields | {"steps": 0}))
    with pytest.raises(InvalidConfiguration, match=r"(?s)config.json is not a baseline's configuration.*steps"):
        load_config(path)
    other = Institution(name="bank", folder=tmp_path)
    path.write_text(json.dumps(fields | {"evaluate": [other.model_dump(mode="json")]}))
    with pytest.raises(InvalidConfiguration, match=r"one name stands for two folders"):
        load_config(path)


def test_the_command_ends_with_the_error_and_its_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "absent.json")]) == 2
    assert "absent.json could not be read" in capsys.readouterr().err
