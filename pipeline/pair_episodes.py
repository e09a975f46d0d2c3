"""Stage pair, step episodes: what the pages show, and their sampled candidates with their similarity."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.band import in_band
from pagepairs.files import read_arrow, write_arrow_parts
from pagepairs.keys import mix, order_by_part, prefix64
from pagepairs.records import DROPS, EPISODES, vectors_of
from pagepairs.urls import episode_page
from pipeline.episodes import sample_pairs, similarities
from pipeline.journal import Outcome
from pipeline.pair_job import CANDIDATE_ROWS, CARRIED, PairJob
from pipeline.pair_pages import close_mirrors


class Episodes:
    """Writes the episodes of some pages, the drops among their references, and their candidates."""

    def __init__(self, job: PairJob) -> None:
        self._job = job

    def __call__(self, part: int) -> Outcome:
        job, config = self._job, self._job.config
        mirrors = job.read_range("mirrors", part)
        assert mirrors is not None  # every part of `mirrors` writes its file
        references = close_mirrors(read_arrow(job.path("pages", part)), mirrors)
        kept = pc.equal(references["reason"], "")
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
            return CANDIDATE_ROWS.empty_table(), 0
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
        columns |= {f"a_{name}": a[name] for name in CARRIED} | {f"b_{name}": b[name] for name in CARRIED}
        return pa.table(columns).cast(CANDIDATE_ROWS), int((size * (size - 1) // 2).sum())


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
