"""Work that several lanes do at once and that is taken in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


def in_lanes(lanes: Sequence[Callable[[int], Result]], count: int) -> Generator[Result, None, None]:
    """What the lanes make of 0 to `count` − 1, in order; a lane begins its next one only when its last was taken.

    So results may lie in a lane's own buffers: each is valid until the next is asked for.
    """
    with ThreadPoolExecutor(len(lanes), thread_name_prefix="reduce") as pool:
        coming = deque(pool.submit(lane, index) for index, lane in enumerate(lanes[:count]))
        for index in range(count):
            yield coming.popleft().result()
            if index + len(lanes) < count:
                coming.append(pool.submit(lanes[index % len(lanes)], index + len(lanes)))
