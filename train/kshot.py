"""The K-shot protocol of arXiv 2405.14857: which images are real, which of them condition, which seeds the samples have.

Every class gives shots x samples_per_condition = R real images, N over all classes, and the first `shots` of them are conditions, K over
all classes. Each condition makes N / K = samples_per_condition samples. The R images after those are the other side of the
real-against-real floor. The order within a class is that of a keyed hash, so neither other classes nor unreadable images change it.

Halves: where a class has less than 2 R readable images, the floor takes h = half of what there is from both sides, and generated samples
are scored on as many as well, so that equal numbers are compared.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from train.image_files import ImageFile, InputError


def keyed_seed(seed: int, image_id: str, index: int) -> int:
    """Returns the seed of a condition's sample, in [0, 2**64)."""
    text = f"sample {seed} {image_id} {index}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def sample_id(image_id: str, seed: int) -> str:
    """Returns the name of a condition's sample, which says both: the beginning of the condition's id, and the sample's own seed."""
    return f"{image_id[:16]}-{seed:016x}"


def by_class(files: Sequence[ImageFile], *, seed: int) -> dict[str, list[ImageFile]]:
    """Returns the files of each class (the folder that holds them), classes sorted, files in the order of a hash of name and seed."""
    classes: dict[str, list[ImageFile]] = {}
    for file in sorted(files, key=lambda file: hashlib.blake2b(f"{seed} {file.name}".encode("utf-8", "surrogateescape")).digest()):
        classes.setdefault(file.folder, []).append(file)
    return dict(sorted(classes.items()))


def check_classes(classes: Mapping[str, Sequence[object]], *, folder: str, needed: int) -> None:
    """Refuses a folder that the protocol cannot be run on.

    Raises:
      InputError: for images outside of class folders, a single class, or a class of too few images.
    """
    if "" in classes:
        raise InputError(
            f"--images {folder}: {len(classes[''])} images stand beside the class folders; move each into the folder of its class"
        )
    if len(classes) < 2:
        raise InputError(f"--images {folder}: {next(iter(classes))!r} is the only class; give a folder with two class folders or more")
    few = {name: len(files) for name, files in classes.items() if len(files) < needed}
    if few:
        name = min(few, key=lambda name: (few[name], name))
        raise InputError(
            f"--images {folder}: class {name!r} has {few[name]} readable images where shots x samples-per-condition = {needed} are needed "
            f"({len(few)} of {len(classes)} classes have too few); lower --samples-per-condition or leave the class out"
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """Rows of the feature arrays that are compared; all int64."""

    real: np.ndarray
    """N rows of the real images."""
    conditions: np.ndarray
    """K of them; empty without a model."""
    floor_a: np.ndarray
    """n <= N of the real images, where n < N only if the folder has too few."""
    floor_b: np.ndarray
    """n others."""
    matched: np.ndarray
    """n rows of the generated images, to be scored against floor_a where n < N."""


def split_classes(counts: Sequence[int], *, shots: int, samples: int) -> Split:
    """Returns the rows of the protocol.

    Args:
      counts: readable images of each class, at least shots x samples; their rows follow one another, class by class.
      shots: conditions of a class.
      samples: of a condition; the rows of generated images follow the conditions.
    """
    needed = shots * samples
    starts: list[int] = np.cumsum([0, *counts[:-1]]).tolist()
    halves = [min(needed, count // 2) for count in counts]

    def rows(first: Sequence[int], numbers: Sequence[int]) -> np.ndarray:
        return np.concatenate([np.arange(start, start + number) for start, number in zip(first, numbers, strict=True)])

    return Split(
        real=rows(starts, [needed] * len(counts)),
        conditions=rows(starts, [shots] * len(counts)),
        floor_a=rows(starts, halves),
        floor_b=rows([start + half for start, half in zip(starts, halves, strict=True)], halves),
        matched=rows([place * needed for place in range(len(counts))], halves),
    )


def split_folders(real: int, generated: int) -> Split:
    """Returns the rows for two folders without a model: as many images of both, and the floor from what the real one has beyond."""
    count = min(real, generated)
    half = min(count, real // 2)
    return Split(
        real=np.arange(count),
        conditions=np.arange(0),
        floor_a=np.arange(half),
        floor_b=np.arange(half, 2 * half),
        matched=np.arange(half),
    )
