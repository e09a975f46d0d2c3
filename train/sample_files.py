"""Samples as files: which are wanted, their ids and seeds, PNGs that are made once, and the record from which any can be made again."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from pagepairs.files import read_json, write_bytes, write_json
from pagepairs.images import encode_image
from train.image_files import Dropped, ImageFile, Picture, read_images
from train.kshot import keyed_seed, sample_id


class Generator(Protocol):
    """A model that makes images from condition images."""

    image_px: int
    """Side of the images it makes."""
    condition_px: int
    """Side that larger conditions are resized and cropped to, as those of training were."""
    batch: int
    """Images it makes at a time."""
    digest: Mapping[str, Any]
    """What decides its pixels, besides conditions, seeds and guidance: sha256 of the checkpoint, steps, ..."""

    def draw(self, conditions: Sequence[np.ndarray], seeds: Sequence[int], guidance: float) -> np.ndarray:
        """Returns one image for each condition (uint8 square) and its seed: uint8 (B, image_px, image_px, 3)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Wanted:
    """One sample to make."""

    sample_id: str
    seed: int
    index: int
    condition: Picture

    def as_json(self) -> dict[str, Any]:
        """Returns its entry in a record."""
        return {
            "id": self.sample_id,
            "seed": self.seed,
            "index": self.index,
            "condition_id": self.condition.image_id,
            "condition": self.condition.name,
        }


def wanted_samples(conditions: Sequence[Picture], *, samples: int, seed: int) -> list[Wanted]:
    """Returns the samples of each condition, one condition after the other; seeds hang on the condition's bytes, `seed` and the index."""
    seeds = [(condition, index, keyed_seed(seed, condition.image_id, index)) for condition in conditions for index in range(samples)]
    return [
        Wanted(sample_id=sample_id(condition.image_id, own), seed=own, index=index, condition=condition) for condition, index, own in seeds
    ]


def keep_record(path: str, record: dict[str, Any], *, decides: Mapping[str, str]) -> None:
    """Writes what a folder of samples holds, before the first is made; what an equal command left there is kept and gone on from.

    Args:
      path: of the JSON file.
      record: its content.
      decides: the keys that must be equal for samples in the folder to be kept, each with what it means if one is not.

    Raises:
      ValueError: if the folder holds samples that another command made.
    """
    if os.path.exists(path):
        found = read_json(path)
        if other := [meaning for key, meaning in decides.items() if found.get(key) != record[key]]:
            raise ValueError(f"--output {os.path.dirname(path)}: it holds samples of {' and '.join(other)}; name another folder")
    write_json(path, record)


def make_samples(generator: Generator, wanted: Sequence[Wanted], *, guidance: float, folder: str) -> None:
    """Makes the samples that the folder lacks, as lossless PNGs named by their ids."""
    missing = {one.sample_id: one for one in wanted if not os.path.exists(sample_path(folder, one.sample_id))}
    todo = list(missing.values())
    label = f"w = {guidance:g}"
    with tqdm(total=len(wanted), initial=len(wanted) - len(todo), desc=label, unit="image", disable=not sys.stderr.isatty()) as bar:
        for start in range(0, len(todo), generator.batch):
            batch = todo[start : start + generator.batch]
            images = generator.draw([one.condition.rgb_HW3 for one in batch], [one.seed for one in batch], guidance)
            for one, image in zip(batch, images, strict=True):
                write_bytes(sample_path(folder, one.sample_id), encode_image(image, "png", 0))
            bar.update(len(batch))


def sample_path(folder: str, sample: str) -> str:
    """Returns where a sample's PNG lies."""
    return os.path.join(folder, f"{sample}.png")


def read_samples(folder: str, wanted: Sequence[Wanted]) -> Iterator[np.ndarray]:
    """Yields the pixels of the samples in order, from their PNGs."""
    files = [ImageFile(path=sample_path(folder, one.sample_id), name=one.sample_id) for one in wanted]
    dropped = Dropped()
    yield from (picture.rgb_HW3 for picture in read_images(files, size_px=0, dropped=dropped))
    if dropped.counts:
        raise OSError(f"{folder}: samples that were written cannot be read back: {dropped}")
