"""Every message that is read from the wire, by every converter that reads it: 1 byte chooses which."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints

from google.protobuf.message import DecodeError, Message

from common.blobs.reference import BlobRef
from common.wire import convert, convert_log
from coordinator.api import convert as coordinators
from coordinator.api import convert_views
from tests.fuzz.harness import Target

GOLDEN = Path(__file__).parents[2] / "contract" / "golden" / "wire-v1"
KNOWN: dict[str, Any] = {"ref": BlobRef(algorithm="blake3", size=4 * 1024 * 1024 + 7, root="a1" * 32), "from_index": 41}
"""What the reader of a message knows beside it."""

Reader = Callable[[Any], object]


def readers() -> Iterator[tuple[type[Message], Reader]]:
    """Each `*_from_wire`, with each kind of message that it says it reads."""
    for module in (convert, convert_log, coordinators, convert_views):
        for name in sorted(vars(module)):
            if name.endswith("_from_wire") and not name.startswith("_"):
                yield from _of(module, name)


def _of(module: ModuleType, name: str) -> Iterator[tuple[type[Message], Reader]]:
    function = getattr(module, name)
    first, *others = signature(function).parameters
    kind = get_type_hints(function)[first]
    if first == "messages":  # a stream: tests/fuzz/targets/blobs.py
        return
    reader = partial(function, **{other: KNOWN[other] for other in others})
    for each in get_args(kind) or (kind,):
        if issubclass(each, Message):  # else a piece that was read without protobuf: tests/fuzz/targets/blobs.py
            yield each, reader


READERS = tuple(readers())


def entry(data: bytes) -> None:
    if not data:
        return
    kind, reader = READERS[data[0] % len(READERS)]
    try:
        message = kind.FromString(data[1:])
    except DecodeError:  # gRPC answers these itself
        return
    reader(message)


def seeds() -> list[bytes]:
    found = []
    for index, (kind, _) in enumerate(READERS):
        content = bytes.fromhex((GOLDEN / f"{kind.DESCRIPTOR.name}.hex").read_text())
        found.append(bytes([index]) + content)
    return found


TARGET = Target(entry, seeds(), max_bytes=8_192)
