"""A config.json as a plan's model section, or the reason why this release has none for it.

config = read_config(folder)
section_of(config, where)         # {"model_type": "gpt2", …} → GPT2
head_of(config, where)            # ("causal-lm", None)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import UsageError
from common.plan import architectures, pretrained
from common.plan.architectures import Model
from llmasos.language_model.planning import parsed
from llmasos.models.architecture import config_of
from llmasos.models.classes import CLASSES

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_FIX = "Name a folder that `save` wrote, or one in Hugging Face layout."
_DROPOUT = {"gpt2": "resid_pdrop", "bert": "hidden_dropout_prob", "t5": "dropout_rate"}
"""What transformers calls a section's `dropout` where it does not call it that."""
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
_KINDS = {kind.model_fields["type"].default: kind for kind in _FAMILIES}
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
        UsageError: the folder holds no config.json, or one that is no model's of a type that this release knows.
    """
    try:
        return pretrained.read_config(folder)
    except ValueError as err:
        raise UsageError(f"{folder} is no model folder: {err}.", _FIX) from err


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
    """What a plan would say of the model, but for the vocabulary's size, which is the tokenizer's matter here.

    Raises:
        UsageError: a size is missing.
        InvalidConfiguration: one is out of range.
    """
    try:
        fields = pretrained.fields_of(config, Path(where))
    except ValueError as err:
        raise UsageError(f"{err}.", _FIX) from err
    del fields["vocab_size"]
    kind = _KINDS[fields["type"]]
    dropout = config.get(_DROPOUT.get(str(config["model_type"]), "dropout"))
    if "dropout" in kind.model_fields and dropout is not None:
        fields["dropout"] = dropout
    section: Model = parsed(kind, fields, f"{where}/config.json")
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
