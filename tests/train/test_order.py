"""The order of samples: each row once an epoch, by the seed alone."""

import pytest

from train.order import Order


def rows_of(order: Order, start: int, stop: int) -> list[tuple[int, int]]:
    found = []
    for sample in range(start, stop):
        window = order.window(sample)
        assert window.start <= sample < window.end
        place = sample - window.start
        found.append((int(window.group_N[place]), int(window.row_N[place])))
    return found


@pytest.mark.parametrize("sizes", [(7,), (5, 1, 8, 3, 3, 2), (4, 4, 4, 4)])
@pytest.mark.parametrize("window_groups", [1, 2, 3, 100])
def test_an_epoch_holds_every_row_once(sizes: tuple[int, ...], window_groups: int) -> None:
    order = Order(sizes, window_groups=window_groups, seed=0)
    everything = sorted((group, row) for group, size in enumerate(sizes) for row in range(size))
    for epoch in range(3):
        assert sorted(rows_of(order, epoch * order.rows, (epoch + 1) * order.rows)) == everything


def test_a_window_holds_as_many_groups_as_asked_for() -> None:
    order = Order((5, 1, 8, 3, 3, 2, 2), window_groups=3, seed=0)
    starts = sorted({order.window(sample).start for sample in range(order.rows)})
    windows = [order.window(start) for start in starts]
    assert [len(window.groups) for window in windows] == [3, 3, 1]
    assert sorted(group for window in windows for group in window.groups) == list(range(7))
    assert [set(window.group_N.tolist()) == set(window.groups) for window in windows] == [True] * 3
    assert [window.end for window in windows] == [*starts[1:], order.rows]


def test_epochs_and_seeds_differ_and_any_sample_can_be_asked_for_first() -> None:
    def rows(seed: int, start: int) -> list[tuple[int, int]]:
        return rows_of(Order((6, 6, 6, 6), window_groups=2, seed=seed), start, start + 24)

    assert rows(0, 0) == rows(0, 0)
    assert len({tuple(rows(seed, start)) for seed in (0, 1) for start in (0, 24, 48)}) == 6
    straight = rows_of(Order((6, 6, 6, 6), window_groups=2, seed=3), 0, 72)
    assert rows_of(Order((6, 6, 6, 6), window_groups=2, seed=3), 50, 72) == straight[50:]


def test_rows_are_shuffled_within_the_window_and_groups_over_the_epoch() -> None:
    order = Order((256,) * 64, window_groups=4, seed=0)
    first = rows_of(order, 0, 1024)
    assert len({group for group, _ in first[:64]}) == 4
    assert [group for group, _ in first] != sorted(group for group, _ in first)
    assert {group for group, _ in first} != {0, 1, 2, 3}
