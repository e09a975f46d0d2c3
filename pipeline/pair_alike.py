"""Stage pair, steps pivots, members, probe and alike: which canonical images are near by their vectors.

They run with --copy-cosine only:

pivots    files of vectors             a sample of the vectors: dedup/alike.py
members   canonical images by id       their vectors' places
probe     members by file of vectors   copies the vectors, ordered by the buckets in which they stand
alike     buckets                      compares the vectors of each: edges like those of `near`
"""

import functools
import itertools
import os
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.options.pipeline_options import PipelineOptions

from dedup.alike import PROBES, alike_pairs, is_pivot, nearest_buckets
from dedup.canonical import FLAT_TEXTURE
from dedup.groups import NODE
from pagepairs.files import read_arrow, read_parquet, write_arrow, write_arrow_batches
from pagepairs.keys import mix, order_by_part, prefix64
from pagepairs.manifest import read_manifest
from pagepairs.records import vectors_of
from pipeline.jobs import Rows, run_parts, run_tasks
from pipeline.journal import Journal, Outcome, part_name
from pipeline.pair_edges import EDGES, ENDS, bytes_of_ids, make_edges
from pipeline.pair_job import PairJob
from pipeline.vectors import read_vectors, spread_by_file, spread_vectors

# A canonical image that has a vector, and the file of embeddings/ where it stands.
MEMBERS = pa.schema([("image_id", pa.string()), ("vectors", pa.string()), *ENDS[1:]])


def alike_parts(parts: int) -> int:
    """Returns the number of parts that the buckets are cut into: as many vectors in each as in other parts."""
    return PROBES * parts


def find_alike(job: PairJob, journals: Mapping[str, Journal], options: PipelineOptions) -> None:
    """Writes the edges between canonical images whose cosine is --copy-cosine or more."""
    folder = os.path.join("embeddings", job.copies_folder)
    vectors = job.dataset(folder, "vector")
    sample = SpreadPivots(read_manifest(os.path.join(job.output, folder)).rows)
    run_parts("pivots", vectors, sample, Pivots(job), 1, journals["pivots"], options)
    run_parts("members", job.phase("images", "image") + vectors, spread_members, Members(job), job.parts, journals["members"], options)
    run_parts("probe", job.phase("members", "wanted"), spread_by_file, Probe(job), job.parts, journals["probe"], options)
    parts = alike_parts(job.parts)
    run_tasks("alike", {part_name(part, parts): part for part in range(parts)}, Alike(job), journals["alike"], options)


class SpreadPivots:
    """Takes a sample of the vectors of a file, by hash of their images."""

    def __init__(self, vectors: int) -> None:
        self._vectors = vectors

    def __call__(self, tag: str, path: str) -> Iterator[Rows]:
        table = read_parquet(path)
        ids = prefix64(table["image_id"])
        chosen = is_pivot(ids, self._vectors)
        yield Rows(tag, table.filter(pa.array(chosen)), ids[chosen])


class Pivots:
    """Writes the sampled vectors, each once: small enough for every worker."""

    def __init__(self, job: PairJob) -> None:
        self._job = job

    def __call__(self, part: int, tables: Mapping[str, pa.Table]) -> Outcome:
        pivots_KD = np.empty((0, 1), np.float16)
        if "vector" in tables:
            pivots_KD = np.unique(vectors_of(tables["vector"]["embedding"]), axis=0)
        write_arrow(self._job.path("pivots", part), pa.table({"embedding": _column(pivots_KD)}))
        return Outcome(counters={"pivots": len(pivots_KD)})


def _column(vectors_ND: np.ndarray) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors_ND.ravel()), vectors_ND.shape[1])


def spread_members(tag: str, path: str) -> Iterator[Rows]:
    """Keys the images that stand for others, but for flat ones, and those that have a vector, by image."""
    if tag == "vector":
        yield from spread_vectors(tag, path)
        return
    table = read_arrow(path)
    table = table.filter(pc.greater_equal(table["texture"], FLAT_TEXTURE))
    table = table.append_column("reason", table["group_reason"]).select(["image_id", *NODE[1:]])
    yield Rows(tag, table, prefix64(table["image_id"]))


class Members:
    """Writes the images that have a vector, with the file where it stands."""

    def __init__(self, job: PairJob) -> None:
        self._job = job

    def __call__(self, part: int, tables: Mapping[str, pa.Table]) -> Outcome:
        images, embedded = (tables.get(tag, MEMBERS.empty_table()) for tag in ("image", "vector"))
        where = pc.index_in(images["image_id"], embedded["image_id"])
        images = images.drop_columns([name for name in ("vectors",) if name in images.column_names])
        images = images.append_column("vectors", embedded["vectors"].take(where)).select(MEMBERS.names)
        self._job.write("members", part, images.filter(pc.is_valid(where)).cast(MEMBERS))
        self._job.meter.add(1)
        return Outcome()


class Probe:
    """Writes the vectors of some files of embeddings/ once a bucket in which they stand, ordered by the part of `alike`."""

    def __init__(self, job: PairJob) -> None:
        self._job = job

    def __call__(self, part: int, tables: Mapping[str, pa.Table]) -> Outcome:
        job = self._job
        if "wanted" in tables:
            members = tables["wanted"]
            vectors_ND = read_vectors(members, os.path.join(job.output, "embeddings", job.copies_folder))
            row, bucket = nearest_buckets(vectors_ND, _read_pivots(job.path("pivots", 0)))
            order, bounds = order_by_part(mix(bucket), alike_parts(job.parts))
            nodes = members.append_column("id", bytes_of_ids(members["image_id"])).select(NODE).combine_chunks().to_batches()[0]
            schema = pa.schema([("bucket", pa.int64()), *nodes.schema, ("embedding", _column(vectors_ND).type)])

            def batch(chosen: np.ndarray) -> pa.RecordBatch:
                rows = row[chosen]
                columns = [pa.array(bucket[chosen]), *nodes.take(pa.array(rows)).columns, _column(vectors_ND[rows])]
                return pa.RecordBatch.from_arrays(columns, schema=schema)

            batches = (batch(order[start:stop]) for start, stop in itertools.pairwise(bounds))
            write_arrow_batches(job.path("probe", part), schema, batches)
        job.meter.add(1)
        return Outcome()


@functools.lru_cache(maxsize=1)
def _read_pivots(path: str) -> np.ndarray:
    return vectors_of(read_arrow(path)["embedding"])


class Alike:
    """Writes the pairs of a part's buckets whose cosine is --copy-cosine or more, once a bucket that they share."""

    def __init__(self, job: PairJob) -> None:
        self._job = job

    def __call__(self, part: int) -> Outcome:
        rows, edges = self._job.read_range("probe", part), [EDGES.empty_table()]
        if rows is not None:
            rows = rows.sort_by([("bucket", "ascending"), ("id", "ascending")])
            bucket, nodes = rows["bucket"].to_numpy(), rows.select(NODE)
            cuts = np.flatnonzero(np.diff(bucket, prepend=-1, append=-1))  # no bucket is -1: without rows there is no cut
            vectors_ND = vectors_of(rows["embedding"])
            for start, stop in itertools.pairwise(cuts):
                left, right = alike_pairs(vectors_ND[start:stop], self._job.config.copy_cosine or 1.0)
                edges.append(make_edges(nodes, start + left, start + right, by_hash=False))
        table = pa.concat_tables(edges)
        self._job.write("alike", part, table)
        self._job.meter.add(1)
        return Outcome(counters={"edges": table.num_rows})
