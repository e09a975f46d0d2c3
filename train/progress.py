"""Progress bars: on a terminal, and nowhere else."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def show_progress(items: Iterable[Item], total: int | None, label: str) -> Iterator[Item]:
    """Yields the items and counts them on a bar with rate and time left."""
    yield from tqdm(items, total=total, desc=label, unit="image", disable=not sys.stderr.isatty())
