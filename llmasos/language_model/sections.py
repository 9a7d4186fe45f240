"""A folder in Hugging Face layout as what a model is made of: section, vocabulary, head, and which class of ours that is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from common.errors import UsageError
from common.plan import architectures, pretrained
from common.plan.architectures import Model
from llmasos.models.classes import CLASSES

FIX = "Name a folder that `save` wrote, or one in Hugging Face layout."
_FAMILIES: Mapping[type[Any], str] = {
    architectures.GPT2: "GPT",
    architectures.Llama: "Llama",
    architectures.Mistral: "Mistral",
    architectures.Qwen2: "Qwen2",
    architectures.Qwen3: "Qwen3",
    architectures.BERT: "BERT",
    architectures.T5: "T5",
    architectures.Transformer: "Transformer",
}


def read_config(folder: Path) -> Mapping[str, Any]:
    """
    Raises:
        UsageError: the folder holds no config.json, or one of a model that this release does not know.
    """
    try:
        return pretrained.read_config(folder)
    except ValueError as err:
        raise UsageError(f"{folder} is no model folder: {err}.", FIX) from err


def section_of(folder: Path) -> Model:
    """The plan's `model` that the folder's config.json describes, without its weights and vocabulary.

    Raises:
        UsageError: a size is absent or out of range.
    """
    try:
        fields = pretrained.section_of({"path": str(folder)}, Path())
        section: Model = TypeAdapter(Model).validate_python(
            {name: value for name, value in fields.items() if name not in ("weights", "vocab_size")}
        )
    except ValueError as err:
        raise UsageError(f"{folder} is no model folder: {str(err).splitlines()[0]}.", FIX) from err
    return section


def head_of(config: Mapping[str, Any], where: str) -> tuple[str, int | None]:
    """What the model ends in, and how many labels that tells apart.

    Raises:
        UsageError: its class is none that this release knows for the type.
    """
    named = config.get("architectures") or ["nothing"]
    heads = {name: head for head, name in CLASSES[str(config["model_type"])].items()}
    if named[0] not in heads:
        raise UsageError(f"{where}: config.json names the class {named[0]!r}, expected one of {', '.join(heads)}.", FIX)
    head = heads[named[0]]
    labels = config.get("num_labels", len(config.get("id2label", ())) or 2)
    return head, int(labels) if head == "sequence-classification" else None


def family_of(section: Model) -> str:
    """The class of llmasos.models for a section."""
    return _FAMILIES[type(section)]
