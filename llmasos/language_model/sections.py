"""A config.json as a plan's model section, or the reason why this release has none for it.

config = read_config(folder)
section_of(config, where)         # {"model_type": "gpt2", …} → GPT2
head_of(config, where)            # ("causal-lm", None)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import UsageError
from common.plan import architectures
from common.plan.architectures import Model
from llmasos.language_model.planning import parsed
from llmasos.models.architecture import config_of
from llmasos.models.classes import CLASSES

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_FIX = "Name a folder that `save` wrote, or one in Hugging Face layout."
_SECTIONS: Mapping[str, tuple[type[Any], Mapping[str, str]]] = {
    "gpt2": (architectures.GPT2, {"dropout": "resid_pdrop"}),
    "llama": (architectures.Llama, {}),
    "mistral": (architectures.Mistral, {}),
    "qwen2": (architectures.Qwen2, {}),
    "qwen3": (architectures.Qwen3, {}),
    "bert": (architectures.BERT, {"dropout": "hidden_dropout_prob"}),
    "t5": (architectures.T5, {}),
    "xglm": (
        architectures.Transformer,
        {"nhead": "attention_heads", "dim_feedforward": "ffn_dim", "max_positions": "max_position_embeddings"},
    ),
    "marian": (
        architectures.Transformer,
        {
            "nhead": "encoder_attention_heads",
            "num_layers": "encoder_layers",
            "dim_feedforward": "encoder_ffn_dim",
            "max_positions": "max_position_embeddings",
        },
    ),
}
"""By transformers' model type: the section, and what transformers calls those of its fields that have another name there."""
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
_NO_PART = frozenset(
    {
        "architectures",
        "attn_implementation",
        "bos_token_id",
        "chunk_size_feed_forward",
        "decoder_start_token_id",
        "dtype",
        "eos_token_id",
        "forced_eos_token_id",
        "gradient_checkpointing",
        "id2label",
        "init_std",
        "initializer_factor",
        "initializer_range",
        "label2id",
        "max_length",
        "max_window_layers",
        "num_beams",
        "num_labels",
        "output_attentions",
        "output_hidden_states",
        "pad_token_id",
        "pretraining_tp",
        "problem_type",
        "return_dict",
        "sep_token_id",
        "task_specific_params",
        "tokenizer_class",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
)
"""Keys that say nothing about what the model computes from its weights."""


def read_config(folder: Path) -> Mapping[str, Any]:
    """
    Raises:
        UsageError: the folder holds no config.json, or one that is no JSON object.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_bytes())
    except FileNotFoundError as err:
        raise UsageError(f"{folder} is no model folder: it holds no config.json.", _FIX) from err
    except (OSError, ValueError) as err:
        raise UsageError(f"{path} cannot be read: {str(err).splitlines()[0]}.", _FIX) from err
    if not isinstance(config, dict) or config.get("model_type") not in _SECTIONS:
        found = config.get("model_type") if isinstance(config, dict) else None
        raise UsageError(f"{folder} holds a model of type {found!r}, expected one of {', '.join(_SECTIONS)}.", _FIX)
    return config


def head_of(config: Mapping[str, Any], where: str) -> tuple[str, int | None]:
    """What the model ends in, and how many labels that tells apart.

    Raises:
        UsageError: its class is none that this release knows for the type.
    """
    named = config.get("architectures") or ["nothing"]
    heads = {name: head for head, name in CLASSES[str(config["model_type"])].items()}
    if named[0] not in heads:
        raise UsageError(
            f"{where}: config.json names the class {named[0]!r}, expected one of {', '.join(heads)}.", _FIX
        )
    head = heads[named[0]]
    labels = config.get("num_labels", len(config.get("id2label", ())) or 2)
    return head, int(labels) if head == "sequence-classification" else None


def section_of(config: Mapping[str, Any], where: str) -> Model:
    """
    Raises:
        InvalidConfiguration: a size is out of range.
    """
    kind, names = _SECTIONS[str(config["model_type"])]
    rotary = config.get("rope_parameters") or {}
    known = {"rope_theta": rotary.get("rope_theta")} | dict(config)
    data = {
        name: known[names.get(name, name)]
        for name in kind.model_fields
        if name not in ("type", "architecture") and known.get(names.get(name, name)) is not None
    }
    if kind is architectures.Transformer:
        data["architecture"] = "decoder-only" if config["model_type"] == "xglm" else "encoder-decoder"
    section: Model = parsed(kind, data, f"{where}/config.json")
    return section


def family_of(section: Model) -> str:
    """The class of llmasos.models for a section."""
    return _FAMILIES[type(section)]


def check_config(config: PretrainedConfig, section: Model, where: str, head: str, num_labels: int | None) -> None:
    """
    Raises:
        UsageError: the configuration asks for something that the section cannot say, so that the model would compute
            something else; names it.
    """
    ours = config_of(section, vocab_size=int(config.vocab_size), head=head, num_labels=num_labels).to_dict()
    found = config.to_dict()
    for key in sorted(found.keys() & ours.keys() - _NO_PART):
        if found[key] != ours[key] and not key.startswith(("_", "summary_")) and "drop" not in key:
            raise UsageError(
                f"{where}: config.json says {key} = {found[key]!r}, this release builds {section.model_type} models with "
                f"{ours[key]!r} only.",
                "Use a model with that setting.",
            )
