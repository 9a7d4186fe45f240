"""The header of deltas that are not a safetensors file of their tensors: one of a single tensor of bytes.

    {"int8":{"dtype":"U8","shape":[1310720],"data_offsets":[0,1310720]}}

The data starts at a multiple of 128, as blocks do, so that no block lies across two chunks.
"""

from __future__ import annotations

import json

LENGTH_BYTES = 8
ALIGNMENT = 128


def packed_header(name: str, encoded_bytes: int) -> bytes:
    """The first bytes of a delta whose numbers take so many bytes, by the name of its codec."""
    entry = {name: {"dtype": "U8", "shape": [encoded_bytes], "data_offsets": [0, encoded_bytes]}}
    text = json.dumps(entry, separators=(",", ":")).encode()
    text += b" " * (-(LENGTH_BYTES + len(text)) % ALIGNMENT)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text
