"""Micro-batches by number: rows are read a window at a time, decoded in threads ahead of the network, and the same for every format.

Sample i is row i of the run's order (train/order.py). A damaged pair is skipped: the next good row of its window takes its place, which
depends on the data alone; it is counted, named, and above 1 % the run stops.
"""

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np

from pagepairs.images import ImageError
from train.condition import Conditioner
from train.groups import DataError, Groups, Pair, Row
from train.keyed import generator
from train.order import Order, Window
from train.samples import Augment, Batch, Sample, collate, condition_of, random_inputs, size_of, two_images

_MOST_BROKEN = 0.01
_EPOCH_AT_MOST = 10_000
_AHEAD = 3
"""Micro-batches that are decoded before they are asked for."""
_LOOKS = 8
"""Groups whose images are measured before work begins."""


_Made = tuple[Sample, dict[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderConfig:
    """How samples are made."""

    image_px: int
    micro_batch: int
    seed: int
    same_image: bool
    """Whether the condition is the target (reconstruction)."""
    condition_dropout: float
    augment: Augment
    window_groups: int
    threads: int


def check_sizes(groups: Groups, image_px: int, data: str) -> None:
    """Refuses data with more than a few images smaller than the network's, from the headers of some groups.

    Raises:
      DataError: if more than 1 % of the targets looked at are too small.
    """
    step = max(1, len(groups.sizes) // _LOOKS)
    sizes = []
    for group in range(0, len(groups.sizes), step)[:_LOOKS]:
        for place, row in enumerate(groups.read(group)):
            try:
                size = size_of(row(generator(0, "look", place)).target)
            except ImageError:
                continue
            sizes += [min(size)] if size else []
    small = sum(size < image_px for size in sizes)
    if small > _MOST_BROKEN * len(sizes):
        raise DataError(
            f"--data {data}: {small} of {len(sizes)} images are smaller than the network's {image_px} pixels "
            f"(the smallest has {min(sizes)}); run `pagepairs shard --size {image_px}` on images of at least that side, "
            "or take a smaller --preset"
        )


class Reader:
    """Makes micro-batches ahead of time; iterate over `batches`."""

    def __init__(self, groups: Groups, conditioner: Conditioner, config: ReaderConfig) -> None:
        self._groups, self._conditioner, self._config = groups, conditioner, config
        self._said = 0
        self._order = Order(groups.sizes, window_groups=config.window_groups, seed=config.seed)
        self.rows = self._order.rows
        self.read = 0
        """Samples made so far."""
        self.broken: dict[str, str] = {}
        """Damaged pairs by name, and why."""
        self.skipped = 0
        """Samples that met a damaged pair."""

    def batches(self, numbers: Iterator[int]) -> Generator[Batch, None, None]:
        """Yields the micro-batches of these numbers, which rise.

        Raises:
          DataError: if more than 1 % of the pairs are damaged.
        """
        size = self._config.micro_batch
        with ThreadPoolExecutor(1, "window") as files, ThreadPoolExecutor(self._config.threads, "decode") as pool:
            windows = _Windows(self._order, self._groups, files)
            waiting: deque[tuple[int, list[Future[_Made]]]] = deque()
            try:
                numbers = iter(numbers)
                while True:
                    for number in islice(numbers, _AHEAD - len(waiting)):
                        samples = range(number * size, (number + 1) * size)
                        waiting.append((number, [pool.submit(self._sample, sample, *windows.of(sample)) for sample in samples]))
                    if not waiting:
                        return
                    number, made = waiting.popleft()
                    yield collate([self._checked(*future.result()) for future in made], number)
            finally:
                pool.shutdown(cancel_futures=True)
                files.shutdown(cancel_futures=True)

    def new_warnings(self) -> list[str]:
        """Returns a line for each damaged pair that was not yet spoken of."""
        new = list(self.broken.items())[self._said :]
        self._said += len(new)
        return [f"skipped pair {name}: {reason}" for name, reason in new]

    def first(self, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Returns condition and target of the first good pairs of the run's order, without augmentation; fewer where there are fewer."""
        window = self._order.window(0)
        shown: list[tuple[np.ndarray, np.ndarray]] = []
        rows = {group: self._groups.read(group) for group in dict.fromkeys(window.group_N[: 2 * count].tolist())}
        for group, row in islice(zip(window.group_N, window.row_N, strict=True), 2 * count):
            numbers = generator(self._config.seed, "first", len(shown))
            try:
                pair = rows[int(group)][int(row)](numbers)
                same, side = self._config.same_image, self._config.image_px
                shown.append(two_images(pair.condition, pair.target, image_px=side, same=same, augment="none", numbers=numbers))
            except ImageError:
                continue
        return shown[:count]

    def _checked(self, sample: Sample, errors: dict[str, str]) -> Sample:
        """Counts what was skipped."""
        self.read += 1
        self.skipped += bool(errors)
        for name in errors.keys() - self.broken.keys():
            self.broken[name] = errors[name]
        looked = min(self.rows, max(self.read, _EPOCH_AT_MOST))
        if len(self.broken) > _MOST_BROKEN * looked:
            last = list(self.broken)[-1]
            raise DataError(
                f"{len(self.broken)} of {looked} pairs are damaged, more than 1 %, the last {last}; run `pagepairs shard` again"
            )
        return sample

    def _sample(self, sample: int, window: Window, loading: Future[dict[int, Sequence[Row]]]) -> _Made:
        """Makes a sample, and returns with it the pairs that were skipped for it."""
        errors: dict[str, str] = {}
        config, rows, place = self._config, loading.result(), sample - window.start
        for shift in range(len(window)):
            at = (place + shift) % len(window)
            numbers = generator(config.seed, "sample", sample)
            key = f"row {window.row_N[at]} of group {window.group_N[at]}"
            try:
                pair: Pair = rows[int(window.group_N[at])][int(window.row_N[at])](numbers)
                key = pair.key
                condition, target = two_images(
                    pair.condition, pair.target, image_px=config.image_px, same=config.same_image, augment=config.augment, numbers=numbers
                )
                ready = condition_of(condition, self._conditioner)
            except ImageError as error:
                errors[key] = f"{error.reason} {error.detail}".strip()
                continue
            eps, t, null = random_inputs(config.seed, sample, config.image_px, config.condition_dropout)
            return Sample(key=key, target_HW3=target, condition_S=ready, eps_3HW=eps, t=t, null=null), errors
        raise DataError(f"all of {len(window)} pairs are damaged, the last {key} ({errors[key]}); run `pagepairs shard` again")


class _Windows:
    """Holds the window of the current sample and loads the next one behind it."""

    def __init__(self, order: Order, groups: Groups, files: ThreadPoolExecutor) -> None:
        self._order, self._groups, self._files = order, groups, files
        self._loaded: deque[tuple[Window, Future[dict[int, Sequence[Row]]]]] = deque()

    def of(self, sample: int) -> tuple[Window, Future[dict[int, Sequence[Row]]]]:
        """Returns the window of a sample and its rows by group, which may still be loading; samples rise."""
        while self._loaded and sample >= self._loaded[0][0].end:
            self._loaded.popleft()
        if not self._loaded:
            self._load(sample)
        window, loading = self._loaded[0]
        if len(self._loaded) == 1:
            self._load(window.end)
        return window, loading

    def _load(self, sample: int) -> None:
        window = self._order.window(sample)
        self._loaded.append((window, self._files.submit(lambda: {group: self._groups.read(group) for group in window.groups})))
