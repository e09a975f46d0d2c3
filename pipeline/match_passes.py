"""The three passes that look for benchmark images, each over some files of images/ or embeddings/; pair_matches.py puts them together."""

import functools
import os
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dedup.benchmark import Benchmark
from pagepairs.files import read_arrow, read_parquet, write_arrow
from pagepairs.keys import prefix64
from pagepairs.records import vectors_of
from pagepairs.stores import local_copy
from pipeline.journal import Outcome

SURVIVORS = 20
"""Of each benchmark, the nearest images that stay."""

FOUND = pa.schema([("image_id", pa.string()), ("benchmark", pa.int16()), ("item", pa.int64())])
NEAR = pa.schema([*FOUND, ("similarity", pa.float32())])
FLAT = pa.schema([("prefix", pa.uint64())])
FACTS = pa.schema(
    [("image_id", pa.string()), ("image_url", pa.string()), ("phash", pa.uint64()), ("pdq", pa.binary(32)), ("texture", pa.int16())]
)


@dataclass(frozen=True, kw_only=True)
class MatchJob:
    """What the passes share."""

    output: str
    work: str
    benchmarks: tuple[Benchmark, ...]
    only: str = ""
    """File of the ids that are looked at, as sorted uint64 prefixes (.npy); "" for all."""

    def path(self, step: str, task: str) -> str:
        """Path of what a task leaves."""
        return os.path.join(self.work, "matches", step, f"{task}.arrow")


class MatchHashes:
    """Writes which images match by their bytes or hashes, and which are flat; of an index of hashes alone also the nearest images."""

    def __init__(self, job: MatchJob) -> None:
        self._job = job

    def __call__(self, task: tuple[str, list[str]]) -> Outcome:
        from dedup.benchmark_hashes import MIN_TEXTURE, match_images, nearest_by_hashes, pdq_array

        name, files = task
        found, near, flat, seen = [FOUND.empty_table()], [NEAR.empty_table()], [FLAT.empty_table()], 0
        for path in files:
            table = _read_images(path, ["phash", "pdq", "texture"], self._job)
            phash, texture = table["phash"].to_numpy(), table["texture"].to_numpy()
            pdq, seen = pdq_array(table["pdq"].cast(pa.binary())), seen + table.num_rows
            flat.append(pa.table([prefix64(table["image_id"])[texture < MIN_TEXTURE]], schema=FLAT))
            for number, benchmark in enumerate(self._job.benchmarks):
                search = hashes_of(benchmark)
                query, item = match_images(search, table["image_id"], phash, pdq, texture)
                found.append(_rows(table["image_id"], query, number, item))
                if benchmark.encoder is None:
                    other = np.setdiff1d(np.flatnonzero(texture >= MIN_TEXTURE), query)
                    item, apart = nearest_by_hashes(search, phash[other], pdq[other])
                    other, item, apart = other[item >= 0], item[item >= 0], apart[item >= 0]
                    near.append(_nearest(_rows(table["image_id"], other, number, item, -apart)))  # in place of the cosine
        for step, tables in (("hashes", found), ("near-hashes", near), ("flat", flat)):
            write_arrow(self._job.path(step, name), pa.concat_tables(tables))
        return Outcome(counters={"rows": seen})


class MatchVectors:
    """Writes the nearest item of images at or above the cut and of the nearest below it, and how near those are that match by hash.

    Flat images, which an encoder too holds for alike, are left out.
    """

    def __init__(self, job: MatchJob) -> None:
        self._job = job

    def __call__(self, task: tuple[str, list[str]]) -> Outcome:
        from dedup.benchmark_vectors import nearest_items, similarities_to

        name, files = task
        by_hash, flat = read_arrow(self._job.path("", "by-hash")), read_arrow(self._job.path("", "flat"))["prefix"].to_numpy()
        found, seen = [NEAR.empty_table()], Counter[str]()
        below = {number: NEAR.empty_table() for number in range(len(self._job.benchmarks))}
        for path in files:
            table = _take_only(read_parquet(path), self._job)
            table = table.filter(pa.array(~_among(prefix64(table["image_id"]), flat)))
            vectors_ND, encoder = vectors_of(table["embedding"]), os.path.basename(os.path.dirname(path))
            seen[encoder] += table.num_rows
            for number, benchmark in enumerate(self._job.benchmarks):
                if benchmark.encoder is None or benchmark.encoder["name"] != encoder:
                    continue
                opened = vectors_in(benchmark)
                item, similarity = nearest_items(opened, vectors_ND)
                asked = by_hash.filter(pc.equal(by_hash["benchmark"], number))
                place = pc.index_in(asked["image_id"], table["image_id"])
                asked, place = asked.filter(pc.is_valid(place)), place.drop_null().to_numpy()
                to_item = asked["item"].to_numpy()
                found.append(_rows(table["image_id"], place, number, to_item, similarities_to(opened, vectors_ND[place], to_item)))
                matches = similarity >= np.float32(benchmark.cut)
                rows = np.flatnonzero(matches)
                found.append(_rows(table["image_id"], rows, number, item[rows], similarity[rows]))
                rows = np.setdiff1d(np.flatnonzero(~matches), place)
                near = _rows(table["image_id"], rows, number, item[rows], similarity[rows])
                below[number] = _nearest(pa.concat_tables([below[number], near]))
        write_arrow(self._job.path("vectors", name), pa.concat_tables([*found, *below.values()]))
        return Outcome(counters={"vectors": dict(seen)})


class ReadFacts:
    """Writes URL and hashes of the images that were found."""

    def __init__(self, job: MatchJob) -> None:
        self._job = job

    def __call__(self, task: tuple[str, list[str]]) -> Outcome:
        name, files = task
        wanted = read_arrow(self._job.path("", "found"))["image_id"].combine_chunks().unique()
        tables = [FACTS.empty_table()]
        for path in files:
            table = read_parquet(path, ["reason", *FACTS.names])
            tables.append(table.filter(pc.and_(pc.is_in(table["image_id"], wanted), pc.equal(table["reason"], ""))).select(FACTS.names))
        write_arrow(self._job.path("facts", name), pa.concat_tables(tables))
        return Outcome()


def _read_images(path: str, columns: list[str], job: MatchJob) -> pa.Table:
    """Returns the kept images of a file of images/, each once."""
    table = read_parquet(path, ["image_id", "reason", *columns])
    table = _take_only(table.filter(pc.equal(table["reason"], "")), job)
    ids = table["image_id"].combine_chunks()
    first = pc.index_in(ids.unique(), ids)
    return table.take(first)


def _take_only(table: pa.Table, job: MatchJob) -> pa.Table:
    """Returns the rows whose image is looked at."""
    if not job.only or not table.num_rows:
        return table
    return table.filter(pa.array(_among(prefix64(table["image_id"]), _read_only(job.only))))


def _among(ids: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Returns which ids are among `known`, which is sorted; without sorting it again, as np.isin would for every file."""
    if not len(known):
        return np.zeros(len(ids), bool)
    found: np.ndarray = known[np.minimum(np.searchsorted(known, ids), len(known) - 1)] == ids
    return found


@functools.lru_cache(maxsize=2)
def _read_only(path: str) -> np.ndarray:
    only: np.ndarray = np.load(local_copy(path), mmap_mode="r")
    return only


@functools.cache
def folder_of(folder: str, content: str) -> str:
    """Returns the folder of an index on this machine, looked up once a process; `content` is a key, as another may take its place."""
    del content
    return local_copy(folder)


def hashes_of(benchmark: Benchmark) -> Any:
    """Returns the hash search of an index, opened once a process."""
    return _open_hashes(benchmark.folder, benchmark.content)


def vectors_in(benchmark: Benchmark) -> Any:
    """Returns the vectors of an index, opened once a process."""
    return _open_vectors(benchmark.folder, benchmark.content, benchmark.search)


# Every file is compared with every index, so none is closed to make room for another: what is open is mapped, not held.
@functools.cache
def _open_hashes(folder: str, content: str) -> Any:
    # FAISS is imported where it searches: stage scan, which imports this module's package, does without.
    from dedup.benchmark_hashes import open_hashes

    return open_hashes(folder_of(folder, content))


@functools.cache
def _open_vectors(folder: str, content: str, search: Any) -> Any:
    from dedup.benchmark_vectors import open_vectors

    return open_vectors(folder_of(folder, content), search)


def _nearest(rows: pa.Table) -> pa.Table:
    """Returns the rows of the nearest images, as many as survivors are shown."""
    if rows.num_rows <= SURVIVORS:  # of no rows at all Arrow cannot choose
        return rows
    return rows.take(pc.select_k_unstable(rows, SURVIVORS, [("similarity", "descending"), ("image_id", "ascending")]))


def _rows(ids: pa.ChunkedArray, row: np.ndarray, benchmark: int, item: np.ndarray, similarity: np.ndarray | None = None) -> pa.Table:
    columns = [ids.take(pa.array(row, pa.int64())), pa.array(np.full(len(row), benchmark), pa.int16()), pa.array(item, pa.int64())]
    if similarity is None:
        return pa.table(columns, schema=FOUND)
    return pa.table([*columns, pa.array(similarity, pa.float32())], schema=NEAR)
