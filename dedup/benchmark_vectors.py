"""Which images of a crawl are benchmark items by their embeddings: FAISS finds candidates, exact products decide.

Three kinds, chosen by size: `flat` compares with everything, from a file that all processes map (IO_FLAG_MMAP_IFC); `pq` does at 4 bits
for every 4 dimensions (fast scan, 96 MB a million of 768); `ivf` looks into some cells of such an index. FAISS 1.15 maps no fast-scan
codes, whatever the flag, so each process holds its own of those: 2 GB at 20 million, beside the vectors, which are mapped for all kinds.
Whatever kind, the best candidates are compared again with the stored vectors, as stage pair compares: the float64 dot product of float16
vectors, rounded to float32. So a similarity does not depend on the kind, the batch or the machine.
"""

import math
import os
from dataclasses import dataclass

import numpy as np

from dedup.benchmark import VectorSearch
from dedup.faiss_kernels import faiss

FLAT_UP_TO, PQ_UP_TO = 200_000, 20_000_000
"""Items: flat costs 3 kB an item and query, pq 200 bytes; 20 million are a second a query batch of 256 and core."""
DECISION_RECALL = 0.995
_BATCH = 512
# Units of small archives hold a few images: without this, FAISS takes its matrix product from 167 queries of 768 dimensions on only.
_BLAS_FROM_QUERIES = 20
_TRAINING_ROWS = 100_000
_MIN_TRAINING_ROWS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenVectors:
    """The vectors of an index, mapped into memory, with their search structure."""

    vectors_ND: np.ndarray  # float16
    index: faiss.Index
    candidates: int


def choose_search(items: int, *, kind: str, candidates: int, nprobe: int) -> VectorSearch:
    """Returns how so many vectors are searched.

    Args:
      items: number of vectors.
      kind: flat, pq, ivf or auto.
      candidates: rows compared exactly, a query; 0 takes 4 for flat (rounding of float32 sums apart, one would do) and 100 else.
      nprobe: cells of an IVF to look into; 0 takes a quarter of them.

    Raises:
      ValueError: if there are too few vectors to train the kind.
    """
    if kind == "auto":
        kind = "flat" if items <= FLAT_UP_TO else "pq" if items <= PQ_UP_TO else "ivf"
    if kind != "flat" and items < _MIN_TRAINING_ROWS:
        raise ValueError(f"--index {kind} needs {_MIN_TRAINING_ROWS:,} images to train on, there are {items:,}: give --index flat")
    cells = count_cells(items) if kind == "ivf" else 0
    if nprobe > cells:
        raise ValueError(f"--nprobe {nprobe}: --index {kind} of {items:,} images has {cells} cells; give at most that")
    return VectorSearch(kind=kind, candidates=candidates or (4 if kind == "flat" else 100), nprobe=nprobe or -(-cells // 4))


def count_cells(items: int) -> int:
    """Returns the number of cells of an IVF: about the square root of the items."""
    return int(max(16, 2 ** round(math.log2(math.sqrt(items)))))


def build_index(vectors_ND: np.ndarray, search: VectorSearch, path: str) -> None:
    """Trains and writes the search structure of float16 vectors; two builds on one machine give the same bytes."""
    width = vectors_ND.shape[1]
    subspaces = -(-width // 4)
    faiss.omp_set_num_threads(1)  # k-means sums in the order of its threads
    factory = {"flat": "Flat", "pq": f"PQ{subspaces}x4fs", "ivf": f"IVF{count_cells(len(vectors_ND))},PQ{subspaces}x4fs"}[search.kind]
    index = faiss.index_factory(width if search.kind == "flat" else 4 * subspaces, factory, faiss.METRIC_INNER_PRODUCT)
    if not index.is_trained:
        step = max(1, len(vectors_ND) // _TRAINING_ROWS)
        index.train(_as_float32(vectors_ND[::step][:_TRAINING_ROWS], index.d))
    for start in range(0, len(vectors_ND), 65_536):
        index.add(_as_float32(vectors_ND[start : start + 65_536], index.d))
    faiss.write_index(index, path)


def open_vectors(folder: str, search: VectorSearch) -> OpenVectors:
    """Maps the vectors of an index; processes on one machine share the memory."""
    faiss.cvar.distance_compute_blas_threshold = _BLAS_FROM_QUERIES
    index = faiss.read_index(os.path.join(folder, "vectors.faiss"), faiss.IO_FLAG_MMAP_IFC if search.kind == "flat" else 0)
    if search.kind == "ivf":
        faiss.extract_index_ivf(index).nprobe = search.nprobe
    vectors_ND = np.load(os.path.join(folder, "vectors.npy"), mmap_mode="r")
    return OpenVectors(vectors_ND=vectors_ND, index=index, candidates=min(search.candidates, len(vectors_ND)))


def nearest_items(opened: OpenVectors, query_QD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds each query's nearest item.

    Args:
      query_QD: float16, of unit length.

    Returns:
      item_Q: int64; a tie goes to the lowest row.
      similarity_Q: float32.
    """
    faiss.omp_set_num_threads(1)  # of this thread: workers are processes, and oversubscribed threads cost 20 times the time
    items, similarities = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for start in range(0, len(query_QD), _BATCH):
        batch_QD = query_QD[start : start + _BATCH]
        _, found_QK = opened.index.search(_as_float32(batch_QD, opened.index.d), opened.candidates)
        found_QK = np.sort(found_QK, axis=1)  # the lowest row first, for ties; -1 stands where an IVF found too few
        exact_QK = np.where(found_QK >= 0, _exact(opened.vectors_ND, batch_QD, np.maximum(found_QK, 0)), np.float32(-2))
        best_Q = exact_QK.argmax(axis=1)[:, None]
        items.append(np.take_along_axis(found_QK, best_Q, axis=1)[:, 0])
        similarities.append(np.take_along_axis(exact_QK, best_Q, axis=1)[:, 0])
    return np.concatenate(items), np.concatenate(similarities)


def similarities_to(opened: OpenVectors, query_PD: np.ndarray, item_P: np.ndarray) -> np.ndarray:
    """Returns the similarity of each query to the item beside it, float32."""
    return _exact(opened.vectors_ND, query_PD, item_P[:, None])[:, 0]


def decision_recall(opened: OpenVectors, *, cut: float, queries: int, seed: int) -> tuple[float, int]:
    """Measures which share of matches the search finds: queries whose exact similarity to any item reaches the cut.

    The queries are items turned towards a mix of another item and noise, to a similarity that lies from the cut upwards as far as a
    tenth, where a search that only estimates loses them first.

    Returns:
      The share, and the number of queries that it is measured on.
    """
    rng = np.random.Generator(np.random.Philox(key=seed))
    vectors_ND, count = opened.vectors_ND, len(opened.vectors_ND)
    at, other = rng.integers(0, count, queries), rng.integers(0, count, queries)
    base_QD, mixed_QD = vectors_ND[at].astype(np.float32), vectors_ND[other].astype(np.float32)
    mixed_QD += _unit(rng.standard_normal(mixed_QD.shape, np.float32))
    aside_QD = _unit(mixed_QD - (mixed_QD * base_QD).sum(1, keepdims=True) * base_QD)
    cosine_Q1 = rng.uniform(cut, max(cut, min(1.0, cut + 0.1)), (queries, 1)).astype(np.float32)
    query_QD = _unit(cosine_Q1 * base_QD + np.sqrt(1 - cosine_Q1**2) * aside_QD).astype(np.float16)
    _, exact_Q = nearest_by_all(vectors_ND, query_QD)
    _, found_Q = nearest_items(opened, query_QD)
    matches = exact_Q >= np.float32(cut)
    return (float((found_Q[matches] >= np.float32(cut)).mean()) if matches.any() else 1.0), int(matches.sum())


def nearest_by_all(vectors_ND: np.ndarray, query_QD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds each query's nearest item without an index: blocks of plain matrix products, and the best four of all compared exactly."""
    query_f32_QD = query_QD.astype(np.float32)
    best_QK = np.full((len(query_QD), 0), -2, np.float32)
    item_QK = np.empty((len(query_QD), 0), np.int64)
    for start in range(0, len(vectors_ND), 16_384):
        block_QB = query_f32_QD @ vectors_ND[start : start + 16_384].astype(np.float32).T
        top_QK = np.argpartition(-block_QB, min(3, block_QB.shape[1] - 1), axis=1)[:, :4]
        best_QK = np.concatenate([best_QK, np.take_along_axis(block_QB, top_QK, axis=1)], axis=1)
        item_QK = np.concatenate([item_QK, start + top_QK], axis=1)
        keep_QK = np.argsort(-best_QK, axis=1, kind="stable")[:, :4]
        best_QK, item_QK = np.take_along_axis(best_QK, keep_QK, axis=1), np.take_along_axis(item_QK, keep_QK, axis=1)
    item_QK = np.sort(item_QK, axis=1)
    exact_QK = _exact(vectors_ND, query_QD, item_QK)
    row_Q = exact_QK.argmax(axis=1)[:, None]
    return np.take_along_axis(item_QK, row_Q, axis=1)[:, 0], np.take_along_axis(exact_QK, row_Q, axis=1)[:, 0]


def _exact(vectors_ND: np.ndarray, query_QD: np.ndarray, item_QK: np.ndarray) -> np.ndarray:
    """Returns the products of each query with its K items, float32; a few queries at a time, as K vectors of each are gathered."""
    exact_QK = np.empty(item_QK.shape, np.float32)
    step = max(1, 8_192 // max(1, item_QK.shape[1]))
    for start in range(0, len(item_QK), step):
        rows_QKD = vectors_ND[item_QK[start : start + step]].astype(np.float64)
        exact_QK[start : start + step] = np.einsum("qkd,qd->qk", rows_QKD, query_QD[start : start + step].astype(np.float64))
    return exact_QK


def _as_float32(vectors_ND: np.ndarray, width: int) -> np.ndarray:
    """Returns float32 vectors, filled up with zeros to `width`."""
    padded_NW = np.zeros((len(vectors_ND), width), np.float32)
    padded_NW[:, : vectors_ND.shape[1]] = vectors_ND
    return padded_NW


def _unit(vectors_ND: np.ndarray) -> np.ndarray:
    unit: np.ndarray = vectors_ND / np.maximum(np.linalg.norm(vectors_ND, axis=1, keepdims=True), 1e-12)
    return unit
