"""The header of deltas that are not a safetensors file of their tensors: one of a single tensor of bytes.

    {"int8":{"dtype":"U8","shape":[1310720],"data_offsets":[0,1310720]}}

The data starts at a multiple of 128, of `topk` at one of 1,024, as blocks do, so that no block lies across two chunks.
"""

from __future__ import annotations

import json

LENGTH_BYTES = 8
ALIGNMENT = 128


def packed_header(name: str, encoded_bytes: int, *, alignment: int = ALIGNMENT) -> bytes:
    """The first bytes of a delta whose numbers take so many bytes, by the name of its codec; a multiple of `alignment`."""
    entry = {name: {"dtype": "U8", "shape": [encoded_bytes], "data_offsets": [0, encoded_bytes]}}
    text = json.dumps(entry, separators=(",", ":")).encode()
    text += b" " * (-(LENGTH_BYTES + len(text)) % alignment)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text
