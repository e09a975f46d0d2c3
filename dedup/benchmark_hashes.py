"""Which images of a crawl are benchmark items by their perceptual hashes.

The rule: both hashes must agree, pHash within 10 bits of 64 and PDQ within 48 of 256. Among the 1e9 pairs that crops of unrelated photos
make (November 2026) 2 are as near, 1 within 6 and 48, 483 within pHash 10 alone; of photos with a caption it finds 76 %, where 6 and 48
find 35. A list may hold one of the two hashes only, which then must agree more closely: pHash within 4 (1 pair), PDQ within 31 (none).
Flat images share their hashes and never match by them. A file of the crawl that is an item's file, byte for byte, always matches, flat or
not: that removes this file and no other.

What is searched are plain arrays in files, which all processes of a machine map: items that can be found by one hash stand side by side.
"""

import os
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dedup.faiss_kernels import faiss
from dedup.hashes import hamming64, hamming256

MAX_PHASH, MAX_PDQ = 10, 48
MAX_PHASH_ALONE, MAX_PDQ_ALONE = 4, 31
MIN_TEXTURE = 50
"""PDQ's authors discard hashes whose quality is below; whatever --min-texture lets into a crawl, these are not compared."""
_ALONE = f"alone: <= {MAX_PHASH_ALONE}, <= {MAX_PDQ_ALONE}"
RULE = f"equal bytes, or pHash <= {MAX_PHASH} and PDQ <= {MAX_PDQ} ({_ALONE}), PDQ quality >= {MIN_TEXTURE}"
KINDS = ("both", "phash", "pdq", "flat")
"""What is known of an item, in the order in which items stand in an index: both hashes, one alone, or hashes that mean nothing."""
HASH_FILES = ("phash.npy", "pdq.npy", "kinds.npy", "ids.npy", "id_rows.npy")

_BATCH = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class HashSearch:
    """The hashes of an index, ready to be searched; rows in the order of KINDS."""

    phash_N: np.ndarray  # uint64; 0 where there is none
    pdq_N32: np.ndarray  # uint8; 0 where there is none
    kinds_K: np.ndarray  # int64: how many items are of each of KINDS
    ids_N: np.ndarray  # S32: the sha256 of each file, in ascending order
    id_rows_N: np.ndarray  # int64: the row of each of these

    @property
    def ends(self) -> tuple[int, int, int]:
        """Rows at which the items with both hashes end, then those with pHash alone, then those with PDQ alone; the rest is flat."""
        both, phash, pdq = (int(end) for end in np.cumsum(self.kinds_K)[:3])
        return both, phash, pdq


def kinds_of(items: pa.Table) -> np.ndarray:
    """Returns the place in KINDS of each item (columns phash, pdq, texture), int64."""
    flat = pc.fill_null(pc.less(items["texture"], MIN_TEXTURE), False).to_numpy(zero_copy_only=False)
    has_phash, has_pdq = (pc.is_valid(items[name]).to_numpy(zero_copy_only=False) for name in ("phash", "pdq"))
    kinds: np.ndarray = np.select([flat, has_phash & has_pdq, has_phash], [3, 0, 1], 2)
    return kinds


def order_items(items: pa.Table) -> np.ndarray:
    """Returns the rows of the items as an index holds them: by KINDS, else as they are."""
    order: np.ndarray = np.argsort(kinds_of(items), kind="stable")
    return order


def search_of(items: pa.Table) -> HashSearch:
    """Returns the search over items in the order of `order_items`."""
    kinds = kinds_of(items)
    assert (np.diff(kinds) >= 0).all()
    ids = id_array(items["item_id"])
    rows = np.argsort(ids, kind="stable")
    return HashSearch(
        phash_N=pc.fill_null(items["phash"], 0).to_numpy().astype(np.uint64),
        pdq_N32=pdq_array(pc.fill_null(items["pdq"].cast(pa.binary()), bytes(32))),
        kinds_K=np.bincount(kinds, minlength=len(KINDS)),
        ids_N=ids[rows],
        id_rows_N=rows,
    )


def write_hashes(folder: str, search: HashSearch) -> None:
    """Writes HASH_FILES."""
    arrays = (search.phash_N, search.pdq_N32, search.kinds_K, search.ids_N, search.id_rows_N)
    for name, array in zip(HASH_FILES, arrays, strict=True):
        np.save(os.path.join(folder, name), array)


def open_hashes(folder: str) -> HashSearch:
    """Maps the hashes of an index; processes on one machine share the memory."""
    phash_N, pdq_N32, kinds_K, ids_N, id_rows_N = (np.load(os.path.join(folder, name), mmap_mode="r") for name in HASH_FILES)
    return HashSearch(phash_N=phash_N, pdq_N32=pdq_N32, kinds_K=kinds_K, ids_N=ids_N, id_rows_N=id_rows_N)


def pdq_array(column: pa.ChunkedArray) -> np.ndarray:
    """Returns PDQ hashes as uint8 of shape (N, 32)."""
    return np.frombuffer(b"".join(column.to_pylist()), np.uint8).reshape(-1, 32)


def id_array(column: pa.ChunkedArray) -> np.ndarray:
    """Returns ids (64 hex digits) as S32, which numpy orders and compares byte by byte."""
    return np.frombuffer(bytes.fromhex("".join(column.to_pylist())), "S32")


def match_images(
    search: HashSearch, ids: pa.ChunkedArray, phash_Q: np.ndarray, pdq_Q32: np.ndarray, texture_Q: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the images that are items by their bytes or their hashes: as `match_hashes`, but an equal file is the item of its image."""
    same, same_item = match_files(search, ids)
    query, item = match_hashes(search, phash_Q, pdq_Q32, texture_Q)
    others = ~np.isin(query, same)
    query, item = np.concatenate([same, query[others]]), np.concatenate([same_item, item[others]])
    order = np.argsort(query)
    return query[order], item[order]


def match_files(search: HashSearch, ids: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows of the images whose file is an item's, ascending, and the lowest row of an item with that file."""
    if not len(search.ids_N) or not len(ids):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    wanted = id_array(ids)
    place = np.minimum(np.searchsorted(search.ids_N, wanted), len(search.ids_N) - 1)
    query = np.flatnonzero(search.ids_N[place] == wanted)
    return query, search.id_rows_N[place[query]]


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
    _, phash_end, pdq_end = search.ends
    found = [
        _near(_codes(search.phash_N[:phash_end]), 0, _codes(phash_Q[textured]), MAX_PHASH),
        _near(search.pdq_N32[phash_end:pdq_end], phash_end, pdq_Q32[textured], MAX_PDQ_ALONE),
    ]
    query = textured[np.concatenate([query for query, _ in found])]
    item = np.concatenate([item for _, item in found])
    phash, pdq = hash_distances(search, phash_Q[query], pdq_Q32[query], item)
    matches = is_match(phash, pdq)
    score = np.maximum(phash, 0) / MAX_PHASH + np.maximum(pdq, 0) / MAX_PDQ
    return query[matches], item[matches], score[matches]


def nearest_by_hashes(search: HashSearch, phash_Q: np.ndarray, pdq_Q32: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds the item nearest to each image: by pHash among the items that have one, by PDQ among those with PDQ alone.

    Returns:
      item_Q: int64; -1 where every item is flat. A tie goes to the lowest row.
      apart_Q: float32, the share of bits that differ, the mean over the hashes that the item has: so items with one hash and with both
        stand in one order.
    """
    faiss.omp_set_num_threads(1)
    _, phash_end, pdq_end = search.ends
    item_Q, apart_Q = np.full(len(phash_Q), -1, np.int64), np.full(len(phash_Q), np.inf, np.float32)
    sides = ((0, _codes(search.phash_N[:phash_end]), _codes(phash_Q)), (phash_end, search.pdq_N32[phash_end:pdq_end], pdq_Q32))
    for first, items, codes in sides:
        if not len(items) or not len(codes):
            continue
        near_Q = first + faiss.knn_hamming(np.ascontiguousarray(codes), items, 1)[1][:, 0].astype(np.int64)
        phash, pdq = hash_distances(search, phash_Q, pdq_Q32, near_Q)
        shares = np.stack([np.where(phash >= 0, phash / 64, np.nan), np.where(pdq >= 0, pdq / 256, np.nan)])
        near_apart_Q = np.nanmean(shares, axis=0).astype(np.float32)
        nearer = near_apart_Q < apart_Q
        item_Q, apart_Q = np.where(nearer, near_Q, item_Q), np.where(nearer, near_apart_Q, apart_Q)
    return item_Q, apart_Q


def is_match(phash: np.ndarray, pdq: np.ndarray) -> np.ndarray:
    """Returns whether two distances are those of one picture; -1 stands for a hash that is not there."""
    both = (phash >= 0) & (pdq >= 0)
    alone = np.where(phash >= 0, phash <= MAX_PHASH_ALONE, (pdq >= 0) & (pdq <= MAX_PDQ_ALONE))
    return np.where(both, (phash <= MAX_PHASH) & (pdq <= MAX_PDQ), alone)


def hash_distances(search: HashSearch, phash_P: np.ndarray, pdq_P32: np.ndarray, item_P: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the bits in which images and items differ, row by row: two int16 arrays, -1 where the item lacks the hash."""
    phash = hamming64(phash_P, search.phash_N[item_P]).astype(np.int16)
    pdq = hamming256(pdq_P32, search.pdq_N32[item_P]).astype(np.int16) if len(item_P) else np.empty(0, np.int16)
    both_end, phash_end, pdq_end = search.ends
    lacks_phash, lacks_pdq = ((item_P >= start) & (item_P < end) for start, end in ((phash_end, pdq_end), (both_end, phash_end)))
    return np.where(lacks_phash, np.int16(-1), phash), np.where(lacks_pdq, np.int16(-1), pdq)


def _codes(phash_N: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(phash_N).view(np.uint8).reshape(-1, 8)


def _near(items: np.ndarray, first: int, codes: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (row of `codes`, item) of all pairs within `radius` bits; flat popcount beats hash tables at these radii.

    What FAISS's IndexBinaryFlat does, without an index that would hold a copy of the hashes.

    Args:
      items: uint8 (N, bytes), C-contiguous.
      first: number of the first of them.
      codes: uint8 (Q, bytes).
      radius: in bits.
    """
    queries, found = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for start in range(0, len(codes) if len(items) else 0, _BATCH):
        batch = np.ascontiguousarray(codes[start : start + _BATCH])
        result = faiss.RangeSearchResult(len(batch))
        pointers = faiss.swig_ptr(batch), faiss.swig_ptr(items)
        radius_out = radius + 1  # FAISS leaves out the radius itself
        faiss.hamming_range_search(*pointers, len(batch), len(items), radius_out, items.shape[1], result)  # type: ignore[attr-defined]
        limits = faiss.rev_swig_ptr(result.lims, len(batch) + 1).astype(np.int64)
        queries.append(start + np.repeat(np.arange(len(batch)), np.diff(limits)))
        found.append(first + faiss.rev_swig_ptr(result.labels, int(limits[-1])).astype(np.int64) if limits[-1] else found[0])
    return np.concatenate(queries), np.concatenate(found)
