"""Work that runs ahead in threads while its results are taken in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
R = TypeVar("R")


def map_ahead(
    function: Callable[[S], R],
    items: Iterable[S],
    *,
    threads: int,
    window: int,
    weigh: Callable[[S], int] = lambda _: 0,
    max_weight: int = 0,
) -> Iterator[tuple[S, R]]:
    """Yields each item with its result, in the order of the items; what is under way is bounded, and so is memory.

    Args:
      function: called in threads.
      items: taken as there is room for them.
      threads: that call the function.
      window: most items that are under way.
      weigh: what an item adds to the weight of those under way.
      max_weight: of all that are under way but one.
    """
    waiting: deque[tuple[S, Future[R]]] = deque()
    weight = 0
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            weight += weigh(item)
            while len(waiting) > window or weight > max_weight + weigh(waiting[0][0]):
                weight -= weigh(waiting[0][0])
                yield _finished(waiting.popleft())
        while waiting:
            yield _finished(waiting.popleft())


def _finished(entry: tuple[S, "Future[R]"]) -> tuple[S, R]:
    """Waits for an item; whoever takes the result is the only one to hold it."""
    item, future = entry
    return item, future.result()
