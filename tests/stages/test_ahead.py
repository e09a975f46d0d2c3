import threading
import time
from collections.abc import Iterator

import pytest

from pipeline.ahead import map_ahead


def test_results_come_in_order_whatever_ends_first() -> None:
    def slow(n: int) -> int:
        time.sleep(0.02 * (n % 3 == 0))
        return n * n

    assert list(map_ahead(slow, range(20), threads=4, window=8)) == [(n, n * n) for n in range(20)]


def test_no_items() -> None:
    assert list(map_ahead(len, [], threads=1, window=1)) == []


@pytest.mark.parametrize(("threads", "window"), [(1, 1), (2, 3), (4, 12)])
def test_no_more_items_than_the_window_are_under_way(threads: int, window: int) -> None:
    taken, finished, most = 0, 0, 0
    lock = threading.Lock()

    def items() -> Iterator[int]:
        nonlocal taken, most
        for n in range(40):
            with lock:
                taken += 1
                most = max(most, taken - finished)
            yield n

    for _ in map_ahead(lambda n: n, items(), threads=threads, window=window):
        with lock:
            finished += 1
    # One more is in the hands of the loop that waits for the first.
    assert most <= window + 1


def test_no_more_weight_than_allowed_is_under_way_but_for_the_next() -> None:
    taken: list[int] = []
    items = iter([5, 1, 1, 9, 1, 1, 1, 30, 2, 2, 2])
    results = map_ahead(lambda n: n, (taken.append(n) or n for n in items), threads=2, window=9, weigh=int, max_weight=3)
    for after in ([5, 1, 1, 9], [5, 1, 1, 9], [5, 1, 1, 9], [5, 1, 1, 9, 1, 1, 1, 30]):
        next(results)
        assert taken == after
    assert [n for n, _ in results] == [1, 1, 1, 30, 2, 2, 2]


def test_work_does_run_ahead() -> None:
    barrier = threading.Barrier(3)
    assert [n for n, _ in map_ahead(lambda _: barrier.wait(timeout=10), range(3), threads=3, window=3)] == [0, 1, 2]


def test_an_error_comes_in_its_turn() -> None:
    results = map_ahead(lambda n: 1 // (n - 3), range(9), threads=2, window=4)
    assert [next(results)[0] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ZeroDivisionError):
        next(results)
