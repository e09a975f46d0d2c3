"""Stage pair: references to episodes, episodes to candidates, candidates to pairs.

Seven steps in parts, each by the key that its decision needs:

    canonical   images by pHash          which picture stands for its copies
    resolve     links by image URL       which captured image a reference means
    appear      references by image      on how many pages and hosts; where its vector stands
    fetch       vectors by their file    copies them, ordered by the part of the page that wants them
    episodes    references by page       which images a page offers; sampled candidates and their similarity
    pairs       candidates by pair       a pair found on several pages is kept once; which image is the condition

What is heavy never goes through a shuffle, as with image bytes: `fetch` leaves vectors, and `episodes` leaves candidates, in files with one
range a part of the next step, which reads its range of each.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from apache_beam.options.pipeline_options import PipelineOptions

from dedup.boilerplate import boilerplate_reasons
from dedup.canonical import choose_canonical
from filters.band import in_band
from pagepairs.config import PairConfig
from pagepairs.files import FileInfo, read_arrow, read_arrow_part, write_arrow, write_arrow_parts, write_parquet
from pagepairs.keys import mix, order_by_part, pair_id, prefix64, text_key
from pagepairs.manifest import Manifest, dataset_files
from pagepairs.records import CANDIDATES, DROPS, EPISODES, IMAGES, PAGES, PAIRS, SCHEMA_VERSION, vectors_of
from pagepairs.urls import episode_page, host_of, url_key
from pipeline.episodes import (
    bottom_k,
    cap_pages,
    choose_references,
    close_pages,
    codes_of,
    episode_reasons,
    page_image_hash,
    sample_pairs,
    similarities,
)
from pipeline.jobs import Journal, Outcome, Rows, count_parts, part_name, run_parts, run_tasks
from pipeline.progress import Meter
from pipeline.resolve import close_aliases, follow_aliases, nearest_capture, read_aliases
from pipeline.vectors import copy_vectors, spread_by_file, spread_vectors

HISTOGRAM_BINS = 200
_REFERENCE = ("source", "offset", "length")
_CARRIED = ("alt", *_REFERENCE)  # what a pair knows of its images besides the ledger
_PHASES = ("canonical", "aliases", "resolve", "appear", "fetch", "episodes", "pairs")

# Rows between the shuffles: a reference in a page, and what it led to.
_REFERENCES = pa.schema(
    [
        ("page_key", pa.string()),
        ("page_url", pa.string()),
        ("capture", pa.uint64()),
        ("page_time", pa.timestamp("ms", tz="UTC")),
        ("position", pa.int32()),
        ("image_url", pa.string()),
        ("url_key", pa.string()),
        ("alt", pa.string()),
        ("via", pa.string()),
        ("host", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("pixels", pa.int64()),  # of the image that the URL led to; the next columns are of the image that stands for it
        ("image_id", pa.string()),
        ("source", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class PairJob:
    """What the shuffles of stage pair share."""

    output: str
    work: str
    config: PairConfig
    encoder_folder: str
    low: float
    high: float
    size_px: int
    parts: int
    meter: Meter

    def path(self, phase: str, part: int) -> str:
        """Path of what a shuffle leaves for the next."""
        return os.path.join(self.work, phase, f"{part_name(part, self.parts)}.arrow")

    def write(self, phase: str, part: int, table: pa.Table) -> None:
        """Writes what a shuffle leaves for the next."""
        write_arrow(self.path(phase, part), table)

    def read_range(self, phase: str, part: int) -> pa.Table | None:
        """The rows that all parts of an earlier step left for this part; None where they left none."""
        paths = [self.path(phase, other) for other in range(self.parts)]
        pieces = [read_arrow_part(path, part) for path in paths if os.path.exists(path)]
        return pa.concat_tables(pieces) if pieces else None

    def write_final(self, dataset: str, part: int, table: pa.Table) -> FileInfo:
        """Writes a file of a dataset aside; it moves to its place when the stage is complete."""
        return write_parquet(os.path.join(self.work, "final", dataset, f"{part_name(part, self.parts)}.parquet"), table)

    def dataset(self, name: str, tag: str) -> list[tuple[str, str]]:
        """Files of a dataset as inputs of a shuffle."""
        return [(tag, path) for path in dataset_files(os.path.join(self.output, name))]

    def phase(self, name: str, tag: str) -> list[tuple[str, str]]:
        """Files of an earlier shuffle as inputs of the next."""
        return [(tag, self.path(name, part)) for part in range(self.parts)]


def pair_up(job: PairJob, options: PipelineOptions) -> dict[str, Journal]:
    """Runs the shuffles; returns the journal of each."""
    journals = {phase: Journal(os.path.join(job.work, "done", phase)) for phase in _PHASES}
    run_parts("canonical", job.dataset("images", "image"), spread_images, _Canonical(job), job.parts, journals["canonical"], options)
    run_parts("aliases", job.dataset("aliases", "alias"), _spread_aliases, _Aliases(job), 1, journals["aliases"], options)
    links = job.dataset("links", "link") + job.phase("canonical", "capture") + job.dataset("drops/scan", "dropped")
    run_parts("resolve", links, _SpreadLinks(job), _Resolve(job), job.parts, journals["resolve"], options)
    found = job.phase("resolve", "reference") + job.dataset(f"embeddings/{job.encoder_folder}", "vector")
    run_parts("appear", found, _spread_found, _Appear(job), job.parts, journals["appear"], options)
    run_parts("fetch", job.phase("wanted", "wanted"), spread_by_file, _Fetch(job), job.parts, journals["fetch"], options)
    pages = job.phase("resolve", "unresolved") + job.phase("appear", "reference") + job.dataset("pages", "closed")
    run_parts("episodes", pages, _SpreadByPage(job), _Episodes(job), job.parts, journals["episodes"], options)
    run_tasks("pairs", {part_name(part, job.parts): part for part in range(job.parts)}, _Pairs(job), journals["pairs"], options)
    return journals


def parts_for(images: Manifest, links: Manifest) -> int:
    """Returns the number of parts that all shuffles of the stage use."""
    return count_parts(max(images.rows, links.rows))


def spread_images(tag: str, path: str) -> Iterator[Rows]:
    """Keys image rows by pHash."""
    names = ["image_id", "url_key", *_REFERENCE, "bytes", "width", "height", "phash", "time", "digest_key", "reason"]
    table = pq.read_table(path, columns=names)
    yield Rows(tag, table, mix(table["phash"].to_numpy()))


class _Canonical:
    """Writes the captures, each with the image that stands for it."""

    def __init__(self, job: PairJob) -> None:
        self._job = job

    def __call__(self, part: int, tables: Mapping[str, pa.Table]) -> Outcome:
        table = choose_canonical(tables.get("image", IMAGES.empty_table()))
        keep = ["url_key", "digest_key", "time", "image_id", "reason", "pixels", "canonical_id"]
        self._job.write("canonical", part, table.select([*keep, *(f"canonical_{name}" for name in (*_REFERENCE, "width", "height"))]))
        self._job.meter.add(1)
        return Outcome()


def _spread_aliases(tag: str, path: str) -> Iterator[Rows]:
    table = pq.read_table(path, columns=["url_key", "target_key"])
    yield Rows(tag, table, prefix64(table["url_key"]))


class _Aliases:
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


class _SpreadLinks:
    """Keys links and captures by image URL, and what scan dropped with them."""

    def __init__(self, job: PairJob) -> None:
        self._group_by, self._aliases = job.config.group_by, os.path.join(job.work, "aliases.parquet")

    def __call__(self, tag: str, path: str) -> Iterator[Rows]:
        aliases = read_aliases(self._aliases)
        if tag == "link":
            table = follow_aliases(key_pages(pq.read_table(path), self._group_by), aliases)
        elif tag == "capture":
            table = read_arrow(path)
            revisited = table.filter(pc.is_in(table["digest_key"], aliases["target_key"].combine_chunks()))
            table = pa.concat_tables([table, revisited.set_column(0, "url_key", revisited["digest_key"])])
        else:
            table = pq.read_table(path, columns=["image_url", "reason"])
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


class _Resolve:
    """Writes references with the image each leads to, or the reason why it leads nowhere."""

    def __init__(self, job: PairJob) -> None:
        self._job = job

    def __call__(self, part: int, tables: Mapping[str, pa.Table]) -> Outcome:
        links = tables.get("link")
        references = _REFERENCES.empty_table() if links is None else resolve_links(links, tables.get("capture"), tables.get("dropped"))
        self._job.write("resolve", part, references)
        self._job.meter.add(1)
        return Outcome()


def resolve_links(links: pa.Table, captures: pa.Table | None, dropped: pa.Table | None) -> pa.Table:
    """Returns the links as references: each with the image it leads to, or with a reason."""
    if captures is not None:  # one image may have been captured twice at one time, with and without an opt-out
        captures = captures.sort_by([("image_id", "ascending"), ("reason", "ascending")])
    found = np.full(links.num_rows, -1, np.int64) if captures is None else nearest_capture(links, captures)
    row = pa.array(found, mask=found < 0)
    columns: dict[str, pa.ChunkedArray] = {name: links[name] for name in _REFERENCES.names if name in links.column_names}
    if captures is None:
        for name in ("pixels", "image_id", *_REFERENCE, "width", "height"):
            columns[name] = pa.nulls(links.num_rows, _REFERENCES.field(name).type)
        verdict = pa.nulls(links.num_rows, pa.string())
    else:
        for name in (*_REFERENCE, "width", "height"):
            columns[name] = captures[f"canonical_{name}"].take(row)
        columns["pixels"], columns["image_id"] = captures["pixels"].take(row), captures["canonical_id"].take(row)
        verdict = captures["reason"].take(row)
    detail = pc.if_else(pc.is_in(verdict, pa.array(["", "copy_removed"])), "", verdict)
    if dropped is not None:
        first = dropped.group_by("url_key").aggregate([("reason", "min")])
        detail = pc.coalesce(detail, first["reason_min"].take(pc.index_in(links["url_key"], first["url_key"])))
    detail = pc.fill_null(detail, "")
    missing = pc.if_else(
        pc.not_equal(detail, ""), "image_dropped", pc.if_else(pc.is_null(verdict), "not_in_crawl", pc.fill_null(verdict, ""))
    )
    columns["reason"] = pc.if_else(pc.not_equal(links["reason"], ""), links["reason"], missing)
    columns["detail"] = detail
    return pa.table({name: columns[name] for name in _REFERENCES.names}).cast(_REFERENCES)


def _spread_found(tag: str, path: str) -> Iterator[Rows]:
    if tag == "reference":
        table = read_arrow(path)
        table = table.filter(pc.equal(table["reason"], ""))
        yield Rows(tag, table, prefix64(table["image_id"]))
    else:
        yield from spread_vectors(tag, path)


class _Appear:
    """Decides what depends on all appearances of an image, and notes which pages want its vector."""

    def __init__(self, job: PairJob) -> None:
        self._job = job

    def __call__(self, part: int, tables: Mapping[str, pa.Table]) -> Outcome:
        job, config = self._job, self._job.config
        references = tables.get("reference", _REFERENCES.empty_table())
        embedded = tables.get("vector", _WANTED.empty_table())
        where = pc.index_in(references["image_id"], embedded["image_id"])
        small = pc.less(pc.min_element_wise(references["width"], references["height"]), job.size_px)
        common = boilerplate_reasons(references, max_pages=config.max_pages_per_image, max_hosts=config.max_hosts_per_image)
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
        return Outcome()


# Which page wants the vector of which image, and in which file of embeddings/ it stands.
_WANTED = pa.schema([("page_key", pa.string()), ("image_id", pa.string()), ("vectors", pa.string())])


def choose_wanted(rows: pa.Table, *, max_images: int, seed: int) -> pa.Table:
    """Returns each page and image once; of a page with too many images only those that can be in its sample."""
    rows = rows.group_by(_WANTED.names).aggregate([]).select(_WANTED.names)
    return rows.filter(pa.array(bottom_k(codes_of(rows["page_key"]), page_image_hash(rows, seed), max_images)))


class _Fetch:
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


class _SpreadByPage:
    """Keys references by page, and the pages of which no image may be used."""

    def __init__(self, job: PairJob) -> None:
        self._group_by = job.config.group_by

    def __call__(self, tag: str, path: str) -> Iterator[Rows]:
        if tag == "closed":
            table = pq.read_table(path, columns=["page_url", "reason"])
            table = key_pages(table.filter(pc.not_equal(table["reason"], "")), self._group_by)
            yield Rows(tag, table, prefix64(table["page_key"]))
            return
        table = read_arrow(path)
        if tag == "unresolved":
            table = table.filter(pc.not_equal(table["reason"], ""))
        yield Rows("reference", table, prefix64(table["page_key"]))


class _Episodes:
    """Writes the episodes of some pages, the drops among their references, and their candidates."""

    def __init__(self, job: PairJob) -> None:
        self._job = job

    def __call__(self, part: int, tables: Mapping[str, pa.Table]) -> Outcome:
        job, config = self._job, self._job.config
        rows = tables.get("reference", _REFERENCES.empty_table())
        offered = cap_pages(rows, max_images=config.max_images_per_page, seed=config.seed)
        references = choose_references(close_pages(offered, tables.get("closed", PAGES.empty_table())))
        reasons = episode_reasons(references)
        references = references.set_column(references.schema.get_field_index("reason"), "reason", reasons)
        kept = pc.equal(reasons, "")
        members = references.filter(kept)
        dropped = references.filter(pc.invert(kept))
        episodes = gather_episodes(members, config.group_by)
        candidates, possible = self._candidates(members, job.read_range("fetch", part))
        order, bounds = order_by_part(mix(prefix64(candidates["a_id"]), prefix64(candidates["b_id"])), job.parts)
        write_arrow_parts(job.path("candidates", part), candidates.take(pa.array(order)), bounds)
        files = {
            "episodes": [job.write_final("episodes", part, episodes)],
            "drops/pair": [job.write_final("drops/pair", part, _drop_rows(dropped))],
        }
        job.meter.add(1)
        counts = {row["values"]: row["counts"] for row in pc.value_counts(dropped["reason"]).to_pylist()}
        counters = {"in": references.num_rows, "kept": members.num_rows, "dropped": counts, "errors": 0}
        return Outcome(files=files, counters=counters | {"episodes": episodes.num_rows, "not_sampled": possible - candidates.num_rows})

    def _candidates(self, members: pa.Table, vectors: pa.Table | None) -> tuple[pa.Table, int]:
        """Samples pairs and scores them; returns their rows and the number of pairs there were to sample from."""
        if vectors is None or members.num_rows == 0:
            return _CANDIDATE_ROWS.empty_table(), 0
        config = self._job.config
        members = members.sort_by([("page_key", "ascending"), ("image_id", "ascending")])
        size = np.diff(np.append(_starts(members["page_key"]), members.num_rows))
        first = pa.array(np.cumsum(size) - size)
        page_hash, image_hash = prefix64(members["page_key"].take(first)), prefix64(members["image_id"])
        left, right = sample_pairs(page_hash, image_hash, size, pairs=config.pairs_per_episode, seed=config.seed)
        order = np.lexsort((right, left))
        left, right = left[order], right[order]
        similarity = similarities(_rows_of(vectors, members), size, left, right)
        a, b = members.take(pa.array(left)), members.take(pa.array(right))
        pages = _episode_urls(a["page_url"], config.group_by)
        columns = {"page_url": pages, "page_key": a["page_key"], "a_id": a["image_id"], "b_id": b["image_id"]}
        columns |= {"a_url": a["image_url"], "b_url": b["image_url"], "similarity": pa.array(similarity)}
        columns["reason"] = pa.array(in_band(similarity, self._job.low, self._job.high), pa.string())
        columns |= {f"a_{name}": a[name] for name in _CARRIED} | {f"b_{name}": b[name] for name in _CARRIED}
        return pa.table(columns).cast(_CANDIDATE_ROWS), int((size * (size - 1) // 2).sum())


_CANDIDATE_ROWS = pa.schema(
    [*CANDIDATES, *(pa.field(f"{side}_{name}", _REFERENCES.field(name).type) for side in "ab" for name in _CARRIED)]
)


def _starts(column: pa.ChunkedArray) -> np.ndarray:
    """Rows at which a sorted column takes a new value."""
    if len(column) == 0:
        return np.empty(0, np.int64)
    values = pc.index_in(column, column.unique()).to_numpy()
    return np.flatnonzero(np.append(True, values[1:] != values[:-1]))


def _rows_of(vectors: pa.Table, members: pa.Table) -> np.ndarray:
    """Returns the vector of each member, float16 of shape (members, D)."""

    def joined(table: pa.Table) -> pa.ChunkedArray:
        return pc.binary_join_element_wise(table["page_key"], table["image_id"], "")

    row: np.ndarray = pc.index_in(joined(members), joined(vectors)).to_numpy()
    vectors_ND: np.ndarray = vectors_of(vectors["embedding"])[row]
    return vectors_ND


def _episode_urls(page_urls: pa.ChunkedArray, group_by: str) -> pa.ChunkedArray:
    if group_by == "page":
        return page_urls
    pages = page_urls.unique()
    return pa.array([episode_page(page, group_by) for page in pages.to_pylist()], pa.string()).take(pc.index_in(page_urls, pages))


def gather_episodes(members: pa.Table, group_by: str) -> pa.Table:
    """Returns one row a page: its images in page order.

    Args:
      members: kept references, page by page, in page order.
    """
    if members.num_rows == 0:
        return EPISODES.empty_table()
    starts = _starts(members["page_key"])
    heads = members.take(pa.array(starts))
    kind = EPISODES.field("images").type
    struct = pa.StructArray.from_arrays([members[field.name].combine_chunks() for field in kind.value_type], fields=list(kind.value_type))
    images = pa.ListArray.from_arrays(pa.array(np.append(starts, members.num_rows), pa.int32()), struct, type=kind)
    return pa.table([_episode_urls(heads["page_url"], group_by), heads["page_key"], images], schema=EPISODES)


def _drop_rows(references: pa.Table) -> pa.Table:
    count = references.num_rows
    columns = {"stage": pa.array(["pair"] * count, pa.string()), "error": pa.array([False] * count, pa.bool_())}
    columns |= {name: references[name] for name in ("reason", "page_url", "image_url", "detail")}
    return pa.table({name: columns[name] for name in DROPS.names}).cast(DROPS)


class _Pairs:
    """Writes the ledger of candidates and the pairs that stay."""

    def __init__(self, job: PairJob) -> None:
        self._job = job

    def __call__(self, part: int) -> Outcome:
        job = self._job
        candidates = job.read_range("candidates", part)
        assert candidates is not None  # every part of `episodes` writes its file
        candidates = candidates.take(pa.array(np.lexsort(_candidate_keys(candidates)[::-1])))
        candidates, page_count = keep_lowest_page(candidates)
        kept = pc.equal(candidates["reason"], "")
        pairs = direct_pairs(
            candidates.filter(kept), page_count[kept.to_numpy(zero_copy_only=False)], job.config.directions, job.config.seed
        )
        ledger = candidates.select(CANDIDATES.names)
        files = {"candidates": [job.write_final("candidates", part, ledger)], "pairs": [job.write_final("pairs", part, pairs)]}
        reasons = {row["values"]: row["counts"] for row in pc.value_counts(ledger["reason"]).to_pylist()}
        counters: dict[str, Any] = {"in": ledger.num_rows, "kept": reasons.pop("", 0), "dropped": reasons, "errors": 0}
        job.meter.add(1)
        return Outcome(files=files, counters=counters | {"pairs": pairs.num_rows, "histogram": histogram(ledger["similarity"].to_numpy())})


def _candidate_keys(candidates: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns page, a and b of each candidate as uint64: of 64 random bits each, so that no two candidates share all three."""
    page, a, b = (prefix64(candidates[name]) for name in ("page_key", "a_id", "b_id"))
    return page, a, b


def histogram(similarity: np.ndarray) -> list[int]:
    """Counts similarities in 200 equal bins of [-1, 1]; bin i holds [-1 + i/100, -1 + (i+1)/100)."""
    bins = np.floor((similarity.astype(np.float64) + 1) * (HISTOGRAM_BINS / 2)).astype(np.int64)
    return [int(n) for n in np.bincount(np.clip(bins, 0, HISTOGRAM_BINS - 1), minlength=HISTOGRAM_BINS)]


def keep_lowest_page(candidates: pa.Table) -> tuple[pa.Table, np.ndarray]:
    """Keeps each pair of the band on the page with the lowest key; on others it becomes on_another_page.

    Returns:
      The candidates, and int32 of their length: on how many pages the pair was found.
    """
    page, a, b = _candidate_keys(candidates)
    order = np.lexsort((page, b, a))
    a, b = a[order], b[order]
    first = np.append(True, (a[1:] != a[:-1]) | (b[1:] != b[:-1]))[: len(a)]
    group = np.cumsum(first) - 1
    again, pages = np.empty(len(a), bool), np.empty(len(a), np.int32)
    again[order], pages[order] = ~first, np.bincount(group)[group]
    # Similarity depends on the pair only, so all rows of a pair are in the band or none is.
    kept = pc.equal(candidates["reason"], "")
    reason = pc.if_else(pc.and_(kept, pa.array(again)), "on_another_page", candidates["reason"])
    return candidates.set_column(candidates.schema.get_field_index("reason"), "reason", reason), pages


def direct_pairs(candidates: pa.Table, page_count: np.ndarray, directions: str, seed: int) -> pa.Table:
    """Gives each kept candidate its direction, by a hash of the pair, or both; returns rows of PAIRS sorted by pair_id."""
    flip = (mix(seed, prefix64(candidates["a_id"]), prefix64(candidates["b_id"]), 1) & np.uint64(1)).astype(bool)
    forward = _directed(candidates, pa.array(flip), page_count)
    pairs = pa.concat_tables([forward, _directed(candidates, pa.array(~flip), page_count)]) if directions == "both" else forward
    return pairs.take(pa.array(np.argsort(prefix64(pairs["pair_id"]))))


def _directed(candidates: pa.Table, flip: pa.Array, page_count: np.ndarray) -> pa.Table:
    columns = {"page_url": candidates["page_url"], "similarity": candidates["similarity"], "page_count": pa.array(page_count, pa.int32())}
    for name in ("id", "url", *_CARRIED):
        a, b = candidates[f"a_{name}"], candidates[f"b_{name}"]
        columns[f"condition_{name}"], columns[f"target_{name}"] = pc.if_else(flip, b, a), pc.if_else(flip, a, b)
    ids = zip(columns["condition_id"].to_pylist(), columns["target_id"].to_pylist(), strict=True)
    columns["pair_id"] = pa.array([pair_id(condition, target) for condition, target in ids], pa.string())
    return pa.table({name: columns[name] for name in PAIRS.names}).cast(PAIRS)


def stage_digest(config: PairConfig, *, low: float, high: float, size_px: int, inputs: Mapping[str, Manifest]) -> dict[str, Any]:
    """Returns what the stage's output depends on: its settings, the size that shard asks for, and the bytes of its inputs."""
    settings = {name: getattr(config, name) for name in config.__dataclass_fields__} | {"low": low, "high": high, "size_px": size_px}
    return {"schema": SCHEMA_VERSION, "settings": settings, "inputs": {name: manifest.content for name, manifest in sorted(inputs.items())}}
