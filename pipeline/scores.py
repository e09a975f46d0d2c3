"""Sampled pairs of a run with their similarity by two encoders, from the vectors that the run stored."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pagepairs.files import read_parquet
from pagepairs.keys import mix, prefix64
from pagepairs.manifest import dataset_files
from pipeline.report_cells import first_of_pair
from pipeline.reuse import gather_vectors

MAX_PAIRS = 1_000_000
"""Memory is 8 bytes and two ids a pair, and two bytes a dimension for each of its images."""
_CHUNK = 65_536
_COLUMNS = ["page_key", "a_id", "b_id", "reason"]
_OF_THE_BAND = ("", "below_low", "above_high", "on_another_page")
"""What a band decides about; pairs that were dropped for another reason would be dropped under any band."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """Pairs, each once, on the first of its pages; N pairs in the order of their keys, whatever files they stood in."""

    rows: pa.Table
    """page_key, a_id, b_id."""
    page: np.ndarray
    """int64 (N,): pages numbered by key."""
    similarity: tuple[np.ndarray, np.ndarray]
    """float32 (N,), by either encoder."""
    found: int
    """Pairs in candidates/ that a band decides about."""
    without_vector: int
    """Sampled pairs left out because an encoder has no vector of an image."""

    def chunks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields both similarities in parts."""
        a, b = self.similarity
        for start in range(0, len(a), _CHUNK):
            yield a[start : start + _CHUNK], b[start : start + _CHUNK]


def score_pairs(
    output: str, folders: tuple[str, str], *, limit: int = MAX_PAIRS, seed: int = 0, progress: Callable[[str], None] = lambda _: None
) -> Scored:
    """Scores the candidates of a run with two encoders.

    Args:
      output: of a run whose stage pair is complete.
      folders: of the encoders under embeddings/.
      limit: pairs, at most; of more, whole pages are taken in the order of a keyed hash. 0 takes all.
      seed: of that hash.
      progress: is told what is being done.
    """
    rows, found = _sample(output, limit, seed)
    ids = np.unique(np.concatenate([_texts(rows[side]) for side in ("a_id", "b_id")]))
    places = [np.searchsorted(ids, _texts(rows[side])) for side in ("a_id", "b_id")]
    similarity, complete = [], np.ones(rows.num_rows, bool)
    for folder in folders:
        progress(f"{folder}: vectors of {len(ids):,} images for {rows.num_rows:,} pairs")
        vectors_ND, has = gather_vectors(os.path.join(output, "embeddings", folder), ids)
        similarity.append(_cosines(vectors_ND, places[0], places[1]))
        complete &= has[places[0]] & has[places[1]]
    rows = rows.filter(pa.array(complete))
    keys = rows["page_key"].combine_chunks().dictionary_encode()
    order = np.argsort(np.array(keys.dictionary.to_pylist(), "S"), kind="stable")
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order))
    return Scored(
        rows=rows,
        page=number[keys.indices.to_numpy()],
        similarity=(similarity[0][complete], similarity[1][complete]),
        found=found,
        without_vector=int((~complete).sum()),
    )


def _sample(output: str, limit: int, seed: int) -> tuple[pa.Table, int]:
    """Returns the pairs, sorted, and how many there are."""
    pieces, keys, found = [], [], 0
    for path in dataset_files(os.path.join(output, "candidates")):
        table = read_parquet(path, _COLUMNS)
        table = table.filter(pa.array(first_of_pair(table)))
        table = table.filter(pc.is_in(table["reason"], pa.array(_OF_THE_BAND))).drop_columns("reason")
        found += table.num_rows
        pieces.append(table)
        keys.append(mix(prefix64(table["page_key"]), seed))
        if limit and sum(len(key) for key in keys) > 2 * limit:
            pieces, keys = _lowest_pages(pieces, keys, limit)
    if limit:
        pieces, keys = _lowest_pages(pieces, keys, limit)
    rows = pa.concat_tables(pieces) if pieces else pa.table({name: pa.array([], pa.string()) for name in _COLUMNS[:3]})
    return rows.sort_by([(name, "ascending") for name in _COLUMNS[:3]]), found


def _lowest_pages(pieces: list[pa.Table], keys: list[np.ndarray], limit: int) -> tuple[list[pa.Table], list[np.ndarray]]:
    """Keeps whole pages, those of lowest hash, as long as their pairs are not more than `limit`; always one page."""
    if not pieces:
        return pieces, keys
    key = np.concatenate(keys)
    pages, count = np.unique(key, return_counts=True)
    last = max(1, int(np.searchsorted(np.cumsum(count), limit, "right")))
    kept = np.isin(key, pages[:last])
    return [pa.concat_tables(pieces).filter(pa.array(kept))], [key[kept]]


def _texts(column: pa.ChunkedArray) -> np.ndarray:
    return np.array(column.to_pylist(), "S64")


def _cosines(vectors_ND: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Returns float32: the float64 dot product of the stored vectors, rounded, as stage pair has it."""
    similarity = np.empty(len(left), np.float32)
    for start in range(0, len(left), 4096):
        a, b = (vectors_ND[side[start : start + 4096]].astype(np.float64) for side in (left, right))
        similarity[start : start + 4096] = np.einsum("nd,nd->n", a, b)
    return similarity
