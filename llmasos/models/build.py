"""From a plan's model section to a torch module, and from a module to the tensor manifest that a run is pinned to.

model = model_of(plan, load(tokenizer_path))
manifest = manifest_of(model)            # tied weights stand once; trainable first, then frozen
write_tensors(model, path, manifest)     # llmasos.models.tensors
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from common.errors import InvalidConfiguration
from common.plan.adapters import Adapter, NoAdapter
from common.plan.architectures import Model
from common.plan.model import Plan
from common.plan.tasks import SequenceClassification
from llmasos.models.adapters import add_adapter
from llmasos.models.architecture import CAUSAL_LM, config_of
from llmasos.models.classes import model_class
from llmasos.models.export import export_hf
from llmasos.models.initial import fill_initial
from llmasos.models.manifest import manifest_of
from llmasos.models.tensors import read_tensors, write_delta, write_tensors
from llmasos.tokenizers import pad_id, vocab_size_of

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

__all__ = ["build_model", "export_hf", "manifest_of", "model_of", "read_tensors", "write_delta", "write_tensors"]

WHOLE_MODEL = NoAdapter()


def model_of(plan: Plan, tokenizer: Tokenizer) -> torch.nn.Module:
    """The model that a plan describes, ending in what its task needs, with random initial weights: as `build_model`.

    Where the plan's model is one that exists, its weights are in the run's model file alone: read that.

    Raises:
        InvalidConfiguration: as `build_model`, or the tokenizer has more tokens than the plan's model.
    """
    tokens, rows = vocab_size_of(tokenizer), plan.model.vocab_size
    if rows is not None and tokens > rows:
        raise InvalidConfiguration(
            f"The tokenizer has {tokens:,} tokens, the model's embedding {rows:,} rows (model.vocab_size).",
            "Name the tokenizer that the model was trained with, or leave vocab_size out for a new model.",
        )
    model: Any = build_model(
        plan.model,
        vocab_size=rows or tokens,
        seed=plan.seed,
        adapter=plan.adapter,
        head=plan.task.head,
        num_labels=plan.task.num_labels,
        pad_token_id=pad_id(tokenizer),
    )
    if isinstance(plan.task, SequenceClassification):  # an exported model says what its outputs mean
        model.config.id2label = dict(enumerate(plan.task.labels))
        model.config.label2id = {label: number for number, label in enumerate(plan.task.labels)}
    found: torch.nn.Module = model
    return found


def build_model(
    plan_model: Model,
    *,
    vocab_size: int,
    seed: int,
    adapter: Adapter = WHOLE_MODEL,
    head: str = CAUSAL_LM,
    num_labels: int | None = None,
    pad_token_id: int | None = None,
) -> torch.nn.Module:
    """A transformer, float32, on the CPU, in training mode, with the plan's initial weights.

    The weights depend on nothing but architecture, adapter, head, `vocab_size` and `seed` (llmasos.models.initial). torch's
    global random state is left as it was. With an adapter, only its tensors and a new head's are trained, and before training
    the model computes what it would without one (llmasos.models.adapters).

    Args:
        head: what the model ends in, one of `plan_model.heads`; transformers' classes for it have their usual outputs.
        num_labels: classes of a head for sequence classification; None for others.
        pad_token_id: what a decoder with a head for sequence classification passes over to find a row's last token.

    Raises:
        InvalidConfiguration: a value that transformers cannot build.
        MissingExtra: the adapter needs peft, which is not installed.
    """
    config = config_of(plan_model, vocab_size=vocab_size, head=head, num_labels=num_labels)
    import torch

    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        module: torch.nn.Module = model_class(plan_model.model_type, head)(config).float()  # type: ignore[no-untyped-call]
        fill_initial(module, plan_model, seed=seed)
        add_adapter(module, plan_model, adapter, seed=seed, head=head)
    if head == "sequence-classification":
        # Only now: at its making, a model would take it for the row of its embedding that never learns.
        config.pad_token_id = pad_token_id
    return module.train()
