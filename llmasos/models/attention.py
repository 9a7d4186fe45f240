"""Block-sparse attention as transformers takes it: an attention of its own name, whose mask hides what a token does not see.

    query in block q sees key in block k, if   k ≤ q in tokens   and   (k < global_blocks  or  q − k < local_blocks)

Computed by torch's scaled dot product under that mask: the result is exact, time and memory are full attention's.
FlexAttention would leave out the work too, but has no backward pass on the CPU, where a federation must give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from common.errors import UsageError
from common.plan.architectures.attention import BlockSparse

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

NAME = "llmasos-block-sparse"
KEY = "llmasos_attention"
"""In config.json: the plan's section. transformers keeps the key and does not read it."""


def use_block_sparse(config: PretrainedConfig, attention: BlockSparse) -> None:
    """Have models of this configuration attend so."""
    setattr(config, KEY, attention.model_dump(mode="json"))
    config._attn_implementation = implementation_of(config, "sdpa")


def implementation_of(config: PretrainedConfig, otherwise: str) -> str:
    """The name of the attention that a configuration was trained with, known to transformers from now on.

    Raises:
        UsageError: the configuration's section is none.
    """
    if getattr(config, KEY, None) is None:
        return otherwise
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    try:
        BlockSparse.model_validate(getattr(config, KEY))
    except ValidationError as err:
        raise UsageError(
            f"config.json says {KEY} {str(getattr(config, KEY))[:100]}; expected a plan's attention of type block-sparse."
        ) from err
    AttentionInterface.register(NAME, sdpa_attention_forward)
    AttentionMaskInterface.register(NAME, _mask)
    return NAME


def _mask(*, mask_function: Callable[..., torch.Tensor], config: PretrainedConfig, **given: Any) -> torch.Tensor | None:
    """transformers' own mask, and what blocks leave of it."""
    from transformers.masking_utils import and_masks, sdpa_mask

    sparse = _sees(BlockSparse.model_validate(getattr(config, KEY)))
    given |= {"allow_is_causal_skip": False, "mask_function": and_masks(mask_function, sparse)}
    return sdpa_mask(**given)


def _sees(attention: BlockSparse) -> Callable[..., torch.Tensor]:
    block, local, first = attention.block, attention.local_blocks, attention.global_blocks

    def sees(batch: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return (key // block < first) | (query // block - key // block < local)

    return sees
