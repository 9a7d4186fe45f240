"""Initial weights as a function of the plan's seed and the tensors' names: the same bits on any machine.

torch's own generators give other bits with another CPU capability or version, and depend on the order of construction. Here
each tensor has a stream of its own, read as integers, and only exact operations follow:

    key      = first 16 bytes of SHA-256("llmasos/v1/initial" ‖ 0x00 ‖ seed (8 bytes, little-endian) ‖ name), little-endian
    stream   = Philox-4x64 under that key from counter 0, as little-endian 16-bit integers
    block    = 65,536 elements, made from 12 rows of 65,536 integers; the last block is cut
    normal   = (sum of the 12 rows − 12 · 65535 / 2) / 65536       exact; mean 0, variance 1 (Irwin-Hall)
    weight   = float32(normal) · float32(standard deviation)       rounded once

Standard deviations are GPT-2's: 0.02, and 0.02 / √(2 · layers) for GPT-2's residual projections; T5's own, which depend on
widths (Raffel et al., arXiv:1910.10683, as in their code); for the Transformer of 2017 those of its code, 1 / √d_model for
embeddings and Glorot's √(2 / (inputs + outputs)) for layers. Gains are 1, biases 0. Tables of sinusoidal positions are what
they are, computed in float64 and rounded once.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from common.plan.architectures import GPT2, T5, Model, Transformer
from llmasos.models.architecture import INITIALIZER_RANGE

if TYPE_CHECKING:
    import torch

BLOCK = 65_536
_ROWS = 12
_CONTEXT = b"llmasos/v1/initial\0"


def fill_initial(module: torch.nn.Module, model: Model, *, seed: int) -> None:
    """Overwrite every parameter of `module` (on the CPU, float32, contiguous) with its initial value; tables of sinusoidal
    positions, which transformers fills and does not train, stay."""
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        weights = parameter.detach().numpy().reshape(-1)
        if parameter.dim() < 2:
            weights[:] = 0.0 if name.endswith("bias") else 1.0
        else:
            outputs, inputs = parameter.shape
            fill_normal(weights, standard_deviation(model, name, inputs=inputs, outputs=outputs), name=name, seed=seed)


def standard_deviation(model: Model, name: str, *, inputs: int, outputs: int) -> float:
    """Of the matrix `name`, shape (outputs, inputs), in an architecture. GPT-2's residual projections shrink with depth
    (Radford et al. 2019, section 2.3)."""
    if isinstance(model, GPT2) and name.endswith("c_proj.weight"):
        return INITIALIZER_RANGE / math.sqrt(2 * model.n_layer)
    if isinstance(model, T5):
        return _t5_deviation(model, name)
    if isinstance(model, Transformer):
        if name.endswith(("shared.weight", "embed_tokens.weight")):
            return 1 / math.sqrt(model.d_model)
        return math.sqrt(2 / (inputs + outputs))
    return INITIALIZER_RANGE


def _t5_deviation(model: T5, name: str) -> float:
    """T5 leaves out the 1 / √d_kv of attention, so its queries start smaller; its tied output is scaled in the model."""
    match name.split(".")[-2]:
        case "shared":
            return 1.0
        case "q":
            return 1 / math.sqrt(model.d_model * model.d_kv)
        case "o":
            return 1 / math.sqrt(model.num_heads * model.d_kv)
        case "wo":
            return 1 / math.sqrt(model.d_ff)
    return 1 / math.sqrt(model.d_model)


def fill_normal(weights_P: NDArray[np.float32], deviation: float, *, name: str, seed: int) -> None:
    """Fill a flat float32 array of shape (P,) with normal values, as the module's docstring defines them."""
    key = hashlib.sha256(_CONTEXT + seed.to_bytes(8, "little") + name.encode()).digest()[:16]
    stream = np.random.Philox(key=int.from_bytes(key, "little"))
    scale = np.float32(deviation)
    for first in range(0, weights_P.size, BLOCK):
        raw = np.asarray(stream.random_raw(_ROWS * BLOCK // 4), dtype="<u8").view("<u2").reshape(_ROWS, BLOCK)
        centred = raw.sum(axis=0, dtype=np.int64) - _ROWS * 65535 // 2
        piece = weights_P[first : first + BLOCK]
        np.multiply((centred[: piece.size] * 2.0**-16).astype(np.float32), scale, out=piece)
