"""Virtual tokens before each text, which alone are trained, as peft reads them.

    adapter                          parameter                        name                shape
    prompt-tuning (2104.08691)       prompt_encoder.weight            prompt_embeddings   (tokens, width)
    prefix-tuning (2101.00190)       prompt_encoder.weight            prompt_embeddings   (tokens, 2 × blocks × width of keys)
    p-tuning (2103.10385)            prompt_encoder.embedding.weight  the parameter's     (tokens, width)
                                     prompt_encoder.mlp_head.0.weight the parameter's     (encoder_hidden_size, width), …
    prefix-tuning, projected         prompt_encoder.transform.…       the parameter's     as peft's PrefixEncoder has them
    the model's                                                       as without an adapter; all are frozen

With prompt tuning and p-tuning they are embeddings before the text's; with prefix tuning they are in each block's cache of keys
and values. p-tuning and a projected prefix are made by a network that is trained with them; files of others hold what it makes.

The model is called as without them, and its logits are those of the given tokens. A cache holds them before its first token.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from common.errors import UsageError
from common.plan.adapters import PrefixTuning, PTuning, VirtualTokens
from llmasos.models.architecture import INITIALIZER_RANGE
from llmasos.models.initial import fill_normal

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig

NAME = "prompt_embeddings"
MODULE = "prompt_encoder"
PARAMETER = f"{MODULE}.weight"


def is_tensor(name: str) -> bool:
    """Whether a name in a manifest is that of virtual tokens, or of the network that makes them."""
    return name == NAME or name.startswith(f"{MODULE}.")


def add_prompt(module: torch.nn.Module, adapter: VirtualTokens, *, seed: int) -> None:
    """Freeze a causal language model and put virtual tokens before its texts, in place, with initial values in the bits that
    llmasos.models.initial defines from seed and name.

    Tokens that are trained as they are have the deviation of a new model's embeddings. Where a network makes them, its
    deviations are those of torch's defaults: 1 for its embeddings, 1 / √(3 × inputs) for its layers; biases are 0.
    """
    config = config_of(module, adapter)
    encoder = _encoder(adapter, config)
    attach(module, adapter, encoder)
    for name, parameter in encoder.named_parameters():
        full = NAME if name == "weight" else f"{MODULE}.{name}"
        weights_P = parameter.detach().numpy().reshape(-1)
        if parameter.dim() < 2:
            weights_P[:] = 0.0
        else:
            fill_normal(weights_P, _deviation(name, parameter), name=full, seed=seed)
    describe(module, adapter)


def _deviation(name: str, parameter: torch.Tensor) -> float:
    if name == "weight":
        return INITIALIZER_RANGE
    if name.startswith("embedding."):
        return 1.0
    # torch starts an LSTM by its width: 4 × width rows, and as many columns in the weights of its state.
    inputs = parameter.shape[0] // 4 if name.startswith("lstm_head.") else parameter.shape[1]
    return 1 / math.sqrt(3 * inputs)


def config_of(module: torch.nn.Module, adapter: VirtualTokens) -> PeftConfig:
    """peft's configuration of the adapter, beside this model."""
    from peft import PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig

    config: Any = module.config
    shared: dict[str, Any] = {
        "task_type": "CAUSAL_LM",
        "num_virtual_tokens": adapter.num_virtual_tokens,
        "token_dim": config.hidden_size,
        "num_transformer_submodules": 1,
        "num_attention_heads": config.num_attention_heads,
        "num_layers": config.num_hidden_layers,
    }
    if isinstance(adapter, PrefixTuning):
        _, heads, head_width = _cache_shape(module)
        shared |= {"token_dim": heads * head_width, "num_attention_heads": heads}
        return PrefixTuningConfig(
            prefix_projection=adapter.prefix_projection,
            encoder_hidden_size=adapter.encoder_hidden_size or config.hidden_size,
            **shared,
        )
    if isinstance(adapter, PTuning):
        return PromptEncoderConfig(
            encoder_reparameterization_type=adapter.encoder_reparameterization_type,
            encoder_hidden_size=adapter.encoder_hidden_size or config.hidden_size,
            encoder_num_layers=adapter.encoder_num_layers,
            encoder_dropout=float(adapter.encoder_dropout),
            **shared,
        )
    return PromptTuningConfig(**shared)


def describe(module: torch.nn.Module, adapter: VirtualTokens) -> None:
    """Say on the module what is before its texts, as peft does, so that an export holds it."""
    found: Any = module
    found.peft_config = {"default": config_of(module, adapter)}


def _encoder(adapter: VirtualTokens, config: Any) -> torch.nn.Module:
    """What is trained: the tokens, or peft's network that makes them."""
    import torch
    from peft import PrefixEncoder, PromptEncoder

    made: torch.nn.Module
    if isinstance(adapter, PTuning):
        made = PromptEncoder(config)  # type: ignore[no-untyped-call]
    elif isinstance(adapter, PrefixTuning) and adapter.prefix_projection:
        made = PrefixEncoder(config)  # type: ignore[no-untyped-call]
    elif isinstance(adapter, PrefixTuning):
        made = torch.nn.Embedding(config.num_virtual_tokens, 2 * config.num_layers * config.token_dim)
    else:
        made = torch.nn.Embedding(config.num_virtual_tokens, config.token_dim)
    return made


def row_width(module: torch.nn.Module, adapter: VirtualTokens) -> int:
    """Numbers of a virtual token, as peft's files have it."""
    config: Any = module.config
    if isinstance(adapter, PrefixTuning):
        return 2 * math.prod(_cache_shape(module))
    return int(config.hidden_size)


def virtual_tokens(module: torch.nn.Module) -> int:
    """How many stand before each text."""
    found: Any = getattr(module, MODULE, None)
    return 0 if found is None else int(getattr(found, "embedding", found).num_embeddings)


def prompt_of(module: torch.nn.Module) -> torch.Tensor:
    """What stands before each text: float32, shape (tokens, numbers of one)."""
    import torch

    encoder: Any = getattr(module, MODULE)
    if isinstance(encoder, torch.nn.Embedding):
        return encoder.weight
    indices_1P = torch.arange(virtual_tokens(module), device=encoder.embedding.weight.device)[None]
    found: torch.Tensor = encoder(indices_1P)[0]
    return found


def attach(module: torch.nn.Module, adapter: VirtualTokens, encoder: torch.nn.Module) -> None:
    """Freeze the model, and have `encoder`'s tokens stand before its texts."""
    module.requires_grad_(False)
    module.add_module(MODULE, encoder)
    if isinstance(adapter, PrefixTuning):
        module.register_forward_pre_hook(_keys_before, with_kwargs=True)
    else:
        module.register_forward_pre_hook(_tokens_before, with_kwargs=True)
        module.register_forward_hook(_after, with_kwargs=True)


# --- a call --------------------------------------------------------------------------------------------------------------

Call = tuple[tuple[Any, ...], dict[str, Any]]


def _tokens_before(module: Any, args: tuple[Any, ...], given: dict[str, Any]) -> Call:
    """The call with virtual tokens before its text; with a cache that holds tokens, they are in there."""
    import torch

    given = _checked(args, given)
    module.prompt_encoder.stands_before = _begins(given)
    if not module.prompt_encoder.stands_before:
        return (), given | _mask(module, given)
    ids_BT = given["input_ids"]
    embedded_BTD = module.get_input_embeddings()(ids_BT)
    prompt_BPD = prompt_of(module).to(embedded_BTD.dtype).expand(ids_BT.shape[0], -1, -1)
    changed = given | {"input_ids": None, "inputs_embeds": torch.cat((prompt_BPD, embedded_BTD), dim=1)}
    return (), changed | _mask(module, given)


def _after(module: Any, args: tuple[Any, ...], given: dict[str, Any], out: Any) -> Any:
    """Logits of the given tokens alone."""
    if module.prompt_encoder.stands_before:
        out.logits = out.logits[:, virtual_tokens(module) :]
    return out


def _keys_before(module: Any, args: tuple[Any, ...], given: dict[str, Any]) -> Call:
    """The call with a cache that holds the virtual tokens' keys and values; one that holds tokens has them already."""
    given = _checked(args, given) | _mask(module, given)
    if not _begins(given):
        return (), given
    return (), given | {"past_key_values": _cache(module, given["input_ids"])}


def _checked(args: tuple[Any, ...], given: dict[str, Any]) -> dict[str, Any]:
    if len(args) == 1 and "input_ids" not in given:
        given = {"input_ids": args[0], **given}
    elif args or given.get("input_ids") is None:
        raise UsageError("A model with virtual tokens takes input_ids, attention_mask and past_key_values, by name.")
    if given.get("labels") is not None or given.get("position_ids") is not None:
        raise UsageError(
            "A model with virtual tokens takes no labels and no position_ids: it places its tokens itself."
        )
    return given


def _begins(given: dict[str, Any]) -> bool:
    cache = given.get("past_key_values")
    return cache is None or cache.get_seq_length() == 0


def _mask(module: Any, given: dict[str, Any]) -> dict[str, Any]:
    """The given mask, if there is one, with virtual tokens that are seen before it."""
    import torch

    mask_BT = given.get("attention_mask")
    if mask_BT is None:
        return {}
    return {"attention_mask": torch.cat((mask_BT.new_ones(mask_BT.shape[0], virtual_tokens(module)), mask_BT), dim=1)}


def _cache(module: Any, ids_BT: torch.Tensor) -> Any:
    """A cache for a batch, with the prefix in it."""
    import torch
    from transformers import DynamicCache

    layers, heads, head_width = _cache_shape(module)
    prefix_PW = prompt_of(module)
    kind = ids_BT.device.type
    if torch.is_autocast_enabled(kind):  # keys and values of the text will be of that type
        prefix_PW = prefix_PW.to(torch.get_autocast_dtype(kind))
    all_SHPD = prefix_PW.view(-1, 2 * layers, heads, head_width).permute(1, 2, 0, 3)
    all_SBHPD = all_SHPD[:, None].expand(-1, ids_BT.shape[0], -1, -1, -1)
    return DynamicCache([(all_SBHPD[2 * layer], all_SBHPD[2 * layer + 1]) for layer in range(layers)])


def _cache_shape(module: torch.nn.Module) -> tuple[int, int, int]:
    """Blocks, heads of keys and values in each, and their width."""
    config: Any = module.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return config.num_hidden_layers, heads, head_width
