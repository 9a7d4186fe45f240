"""What a contribution says of its weight besides tokens: bytes of text, where the plan weighs by them.

num_bytes(corpus, Path("tokenizer.json"), seed=7, steps=25)
"""

from __future__ import annotations

from pathlib import Path

from common.plan.weighting import BytesWeighting
from llmasos.tasks.causal_lm import TOKENS
from llmasos.tokenizers import load
from llmasos.tokenizers.lengths import byte_lengths
from llmasos.training.corpus import Corpus


def num_bytes(corpus: Corpus, tokenizer: Path, seed: int, steps: int) -> int | None:
    """Bytes of the text that a round's targets say, in UTF-8; None where the plan does not weigh by them.

    The round's batches are drawn again, so it does not matter where its training was interrupted. What is above the plan's
    `max_bytes_a_token` counts for nothing, as for everybody; a round whose targets are no text at all counts as one byte.
    """
    weighting = corpus.plan.weighting
    if not isinstance(weighting, BytesWeighting):
        return None
    lengths_V = byte_lengths(load(tokenizer))
    total, tokens = 0, 0
    for step in range(steps):
        targets_BT = corpus.batch(seed=seed, step=step)[TOKENS][:, 1:]
        total, tokens = total + int(lengths_V[targets_BT].sum()), tokens + targets_BT.size
    return max(1, min(total, tokens * weighting.max_bytes_a_token))
