"""A set where the condition decides colour and shape of the target: a bar of one of four colours, lying or standing."""

import io
from pathlib import Path

import numpy as np
from made_pairs import make_shards
from PIL import Image

COLOURS = np.array([[230, 40, 40], [40, 200, 60], [50, 70, 235], [235, 220, 50]])
CLASSES = 2 * len(COLOURS)
BACKGROUND = 60


def bar(kind: int, number: int, size: int) -> np.ndarray:
    """A picture of a class, in [0, CLASSES): the bar's width and place differ by number."""
    rng = np.random.Generator(np.random.Philox(key=[kind, number]))
    middle, width = rng.uniform(0.4, 0.6) * size, rng.uniform(0.3, 0.45) * size
    line = np.abs(np.arange(size) + 0.5 - middle) < width / 2
    mask = np.broadcast_to(line[:, None] if kind % 2 else line[None, :], (size, size))
    return np.where(mask[..., None], COLOURS[kind // 2], BACKGROUND).astype(np.uint8)


def kind_of(image_HW3: np.ndarray) -> int:
    """The class that a picture looks like: the colour of what is not background, and the direction that varies less."""
    image = image_HW3.astype(np.float64)
    distance = np.abs(image - BACKGROUND).sum(-1)
    colour = (image * distance[..., None]).sum((0, 1)) / max(1.0, distance.sum())
    direction = image.mean(1).var(0).sum() > image.mean(0).var(0).sum()  # rows differ: the bar lies
    return 2 * int(np.argmin(((COLOURS - colour) ** 2).sum(1))) + int(direction)


def png(image_HW3: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image_HW3).save(buffer, "png")
    return buffer.getvalue()


def make_bars(folder: Path, pairs: int) -> Path:
    """Writes shards of pairs of the same class; the condition's bar is another."""

    def change(row: dict[str, object], i: int) -> None:
        row["condition_image"], row["target_image"] = png(bar(i % CLASSES, 2 * i, 64)), png(bar(i % CLASSES, 2 * i + 1, 64))

    return make_shards(folder, pairs, change=change)
