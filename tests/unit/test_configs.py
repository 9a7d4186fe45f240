"""Every configuration that ships loads, and tiny.yaml shows every field that a plan can have."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
from pydantic import BaseModel

from common import strict_yaml
from common.config import load_yaml
from common.errors import LLMasOSError
from common.plan.load import load_plan
from common.resources import config_path

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
PLANS = sorted((CONFIGS / "plans").glob("*.yaml"))
SETTINGS = {
    "coordinator.yaml": ("coordinator.config", "CoordinatorConfig"),
    "participant.yaml": ("participant.config", "ParticipantConfig"),
    "policy.yaml": ("participant.policy", "Policy"),
}


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.name)
def test_a_shipped_plan_loads_and_is_named_like_its_file(path: Path) -> None:
    assert load_plan(path).name == path.stem


@pytest.mark.parametrize("name", SETTINGS)
def test_a_daemons_shipped_configuration_loads(name: str) -> None:
    module, model = SETTINGS[name]
    load_yaml(CONFIGS / name, getattr(import_module(module), model))


def test_every_shipped_file_is_covered_here() -> None:
    known = {*PLANS, *(CONFIGS / name for name in SETTINGS)}
    assert set(CONFIGS.rglob("*.yaml")) == known


def test_tiny_shows_every_field() -> None:
    path = config_path("plans/tiny.yaml")
    written = strict_yaml.read(path.read_text(encoding="utf-8"), source="tiny").value
    assert missing(load_plan(path), written) == []


def missing(section: BaseModel, written: dict[str, object], path: str = "") -> list[str]:
    found: list[str] = []
    for name in type(section).model_fields:
        value = getattr(section, name)
        inner = written.get(name)
        if name not in written:
            found.append(path + name)
        elif isinstance(value, BaseModel) and isinstance(inner, dict):
            found += missing(value, inner, f"{path}{name}.")
    return found


def test_tiny_needs_nothing_but_itself() -> None:
    assert load_plan(config_path("plans/tiny.yaml")).tokenizer.type == "bytes"


def test_demo_is_the_measured_plan() -> None:
    plan = load_plan(config_path("plans/demo.yaml"))
    assert (plan.rounds, plan.local.steps, plan.local.batch_size, plan.local.sequence_length) == (16, 20, 4, 128)
    assert (plan.quorum, plan.metrics_visibility, plan.tokenizer.type) == (3, "institution", "bpe")


def test_a_configuration_that_is_not_shipped_is_named() -> None:
    with pytest.raises(LLMasOSError, match=r"plans/none\.yaml"):
        config_path("plans/none.yaml")
