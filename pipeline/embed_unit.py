"""One unit through one or several encoders: each image is read and decoded once, decoding runs ahead in threads.

B = images of a batch, D = width of a vector, N = images of a unit.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pagepairs.config import EmbedConfig, ScanConfig
from pagepairs.files import read_parquet
from pagepairs.images import ImageError
from pipeline.ahead import map_ahead
from pipeline.embed_batch import Passes, embed_batch
from pipeline.journal import Journal
from pipeline.look import pixels
from pipeline.models import Described, Models
from pipeline.progress import Meter
from pipeline.references import SourceChanged, read_images
from pipeline.reuse import Earlier

Prepared = np.ndarray | ImageError


@dataclass(frozen=True, kw_only=True)
class Target:
    """One encoder of the run, and where its vectors go."""

    folder: str
    """Its name under embeddings/."""
    digest: dict[str, str]
    journal: Journal
    counters: str = "embed"
    """Namespace of the runner's counters: those of the encoder that decides the pairs are the stage's, as in report.json."""
    earlier: Earlier | None = None


@dataclass(frozen=True, kw_only=True)
class EmbedJob:
    """What every worker of the stage needs to know."""

    output: str
    scan: ScanConfig
    embed: EmbedConfig
    targets: tuple[Target, ...]
    threads: int
    locate: Callable[[str], str]
    meter: Meter


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """The vectors of one unit by one encoder."""

    unit: str
    target: int
    image_ids: list[str]
    vectors_ND: np.ndarray  # float16
    drops: list[dict[str, Any]]
    effort: dict[str, float]
    """reused (images), halved (times that a batch did not fit), waited_s for images, embedded_s."""


@dataclass(kw_only=True)
class _Side:
    """One encoder's part of a unit, while it is in the making."""

    target: int
    model: Described
    passes: Passes
    batch_size: int
    found: dict[str, Prepared]
    """Vector or reason by image id."""
    reused: int
    waiting: list[tuple[str, np.ndarray]] = field(default_factory=list)

    def take(self, image_id: str, image: Prepared) -> int:
        """Takes an image as it comes; returns the number of images that are done with."""
        if isinstance(image, ImageError):
            self.found[image_id] = image
            return 1
        self.waiting.append((image_id, image))
        return self.flush() if len(self.waiting) == self.batch_size else 0

    def flush(self) -> int:
        """Embeds what waits; returns its number."""
        ids, images = [image_id for image_id, _ in self.waiting], [image for _, image in self.waiting]
        self.waiting.clear()
        self.found |= dict(zip(ids, embed_batch(images, self.passes), strict=True)) if ids else {}
        return len(ids)


def embed_unit(path: str, targets: Sequence[int], models: Models, job: EmbedJob) -> list[Embedded]:
    """Returns the vectors of one unit by some of the job's encoders, in the unit's order.

    Args:
      path: a file of units/.
      targets: which of the job's encoders.
      models: all of the job's encoders.
    """
    table = read_parquet(path)
    ids = table["image_id"].to_pylist()
    references = list(zip(ids, *(table[name].to_pylist() for name in ("source", "offset", "length")), strict=True))
    described = models.describe()
    sides = [_side(target, ids, described[target], models, job) for target in targets]
    job.meter.add(sum(side.reused for side in sides))
    wanted = {image_id: [number for number, side in enumerate(sides) if image_id not in side.found] for image_id in ids}
    needed = [reference for reference in references if wanted[reference[0]]]

    def prepare(entry: tuple[str, bytes | SourceChanged]) -> list[Prepared]:
        image_id, body = entry
        return _prepare(body, [sides[number].model for number in wanted[image_id]], job.scan)

    bodies = zip((reference[0] for reference in needed), read_images(needed, job.locate, threads=job.threads), strict=True)
    prepared = map_ahead(prepare, bodies, threads=job.threads, window=3 * job.embed.batch_size)
    waited_s = 0.0
    for seconds, ((image_id, _), images) in _timed(prepared):
        waited_s += seconds
        for number, image in zip(wanted[image_id], images, strict=True):
            job.meter.add(sides[number].take(image_id, image))
    for side in sides:
        job.meter.add(side.flush())
    return [_embedded(os.path.basename(path), ids, side, waited_s) for side in sides]


def _side(target: int, ids: Sequence[str], model: Described, models: Models, job: EmbedJob) -> _Side:
    earlier = job.targets[target].earlier
    found: dict[str, Prepared] = dict(earlier.find(ids)) if earlier else {}
    size = job.embed.batch_size
    passes = Passes(
        embed=lambda batch_BHW3: models.embed(target, batch_BHW3), size=size, batched=model.batched, release=models.release_memory
    )
    return _Side(target=target, model=model, passes=passes, batch_size=size, found=found, reused=len(found))


def _prepare(body: bytes | SourceChanged, models: Sequence[Described], scan: ScanConfig) -> list[Prepared]:
    """Returns the image as each encoder takes it, or why it does not."""
    try:
        if isinstance(body, SourceChanged):
            raise ImageError("source_changed", body.detail)
        rgb_HW3 = pixels(body, scan).rgb
    except ImageError as error:
        reason = error.reason if error.reason == "source_changed" else "broken_image"
        return [ImageError(reason, error.detail if reason == "source_changed" else str(error))] * len(models)
    images: list[Prepared] = []
    for model in models:
        try:
            images.append(model.preprocess(rgb_HW3))
        except ValueError as error:  # a shape that this encoder cannot use
            images.append(ImageError("model_error", f"{model.name}: {error}"))
    return images


def _timed(items: Iterator[Any]) -> Iterator[tuple[float, Any]]:
    """Yields each item with the seconds that it was waited for."""
    while True:
        started = time.perf_counter()
        try:
            item = next(items)
        except StopIteration:
            return
        yield time.perf_counter() - started, item


def _embedded(unit: str, ids: Sequence[str], side: _Side, waited_s: float) -> Embedded:
    outcomes = [(image_id, side.found[image_id]) for image_id in ids]
    kept = [(image_id, outcome) for image_id, outcome in outcomes if not isinstance(outcome, ImageError)]
    drops = [_drop(outcome, image_id) for image_id, outcome in outcomes if isinstance(outcome, ImageError)]
    vectors_ND = np.stack([vector for _, vector in kept]) if kept else np.empty((0, side.model.width))
    effort = {"reused": side.reused, "halved": side.passes.halved, "waited_s": waited_s, "embedded_s": side.passes.seconds}
    return Embedded(
        unit=unit,
        target=side.target,
        image_ids=[image_id for image_id, _ in kept],
        vectors_ND=vectors_ND.astype(np.float16),
        drops=drops,
        effort=effort,
    )


def _drop(error: ImageError, image_id: str) -> dict[str, Any]:
    return {
        "stage": "embed",
        "reason": error.reason,
        "error": False,
        "page_url": "",
        "image_url": "",
        "detail": f"{image_id} {error.detail}".strip()[:500],
    }
