"""Stage shard: pairs to shards; each output shard is made by itself from references and holds both images of every pair.

Where shards carry embeddings, two steps come first, as in stage pair: `wanted` finds the file of each image's vector, `fetch` copies the
vectors ordered by shard. Images of a shard go to a file as soon as they outgrow 64 MiB, so its memory does not depend on their size.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from apache_beam.options.pipeline_options import PipelineOptions

from pagepairs.config import ScanConfig, ShardConfig
from pagepairs.files import parquet_source, read_arrow_part, read_parquet, write_arrow, write_parquet
from pagepairs.images import ImageError, centre_crop, encode_image, resize_shortest
from pagepairs.keys import prefix64
from pagepairs.manifest import dataset_files
from pagepairs.records import DROPS, PAIRS, embeddings_schema, rows_to_table, shards_schema
from pagepairs.shards import BATCH_ROWS, shard_name, write_shard
from pagepairs.stores import exists, is_remote
from pagepairs.urls import host_of
from pipeline.ahead import map_ahead
from pipeline.jobs import Rows, run_parts
from pipeline.journal import Journal, Outcome, part_name
from pipeline.look import pixels
from pipeline.pair_ledger import histogram
from pipeline.progress import Meter
from pipeline.references import SourceChanged, read_images
from pipeline.vectors import copy_vectors, spread_by_file, spread_vectors

SIDES = ("condition", "target")
_REFERENCE = ("source", "offset", "length")
_STORE_BYTES = 64 * 1024 * 1024
Reference = tuple[str, str, int, int]


@dataclass(frozen=True, kw_only=True)
class VectorFiles:
    """The embeddings that shards carry."""

    folder: str
    files: tuple[str, ...]
    width: int


@dataclass(frozen=True, kw_only=True)
class ShardJob:
    """What every worker of the stage needs to know; `folder` is where the shards are built, `vectors` is None where they carry none."""

    folder: str
    work: str
    scan: ScanConfig
    shard: ShardConfig
    shards: int
    parts: int
    threads: int
    vectors: VectorFiles | None
    locate: Callable[[str], str]
    meter: Meter

    @property
    def schema(self) -> pa.Schema:
        """The columns of the shards."""
        return shards_schema(alt="alt" in self.shard.columns, embedding_width=self.vectors.width if self.vectors else 0)

    def path(self, step: str, part: int) -> str:
        """Path of what a step leaves for the next."""
        return os.path.join(self.work, step, f"{part_name(part, self.parts)}.arrow")

    def step(self, name: str) -> list[tuple[str, str]]:
        """Files of an earlier step as inputs of the next."""
        paths = [self.path(name, part) for part in range(self.parts)]
        return [(name, path) for path in paths if exists(path)]


def count_shards(pairs: int, pairs_per_shard: int) -> int:
    """Returns the number of shards; pairs are spread over them by hash, so their sizes differ a little."""
    return max(1, -(-pairs // pairs_per_shard))


def vector_files(folder: str) -> VectorFiles:
    """Returns the files of a complete folder of embeddings/."""
    files = tuple(dataset_files(folder))
    width = pq.read_schema(parquet_source(files[0])).field("embedding").type.list_size if files else 0
    return VectorFiles(folder=folder, files=files, width=width)


def write_shards(pair_files: Sequence[str], job: ShardJob, options: PipelineOptions) -> Journal:
    """Writes every shard that the journal does not hold; returns the journal."""
    journals = {step: Journal(os.path.join(job.work, "done", step)) for step in ("wanted", "fetch", "shard")}
    pairs = [("pair", path) for path in pair_files]
    if job.vectors:
        images = pairs + [("vector", path) for path in job.vectors.files]
        run_parts("wanted", images, _spread_images, _Wanted(job), job.parts, journals["wanted"], options)
        run_parts("fetch", job.step("wanted"), spread_by_file, _Fetch(job), job.parts, journals["fetch"], options)
    run_parts("shard", pairs, _spread_pairs, _Shard(job), job.shards, journals["shard"], options)
    return journals["shard"]


def _spread_images(tag: str, path: str) -> Iterator[Rows]:
    if tag == "vector":
        yield from spread_vectors(tag, path)
        return
    for side in SIDES:
        table = read_parquet(path, ["pair_id", f"{side}_id"]).rename_columns(["pair_id", "image_id"])
        yield Rows(tag, table, prefix64(table["image_id"]))


class _Wanted:
    """Writes which pair wants the vector of which image, and in which file of embeddings/ it stands."""

    def __init__(self, job: ShardJob) -> None:
        self._job = job

    def __call__(self, part: int, tables: Mapping[str, pa.Table]) -> Outcome:
        if "pair" in tables and "vector" in tables:
            pairs, embedded = tables["pair"], tables["vector"]
            wanted = pairs.append_column("vectors", embedded["vectors"].take(pc.index_in(pairs["image_id"], embedded["image_id"])))
            write_arrow(self._job.path("wanted", part), wanted.filter(pc.is_valid(wanted["vectors"])))
        return Outcome()


class _Fetch:
    """Copies the vectors of some files of embeddings/, ordered by shard: one batch a shard."""

    def __init__(self, job: ShardJob) -> None:
        self._job = job

    def __call__(self, part: int, tables: Mapping[str, pa.Table]) -> Outcome:
        job = self._job
        if "wanted" in tables and job.vectors:
            copy_vectors(tables["wanted"], "pair_id", folder=job.vectors.folder, path=job.path("fetch", part), parts=job.shards)
        return Outcome()


def _spread_pairs(tag: str, path: str) -> Iterator[Rows]:
    table = read_parquet(path)
    yield Rows(tag, table, prefix64(table["pair_id"]))


class _Shard:
    """Writes one shard and the drops among its pairs."""

    def __init__(self, job: ShardJob) -> None:
        self._job = job

    def __call__(self, part: int, tables: Mapping[str, pa.Table]) -> Outcome:
        job = self._job
        pairs = tables.get("pair", PAIRS.empty_table()).sort_by("pair_id")
        folder, name = os.path.join(job.folder, "shards"), shard_name(part, job.shards, job.shard.format)
        with EncodedImages(job.work) as images:
            for image_id, image in make_images(references_of(pairs), job):
                images.add(image_id, image)
            good = [
                not (images.error(row["condition_id"]) or images.error(row["target_id"]))
                for row in pairs.select(["condition_id", "target_id"]).to_pylist()
            ]
            kept = pairs.filter(pa.array(good, pa.bool_()))
            shard = write_shard(os.path.join(folder, name), job.schema, fill_batches(kept, images, job.schema, self._vectors(part)))
            drops = [_drop(row, images) for row, stays in zip(pairs.to_pylist(), good, strict=True) if not stays]
        dropped = {reason: sum(row["reason"] == reason for row in drops) for reason in sorted({str(row["reason"]) for row in drops})}
        dropped_name = f"{part_name(part, job.shards)}.parquet"
        files = {
            "shards": [shard],
            "drops/shard": [write_parquet(os.path.join(job.folder, "drops/shard", dropped_name), rows_to_table(drops, DROPS))],
        }
        counters: dict[str, Any] = {"in": pairs.num_rows, "kept": kept.num_rows, "dropped": dropped, "errors": 0}
        return Outcome(files=files, counters=counters | {"histogram": histogram(kept["similarity"].to_numpy()), "hosts": count_hosts(kept)})

    def _vectors(self, part: int) -> pa.Table:
        """The vectors of this shard's images; none where shards carry none."""
        job = self._job
        pieces = [read_arrow_part(path, part).select(["image_id", "embedding"]) for _, path in job.step("fetch")] if job.vectors else []
        return pa.concat_tables([embeddings_schema(job.vectors.width if job.vectors else 0).empty_table(), *pieces])


def count_hosts(pairs: pa.Table) -> dict[str, int]:
    """Counts the pairs by the host of their page."""
    pages = pc.value_counts(pairs["page_url"].combine_chunks()).to_pylist()
    hosts: Counter[str] = Counter()
    for page in pages:
        hosts[host_of(page["values"])] += page["counts"]
    return dict(sorted(hosts.items()))


def references_of(pairs: pa.Table) -> list[Reference]:
    """Returns the distinct images of the pairs as (image_id, source, offset, length), in the order they stand in their files."""
    sides = [pairs.select([f"{side}_{name}" for name in ("id", *_REFERENCE)]).rename_columns(["id", *_REFERENCE]) for side in SIDES]
    images = pa.concat_tables(sides).group_by(["id", *_REFERENCE]).aggregate([])
    images = images.sort_by([(name, "ascending") for name in ("source", "offset", "id")])
    return list(zip(*(images[name].to_pylist() for name in ("id", *_REFERENCE)), strict=True))


class EncodedImages:
    """The images of a shard by their ids, or why there are none; on disk as soon as they outgrow 64 MiB.

    In `folder` where that is on this machine, since the output's disk is the one with room; else among its temporary files.
    """

    def __init__(self, folder: str) -> None:
        if not is_remote(folder):
            os.makedirs(folder, exist_ok=True)
        self._file = SpooledTemporaryFile(max_size=_STORE_BYTES, dir=None if is_remote(folder) else folder)  # noqa: SIM115 (closed by __exit__)
        self._places: dict[str, tuple[int, int]] = {}
        self._errors: dict[str, ImageError] = {}
        self._end = 0

    def __enter__(self) -> "EncodedImages":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def add(self, image_id: str, image: bytes | ImageError) -> None:
        """Appends an image, or notes its error."""
        if isinstance(image, ImageError):
            self._errors[image_id] = image
            return
        self._file.write(image)
        self._places[image_id] = (self._end, len(image))
        self._end += len(image)

    def error(self, image_id: str) -> ImageError | None:
        """Returns why there is no such image; None where there is."""
        return self._errors.get(image_id)

    def read(self, image_id: str) -> bytes:
        """Returns an image; no more are added after this."""
        offset, length = self._places[image_id]
        self._file.seek(offset)
        return self._file.read(length)


def make_images(references: list[Reference], job: ShardJob) -> Iterator[tuple[str, bytes | ImageError]]:
    """Reads, checks, decodes, resizes, crops and encodes each image once; reading and decoding run ahead in threads."""

    def make(body: bytes | SourceChanged) -> bytes | ImageError:
        if isinstance(body, SourceChanged):
            return ImageError("source_changed", body.detail)
        try:
            found = pixels(body, job.scan)
            return encode_image(fit(found.rgb, job.shard), job.shard.image_format, job.shard.quality)
        except ImageError as error:
            return ImageError("broken_image", str(error))

    bodies = zip(references, read_images(references, job.locate, threads=job.threads), strict=True)
    for (reference, _), image in map_ahead(lambda entry: make(entry[1]), bodies, threads=job.threads, window=8 * job.threads):
        yield reference[0], image
        job.meter.add(1)


def fit(rgb: np.ndarray, config: ShardConfig) -> np.ndarray:
    """Returns the image at the size and shape that shards hold."""
    small = resize_shortest(rgb, config.size)
    return centre_crop(small, config.size) if config.resize == "crop" else small


def fill_batches(pairs: pa.Table, images: EncodedImages, schema: pa.Schema, vectors: pa.Table) -> Iterator[pa.Table]:
    """Yields the pairs with their images and, where the schema has them, their embeddings, BATCH_ROWS at a time.

    Raises:
      ValueError: if an image has no vector.
    """
    for start in range(0, pairs.num_rows, BATCH_ROWS):
        batch = pairs.slice(start, BATCH_ROWS)
        for side in SIDES:
            ids = batch[f"{side}_id"]
            batch = batch.append_column(f"{side}_image", pa.array([images.read(image_id) for image_id in ids.to_pylist()], pa.binary()))
            if f"{side}_embedding" in schema.names:
                batch = batch.append_column(f"{side}_embedding", _find_vectors(ids, vectors))
        yield batch.select(schema.names)


def _find_vectors(ids: pa.ChunkedArray, vectors: pa.Table) -> pa.ChunkedArray:
    rows = pc.index_in(ids, vectors["image_id"])
    if rows.null_count:
        raise ValueError("embeddings/ lacks images of pairs/, which was made before it: run `pagepairs pair` again")
    return vectors["embedding"].take(rows)


def _drop(pair: dict[str, object], images: EncodedImages) -> dict[str, object]:
    """The drop of a pair: that of its condition, else of its target."""
    errors = ((side, images.error(str(pair[f"{side}_id"]))) for side in SIDES)
    side, error = next((side, error) for side, error in errors if error is not None)
    row: dict[str, object] = {"stage": "shard", "reason": error.reason, "error": False, "page_url": pair["page_url"]}
    return row | {"image_url": pair[f"{side}_url"], "detail": f"{pair['pair_id']} {error.detail}"[:500]}
