"""A folder in Hugging Face layout as a plan's `model`: the sizes that its config.json gives.

    model: {type: pretrained, path: ./folder}      in a plan file; `load_plan` reads folder/config.json, so that the plan has
    model: {type: llama, weights: ./folder, vocab_size: 32000, num_hidden_layers: 16, …}

Only named keys are read, and nothing else here. `plan prepare`, which takes the weights, compares all the rest of config.json
with what such a section means (llmasos.models.pretrained).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from common.plan.fields import PlanSection

PRETRAINED = "pretrained"
MAX_CONFIG_BYTES = 1024 * 1024


class Pretrained(PlanSection):
    """A model that exists: architecture and initial weights from a folder in Hugging Face layout, such as an earlier run's."""

    type: Literal["pretrained"] = "pretrained"
    path: Annotated[str, Field(description="Folder with config.json and safetensors, relative to the plan file.")]


@dataclass(frozen=True, slots=True)
class _Reading:
    """How a type's config.json becomes a section of that type: the section's field for each key."""

    type: str
    required: Mapping[str, str]
    optional: Mapping[str, tuple[str, Any]] = field(default_factory=dict)
    """With what transformers takes where the key is absent."""
    fixed: Mapping[str, Any] = field(default_factory=dict)


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


_SIZES = _same(
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings"
)


def _rotary(model_type: str, **more: tuple[str, Any]) -> _Reading:
    optional: dict[str, tuple[str, Any]] = {
        "num_key_value_heads": ("num_key_value_heads", None),
        "tie_word_embeddings": ("tie_word_embeddings", False),
        "rms_norm_eps": ("rms_norm_eps", 1e-6),
        "rope_theta": ("rope_theta", 10_000),
    }
    return _Reading(model_type, _SIZES, optional | more)


_READINGS: Mapping[str, _Reading] = {
    "gpt2": _Reading("gpt2", _same("n_layer", "n_head", "n_embd", "n_positions")),
    "llama": _rotary("llama"),
    "mistral": _rotary("mistral"),
    "qwen2": _rotary("qwen2"),
    "qwen3": _rotary("qwen3", head_dim=("head_dim", 128)),
    "bert": _Reading("bert", _SIZES, {"type_vocab_size": ("type_vocab_size", 2)}),
    "t5": _Reading(
        "t5",
        _same("d_model", "d_kv", "d_ff", "num_layers", "num_heads"),
        {
            "num_decoder_layers": ("num_decoder_layers", None),
            "feed_forward_proj": ("feed_forward_proj", "relu"),
            "relative_attention_num_buckets": ("relative_attention_num_buckets", 32),
            "relative_attention_max_distance": ("relative_attention_max_distance", 128),
        },
    ),
    "xglm": _Reading(
        "transformer",
        {
            "d_model": "d_model",
            "attention_heads": "nhead",
            "num_layers": "num_layers",
            "ffn_dim": "dim_feedforward",
            "max_position_embeddings": "max_positions",
        },
        fixed={"architecture": "decoder-only"},
    ),
    "marian": _Reading(
        "transformer",
        {
            "d_model": "d_model",
            "encoder_attention_heads": "nhead",
            "encoder_layers": "num_layers",
            "encoder_ffn_dim": "dim_feedforward",
            "max_position_embeddings": "max_positions",
        },
        fixed={"architecture": "encoder-decoder"},
    ),
}


def section_of(given: Mapping[str, Any], beside: Path) -> dict[str, Any]:
    """The fields of the architecture's section that stands for a `pretrained` one.

    Args:
        given: the section as written; fields beside type and path, such as dropout, go into the result.
        beside: the plan file's folder.

    Raises:
        ValueError: a sentence that names the folder and what is wrong with its config.json.
    """
    path = given.get("path")
    if not isinstance(path, str):
        raise ValueError("a pretrained model needs path, a folder in Hugging Face layout")
    rest = {name: value for name, value in given.items() if name not in ("type", "path")}
    return _fields(read_config(beside / path), beside / path) | rest | {"weights": path}


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model's folder.

    Raises:
        ValueError: it is not there, too long, not JSON, names code of its own, or is of a type that this release has not.
    """
    path = folder / "config.json"
    try:
        content = path.read_bytes()
    except OSError as err:
        raise ValueError(f"{path} could not be read: {err.strerror or err}") from err
    try:
        config = json.loads(content) if len(content) <= MAX_CONFIG_BYTES else None
    except ValueError as err:
        raise ValueError(f"{path} is not JSON; it may be half written") from err
    if not isinstance(config, dict):
        raise ValueError(f"{path} is not a model's configuration of at most {MAX_CONFIG_BYTES:,} bytes")
    if config.get("auto_map"):
        raise ValueError(f"{path} has auto_map, which names code of its own; such code is never run here")
    if config.get("model_type") not in _READINGS:
        known = ", ".join(_READINGS)
        raise ValueError(f"{path} has model_type {config.get('model_type')!r:.60}; expected one of {known}")
    return config


def _fields(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    reading = _READINGS[config["model_type"]]
    rope = config.get("rope_parameters")
    if isinstance(rope, dict) and "rope_theta" in rope:
        config = {**config, "rope_theta": rope["rope_theta"]}
    required = {"vocab_size": "vocab_size", **reading.required}
    absent = [key for key in required if config.get(key) is None]
    if absent:
        raise ValueError(f"{folder / 'config.json'} has no {', '.join(absent)}")
    found = {name: config[key] for key, name in required.items()}
    for key, (name, otherwise) in reading.optional.items():
        found[name] = config.get(key, otherwise)
    if found.get("num_key_value_heads", 0) is None:
        found["num_key_value_heads"] = config["num_attention_heads"]
    return {"type": reading.type, **found, **reading.fixed, **attention_of(config)}


def attention_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The section's attention, where config.json says another than full: what was trained with a window is used with it."""
    if config.get("llmasos_attention") is not None:
        return {"attention": config["llmasos_attention"]}
    has_window = config["model_type"] == "mistral" or config.get("use_sliding_window", False)
    window = config.get("sliding_window", 4096 if config["model_type"] == "mistral" else None) if has_window else None
    return {} if window is None else {"attention": {"type": "sliding-window", "window": window}}
