"""Stage pair, steps sets, pages and mirrors: what a page leads to, which references are left, which pages show what another one does."""

import hashlib
import itertools
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pagepairs.files import read_arrow, read_parquet, write_arrow_parts
from pagepairs.keys import mix, order_by_part, prefix64, text_key
from pagepairs.records import PAGES
from pagepairs.urls import path_of
from pipeline.episodes import cap_pages, choose_references, close_pages, codes_of, episode_reasons
from pipeline.jobs import Rows
from pipeline.journal import Outcome
from pipeline.pair_job import REFERENCES, PairJob
from pipeline.pair_references import key_pages

# A page with an episode: the images that it shows, as one hash, and, once it is known, the page that shows the same ones.
PAGE_SETS = pa.schema([("set_key", pa.string()), ("page_key", pa.string()), ("page_url", pa.string())])


def spread_resolved(tag: str, path: str) -> Iterator[Rows]:
    """Keys the references that lead to an image by page."""
    table = read_arrow(path)
    table = table.filter(pc.equal(table["reason"], ""))
    yield Rows(tag, table, prefix64(table["page_key"]))


class Sets:
    """Writes references with a hash of what their page shows, so that one page under many addresses can count once."""

    def __init__(self, job: PairJob) -> None:
        self._job = job

    def __call__(self, part: int, tables: Mapping[str, pa.Table]) -> Outcome:
        references = tables.get("reference", REFERENCES.empty_table())
        column = references.schema.get_field_index("page_set")
        self._job.write("sets", part, references.set_column(column, "page_set", pa.array(page_sets(references), pa.uint64())))
        self._job.meter.add(1)
        return Outcome()


def page_sets(references: pa.Table) -> np.ndarray:
    """Returns, for each reference, a uint64 hash of the distinct images that its page leads to, and of the path of the page.

    Equal for a page under other queries or on other hosts. The path keeps the pages of a site apart that show nothing but its logo.
    """
    pages = references["page_url"].unique()
    page, image = pc.index_in(references["page_url"], pages).to_numpy(), codes_of(references["image_id"])
    _, first = np.unique(page * (image.max(initial=0) + 1) + image, return_index=True)
    hashes = prefix64(pa.array([text_key(path_of(url)) for url in pages.to_pylist()], pa.string()))
    np.add.at(hashes, page[first], mix(prefix64(references["image_id"])[first]))
    found: np.ndarray = hashes[page]
    return found


class SpreadByPage:
    """Keys references by page, and the pages of which no image may be used."""

    def __init__(self, job: PairJob) -> None:
        self._group_by = job.config.group_by

    def __call__(self, tag: str, path: str) -> Iterator[Rows]:
        if tag == "closed":
            table = read_parquet(path, ["page_url", "reason"])
            table = key_pages(table.filter(pc.not_equal(table["reason"], "")), self._group_by)
            yield Rows(tag, table, prefix64(table["page_key"]))
            return
        table = read_arrow(path)
        if tag == "unresolved":
            table = table.filter(pc.not_equal(table["reason"], ""))
        yield Rows("reference", table, prefix64(table["page_key"]))


class Pages:
    """Writes the references of some pages, each kept or with its reason, and what images the pages show."""

    def __init__(self, job: PairJob) -> None:
        self._job = job

    def __call__(self, part: int, tables: Mapping[str, pa.Table]) -> Outcome:
        job, config = self._job, self._job.config
        rows = tables.get("reference", REFERENCES.empty_table())
        offered = cap_pages(rows, max_images=config.max_images_per_page, seed=config.seed)
        references = choose_references(close_pages(offered, tables.get("closed", PAGES.empty_table())))
        references = with_reasons(references, episode_reasons(references))
        job.write("pages", part, references)
        shown = image_sets(references.filter(pc.equal(references["reason"], "")))
        order, bounds = order_by_part(prefix64(shown["set_key"]), job.parts)
        write_arrow_parts(job.path("shown", part), shown.take(pa.array(order)), bounds)
        job.meter.add(1)
        return Outcome()


def with_reasons(references: pa.Table, reasons: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Returns the references with other reasons."""
    return references.set_column(references.schema.get_field_index("reason"), "reason", reasons)


def image_sets(members: pa.Table) -> pa.Table:
    """Returns rows of PAGE_SETS: pages that show the same images have the same set_key.

    Args:
      members: kept references, each image of a page once.
    """
    if members.num_rows == 0:
        return PAGE_SETS.empty_table()
    members = members.select(["page_key", "image_id", "page_url"])
    members = members.sort_by([("page_key", "ascending"), ("image_id", "ascending"), ("page_url", "ascending")])
    page = pc.index_in(members["page_key"], members["page_key"].unique()).to_numpy()
    starts = np.flatnonzero(np.append(True, page[1:] != page[:-1]))
    ids = "".join(members["image_id"].to_pylist()).encode()
    width = len(ids) // members.num_rows
    bounds = np.append(starts, members.num_rows) * width
    keys = [hashlib.blake2b(ids[start:stop], digest_size=16).hexdigest() for start, stop in itertools.pairwise(bounds)]
    heads = members.take(pa.array(starts))
    return pa.table([pa.array(keys, pa.string()), heads["page_key"], heads["page_url"]], schema=PAGE_SETS)


class Mirrors:
    """Writes the pages that show the same images as a page with a lower key, with the URL of the lowest."""

    def __init__(self, job: PairJob) -> None:
        self._job = job

    def __call__(self, part: int) -> Outcome:
        shown = self._job.read_range("shown", part)
        assert shown is not None  # every part of `pages` writes its file
        mirrors = find_mirrors(shown)
        order, bounds = order_by_part(prefix64(mirrors["page_key"]), self._job.parts)
        write_arrow_parts(self._job.path("mirrors", part), mirrors.take(pa.array(order)), bounds)
        self._job.meter.add(1)
        return Outcome()


def find_mirrors(sets: pa.Table) -> pa.Table:
    """Returns the rows of all pages but the one with the lowest key of each set; page_url becomes that page's.

    Args:
      sets: rows of PAGE_SETS, all of each set_key.
    """
    sets = sets.sort_by([("set_key", "ascending"), ("page_key", "ascending")])
    if sets.num_rows == 0:
        return sets
    code = pc.index_in(sets["set_key"], sets["set_key"].unique()).to_numpy()
    first = np.append(True, code[1:] != code[:-1])
    lowest = np.flatnonzero(first)[np.cumsum(first) - 1]
    shown = sets.set_column(2, "page_url", sets["page_url"].take(pa.array(lowest)))
    return shown.filter(pa.array(~first))


def close_mirrors(references: pa.Table, mirrors: pa.Table) -> pa.Table:
    """Gives the kept references of mirrors their reason, and the URL of the page that stays as detail.

    Args:
      references: rows of REFERENCES, of whole pages.
      mirrors: what `find_mirrors` returned for these pages.
    """
    row = pc.index_in(references["page_key"], mirrors["page_key"])
    mirrored = pc.and_(pc.equal(references["reason"], ""), pc.is_valid(row))
    detail = pc.if_else(mirrored, pc.fill_null(mirrors["page_url"].take(row), ""), references["detail"])
    references = references.set_column(references.schema.get_field_index("detail"), "detail", detail)
    return with_reasons(references, pc.if_else(mirrored, "same_images_as_other_page", references["reason"]))
