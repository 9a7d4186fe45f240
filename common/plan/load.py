"""Plans between YAML files and `Plan`.

plan = load_plan(Path("configs/plans/tiny.yaml"), overrides={"rounds": 5})
print(plan_yaml(plan))                  # every default visible; loads back as the same plan
json.dumps(plan_schema())               # for editors: completion and checks while typing
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from common import strict_yaml
from common.config import load_yaml
from common.plan.model import Plan
from common.plan.pretrained import PRETRAINED, Pretrained

SCHEMA_ID = "https://llmasos.org/schema/plan/v1"


def load_plan(path: Path, *, overrides: Mapping[str, Any] | None = None) -> Plan:
    """The plan in a YAML file.

    Args:
        overrides: values by dotted field, `{"local.steps": 50}`; None as a value is passed over.

    A model of type pretrained is read from its folder's config.json: the plan has its architecture.

    Raises:
        InvalidConfiguration: file, line, field, expected and got. The environment never changes a plan: what several
            institutions agree on stands in one file.
    """
    return load_yaml(path, Plan, overrides=overrides, beside=path.resolve().parent)


def plan_yaml(plan: Plan) -> str:
    """The whole plan as YAML, defaults and all; `load_plan` reads it back as an equal plan."""
    return strict_yaml.dump(_plain(plan))


def plan_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a plan file."""
    schema = Plan.model_json_schema(mode="validation")
    model = schema["properties"]["model"]  # in a file alone, a folder may stand for an architecture
    schema["$defs"]["Pretrained"] = Pretrained.model_json_schema()
    model["oneOf"].append({"$ref": "#/$defs/Pretrained"})
    model["discriminator"]["mapping"][PRETRAINED] = "#/$defs/Pretrained"
    return (
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID}
        | schema
        | {"title": "LLMasOS plan"}
    )


def _plain(value: Any) -> Any:
    """Sections as dicts, with numbers left numbers: the models' own dump writes them as text, for JSON."""
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
