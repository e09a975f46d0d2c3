"""Which captured image a reference in a page means: by URL, through redirects and revisits, nearest in time."""

import functools

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pagepairs.files import read_parquet

_MAX_HOPS = 5
_UNKNOWN_TIME = np.iinfo(np.int64).min // 4


def close_aliases(aliases: pa.Table) -> pa.Table:
    """Follows chains of redirects and revisits, at most 5 hops.

    Args:
      aliases: `url_key`, `target_key`; cycles are allowed.

    Returns:
      Every distinct (url_key, target_key) that can be reached in 1 to 5 hops, sorted.
    """
    keys = ["url_key", "target_key"]
    step = aliases.select(keys).group_by(keys).aggregate([])
    reached = step
    for _ in range(_MAX_HOPS - 1):
        middle = reached.rename_columns(["url_key", "middle"])
        further = middle.join(step.rename_columns(["middle", "target_key"]), "middle", join_type="inner").select(keys)
        longer = pa.concat_tables([reached, further]).group_by(keys).aggregate([])
        if longer.num_rows == reached.num_rows:
            break
        reached = longer
    return reached.filter(pc.not_equal(reached["url_key"], reached["target_key"])).sort_by([(key, "ascending") for key in keys])


@functools.lru_cache(maxsize=1)
def read_aliases(path: str) -> pa.Table:
    """Returns what `close_aliases` left in a file; kept by a worker between elements."""
    return read_parquet(path)


def follow_aliases(rows: pa.Table, aliases: pa.Table) -> pa.Table:
    """Repeats each row under every URL key that its own leads to; the copies are alternatives of the same reference."""
    if aliases.num_rows == 0 or rows.num_rows == 0:
        return rows
    known = pc.is_in(rows["url_key"], aliases["url_key"].combine_chunks())
    if not pc.any(known).as_py():
        return rows
    moved = rows.filter(known).join(aliases, "url_key", join_type="inner")
    moved = moved.drop_columns(["url_key"]).rename_columns({"target_key": "url_key"})
    return pa.concat_tables([rows, moved.select(rows.column_names).cast(rows.schema)])


def nearest_capture(links: pa.Table, captures: pa.Table) -> np.ndarray:
    """Finds, for each link, the capture of its URL nearest in time to the page; a tie goes to the lowest image id.

    Args:
      links: `url_key`, `page_time` (null: unknown).
      captures: `url_key`, `time`, `image_id`.

    Returns:
      int64 of shape (links,): row of `captures`, -1 where the URL was not captured.
    """
    keys = captures["url_key"].unique()
    code = pc.fill_null(pc.index_in(links["url_key"], keys), -1).to_numpy()
    found = np.full(links.num_rows, -1, np.int64)
    wanted = np.flatnonzero(code >= 0)
    if len(wanted) == 0:
        return found
    capture_code = pc.index_in(captures["url_key"], keys).to_numpy()
    capture_time = _milliseconds(captures["time"])
    id_rank = pc.rank(captures["image_id"], tiebreaker="dense").to_numpy().astype(np.int64)
    # Captures and links in one line, by URL and time: the nearest capture is the last before a link or the first after it.
    order = np.lexsort((id_rank, capture_time, capture_code))
    link_code, link_time = code[wanted], _milliseconds(links["page_time"])[wanted]
    after = _search(capture_code[order], capture_time[order], link_code, link_time)
    before = after - 1
    # Equal captures stand in id order, so the first of the run before a link is the one to take.
    first_of_run = np.append(True, (np.diff(capture_code[order]) != 0) | (np.diff(capture_time[order]) != 0))
    before = np.maximum.accumulate(np.where(first_of_run, np.arange(len(order)), 0))[np.clip(before, 0, None)]
    choices = np.stack([before, np.clip(after, 0, len(order) - 1)])
    rows = order[choices]
    distance = np.abs(capture_time[rows] - link_time)
    distance[capture_code[rows] != link_code] = np.iinfo(np.int64).max
    take_after = np.lexsort((id_rank[rows], distance), axis=0)[0]
    found[wanted] = rows[take_after, np.arange(len(wanted))]
    return found


def _milliseconds(times: pa.ChunkedArray) -> np.ndarray:
    milliseconds: np.ndarray = pc.fill_null(times.cast(pa.int64()), _UNKNOWN_TIME).to_numpy()
    return milliseconds


def _search(code: np.ndarray, time: np.ndarray, wanted_code: np.ndarray, wanted_time: np.ndarray) -> np.ndarray:
    """Position, in rows sorted by (code, time), of the first row not before each wanted (code, time)."""
    stacked_code, stacked_time = np.append(code, wanted_code), np.append(time, wanted_time)
    is_row = np.append(np.ones(len(code), bool), np.zeros(len(wanted_code), bool))
    order = np.lexsort((is_row, stacked_time, stacked_code))  # a wanted point stands before the rows that equal it
    rows_before = np.cumsum(is_row[order])
    position = np.empty(len(order), np.int64)
    position[order] = rows_before
    return position[len(code) :]
