"""Stage pair, steps canonical and resolve: which picture stands for those of its hash, and which captured image a reference means."""

import os
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dedup.canonical import choose_canonical
from pagepairs.files import read_arrow, read_parquet, write_parquet
from pagepairs.keys import prefix64, text_key
from pagepairs.records import IMAGES
from pagepairs.urls import episode_page, host_of, url_key
from pipeline.jobs import Rows
from pipeline.journal import Outcome
from pipeline.pair_duplicates import hash_of_images, write_bands
from pipeline.pair_job import REFERENCE, REFERENCES, PairJob
from pipeline.pair_matches import mark_matches
from pipeline.resolve import close_aliases, follow_aliases, nearest_capture, read_aliases


class SpreadImages:
    """Keys image rows by pHash; those that match a benchmark get their reason here."""

    def __init__(self, job: PairJob) -> None:
        self._matches = job.matches

    def __call__(self, tag: str, path: str) -> Iterator[Rows]:
        names = ["image_id", "url_key", *REFERENCE, "bytes", "width", "height", "phash", "pdq", "texture", "time", "digest_key", "reason"]
        table = mark_matches(read_parquet(path, names), self._matches)
        yield Rows(tag, table, hash_of_images(table["phash"].to_numpy()))


class Canonical:
    """Writes the captures, each with the image that stands for those of its hash, and these images by themselves and by their bands."""

    def __init__(self, job: PairJob) -> None:
        self._job = job

    def __call__(self, part: int, tables: Mapping[str, pa.Table]) -> Outcome:
        table = choose_canonical(tables.get("image", IMAGES.empty_table()))
        keep = ["url_key", "digest_key", "time", "image_id", "reason", "detail", "pixels", "canonical_id"]
        self._job.write("canonical", part, table.select(keep))
        images = table.filter(table["stands"])
        own = ["width", "height", "pixels", "bytes", "phash", "texture", "group_reason"]
        self._job.write("images", part, images.select(["image_id", *REFERENCE, *own]))
        write_bands(self._job, part, images)
        self._job.meter.add(1)
        distinct = pc.count_distinct(table["image_id"]).as_py()
        return Outcome(counters={"captures": table.num_rows, "distinct": distinct, "canonical": images.num_rows})


def spread_aliases(tag: str, path: str) -> Iterator[Rows]:
    """Keys aliases; there is one part only."""
    table = read_parquet(path, ["url_key", "target_key"])
    yield Rows(tag, table, prefix64(table["url_key"]))


class Aliases:
    """Writes the closed aliases: small enough for one worker, 64 bytes each."""

    def __init__(self, job: PairJob) -> None:
        self._job = job

    def __call__(self, part: int, tables: Mapping[str, pa.Table]) -> Outcome:
        if "alias" in tables:
            closed = close_aliases(tables["alias"])
        else:
            closed = pa.table({"url_key": pa.array([], pa.string()), "target_key": pa.array([], pa.string())})
        write_parquet(os.path.join(self._job.work, "aliases.parquet"), closed)
        return Outcome()


class SpreadLinks:
    """Keys links and captures by image URL, and what scan dropped with them."""

    def __init__(self, job: PairJob) -> None:
        self._job, self._aliases = job, os.path.join(job.work, "aliases.parquet")

    def __call__(self, tag: str, path: str) -> Iterator[Rows]:
        aliases = read_aliases(self._aliases)
        if tag == "link":
            table = follow_aliases(key_pages(read_parquet(path), self._job.config.group_by), aliases)
        elif tag == "capture":
            table = read_arrow(path)
            revisited = table.filter(pc.is_in(table["digest_key"], aliases["target_key"].combine_chunks()))
            table = pa.concat_tables([table, revisited.set_column(0, "url_key", revisited["digest_key"])])
        else:
            table = read_parquet(path, ["image_url", "reason"])
            keys = pa.array([url_key(url) for url in table["image_url"].to_pylist()], pa.string())
            table = pa.table({"url_key": keys, "reason": table["reason"]})
        yield Rows(tag, table, prefix64(table["url_key"]))


def key_pages(links: pa.Table, group_by: str) -> pa.Table:
    """Adds `page_key` of the episode and `host` of the page; both are computed once a page."""
    pages = links["page_url"].unique()
    row = pc.index_in(links["page_url"], pages)
    keys = pa.array([text_key(episode_page(page, group_by)) for page in pages.to_pylist()], pa.string())
    hosts = pa.array([host_of(page) for page in pages.to_pylist()], pa.string())
    return links.append_column("page_key", keys.take(row)).append_column("host", hosts.take(row))


class Resolve:
    """Writes references with the image each leads to, or the reason why it leads nowhere."""

    def __init__(self, job: PairJob) -> None:
        self._job = job

    def __call__(self, part: int, tables: Mapping[str, pa.Table]) -> Outcome:
        links = tables.get("link")
        references = REFERENCES.empty_table() if links is None else resolve_links(links, tables.get("capture"), tables.get("dropped"))
        self._job.write("resolve", part, references)
        self._job.meter.add(1)
        return Outcome()


def resolve_links(links: pa.Table, captures: pa.Table | None, dropped: pa.Table | None) -> pa.Table:
    """Returns the links as references: each with the image it leads to, or with a reason."""
    if captures is not None:  # one image may have been captured twice at one time, with and without an opt-out
        captures = captures.sort_by([("image_id", "ascending"), ("reason", "ascending")])
    found = np.full(links.num_rows, -1, np.int64) if captures is None else nearest_capture(links, captures)
    row = pa.array(found, mask=found < 0)
    columns: dict[str, pa.ChunkedArray] = {name: links[name] for name in REFERENCES.names if name in links.column_names}
    for name in ("page_set", *REFERENCE, "width", "height"):  # known in `sets` and, of the image that stands for it, in `appear`
        columns[name] = pa.nulls(links.num_rows, REFERENCES.field(name).type)
    if captures is None:
        for name in ("pixels", "image_id"):
            columns[name] = pa.nulls(links.num_rows, REFERENCES.field(name).type)
        verdict = detail = pa.nulls(links.num_rows, pa.string())
    else:
        columns["pixels"], columns["image_id"] = captures["pixels"].take(row), captures["canonical_id"].take(row)
        verdict = captures["reason"].take(row)
        told = pc.if_else(pc.equal(verdict, "copy_removed"), captures["detail"].take(row), verdict)
        detail = pc.if_else(pc.equal(verdict, "benchmark_match"), "", told)
    if dropped is not None:
        first = dropped.group_by("url_key").aggregate([("reason", "min")])
        detail = pc.coalesce(detail, first["reason_min"].take(pc.index_in(links["url_key"], first["url_key"])))
    detail = pc.fill_null(detail, "")
    missing = pc.if_else(pc.not_equal(detail, ""), "image_dropped", pc.if_else(pc.is_null(verdict), "not_in_crawl", ""))
    own = pc.fill_null(pc.is_in(verdict, pa.array(["copy_removed", "benchmark_match"])), False)
    missing = pc.if_else(own, verdict, missing)
    columns["reason"] = pc.if_else(pc.not_equal(links["reason"], ""), links["reason"], missing)
    columns["detail"] = detail
    return pa.table({name: columns[name] for name in REFERENCES.names}).cast(REFERENCES)
