"""From a plan's model section to a torch module, and from a module to the tensor manifest that a run is pinned to.

model = build_model(plan.model, adapter=plan.adapter, vocab_size=1024, seed=plan.seed)
manifest = manifest_of(model)            # tied weights stand once; trainable first, then frozen
write_tensors(model, path, manifest)     # llmasos.models.tensors
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.plan.adapters import Adapter, NoAdapter
from common.plan.architectures import Model
from llmasos.models.adapters import add_adapter
from llmasos.models.architecture import config_of, model_class
from llmasos.models.export import export_hf
from llmasos.models.initial import fill_initial
from llmasos.models.manifest import manifest_of
from llmasos.models.tensors import read_tensors, write_delta, write_tensors

if TYPE_CHECKING:
    import torch

__all__ = ["build_model", "export_hf", "manifest_of", "read_tensors", "write_delta", "write_tensors"]

WHOLE_MODEL = NoAdapter()


def build_model(plan_model: Model, *, vocab_size: int, seed: int, adapter: Adapter = WHOLE_MODEL) -> torch.nn.Module:
    """A decoder-only transformer, float32, on the CPU, in training mode, with the plan's initial weights.

    The weights depend on nothing but architecture, adapter, `vocab_size` and `seed` (llmasos.models.initial). torch's global
    random state is left as it was. With an adapter, only its tensors are trained, and before training the model computes
    what it would without one (llmasos.models.adapters).

    Raises:
        InvalidConfiguration: a value that transformers cannot build.
        MissingExtra: the adapter needs peft, which is not installed.
    """
    config = config_of(plan_model, vocab_size=vocab_size)
    import torch

    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        module: torch.nn.Module = model_class(plan_model.type)(config).float()  # type: ignore[no-untyped-call]
        fill_initial(module, plan_model, seed=seed)
        add_adapter(module, plan_model, adapter, seed=seed)
    return module.train()
