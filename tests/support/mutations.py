"""Valid bytes, changed a little: what a hostile or a broken peer would send. Seeded by hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

MOST_EDITS = 4


@st.composite
def mutated(draw: st.DrawFn, content: bytes) -> bytes:
    """`content` with bits flipped, bytes put in or cut out, a part repeated, or its end gone."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, MOST_EDITS))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.sampled_from(("flip", "set", "insert", "cut", "repeat", "end"))):
            case "flip" if data:
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "set" if data:
                data[at] = draw(st.sampled_from((0x00, 0x01, 0x7F, 0x80, 0xFF, 0x22, 0x2D, 0x30, 0x5B, 0x7B)))
            case "insert":
                data[at:at] = draw(st.binary(min_size=1, max_size=12))
            case "cut":
                del data[at : at + draw(st.integers(1, 16))]
            case "repeat":
                data[at:at] = data[at : at + draw(st.integers(1, 64))] * draw(st.integers(1, 3))
            case "end":
                del data[at:]
    return bytes(data)
