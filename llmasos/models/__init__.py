"""Models: from a plan's architecture to weights, to a file in the wire's layout, to a folder that others can load.

classes.py        model type + head → a class of transformers, and no other
architecture.py   a plan's model section → a transformers configuration, by allow-list
build.py          configuration + seed → module
attention.py      block-sparse attention, by a mask
adapters.py       LoRA, DoRA and IA³ beside frozen weights, by peft
magnitudes.py     what DoRA's magnitudes begin as
merging.py        an adapter's tensors and the weights beside them → weights
prompts.py        virtual tokens before each text, as peft reads them
saved_prompts.py  those of an export's folder
manifest.py       module → ordered tensor manifest
initial.py        the initial weights, the same bits on every machine
pretrained.py     a folder's weights → the module that `plan prepare` writes
tensors.py        module ↔ model file, base + module → delta file; streamed
export.py         module → Hugging Face folder

What a researcher makes and fits, `llmasos.models.GPT` and its like, is in llmasos.language_model.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmasos.language_model.base import LanguageModel
    from llmasos.language_model.families import BERT, GPT, T5, Llama, Mistral, Qwen2, Qwen3, Transformer, load

__all__ = ["BERT", "GPT", "T5", "LanguageModel", "Llama", "Mistral", "Qwen2", "Qwen3", "Transformer", "load"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "base" if name == "LanguageModel" else "families"
    return getattr(import_module(f"llmasos.language_model.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
