"""Training images beside generated ones: how near samples come to an image that the model has seen."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from train.features import FeatureSpace, extract
from train.image_files import Dropped, ImageFile, InputError, Picture, find_images, read_images, read_shard_images, shard_files
from train.progress import show_progress
from train.scores import memorisation

COPIES = 6
"""Generated images nearest to a training image that are shown."""
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Copy:
    """A generated image beside the training image that it is nearest to."""

    name: str
    """Of its set."""
    row: int
    """In its set."""
    generated: np.ndarray
    training: Picture
    cosine: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingImages:
    """Where the training images lie."""

    shards: tuple[str, ...]
    files: tuple[ImageFile, ...]
    size_px: int
    """Of the generated images: larger ones are brought to it, as an image and its own enlargement are not alike to every encoder."""

    def pictures(self, dropped: Dropped) -> Iterator[Picture]:
        """Yields them: of pairs, the targets."""
        if self.shards:
            return read_shard_images(self.shards, side="target", dropped=dropped, size_px=self.size_px)
        return read_images(self.files, size_px=self.size_px, dropped=dropped, small_ok=True)


def find_training(path: str) -> tuple[tuple[str, ...], tuple[ImageFile, ...]]:
    """Returns the pair shards in the folder --training, or else the image files.

    Raises:
      InputError: if nothing is there.
    """
    shards = shard_files(path)
    return shards, () if shards else find_images(path, flag="--training")


def compare_with_training(
    space: FeatureSpace,
    training: TrainingImages,
    *,
    generated: Mapping[str, np.ndarray],
    real_ND: np.ndarray,
    pixels: Callable[[str], Iterator[np.ndarray]],
) -> tuple[dict[str, Any], list[Copy]]:
    """Returns how near each set comes to the training images, and the nearest pairs of images, the highest cosine first.

    Args:
      space: of unit vectors.
      training: what was trained on; read twice, the second time only as far as the pictures need it.
      generated: unit vectors of each set by its name.
      real_ND: of the real images, to compare with.
      pixels: yields the images of a set in the order of its vectors.

    Raises:
      InputError: if no training image can be read.
    """
    dropped = Dropped()
    stream = (picture.rgb_HW3 for picture in training.pictures(dropped))
    (vector_ND,) = extract([space], show_progress(stream, len(training.files) or None, "training"))
    if not len(vector_ND):
        raise InputError(f"--training: no image can be read: {dropped}")
    scores, nearest = memorisation(generated, real_ND, vector_ND)
    every = [(float(cosine), name, row) for name, found in nearest.items() for row, cosine in enumerate(found.cosine_M)]
    first: dict[int, tuple[float, str, int]] = {}  # a row is one seed: its samples at other guidances would crowd out the rest
    for one in sorted(every, key=lambda one: (-one[0], one[1:])):
        first.setdefault(one[2], one)
    top = list(first.values())[:COPIES]
    originals = _pick(training.pictures(Dropped()), {int(nearest[name].index_M[row]) for _, name, row in top})
    made = {name: _pick(pixels(name), {row for _, one, row in top if one == name}) for _, name, _ in top}
    copies = [
        Copy(name=name, row=row, generated=made[name][row], training=originals[int(nearest[name].index_M[row])], cosine=cosine)
        for cosine, name, row in top
    ]
    shown = [{"set": copy.name, "row": copy.row, "training": copy.training.name, "cosine": copy.cosine} for copy in copies]
    return scores | {"nearest": shown, "dropped": dropped.as_json()}, copies


def _pick(items: Iterable[Item], rows: set[int]) -> dict[int, Item]:
    return {row: item for row, item in enumerate(islice(items, max(rows) + 1)) if row in rows}
