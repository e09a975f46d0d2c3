"""Stage pair, the step before canonical: which images are items of a benchmark, and which come nearest without being one.

Three passes over what scan and embed left, each file by file, none with all vectors or hashes in memory:

    hashes    images/       which images match an item by its bytes or hashes, and which are flat
    vectors   embeddings/   each image's nearest item; for images that match by hash also how near they are to that item; flat ones aside
    facts     images/       URL and hashes of the few images that matched or came near

What they found is small, a row a match, and is put together in one place.
"""

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from apache_beam.options.pipeline_options import PipelineOptions

from dedup.benchmark import Benchmark
from pagepairs.files import read_arrow, read_parquet, write_arrow
from pagepairs.manifest import dataset_files
from pagepairs.records import MATCHES
from pipeline.jobs import run_tasks
from pipeline.journal import Journal, Outcome, merge_outcomes, part_name
from pipeline.match_passes import FACTS, FLAT, FOUND, NEAR, SURVIVORS, MatchHashes, MatchJob, MatchVectors, ReadFacts, folder_of, hashes_of
from pipeline.models import difference

SHOWN = 24
"""Matches of each benchmark whose items' thumbnails are kept for the report: the weakest, which a reader should judge."""
_FILES_PER_TASK = 16


def check_encoders(benchmarks: Sequence[Benchmark], digests: Mapping[str, Mapping[str, str]], output: str) -> None:
    """Checks that every index can be compared with vectors of the run.

    Args:
      digests: of the encoders that the run has or will have vectors of, by folder name.

    Raises:
      ValueError: if an index has vectors of another encoder, and says what differs.
    """
    for benchmark in benchmarks:
        if benchmark.encoder is None:
            continue
        name = benchmark.encoder["name"]
        if name not in digests:
            there = ", ".join(sorted(digests)) or "none"
            raise ValueError(
                f"--benchmark {benchmark.folder} holds vectors of {benchmark.spec}, the run of {there}: embed the crawl with it too "
                f"(`pagepairs embed --encoder RUN,{benchmark.spec} --output {output}`), or build the index with the run's --encoder"
            )
        changed = difference(benchmark.encoder, digests[name])
        if changed:
            raise ValueError(f"--benchmark {benchmark.folder}: vectors of two kinds cannot be compared ({changed}); build the index again")


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """How many images the passes compared."""

    rows: int
    """By their bytes, in images/; one that several files of it hold counts for each."""
    flat: int
    """Distinct images among these that are flat, and so are compared by their bytes alone."""
    vectors: Mapping[str, int]
    """Distinct images that are not flat by their vectors, by encoder."""


def find_matches(job: MatchJob, options: PipelineOptions) -> tuple[pa.Table, Compared]:
    """Runs the passes; returns the matches and the nearest survivors, in the order of records.MATCHES' first columns, and the counts."""
    images = _tasks(dataset_files(os.path.join(job.output, "images")))
    rows = _run("hashes", images, MatchHashes(job), job, options).counters.get("rows", 0)
    by_hash = _gather(job, "hashes", images, FOUND)
    write_arrow(job.path("", "by-hash"), by_hash)
    flat = np.unique(_gather(job, "flat", images, FLAT)["prefix"].to_numpy())
    write_arrow(job.path("", "flat"), pa.table([flat], schema=FLAT))
    encoders = sorted({benchmark.encoder["name"] for benchmark in job.benchmarks if benchmark.encoder})
    vectors = {
        f"{name}-{task}": files
        for name in encoders
        for task, files in _tasks(dataset_files(os.path.join(job.output, "embeddings", name))).items()
    }
    counts = _run("vectors", vectors, MatchVectors(job), job, options).counters.get("vectors", {})
    near = _gather(job, "vectors", vectors, NEAR)
    found = join_signals(by_hash, pa.concat_tables([near, _gather(job, "near-hashes", images, NEAR)]), job.benchmarks)
    write_arrow(job.path("", "found"), found)
    _run("facts", images, ReadFacts(job), job, options)
    compared = Compared(rows=rows, flat=len(flat), vectors=dict.fromkeys(encoders, 0) | counts)
    return describe(found, _gather(job, "facts", images, FACTS), job.benchmarks), compared


def count_matches(matches: pa.Table, benchmarks: Sequence[Benchmark], *, images: int, compared: Compared) -> dict[str, Any]:
    """Returns what the manifest of matches/ counts.

    Args:
      images: distinct images, all of which were compared by their bytes.
      compared: what the passes counted.
    """
    assert compared.rows >= images, (compared.rows, images)
    counts = []
    for benchmark in benchmarks:
        own = matches.filter(pc.equal(matches["benchmark"], benchmark.name))
        signals = {signal: pc.sum(pc.equal(own["signal"], signal)).as_py() or 0 for signal in ("hash", "embedding", "both")}
        encoder = benchmark.encoder["name"] if benchmark.encoder else ""
        counts.append(
            {
                "name": benchmark.name,
                "content": benchmark.content,
                "items": benchmark.items,
                "encoder": encoder,
                "encoder_digest": benchmark.encoder,
            }
            | {"cut": benchmark.cut, "cut_source": benchmark.cut_source, "hash_rule": benchmark.manifest["hashes"]["rule"]}
            | {"search": benchmark.manifest["search"], "calibration": benchmark.manifest["calibration"]}
            | {"versions": benchmark.manifest["versions"], "flat_items": benchmark.manifest["hashes"]["flat"]}
            | {"compared_by_hash": images - compared.flat, "compared_by_embedding": compared.vectors.get(encoder, 0)}
            | {"signals": signals, "matched": sum(signals.values())}
        )
    return {"images": images, "flat": compared.flat, "matched": len(matched_ids(matches)), "benchmarks": counts}


def matched_ids(matches: pa.Table) -> pa.Array:
    """Returns the ids of the images that match an item of any benchmark."""
    return matches.filter(pc.not_equal(matches["signal"], ""))["image_id"].combine_chunks().unique()


def mark_matches(images: pa.Table, matches: str) -> pa.Table:
    """Returns image rows with the reason benchmark_match where they match and have no other; `matches` is a file of records.MATCHES."""
    hit = pc.and_(pc.is_in(images["image_id"], _matched(matches)), pc.equal(images["reason"], ""))
    return images.set_column(images.schema.get_field_index("reason"), "reason", pc.if_else(hit, "benchmark_match", images["reason"]))


@functools.lru_cache(maxsize=1)
def _matched(path: str) -> pa.Array:
    return matched_ids(read_parquet(path, ["image_id", "signal"]))


def _tasks(files: Sequence[str]) -> dict[str, list[str]]:
    """Cuts files into tasks, by their number only."""
    count = -(-len(files) // _FILES_PER_TASK)
    return {part_name(number, count): list(files[number::count]) for number in range(count)}


def _run(step: str, tasks: Mapping[str, list[str]], work: Any, job: MatchJob, options: PipelineOptions) -> Outcome:
    journal = Journal(os.path.join(job.work, "done", f"matches-{step}"))
    run_tasks(f"matches-{step}", {name: (name, files) for name, files in tasks.items()}, work, journal, options)
    return merge_outcomes(journal.read_all(tasks))


def _gather(job: MatchJob, step: str, tasks: Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    return pa.concat_tables([schema.empty_table(), *(read_arrow(job.path(step, name)) for name in tasks)])


def join_signals(by_hash: pa.Table, near: pa.Table, benchmarks: Sequence[Benchmark]) -> pa.Table:
    """Returns one row an image and benchmark: image_id, benchmark, item, similarity (null if unknown), signal ("" for a survivor).

    Args:
      by_hash: matches by hash.
      near: items with their similarity: the nearest of an image, and those that it matches by hash. In an index of hashes alone
        `similarity` orders survivors and is no cosine.
    """
    rows: dict[tuple[int, str], dict[str, Any]] = {}
    for row in by_hash.to_pylist():  # an image may stand in several files of images/
        rows[row["benchmark"], row["image_id"]] = row | {"similarity": None, "signal": "hash"}
    survivors: dict[int, list[dict[str, Any]]] = {number: [] for number in range(len(benchmarks))}
    for row in near.to_pylist():
        benchmark = benchmarks[row["benchmark"]]
        known = rows.get((row["benchmark"], row["image_id"]))
        if benchmark.encoder is not None and row["similarity"] >= np.float32(benchmark.cut):
            if known is None:
                rows[row["benchmark"], row["image_id"]] = row | {"signal": "embedding"}
            elif known["signal"] == "hash":
                known["signal"] = "both"
        elif known is None:
            survivors[row["benchmark"]].append(row | {"signal": ""})
        if known is not None and known["item"] == row["item"]:
            known["similarity"] = row["similarity"]
    kept = list(rows.values())
    for number, near_rows in survivors.items():
        once = {row["image_id"]: row for row in sorted(near_rows, key=lambda row: (row["similarity"], row["image_id"]))}
        nearest = sorted(once.values(), key=lambda row: (-row["similarity"], row["image_id"]))[:SURVIVORS]
        kept += [row if benchmarks[number].encoder is not None else row | {"similarity": None} for row in nearest]
    kept.sort(key=lambda row: (row["benchmark"], row["image_id"]))
    return pa.Table.from_pylist(kept, schema=pa.schema([*NEAR, ("signal", pa.string())]))


def describe(found: pa.Table, facts: pa.Table, benchmarks: Sequence[Benchmark]) -> pa.Table:
    """Returns the rows as records.MATCHES, with distances, names, and the thumbnails of the items that the report shows.

    Args:
      found: as `join_signals` returns it.
      facts: columns of FACTS; an image may be there several times.
    """
    from dedup.benchmark_hashes import hash_distances, pdq_array

    facts = facts.sort_by([("image_id", "ascending"), ("image_url", "ascending")])
    tables = [MATCHES.empty_table()]
    for number, benchmark in enumerate(benchmarks):
        own = found.filter(pc.and_(pc.equal(found["benchmark"], number), pc.is_in(found["image_id"], facts["image_id"].combine_chunks())))
        if not own.num_rows:
            continue
        fact = facts.take(pc.index_in(own["image_id"], facts["image_id"]))
        item = own["item"].to_numpy()
        items = pq.read_table(
            os.path.join(folder_of(benchmark.folder, benchmark.content), "items.parquet"), columns=["item_id", "item"]
        ).take(pa.array(item))
        search = hashes_of(benchmark)
        phash, pdq = hash_distances(search, fact["phash"].to_numpy(), pdq_array(fact["pdq"].cast(pa.binary())), item)
        columns = {
            "image_id": own["image_id"],
            "image_url": fact["image_url"],
            "benchmark": pa.array([benchmark.name] * own.num_rows, pa.string()),
            "item_id": items["item_id"],
            "item": items["item"],
            "phash_distance": pa.array(phash, pa.int16(), mask=phash < 0),
            "pdq_distance": pa.array(pdq, pa.int16(), mask=pdq < 0),
            "similarity": own["similarity"],
            "signal": own["signal"],
            "thumbnail": pa.nulls(own.num_rows, pa.binary()),
        }
        table = pa.table([columns[name] for name in MATCHES.names], schema=MATCHES)
        tables.append(table.set_column(table.num_columns - 1, MATCHES.field("thumbnail"), _thumbnails(benchmark, table, item)))
    return pa.concat_tables(tables).sort_by([("benchmark", "ascending"), ("image_id", "ascending")])


def shown_mask(matches: pa.Table) -> np.ndarray:
    """Returns which rows of records.MATCHES the report shows: of each benchmark the survivors and the weakest matches."""
    signal, name = (np.array(matches[column].to_pylist(), object) for column in ("signal", "benchmark"))
    # By both signals is stronger than by one; where there is no cosine, the fewer bits differ, the stronger.
    bits = pc.coalesce(
        pc.divide(matches["pdq_distance"].cast(pa.float64()), 256), pc.divide(matches["phash_distance"].cast(pa.float64()), 64)
    )
    strength = np.where(signal == "both", 2.0, 0.0) + pc.coalesce(matches["similarity"], pc.subtract(1, bits).cast(pa.float32())).to_numpy()
    shown: np.ndarray = signal == ""
    for benchmark in set(name):
        own = np.flatnonzero((signal != "") & (name == benchmark))
        shown[own[np.argsort(strength[own], kind="stable")[:SHOWN]]] = True
    return shown


def _thumbnails(benchmark: Benchmark, table: pa.Table, item: np.ndarray) -> pa.Array:
    """Returns the items' thumbnails for the rows that the report shows, null for the others."""
    shown = shown_mask(table)
    rows = np.unique(item[shown])
    pictures = dict(zip(rows.tolist(), read_thumbnails_of(benchmark, rows), strict=True))
    return pa.array([pictures[row] if there else None for row, there in zip(item.tolist(), shown, strict=True)], pa.binary())


def read_thumbnails_of(benchmark: Benchmark, rows: np.ndarray) -> list[bytes | None]:
    """Returns the thumbnails of some items, in ascending order of their rows; only the row groups that hold them are read."""
    found: list[bytes | None] = []
    with pq.ParquetFile(os.path.join(folder_of(benchmark.folder, benchmark.content), "thumbnails.parquet")) as file:
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        ends = np.cumsum(sizes)
        for group in np.unique(np.searchsorted(ends, rows, side="right")):
            here = rows[(rows >= ends[group] - sizes[group]) & (rows < ends[group])] - (ends[group] - sizes[group])
            found += file.read_row_group(int(group))["thumbnail"].take(pa.array(here)).to_pylist()
    return found
