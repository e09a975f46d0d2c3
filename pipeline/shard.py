"""Stage shard: pairs to shards; each output shard is made by itself from references and holds both images of every pair."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.options.pipeline_options import PipelineOptions

from pagepairs.config import ScanConfig, ShardConfig
from pagepairs.files import write_parquet
from pagepairs.images import ImageError, centre_crop, encode_jpeg, resize_shortest
from pagepairs.keys import prefix64
from pagepairs.records import DROPS, PAIRS, SHARDS, rows_to_table
from pagepairs.shards import write_shard
from pipeline.ahead import map_ahead
from pipeline.jobs import Journal, Outcome, Rows, part_name, run_parts
from pipeline.look import pixels
from pipeline.progress import Meter
from pipeline.references import SourceChanged, read_images

_REFERENCE = ("source", "offset", "length")
Reference = tuple[str, str, int, int]


@dataclass(frozen=True, kw_only=True)
class ShardJob:
    """What every worker of the stage needs to know; `folder` is where the shards are built."""

    folder: str
    scan: ScanConfig
    shard: ShardConfig
    shards: int
    threads: int
    locate: Callable[[str], str]
    meter: Meter


def count_shards(pairs: int, pairs_per_shard: int) -> int:
    """Returns the number of shards; pairs are spread over them by hash, so their sizes differ a little."""
    return max(1, -(-pairs // pairs_per_shard))


def write_shards(pair_files: list[str], job: ShardJob, journal: Journal, options: PipelineOptions) -> int:
    """Writes every shard that the journal does not hold; returns how many that were."""
    inputs = [("pair", path) for path in pair_files]
    return run_parts("shard", inputs, _spread_pairs, _Shard(job), job.shards, journal, options, part_rows=job.shard.pairs_per_shard)


def _spread_pairs(tag: str, path: str) -> Iterator[Rows]:
    table = pq.read_table(path)
    yield Rows(tag, table, prefix64(table["pair_id"]))


class _Shard:
    """Writes one shard and the drops among its pairs."""

    def __init__(self, job: ShardJob) -> None:
        self._job = job

    def __call__(self, part: int, tables: Mapping[str, pa.Table]) -> Outcome:
        job = self._job
        pairs = tables.get("pair", PAIRS.empty_table()).sort_by("pair_id")
        images = make_images(references_of(pairs), job)
        good = [isinstance(images[a], bytes) and isinstance(images[b], bytes) for a, b in _ids(pairs)]
        kept = pairs.filter(pa.array(good, pa.bool_()))
        columns = {
            side: pa.array([images[image_id] for image_id in kept[f"{side}_id"].to_pylist()], pa.binary())
            for side in ("condition", "target")
        }
        table = (
            kept.append_column("condition_image", columns["condition"])
            .append_column("target_image", columns["target"])
            .select(SHARDS.names)
        )
        drops = [_drop(row, images) for row, stays in zip(pairs.to_pylist(), good, strict=True) if not stays]
        dropped = {reason: sum(row["reason"] == reason for row in drops) for reason in sorted({str(row["reason"]) for row in drops})}
        name = part_name(part, job.shards)
        files = {
            "shards": [write_shard(os.path.join(job.folder, "shards"), part, job.shards, table)],
            "drops/shard": [write_parquet(os.path.join(job.folder, "drops/shard", f"{name}.parquet"), rows_to_table(drops, DROPS))],
        }
        return Outcome(files=files, counters={"in": pairs.num_rows, "kept": kept.num_rows, "dropped": dropped, "errors": 0})


def _ids(pairs: pa.Table) -> Iterator[tuple[str, str]]:
    return zip(pairs["condition_id"].to_pylist(), pairs["target_id"].to_pylist(), strict=True)


def references_of(pairs: pa.Table) -> list[Reference]:
    """Returns the distinct images of the pairs as (image_id, source, offset, length), in the order they stand in their files."""
    sides = [
        pairs.select([f"{side}_{name}" for name in ("id", *_REFERENCE)]).rename_columns(["id", *_REFERENCE])
        for side in ("condition", "target")
    ]
    images = pa.concat_tables(sides).group_by(["id", *_REFERENCE]).aggregate([])
    images = images.sort_by([(name, "ascending") for name in ("source", "offset", "id")])
    return list(zip(*(images[name].to_pylist() for name in ("id", *_REFERENCE)), strict=True))


def make_images(references: list[Reference], job: ShardJob) -> dict[str, bytes | ImageError]:
    """Reads, checks, decodes, resizes, crops and encodes each image once; decoding runs ahead in threads."""

    def make(body: bytes | SourceChanged) -> bytes | ImageError:
        if isinstance(body, SourceChanged):
            return ImageError("source_changed", body.detail)
        try:
            found = pixels(body, job.scan)
            return encode_jpeg(centre_crop(resize_shortest(found.rgb, job.shard.size), job.shard.size), job.shard.quality)
        except ImageError as error:
            return ImageError("broken_image", str(error))

    made: dict[str, bytes | ImageError] = {}
    bodies = zip(references, read_images(references, job.locate), strict=True)
    for (reference, _), image in map_ahead(lambda entry: make(entry[1]), bodies, threads=job.threads, window=8 * job.threads):
        made[reference[0]] = image
        job.meter.add(1)
    return made


def _drop(pair: dict[str, object], images: dict[str, bytes | ImageError]) -> dict[str, object]:
    """The drop of a pair: that of its condition, else of its target."""
    side, error = next(
        (side, images[str(pair[f"{side}_id"])])
        for side in ("condition", "target")
        if isinstance(images[str(pair[f"{side}_id"])], ImageError)
    )
    assert isinstance(error, ImageError)
    row: dict[str, object] = {"stage": "shard", "reason": error.reason, "error": False, "page_url": pair["page_url"]}
    return row | {"image_url": pair[f"{side}_url"], "detail": f"{pair['pair_id']} {error.detail}"[:500]}
