"""Which images of a crawl are benchmark items by their perceptual hashes.

The rule: both hashes must agree, pHash within 10 bits of 64 and PDQ within 48 of 256. Among the 1e9 pairs that crops of unrelated photos
make (November 2026) 2 are as near, 1 within 6 and 48, 483 within pHash 10 alone; of photos with a caption it finds 76 %, where 6 and 48
find 35. A list may hold one of the two hashes only, which then must agree more closely: pHash within 4 (1 pair), PDQ within 31 (none).
Flat images share their hashes and never match.
"""

from dataclasses import dataclass

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dedup.hashes import hamming64, hamming256

MAX_PHASH, MAX_PDQ = 10, 48
MAX_PHASH_ALONE, MAX_PDQ_ALONE = 4, 31
MIN_TEXTURE = 50
"""PDQ's authors discard hashes whose quality is below; whatever --min-texture lets into a crawl, these are not compared."""
RULE = f"pHash <= {MAX_PHASH} and PDQ <= {MAX_PDQ} (alone: <= {MAX_PHASH_ALONE}, <= {MAX_PDQ_ALONE}), PDQ quality >= {MIN_TEXTURE}"

_BATCH = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class HashSearch:
    """The hashes of an index, ready to be searched: 8 bytes an item are copied into each process."""

    phash_N: np.ndarray  # uint64; 0 where there is none
    pdq_N32: np.ndarray  # uint8; 0 where there is none
    has_phash_N: np.ndarray  # bool
    has_pdq_N: np.ndarray  # bool
    by_phash: faiss.IndexBinaryFlat
    by_phash_rows: np.ndarray  # int64, the item of each of its entries
    by_pdq: faiss.IndexBinaryFlat
    by_pdq_rows: np.ndarray


def open_hashes(items: pa.Table) -> HashSearch:
    """Returns the search over items (columns phash, pdq, texture) that are not flat; those with PDQ alone are searched by PDQ."""
    textured = pc.fill_null(pc.greater_equal(items["texture"], MIN_TEXTURE), True).to_numpy(zero_copy_only=False)
    has_phash, has_pdq = (pc.is_valid(items[name]).to_numpy(zero_copy_only=False) for name in ("phash", "pdq"))
    phash_N = pc.fill_null(items["phash"], 0).to_numpy().astype(np.uint64)
    pdq_N32 = pdq_array(pc.fill_null(items["pdq"].cast(pa.binary()), bytes(32)))
    rows = np.flatnonzero(textured & has_phash)
    alone = np.flatnonzero(textured & ~has_phash & has_pdq)
    return HashSearch(
        phash_N=phash_N,
        pdq_N32=pdq_N32,
        has_phash_N=has_phash,
        has_pdq_N=has_pdq,
        by_phash=_flat(phash_N[rows].view(np.uint8).reshape(-1, 8), 64),
        by_phash_rows=rows,
        by_pdq=_flat(pdq_N32[alone], 256),
        by_pdq_rows=alone,
    )


def pdq_array(column: pa.ChunkedArray) -> np.ndarray:
    """Returns PDQ hashes as uint8 of shape (N, 32)."""
    return np.frombuffer(b"".join(column.to_pylist()), np.uint8).reshape(-1, 32)


def match_hashes(search: HashSearch, phash_Q: np.ndarray, pdq_Q32: np.ndarray, texture_Q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds the images that are items, and the nearest item of each.

    Args:
      phash_Q: uint64.
      pdq_Q32: uint8.
      texture_Q: PDQ's quality; flat images are left out.

    Returns:
      query: int64, the rows of the images that match, ascending.
      item: int64, the row of the nearest item of each: by the sum of both distances as shares of their limits, then the lowest row.
    """
    query, item, score = match_all(search, phash_Q, pdq_Q32, texture_Q)
    order = np.lexsort((item, score, query))
    query, item = query[order], item[order]
    first = np.append(True, query[1:] != query[:-1])[: len(query)]
    return query[first], item[first]


def match_all(
    search: HashSearch, phash_Q: np.ndarray, pdq_Q32: np.ndarray, texture_Q: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns all pairs that match, as row of the image and row of the item, with the sum of both distances as shares of their limits."""
    textured = np.flatnonzero(texture_Q >= MIN_TEXTURE)
    faiss.omp_set_num_threads(1)  # of this thread: workers are processes, and oversubscribed threads cost 20 times the time
    found = [
        _near(search.by_phash, search.by_phash_rows, phash_Q[textured].view(np.uint8).reshape(-1, 8), MAX_PHASH),
        _near(search.by_pdq, search.by_pdq_rows, pdq_Q32[textured], MAX_PDQ_ALONE),
    ]
    query = textured[np.concatenate([query for query, _ in found])]
    item = np.concatenate([item for _, item in found])
    phash, pdq = hash_distances(search, phash_Q[query], pdq_Q32[query], item)
    matches = is_match(phash, pdq)
    score = np.maximum(phash, 0) / MAX_PHASH + np.maximum(pdq, 0) / MAX_PDQ
    return query[matches], item[matches], score[matches]


def nearest_by_phash(search: HashSearch, phash_Q: np.ndarray) -> np.ndarray:
    """Returns the item nearest to each pHash, int64; -1 where no item has one."""
    faiss.omp_set_num_threads(1)
    if not search.by_phash.ntotal or not len(phash_Q):
        return np.full(len(phash_Q), -1, np.int64)
    _, found = search.by_phash.search(np.ascontiguousarray(phash_Q).view(np.uint8).reshape(-1, 8), 1)
    return search.by_phash_rows[found[:, 0]]


def is_match(phash: np.ndarray, pdq: np.ndarray) -> np.ndarray:
    """Returns whether two distances are those of one picture; -1 stands for a hash that is not there."""
    both = (phash >= 0) & (pdq >= 0)
    alone = np.where(phash >= 0, phash <= MAX_PHASH_ALONE, (pdq >= 0) & (pdq <= MAX_PDQ_ALONE))
    return np.where(both, (phash <= MAX_PHASH) & (pdq <= MAX_PDQ), alone)


def hash_distances(search: HashSearch, phash_P: np.ndarray, pdq_P32: np.ndarray, item_P: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the bits in which images and items differ, row by row: two int16 arrays, -1 where the item lacks the hash."""
    phash = hamming64(phash_P, search.phash_N[item_P]).astype(np.int16)
    pdq = hamming256(pdq_P32, search.pdq_N32[item_P]).astype(np.int16) if len(item_P) else np.empty(0, np.int16)
    return np.where(search.has_phash_N[item_P], phash, -1), np.where(search.has_pdq_N[item_P], pdq, -1)


def _flat(codes: np.ndarray, bits: int) -> faiss.IndexBinaryFlat:
    index = faiss.IndexBinaryFlat(bits)
    if len(codes):
        index.add(np.ascontiguousarray(codes))
    return index


def _near(index: faiss.IndexBinaryFlat, rows: np.ndarray, codes: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (row of `codes`, item) of all pairs within `radius` bits; flat popcount beats hash tables at these radii."""
    queries, items = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    if index.ntotal:
        for start in range(0, len(codes), _BATCH):
            batch = np.ascontiguousarray(codes[start : start + _BATCH])
            limits, _, found = index.range_search(batch, radius + 1)  # FAISS leaves out the radius itself
            queries.append(start + np.repeat(np.arange(len(batch)), np.diff(limits).astype(np.int64)))
            items.append(rows[found])
    return np.concatenate(queries), np.concatenate(items)
