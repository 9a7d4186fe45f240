"""The models by name, each an architecture of a plan under the names that torch or transformers give its sizes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

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

    architecture: ClassVar[type[architectures.RotaryDecoder]] = architectures.Llama

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
        section: Any = parsed(self.architecture, sizes, type(self).__name__)
        super().__init__(section, vocab_size=vocab_size, tokenizer=tokenizer, seed=seed)


class Mistral(Llama):
    """Mistral, Llama's layout under its own name: arguments as Llama.

    Source: Jiang et al., arXiv:2310.06825.
    """

    architecture: ClassVar[type[architectures.RotaryDecoder]] = architectures.Mistral


class Qwen2(Llama):
    """Qwen 2 and 2.5, Llama's layout with biases on queries, keys and values: arguments as Llama.

    Source: Yang et al., arXiv:2407.10671.
    """

    architecture: ClassVar[type[architectures.RotaryDecoder]] = architectures.Qwen2


class Qwen3(Llama):
    """Qwen 3, Llama's layout with RMSNorm on each head's queries and keys: arguments as Llama.

    Source: Yang et al., arXiv:2505.09388.
    """

    architecture: ClassVar[type[architectures.RotaryDecoder]] = architectures.Qwen3


class Transformer(LanguageModel):
    """The Transformer of 2017: sinusoidal positions, ReLU, shared embeddings. Names are those of torch.nn.Transformer.

    Args:
        d_model: width of the model; even.
        nhead: attention heads; must divide d_model.
        num_layers: blocks; of an encoder and of a decoder, each as many.
        dim_feedforward: width inside the feed-forward blocks; by default 4 × d_model.
        dropout: of embeddings and of each block's output, in [0, 1).
        max_positions: the longest sequence, tokens.
        architecture: "decoder-only" continues text; "encoder-decoder" reads one text and writes another, as in translation.
        vocab_size, tokenizer, seed: as LanguageModel.

    Raises:
        InvalidConfiguration: a size is out of range; names it.

    Source: Vaswani et al., arXiv:1706.03762.
    """

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_layers: int = 6,
        dim_feedforward: int | None = None,
        dropout: float = 0.1,
        max_positions: int = 256,
        architecture: str = "decoder-only",
        *,
        vocab_size: int | None = None,
        tokenizer: Tokenizer | str | Path | Any = None,
        seed: int = 0,
    ) -> None:
        sizes = {
            "d_model": d_model,
            "nhead": nhead,
            "num_layers": num_layers,
            "dim_feedforward": dim_feedforward or 4 * d_model,
            "dropout": dropout,
            "max_positions": max_positions,
            "architecture": architecture,
        }
        section = parsed(architectures.Transformer, sizes, "Transformer")
        super().__init__(section, vocab_size=vocab_size, tokenizer=tokenizer, seed=seed)


class T5(LanguageModel):
    """T5: encoder and decoder, relative positions. Names are those of transformers' T5Config.

    Args:
        d_model: width of the model.
        num_layers: blocks of the encoder, and of the decoder unless num_decoder_layers says otherwise.
        num_heads: attention heads, each d_kv wide; by default d_kv is d_model / num_heads.
        d_ff: width inside the feed-forward blocks; by default 4 × d_model.
        feed_forward_proj: "relu", or "gated-gelu" as T5 1.1.
        dropout_rate: in [0, 1).
        vocab_size, tokenizer, seed: as LanguageModel.

    Raises:
        InvalidConfiguration: a size is out of range; names it.

    Source: Raffel et al., arXiv:1910.10683.
    """

    def __init__(
        self,
        d_model: int = 384,
        num_layers: int = 6,
        num_heads: int = 6,
        d_kv: int | None = None,
        d_ff: int | None = None,
        feed_forward_proj: str = "relu",
        dropout_rate: float = 0.1,
        num_decoder_layers: int | None = None,
        *,
        vocab_size: int | None = None,
        tokenizer: Tokenizer | str | Path | Any = None,
        seed: int = 0,
    ) -> None:
        sizes = {
            "d_model": d_model,
            "num_layers": num_layers,
            "num_decoder_layers": num_decoder_layers,
            "num_heads": num_heads,
            "d_kv": d_kv or max(1, d_model // max(1, num_heads)),
            "d_ff": d_ff or 4 * d_model,
            "feed_forward_proj": feed_forward_proj,
            "dropout_rate": dropout_rate,
        }
        super().__init__(parsed(architectures.T5, sizes, "T5"), vocab_size=vocab_size, tokenizer=tokenizer, seed=seed)


class BERT(LanguageModel):
    """BERT: encoder, each token sees all others; finds hidden tokens. Names are those of transformers' BertConfig.

    Args:
        hidden_size: width of the model.
        num_hidden_layers: transformer blocks.
        num_attention_heads: must divide hidden_size.
        intermediate_size: width inside the feed-forward blocks; by default 4 × hidden_size.
        max_position_embeddings: the longest sequence, tokens.
        type_vocab_size: kinds of segment; next-sentence prediction needs 2.
        dropout: of hidden values and attention, in [0, 1).
        vocab_size, tokenizer, seed: as LanguageModel.

    Raises:
        InvalidConfiguration: a size is out of range; names it.

    Source: Devlin et al., arXiv:1810.04805.
    """

    def __init__(
        self,
        hidden_size: int = 384,
        num_hidden_layers: int = 6,
        num_attention_heads: int = 6,
        intermediate_size: int | None = None,
        max_position_embeddings: int = 256,
        type_vocab_size: int = 2,
        dropout: float = 0.1,
        *,
        vocab_size: int | None = None,
        tokenizer: Tokenizer | str | Path | Any = None,
        seed: int = 0,
    ) -> None:
        sizes = {
            "hidden_size": hidden_size,
            "num_hidden_layers": num_hidden_layers,
            "num_attention_heads": num_attention_heads,
            "intermediate_size": intermediate_size or 4 * hidden_size,
            "max_position_embeddings": max_position_embeddings,
            "type_vocab_size": type_vocab_size,
            "dropout": dropout,
        }
        super().__init__(
            parsed(architectures.BERT, sizes, "BERT"), vocab_size=vocab_size, tokenizer=tokenizer, seed=seed
        )


KINDS: dict[str, type[LanguageModel]] = {
    kind.__name__: kind for kind in (GPT, Llama, Mistral, Qwen2, Qwen3, Transformer, T5, BERT)
}


def kind_of(stored: Stored) -> type[LanguageModel]:
    """The class that a folder's card names.

    Raises:
        UsageError: this release has none of that name.
    """
    kind = stored.card.kind
    if kind not in KINDS:
        raise UsageError(
            f"The folder holds a {kind[:40]}, which this release has not; it has {', '.join(KINDS)}.",
            "Load it with the release that saved it.",
        )
    return KINDS[kind]


def load(path: str | Path) -> LanguageModel:
    """The model in the folder `path`, whichever class it is; raises as LanguageModel.load."""
    return LanguageModel.load(path)
