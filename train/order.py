"""In which order a run sees its samples: number of the sample -> epoch, permuted group, row; a function of the seed alone.

Groups (row groups of Parquet) are permuted each epoch, and rows are permuted within windows of some groups, so that files are read a
group at a time and hardly any order is left. Nothing is stored: the number of samples seen is the whole state.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pagepairs.keys import mix
from train.keyed import stream


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Some groups whose rows are shuffled together."""

    epoch: int
    number: int
    start: int
    """Number of its first sample."""
    groups: tuple[int, ...]
    group_N: np.ndarray
    """Group of the sample at each position; int64."""
    row_N: np.ndarray
    """Its row in that group."""

    def __len__(self) -> int:
        return len(self.row_N)

    @property
    def end(self) -> int:
        """Number of the first sample of the next window."""
        return self.start + len(self)


class Order:
    """The order of all samples of a run, epoch after epoch."""

    def __init__(self, sizes: Sequence[int], *, window_groups: int, seed: int) -> None:
        """Takes the number of rows of each group."""
        self._size_G, self._window_groups = np.asarray(sizes, np.int64), window_groups
        self._key = stream(seed, "order")
        self.rows = int(self._size_G.sum())
        self._epoch, self._group_G, self._end_W = -1, np.empty(0, np.int64), np.empty(0, np.int64)

    def window(self, sample: int) -> Window:
        """Returns the window that holds a sample, in [0, infinity)."""
        epoch, place = divmod(sample, self.rows)
        self._enter(epoch)
        number = int(np.searchsorted(self._end_W, place, side="right"))
        groups = self._group_G[number * self._window_groups : (number + 1) * self._window_groups]
        group_N = groups.repeat(self._size_G[groups])
        row_N = np.concatenate([np.arange(self._size_G[group]) for group in groups])
        shuffled_N = np.argsort(mix(self._key, epoch, number + 1, np.arange(len(row_N))), kind="stable")
        start = epoch * self.rows + int(self._end_W[number]) - len(row_N)
        return Window(
            epoch=epoch, number=number, start=start, groups=tuple(groups.tolist()), group_N=group_N[shuffled_N], row_N=row_N[shuffled_N]
        )

    def _enter(self, epoch: int) -> None:
        if epoch == self._epoch:
            return
        self._group_G = np.argsort(mix(self._key, epoch, 0, np.arange(len(self._size_G))), kind="stable")
        end_G = np.cumsum(self._size_G[self._group_G])
        self._end_W = np.append(end_G[self._window_groups - 1 : -1 : self._window_groups], end_G[-1])
        self._epoch = epoch
