"""Images to score and to condition on: folders, single files, pair shards. What cannot be read is dropped under a named reason and counted.

An image's id is the sha256 of its file, as everywhere in pagepairs; its name is its path below the folder that was given.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from PIL import Image

from pagepairs.images import ImageError, centre_crop, decode, resize_shortest
from pagepairs.shards import FORMATS, read_shard

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".webp", ".bmp", ".avif")
_MAX_BYTES, _MAX_PIXELS, _TIMEOUT_S = 100_000_000, 200_000_000, 60.0
_EXAMPLES = 5
_AHEAD = 64


class InputError(ValueError):
    """Images that cannot be used as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFile:
    """A file that has the name of an image."""

    path: str
    name: str
    """Below the folder that was given, parts separated by /."""

    @property
    def folder(self) -> str:
        """The part of the name before the last /, "" without one."""
        return self.name.rpartition("/")[0]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Picture:
    """An image that was read."""

    name: str
    image_id: str
    rgb_HW3: np.ndarray


@dataclass(slots=True, kw_only=True)
class Dropped:
    """What could not be used: counts by reason, and a few names of each."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, name: str, error: ImageError) -> None:
        """Counts one image."""
        self.counts[error.reason] += 1
        if len(found := self.examples.setdefault(error.reason, [])) < _EXAMPLES:
            found.append(f"{name}: {error.detail}" if error.detail else name)

    def as_json(self) -> dict[str, dict[str, object]]:
        """Returns count and examples by reason."""
        return {reason: {"count": count, "examples": self.examples[reason]} for reason, count in sorted(self.counts.items())}

    def __str__(self) -> str:
        """Returns one line, such as `broken_image 2 (a.jpg: ...)`."""
        return ", ".join(f"{reason} {count} ({self.examples[reason][0]})" for reason, count in sorted(self.counts.items()))


def find_images(path: str, *, flag: str) -> tuple[ImageFile, ...]:
    """Returns the image files below a folder at any depth, or the one file, sorted by name; hidden ones are left out.

    Args:
      path: a folder or an image file.
      flag: how the user named it, for errors.

    Raises:
      InputError: if nothing is there.
    """
    if not path:
        raise ValueError(f"{flag} is missing: name a folder of images")
    if os.path.isfile(path):
        return (ImageFile(path=path, name=os.path.basename(path)),)
    if not os.path.isdir(path):
        raise InputError(f"{flag} {path}: there is no such folder")
    found = []
    for folder, folders, names in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                whole = os.path.join(folder, name)
                found.append(ImageFile(path=whole, name=os.path.relpath(whole, path).replace(os.sep, "/")))
    if not found:
        raise InputError(f"{flag} {path}: the folder holds no image ({', '.join(SUFFIXES)})")
    return tuple(sorted(found, key=lambda file: file.name))


def header_size(file: ImageFile) -> tuple[int, int] | None:
    """Returns width and height as the file's header states them, or None where it cannot be read."""
    try:
        with Image.open(file.path) as image:
            return image.size
    except (OSError, ValueError, SyntaxError):
        return None


def shard_files(path: str) -> tuple[str, ...]:
    """Returns the pair shards that stand directly in a folder, sorted; none where it holds something else."""
    endings = tuple(form.extension for form in FORMATS.values())
    names = sorted(os.listdir(path)) if os.path.isdir(path) else []
    return tuple(os.path.join(path, name) for name in names if name.startswith("pairs-") and name.endswith(endings))


def read_body(body: bytes, *, name: str, size_px: int, small_ok: bool = False) -> Picture:
    """Returns an image from its file's bytes.

    Args:
      body: the whole file.
      name: of the picture.
      size_px: 0 keeps the shape; else the shortest side is resized to this and the middle square taken, as `pagepairs shard` does it.
      small_ok: takes the middle square of an image smaller than that as it is.

    Raises:
      ImageError: if it is damaged, or smaller than `size_px` where that is not asked for.
    """
    rgb = decode(body, max_bytes=_MAX_BYTES, max_pixels=_MAX_PIXELS, timeout_s=_TIMEOUT_S, animations="first-frame").rgb
    if size_px:
        if min(rgb.shape[:2]) < size_px and not small_ok:
            raise ImageError("too_small", f"{rgb.shape[1]} x {rgb.shape[0]}, not {size_px}")
        rgb = centre_crop(resize_shortest(rgb, size_px), min(size_px, *rgb.shape[:2]))
    return Picture(name=name, image_id=hashlib.sha256(body).hexdigest(), rgb_HW3=rgb)


def _read_file(file: ImageFile, size_px: int, small_ok: bool) -> Picture | ImageError:
    try:
        with open(file.path, "rb") as handle:
            return read_body(handle.read(), name=file.name, size_px=size_px, small_ok=small_ok)
    except ImageError as error:
        return error
    except OSError as error:
        return ImageError("unreadable_file", error.strerror or str(error))


def read_images(files: Iterable[ImageFile], *, size_px: int, dropped: Dropped, small_ok: bool = False) -> Iterator[Picture]:
    """Yields the images in order, decoded in threads a few ahead and sized by `read_body`; those that cannot be read go to `dropped`."""
    files = iter(files)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while batch := list(islice(files, _AHEAD)):
            for file, found in zip(batch, pool.map(lambda file: _read_file(file, size_px, small_ok), batch), strict=True):
                if isinstance(found, ImageError):
                    dropped.add(file.name, found)
                else:
                    yield found


def read_shard_images(paths: Sequence[str], *, side: str, dropped: Dropped, size_px: int = 0) -> Iterator[Picture]:
    """Yields the conditions or targets of pair shards in order, each distinct image once.

    Args:
      paths: as `shard_files` returns them.
      side: condition or target.
      dropped: counts what cannot be read.
      size_px: as of `read_body`, smaller ones as they are.
    """
    seen = set()
    for path in paths:
        for row in read_shard(path):
            image_id = row[f"{side}_id"]
            if image_id in seen:
                continue
            seen.add(image_id)
            try:
                picture = read_body(row[f"{side}_image"], name=image_id, size_px=size_px, small_ok=True)
            except ImageError as error:
                dropped.add(image_id, error)
            else:
                yield Picture(name=image_id, image_id=image_id, rgb_HW3=picture.rgb_HW3)
