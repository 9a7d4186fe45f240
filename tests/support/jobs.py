"""Job folders as an agent makes them for its worker, with the smallest model that still learns: one block, 32 wide, bytes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from common.plan.model import Plan
from llmasos.preparation import DRAFT, MODEL, TOKENIZER, prepare
from tests.support.plans import a_plan
from tests.support.texts import make_institutions

TINY_MODEL = {"type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 32, "n_positions": 32}
TINY_LOCAL = {"steps": 6, "batch_size": 4, "sequence_length": 32, "schedule": {"type": "cosine", "warmup_steps": 2}}


def a_training_plan(*, local: dict[str, Any] | None = None, **changes: Any) -> Plan:
    """Two rounds of six steps; `local` changes single fields of local training."""
    fields: dict[str, Any] = {"model": TINY_MODEL, "local": TINY_LOCAL | (local or {}), "rounds": 2, "seed": 7}
    return a_plan(**(fields | {"evaluation": {"max_tokens": 512}} | changes))


def make_prepared(root: Path, plan: Plan) -> Path:
    """What `llmasos plan prepare` makes of the plan."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "plan.yaml").write_text(json.dumps(plan.model_dump(mode="json", exclude_none=True)))
    prepare(root / "plan.yaml", root / "prepared", suffix=lambda: "abc123")
    return root / "prepared"


def make_job(root: Path, plan: Plan) -> tuple[Path, Path]:
    """A job folder with plan.json, tokenizer.json and base.safetensors; and a folder of text."""
    prepared = make_prepared(root, plan)
    job = root / "job"
    job.mkdir(mode=0o700)
    for name, target in ((DRAFT, "plan.json"), (TOKENIZER, "tokenizer.json"), (MODEL, "base.safetensors")):
        shutil.copyfile(prepared / name, job / target)
    return job, make_institutions(root / "data", count=1)["clinic"]
