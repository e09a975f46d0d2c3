"""Stage embed: units to vectors, through Beam's RunInference; one example is one unit, so batches never depend on bundles."""

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.ml.inference.base import ModelHandler, RunInference
from apache_beam.options.pipeline_options import PipelineOptions

from encoders import Encoder, encoder_folder, load_encoder
from pagepairs.config import EmbedConfig, ScanConfig
from pagepairs.files import read_parquet, write_parquet
from pagepairs.images import ImageError
from pagepairs.records import DROPS, embeddings_schema, rows_to_table
from pipeline.ahead import map_ahead
from pipeline.jobs import Journal, Outcome, report_metrics
from pipeline.look import pixels
from pipeline.progress import Meter
from pipeline.references import SourceChanged, read_images
from pipeline.runners import open_job

Locate = Callable[[str], str]


@functools.lru_cache(maxsize=1)
def encoder_of(config: EmbedConfig) -> Encoder:
    """Loads the encoder once a process.

    Its arithmetic gets all cores whatever --workers and --threads are: the number of threads can change the last bits of a vector.
    """
    threads = os.cpu_count() or 1
    encoder = load_encoder(config.encoder, weights=config.encoder_weights, device=config.device, threads=threads)
    if config.encoder.startswith("dinov2"):
        import torch

        torch.set_num_threads(threads)
    return encoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """The vectors of one unit, N images of width D."""

    unit: str
    image_ids: list[str]
    vectors_ND: np.ndarray  # float16
    drops: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class EmbedJob:
    """What every worker of the stage needs to know."""

    output: str
    scan: ScanConfig
    embed: EmbedConfig
    threads: int
    locate: Locate
    meter: Meter


def embed_unit(path: str, encoder: Encoder, job: EmbedJob) -> Embedded:
    """Reads, checks, decodes and embeds the images of one unit, in its order; decoding runs ahead in threads.

    Every forward pass sees `batch_size` images (the last is filled up), so a vector does not depend on its neighbours' number.
    """
    table = read_parquet(path)
    ids = table["image_id"].to_pylist()
    references = list(zip(ids, *(table[name].to_pylist() for name in ("source", "offset", "length")), strict=True))

    def prepare(body: bytes | SourceChanged) -> np.ndarray | ImageError:
        if isinstance(body, SourceChanged):
            return ImageError("source_changed", body.detail)
        try:
            found = pixels(body, job.scan)
            return encoder.preprocess(found.rgb)
        except ImageError as error:
            return ImageError("broken_image", str(error))

    kept: list[str] = []
    drops: list[dict[str, Any]] = []
    vectors: list[np.ndarray] = []
    batch: list[tuple[str, np.ndarray]] = []
    bodies = zip(ids, read_images(references, job.locate), strict=True)
    prepared = map_ahead(lambda entry: prepare(entry[1]), bodies, threads=job.threads, window=3 * job.embed.batch_size)
    for (image_id, _), image in prepared:
        if isinstance(image, ImageError):
            drops.append(_drop(image.reason, image_id, image.detail))
        else:
            batch.append((image_id, image))
        if len(batch) == job.embed.batch_size:
            _embed_batch(batch, encoder, job, kept, vectors, drops)
    if batch:
        _embed_batch(batch, encoder, job, kept, vectors, drops)
    stacked = np.concatenate(vectors) if vectors else np.empty((0, encoder.width), np.float16)
    return Embedded(unit=os.path.basename(path), image_ids=kept, vectors_ND=stacked, drops=drops)


def _embed_batch(
    batch: list[tuple[str, np.ndarray]],
    encoder: Encoder,
    job: EmbedJob,
    kept: list[str],
    vectors: list[np.ndarray],
    drops: list[dict[str, Any]],
) -> None:
    """Embeds and empties the batch."""
    images = [image for _, image in batch]
    filled = images + images[-1:] * (job.embed.batch_size - len(images))
    vector_BD = encoder.embed(np.stack(filled))[: len(images)]
    finite = np.isfinite(vector_BD).all(axis=1)
    drops.extend(_drop("not_finite", image_id, "") for (image_id, _), good in zip(batch, finite, strict=True) if not good)
    kept.extend(image_id for (image_id, _), good in zip(batch, finite, strict=True) if good)
    vectors.append(vector_BD[finite].astype(np.float16))
    job.meter.add(len(batch))
    batch.clear()


def _drop(reason: str, image_id: str, detail: str) -> dict[str, Any]:
    return {
        "stage": "embed",
        "reason": reason,
        "error": False,
        "page_url": "",
        "image_url": "",
        "detail": f"{image_id} {detail}".strip()[:500],
    }


class UnitHandler(ModelHandler[str, Embedded, Encoder]):  # type: ignore[misc]
    """Runs an encoder over units: the paths of files of units/."""

    def __init__(self, job: EmbedJob) -> None:
        super().__init__(min_batch_size=1, max_batch_size=1)
        self._job = job

    def load_model(self) -> Encoder:
        """Loads the encoder, once a process."""
        return encoder_of(self._job.embed)

    def run_inference(self, batch: Sequence[str], model: Encoder, inference_args: dict[str, Any] | None = None) -> Iterable[Embedded]:
        """Yields the vectors of each unit."""
        return [embed_unit(path, model, self._job) for path in batch]

    def get_num_bytes(self, batch: Sequence[str]) -> int:
        """Length of the paths: the default would pickle the batch to find out."""
        return sum(len(path) for path in batch)

    def get_metrics_namespace(self) -> str:
        """Namespace of Beam's own inference metrics."""
        return "embed"


class _WriteVectors(beam.DoFn):  # type: ignore[misc]
    """Writes the vectors and drops of a unit, then notes it in the journal."""

    def __init__(self, job: EmbedJob, journal: Journal) -> None:
        self._job, self._journal = job, journal

    def process(self, element: Embedded) -> Iterator[None]:
        outcome = write_vectors(element, self._job)
        self._journal.write(element.unit.removesuffix(".parquet"), outcome)
        report_metrics("embed", outcome)
        yield from ()


def write_vectors(embedded: Embedded, job: EmbedJob) -> Outcome:
    """Writes embeddings/<encoder>/<unit> and drops/embed/<unit>."""
    vectors_ND = embedded.vectors_ND
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors_ND.ravel()), vectors_ND.shape[1])
    table = pa.table([pa.array(embedded.image_ids, pa.string()), column], schema=embeddings_schema(vectors_ND.shape[1]))
    dataset = f"embeddings/{encoder_folder(job.embed.encoder)}"
    files = {
        dataset: [write_parquet(os.path.join(job.output, dataset, embedded.unit), table, compression="none")],
        "drops/embed": [write_parquet(os.path.join(job.output, "drops/embed", embedded.unit), rows_to_table(embedded.drops, DROPS))],
    }
    dropped: dict[str, int] = {}
    for row in embedded.drops:
        dropped[row["reason"]] = dropped.get(row["reason"], 0) + 1
    kept = len(embedded.image_ids)
    return Outcome(files=files, counters={"in": kept + len(embedded.drops), "kept": kept, "dropped": dropped, "errors": 0})


def embed_units(paths: Sequence[str], job: EmbedJob, journal: Journal, options: PipelineOptions) -> int:
    """Embeds every unit that the journal does not hold; returns how many that were."""
    todo = sorted(path for path in paths if not journal.has(os.path.basename(path).removesuffix(".parquet")))
    if todo:
        with open_job("embed", options) as pipeline:
            (
                pipeline
                | "embed/Units" >> beam.Create(todo)
                | "embed/Balance" >> beam.Reshuffle()
                | "embed/RunInference" >> RunInference(UnitHandler(job))
                | "embed/Write" >> beam.ParDo(_WriteVectors(job, journal))
            )
    return len(todo)
