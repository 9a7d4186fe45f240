"""Adapters, for `model.add_adapter` and a plan's `adapter`; fields are peft's.

model.add_adapter(llmasos.adapters.LoRA(r=8, lora_alpha=16))
"""

from common.plan.adapters import Adapter, LoRA

__all__ = ["Adapter", "LoRA"]
