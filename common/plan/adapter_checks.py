"""What each adapter goes with: read off the plan, before anything is built.

check_beside(adapter, model, head)             a model that ends in `head`
check_adapter(adapter, model, task, local)     a whole plan
"""

from __future__ import annotations

from common.plan.adapters import IA3, AdapterSection, LayerAdapter, LoRA, PrefixTuning, VirtualTokens, adapter_types
from common.plan.architectures import Model
from common.plan.architectures.attention import FullAttention
from common.plan.local import Local
from common.plan.local_optimizers import Muon
from common.plan.tasks import Preference, Task

_HAVE_A_REFERENCE = (LoRA, IA3)
"""Adapters that can be switched off, so that the model without them is there too."""


def check_beside(adapter: AdapterSection, model: Model, head: str) -> None:
    """
    Raises:
        ValueError: the adapter does not go with the architecture, or with what the model ends in.
    """
    if isinstance(adapter, VirtualTokens) and head != "causal-lm":
        raise ValueError(f"adapter {adapter.type} needs a model with head causal-lm, got head {head} of {model.title}")
    attention = getattr(model, "attention", FullAttention())
    if isinstance(adapter, PrefixTuning) and not isinstance(attention, FullAttention):
        raise ValueError(
            f"adapter prefix-tuning needs model.attention full, got {attention.type}: later tokens would not see the prefix"
        )
    unknown = adapter.unknown(model) if isinstance(adapter, LayerAdapter) else ()
    if unknown:
        raise ValueError(
            f"adapter.target_modules names {', '.join(unknown)}, which a block of {model.type} has not; "
            f"its linear layers are {', '.join(model.linear_layers)}"
        )


def check_adapter(adapter: AdapterSection, model: Model, task: Task, local: Local) -> None:
    """
    Raises:
        ValueError: the adapter does not go with the architecture, the task or the local training.
    """
    if isinstance(task, Preference) and not isinstance(adapter, _HAVE_A_REFERENCE):
        raise ValueError(
            f"task preference needs adapter {adapter_types(_HAVE_A_REFERENCE)}, got {adapter.type}: without its adapter the "
            "model is the reference"
        )
    check_beside(adapter, model, task.head)
    virtual, context = adapter.virtual_tokens, model.context_tokens
    if virtual + local.sequence_length > context:
        raise ValueError(
            f"adapter.num_virtual_tokens {virtual} and local.sequence_length {local.sequence_length} exceed the model's "
            f"context {context}"
        )
    if isinstance(adapter, PrefixTuning) and local.gradient_checkpointing:
        raise ValueError(
            "adapter prefix-tuning needs local.gradient_checkpointing false: layers that are computed again have no cache, and "
            "the prefix is in it"
        )
    if isinstance(adapter, IA3) and isinstance(local.optimizer, Muon):
        raise ValueError("adapter ia3 trains vectors, local.optimizer muon matrices; expected another optimizer")
