"""Work that runs ahead in threads while its results are taken in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
R = TypeVar("R")


def map_ahead(function: Callable[[S], R], items: Iterable[S], *, threads: int, window: int) -> Iterator[tuple[S, R]]:
    """Yields each item with its result, in the order of the items; at most `window` items are under way, so memory is bounded."""
    waiting: deque[tuple[S, Future[R]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            if len(waiting) > window:
                done, future = waiting.popleft()
                yield done, future.result()
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()
