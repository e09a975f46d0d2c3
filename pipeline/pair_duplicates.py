"""Stage pair, steps near, labels and stars: which canonical images are near copies of others, and which must go with a copy.

    near     canonical images by band     compares the images that share a band: the edges
    labels   edges by image               rounds of handing on the lowest label, only where the edges do not fit one worker
    stars    edges by component           which image stands for which

No worker ever holds all hashes: a worker of `near` holds the buckets of its part, one of `stars` the edges of its components.
"""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.options.pipeline_options import PipelineOptions

from dedup.canonical import FLAT_TEXTURE, pdq_rows
from dedup.groups import choose_stars, id_words, label_components, number_nodes, removal_reasons, size_counts
from dedup.near import BANDS, bucket_hash, near_in_buckets
from pagepairs.files import read_arrow, write_arrow_parts
from pagepairs.keys import mix, order_by_part
from pipeline.jobs import Rows, run_parts, run_tasks
from pipeline.journal import Journal, Outcome, merge_counters, part_name
from pipeline.pair_alike import alike_parts
from pipeline.pair_edges import EDGES, ENDS, bytes_of_ids, hex_of_ids, make_edges
from pipeline.pair_job import PairJob

MAX_EDGES = 4_000_000
"""Near pairs that one worker turns into stars: 250 bytes each with what it makes of them, 1 GB."""
_ALL = "all"
_PARTS_A_BUCKET_PART = 4
"""Bands are light (90 bytes a row), so a part of `near` holds those of four parts of images: 1.6 million rows, 150 MB."""

BAND_ROWS = pa.schema([("band", pa.uint8()), ("pdq", pa.binary(32)), *ENDS])
LABELLED = EDGES.append(pa.field("label", pa.binary(32)))  # of the component of end a, as far as it is known
# What becomes of a canonical image that a better one stands for, or that goes with a copy.
STARS = pa.schema([("canonical_id", pa.string()), ("stands_id", pa.string()), ("detail", pa.string()), ("rule", pa.string())])


def hash_of_images(phash: np.ndarray) -> np.ndarray:
    """Returns the uint64 by which images are cut into parts: equal hashes stay together."""
    return mix(phash)


def near_parts(parts: int) -> int:
    """Returns the number of parts that the bands of the images are cut into."""
    return -(-parts // _PARTS_A_BUCKET_PART)


def write_bands(job: PairJob, part: int, images: pa.Table) -> None:
    """Writes each canonical image once a band, ordered by the part of `near` that compares it; flat images are near nothing.

    Args:
      images: rows of `choose_canonical`, one an image.
    """
    images = images.filter(pc.greater_equal(images["texture"], FLAT_TEXTURE))
    columns = {"pdq": images["pdq"], "id": bytes_of_ids(images["image_id"]), "phash": images["phash"], "pixels": images["pixels"]}
    columns |= {"bytes": images["bytes"], "reason": images["group_reason"]}
    band = np.repeat(np.arange(BANDS, dtype=np.uint8), images.num_rows)
    order, bounds = order_by_part(bucket_hash(np.tile(images["phash"].to_numpy(), BANDS), band), near_parts(job.parts))
    rows = pa.array(order % max(1, images.num_rows))
    table = pa.table({"band": pa.array(band[order])} | {name: column.take(rows) for name, column in columns.items()})
    write_arrow_parts(job.path("bands", part), table.select(BAND_ROWS.names).cast(BAND_ROWS), bounds)


class Near:
    """Writes the near pairs among the images that share the buckets of one part."""

    def __init__(self, job: PairJob) -> None:
        self._job = job

    def __call__(self, part: int) -> Outcome:
        rows = self._job.read_range("bands", part)
        assert rows is not None  # every part of `canonical` writes its file
        left, right = near_in_buckets(rows["band"].to_numpy(), rows["phash"].to_numpy(), pdq_rows(rows["pdq"]))
        edges = make_edges(rows, left, right, by_hash=True)
        self._job.write("edges", part, edges)
        self._job.meter.add(1)
        return Outcome(counters={"edges": edges.num_rows})


def find_stars(job: PairJob, journals: Mapping[str, Journal], options: PipelineOptions) -> None:
    """Finds the near pairs among the canonical images and settles which of these stands for which, also for what `alike` found."""
    parts = near_parts(job.parts)
    run_tasks("near", {part_name(part, parts): part for part in range(parts)}, Near(job), journals["near"], options)
    outcomes = journals["near"].read_parts(parts)
    paths = [job.path("edges", part) for part in range(parts)]
    if job.config.copy_cosine is not None:
        parts = alike_parts(job.parts)
        outcomes += journals["alike"].read_parts(parts)
        paths += [job.path("alike", part) for part in range(parts)]
    if sum(outcome.counters["edges"] for outcome in outcomes) <= MAX_EDGES:
        run_tasks("stars", {_ALL: paths}, StarsOfAll(job), journals["stars"], options)
    else:
        labelled = _label_by_rounds(job, paths, journals["labels"], options)
        run_parts("stars", labelled, spread_by_component, Stars(job), job.parts, journals["stars"], options)


def read_stars(job: PairJob, journals: Mapping[str, Journal]) -> dict[str, Any]:
    """Returns the counts of what `find_stars` settled."""
    names = [_ALL] if journals["stars"].has(_ALL) else [part_name(part, job.parts) for part in range(job.parts)]
    return merge_counters(outcome.counters for outcome in journals["stars"].read_all(names))


def _label_by_rounds(job: PairJob, paths: list[str], journal: Journal, options: PipelineOptions) -> list[tuple[str, str]]:
    """Hands the lowest id of each component on from image to image until nothing changes; returns the files of labelled edges."""
    inputs = [("first", path) for path in paths]
    names = [part_name(part, job.parts) for part in range(job.parts)]
    for turn in itertools.count():
        done = Journal(f"{journal.folder}/{turn}")
        run_parts("labels", inputs, spread_labels, Labels(job, f"labels-{turn}"), job.parts, done, options)
        inputs = job.phase(f"labels-{turn}", "edge")
        if not any(done.read(name).counters["changed"] for name in names):
            return inputs
    raise AssertionError("counting does not end")


def spread_labels(tag: str, path: str) -> Iterator[Rows]:
    """Keys labelled edges by their end a, in both directions, and what each tells its end b."""
    table = read_arrow(path)
    if tag == "first":
        table = pa.concat_tables([table, table.select(_turned(table.column_names)).rename_columns(table.column_names)])
        table = table.append_column("label", table["a_id"])
    yield Rows("edge", table, id_words(table["a_id"])[:, 0])
    yield Rows("told", table.select(["b_id", "label"]).rename_columns(["a_id", "label"]), id_words(table["b_id"])[:, 0])


def _turned(names: list[str]) -> list[str]:
    other = {"a_": "b_", "b_": "a_"}
    return [other.get(name[:2], name[:2]) + name[2:] for name in names]


class Labels:
    """Gives the edges of each image the lowest label that it has been told."""

    def __init__(self, job: PairJob, phase: str) -> None:
        self._job, self._phase = job, phase

    def __call__(self, part: int, tables: Mapping[str, pa.Table]) -> Outcome:
        edges = tables.get("edge", LABELLED.empty_table())
        told = tables.get("told", LABELLED.empty_table())
        known = pa.concat_tables([table.select(["a_id", "label"]) for table in (edges, told)])
        image, label = id_words(known["a_id"]), id_words(known["label"])
        order = np.lexsort((*label.T[::-1], *image.T[::-1]))
        first = np.append(True, (image[order][1:] != image[order][:-1]).any(axis=1))[: len(order)]
        lowest = np.empty(len(order), np.int64)
        lowest[order] = order[first][np.cumsum(first) - 1]
        lowest = lowest[: edges.num_rows]
        changed = int((label[lowest] != label[: edges.num_rows]).any(axis=1).sum())
        column = edges.column_names.index("label")
        self._job.write(self._phase, part, edges.set_column(column, "label", known["label"].take(pa.array(lowest))))
        return Outcome(counters={"changed": changed})


def spread_by_component(tag: str, path: str) -> Iterator[Rows]:
    """Keys edges, each in one direction, by the label of their component."""
    table = read_arrow(path)
    a, b = id_words(table["a_id"]), id_words(table["b_id"])
    differ = (a != b).argmax(axis=1)
    table = table.filter(pa.array(np.take_along_axis(a, differ[:, None], 1)[:, 0] < np.take_along_axis(b, differ[:, None], 1)[:, 0]))
    yield Rows("edge", table.select(EDGES.names), id_words(table["label"])[:, 0])


class Stars:
    """Settles the components of one part."""

    def __init__(self, job: PairJob) -> None:
        self._job = job

    def __call__(self, part: int, tables: Mapping[str, pa.Table]) -> Outcome:
        return settle(self._job, part, tables.get("edge", EDGES.empty_table()))


class StarsOfAll:
    """Settles all components at once, where one worker can hold them."""

    def __init__(self, job: PairJob) -> None:
        self._job = job

    def __call__(self, paths: list[str]) -> Outcome:
        return settle(self._job, 0, pa.concat_tables([read_arrow(path) for path in paths]))


def settle(job: PairJob, part: int, edges: pa.Table) -> Outcome:
    """Writes what becomes of the images of whole components, ordered by the part of images; counts groups and components by size."""
    nodes, one, two = number_nodes(edges)
    pair, row = np.unique(one * nodes.num_rows + two, return_inverse=True)  # found by hash and by vector, or in several buckets
    by_hash = np.zeros(len(pair), bool)
    by_hash[row[edges["by_hash"].to_numpy()]] = True
    better, other = np.divmod(pair, max(1, nodes.num_rows))
    star = choose_stars(better, other, nodes.num_rows)
    image = np.arange(len(star))
    copy, near = star != image, np.isin(star * nodes.num_rows + image, pair[by_hash])
    rule = pa.array(np.select([copy & near, copy], ["near_hash", "near_embedding"], ""), pa.string())
    reason = removal_reasons(star, better, other, nodes["reason"])
    names = hex_of_ids(nodes["id"])
    table = pa.table([names, names.take(pa.array(star)), reason, rule], schema=STARS)
    told = copy | pc.not_equal(reason, "").to_numpy(zero_copy_only=False)
    order, bounds = order_by_part(hash_of_images(nodes["phash"].to_numpy()[told]), job.parts)
    write_arrow_parts(job.path("stars", part), table.filter(pa.array(told)).take(pa.array(order)), bounds)
    counters = {"near_hash": int((copy & near).sum()), "near_embedding": int((copy & ~near).sum()), "near_pairs": len(pair)}
    label = label_components(better, other, nodes.num_rows)
    return Outcome(counters=counters | {"groups": size_counts(star), "components": size_counts(label)})
