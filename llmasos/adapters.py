"""Adapters, for `model.add_adapter` and a plan's `adapter`; fields are peft's. What each trains: docs/models.md.

model.add_adapter(llmasos.adapters.LoRA(r=8, lora_alpha=16))
model.add_adapter(llmasos.adapters.LoRA(r=8, use_dora=True))
model.add_adapter(llmasos.adapters.IA3())
model.add_adapter(llmasos.adapters.PrefixTuning(num_virtual_tokens=16))
"""

from common.plan.adapters import IA3, Adapter, LoRA, PrefixTuning, PromptTuning, PTuning

__all__ = ["IA3", "Adapter", "LoRA", "PTuning", "PrefixTuning", "PromptTuning"]
