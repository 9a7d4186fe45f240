"""Which class of transformers a model is: by the type that config.json names, and by what the model ends in.

Never resolved through what a configuration claims, so nothing but these classes is ever built or loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.errors import InvalidConfiguration
from llmasos.extras import require_train

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def _decoder(name: str, *, language_model: str) -> dict[str, str]:
    return {
        "causal-lm": language_model,
        "sequence-classification": f"{name}ForSequenceClassification",
        "question-answering": f"{name}ForQuestionAnswering",
    }


CLASSES: dict[str, dict[str, str]] = {
    "gpt2": _decoder("GPT2", language_model="GPT2LMHeadModel"),
    "llama": _decoder("Llama", language_model="LlamaForCausalLM"),
    "mistral": _decoder("Mistral", language_model="MistralForCausalLM"),
    "qwen2": _decoder("Qwen2", language_model="Qwen2ForCausalLM"),
    "qwen3": _decoder("Qwen3", language_model="Qwen3ForCausalLM"),
    "bert": {
        "masked-lm": "BertForMaskedLM",
        "pre-training": "BertForPreTraining",
        "sequence-classification": "BertForSequenceClassification",
        "question-answering": "BertForQuestionAnswering",
    },
    "t5": {"seq2seq-lm": "T5ForConditionalGeneration"},
    "marian": {"seq2seq-lm": "MarianMTModel"},
    "xglm": {"causal-lm": "XGLMForCausalLM"},
}
MODEL_TYPES = tuple(CLASSES)


def model_class(model_type: str, head: str = "causal-lm") -> type[PreTrainedModel]:
    """The transformers class of one of MODEL_TYPES that ends in `head`.

    Raises:
        InvalidConfiguration: another type, or a head that it has not.
    """
    require_train("torch", "transformers", task="build or load a model")
    import transformers

    heads = CLASSES.get(model_type)
    if heads is None:
        raise InvalidConfiguration(f"Model type {model_type[:40]!r} is not one of {', '.join(MODEL_TYPES)}.")
    if head not in heads:
        raise InvalidConfiguration(
            f"Model type {model_type} has no head {head[:40]!r}; expected one of {', '.join(heads)}."
        )
    found: type[PreTrainedModel] = getattr(transformers, heads[head])
    return found
