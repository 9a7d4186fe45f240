"""The models by name, each an architecture of a plan under the names that torch or transformers give its sizes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import UsageError
from common.plan import architectures
from llmasos.language_model.base import LanguageModel
from llmasos.language_model.planning import parsed

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from llmasos.language_model.storing import Stored


class GPT(LanguageModel):
    """GPT-2's architecture: decoder-only, learned positions, tied embeddings. Names are those of transformers' GPT2Config.

    Args:
        n_layer: transformer blocks.
        n_head: attention heads; must divide n_embd.
        n_embd: width of the model.
        n_positions: the longest sequence, tokens.
        dropout: of residuals, embeddings and attention, in [0, 1).
        vocab_size, tokenizer, seed: as LanguageModel.

    Raises:
        InvalidConfiguration: a size is out of range; names it.

    Source: Radford et al. 2019.
    """

    def __init__(
        self,
        n_layer: int = 6,
        n_head: int = 6,
        n_embd: int = 384,
        n_positions: int = 256,
        dropout: float = 0.0,
        *,
        vocab_size: int | None = None,
        tokenizer: Tokenizer | str | Path | Any = None,
        seed: int = 0,
    ) -> None:
        sizes = {"n_layer": n_layer, "n_head": n_head, "n_embd": n_embd, "n_positions": n_positions, "dropout": dropout}
        section = parsed(architectures.GPT2, sizes, "GPT")
        super().__init__(section, vocab_size=vocab_size, tokenizer=tokenizer, seed=seed)


class Llama(LanguageModel):
    """Llama: decoder-only, rotary positions, RMSNorm, SwiGLU. Names are those of transformers' LlamaConfig.

    Args:
        hidden_size: width of the model.
        num_hidden_layers: transformer blocks.
        num_attention_heads: must divide hidden_size.
        num_key_value_heads: must divide num_attention_heads, which it is by default.
        intermediate_size: width inside the feed-forward blocks; by default 8/3 of hidden_size, rounded up to a multiple of 8.
        max_position_embeddings: the longest sequence, tokens.
        tie_word_embeddings: input and output embeddings are one tensor.
        vocab_size, tokenizer, seed: as LanguageModel.

    Raises:
        InvalidConfiguration: a size is out of range; names it.

    Source: Touvron et al., arXiv:2302.13971.
    """

    def __init__(
        self,
        hidden_size: int = 384,
        num_hidden_layers: int = 6,
        num_attention_heads: int = 6,
        num_key_value_heads: int | None = None,
        intermediate_size: int | None = None,
        max_position_embeddings: int = 256,
        tie_word_embeddings: bool = True,
        *,
        vocab_size: int | None = None,
        tokenizer: Tokenizer | str | Path | Any = None,
        seed: int = 0,
    ) -> None:
        sizes = {
            "hidden_size": hidden_size,
            "num_hidden_layers": num_hidden_layers,
            "num_attention_heads": num_attention_heads,
            "num_key_value_heads": num_key_value_heads or num_attention_heads,
            "intermediate_size": intermediate_size or -(-hidden_size * 8 // 24) * 8,
            "max_position_embeddings": max_position_embeddings,
            "tie_word_embeddings": tie_word_embeddings,
        }
        super().__init__(
            parsed(architectures.Llama, sizes, "Llama"), vocab_size=vocab_size, tokenizer=tokenizer, seed=seed
        )


KINDS: dict[str, type[LanguageModel]] = {kind.__name__: kind for kind in (GPT, Llama)}
_BY_SECTION: dict[type, type[LanguageModel]] = {architectures.GPT2: GPT, architectures.Llama: Llama}


def kind_of(stored: Stored) -> type[LanguageModel]:
    """The class that a folder's card names, or that its architecture is."""
    if stored.card is None:
        return _BY_SECTION[type(stored.section)]
    if stored.card.kind not in KINDS:
        raise UsageError(
            f"The folder holds a {stored.card.kind[:40]}, which this release has not; it has {', '.join(KINDS)}.",
            "Load it with the release that saved it.",
        )
    return KINDS[stored.card.kind]


def load(path: str | Path) -> LanguageModel:
    """The model in a folder, whichever class it is; as LanguageModel.load."""
    return LanguageModel.load(path)
