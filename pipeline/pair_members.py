"""Stage pair, steps appear and fetch: on how many pages an image stands, and its vector on the way to them."""

import os
from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from dedup.boilerplate import appearance_counts, boilerplate_reasons, count_appearances
from pagepairs.files import read_arrow
from pagepairs.keys import prefix64
from pipeline.episodes import bottom_k, codes_of, page_image_hash
from pipeline.jobs import Rows
from pipeline.journal import Outcome
from pipeline.pair_job import REFERENCE, REFERENCES, PairJob
from pipeline.vectors import copy_vectors, spread_vectors


def spread_found(tag: str, path: str) -> Iterator[Rows]:
    """Keys references, the images that stand for others, and those that have a vector, by image."""
    if tag == "reference":
        table = read_arrow(path)
        yield Rows(tag, table, prefix64(table["image_id"]))
    elif tag == "image":
        table = read_arrow(path).select(["image_id", *REFERENCE, "width", "height"])
        yield Rows(tag, table, prefix64(table["image_id"]))
    else:
        yield from spread_vectors(tag, path)


class Appear:
    """Decides what depends on all appearances of an image, and notes which pages want its vector."""

    def __init__(self, job: PairJob) -> None:
        self._job = job

    def __call__(self, part: int, tables: Mapping[str, pa.Table]) -> Outcome:
        job, config = self._job, self._job.config
        references = _place(tables.get("reference", REFERENCES.empty_table()), tables.get("image", REFERENCES.empty_table()))
        embedded = tables.get("vector", WANTED.empty_table())
        where = pc.index_in(references["image_id"], embedded["image_id"])
        small = pc.less(pc.min_element_wise(references["width"], references["height"]), job.size_px)
        counts = count_appearances(references)
        common = boilerplate_reasons(references, counts, max_pages=config.max_pages_per_image, max_hosts=config.max_hosts_per_image)
        reasons = pc.if_else(pc.is_null(where), "not_embedded", "")
        reasons = pc.if_else(pc.not_equal(common, ""), common, reasons)
        reasons = pc.if_else(small, "smaller_than_size", reasons)
        references = references.set_column(references.schema.get_field_index("reason"), "reason", reasons)
        job.write("appear", part, references)
        wanted = references.select(["page_key", "image_id"]).append_column("vectors", embedded["vectors"].take(where))
        job.write(
            "wanted", part, choose_wanted(wanted.filter(pc.equal(reasons, "")), max_images=config.max_images_per_page, seed=config.seed)
        )
        job.meter.add(1)
        return Outcome(counters={name: appearance_counts(counts[name]) for name in ("pages", "hosts")})


def _place(references: pa.Table, images: pa.Table) -> pa.Table:
    """Adds where the image of each reference stands, and its size."""
    row = pc.index_in(references["image_id"], images["image_id"])
    for name in (*REFERENCE, "width", "height"):
        references = references.set_column(references.schema.get_field_index(name), name, images[name].take(row))
    return references


# Which page wants the vector of which image, and in which file of embeddings/ it stands.
WANTED = pa.schema([("page_key", pa.string()), ("image_id", pa.string()), ("vectors", pa.string())])


def choose_wanted(rows: pa.Table, *, max_images: int, seed: int) -> pa.Table:
    """Returns each page and image once; of a page with too many images only those that can be in its sample."""
    rows = rows.group_by(WANTED.names).aggregate([]).select(WANTED.names)
    return rows.filter(pa.array(bottom_k(codes_of(rows["page_key"]), page_image_hash(rows, seed), max_images)))


class Fetch:
    """Copies the vectors that pages want out of some files of embeddings/, ordered by the part of the page: one batch a part."""

    def __init__(self, job: PairJob) -> None:
        self._job = job
        self._folder = os.path.join(job.output, "embeddings", job.encoder_folder)

    def __call__(self, part: int, tables: Mapping[str, pa.Table]) -> Outcome:
        job = self._job
        if "wanted" in tables:
            copy_vectors(tables["wanted"], "page_key", folder=self._folder, path=job.path("fetch", part), parts=job.parts)
        job.meter.add(1)
        return Outcome()
