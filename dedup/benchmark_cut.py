"""Where a descriptor's cut lies, and what hashes and embeddings find of each kind of change, alone and together.

A cut belongs to a descriptor and does not carry over to another. Published ones are taken where there are any; else the cut is the highest
that finds 99 of 100 mild changes of the benchmark's own images. What it removes wrongly is counted on unrelated images.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dedup.benchmark_hashes import MIN_TEXTURE, HashSearch, match_hashes
from dedup.benchmark_vectors import OpenVectors, nearest_items
from dedup.changes import CHANGES, MILD

MILD_RECALL = 0.99
_SSCD = (0.45, "published: evaluation sets are kept out at 0.45 in arXiv 2304.07193; 0.75 is 90 % precision on DISC (SSCD)")
PUBLISHED = {(f"sscd-sscd_disc_mixup.{kind}", 512): _SSCD for kind in ("torchscript", "torchvision")}
"""By name and width of the encoder: of the files as Meta publishes them. The numbers are of this network, not of SSCD's others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """N images as a crawl would know them: hashes, and vectors where the index has them."""

    phash_N: np.ndarray
    pdq_N32: np.ndarray
    texture_N: np.ndarray
    vectors_ND: np.ndarray | None  # float16


def choose_cut(name: str, width: int, similarities: np.ndarray) -> tuple[float, str]:
    """Returns the cut of a descriptor and where it comes from.

    Args:
      name: of the encoder.
      width: D, of its vectors.
      similarities: of mildly changed items to their nearest item, float32, as `mild_similarities` returns them.

    Raises:
      ValueError: if none is published and there is nothing to calibrate with.
    """
    if (name, width) in PUBLISHED:
        return PUBLISHED[name, width]
    if not len(similarities):
        remedy = "give --cut, or --encoder none"
        raise ValueError(f"--images: all its images are flat (PDQ quality below {MIN_TEXTURE}), so no cut can be measured: {remedy}")
    lost = math.floor((1 - MILD_RECALL) * len(similarities))
    found = float(np.sort(similarities)[lost])
    return math.floor(found * 1000) / 1000, f"calibrated: finds {MILD_RECALL:.0%} of {len(similarities):,} mild changes"


def mild_similarities(changed: Mapping[str, Seen], similarities: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns the similarities that a cut is taken from: of mild changes, but for those that leave an image flat, which no cut finds."""
    textured = [similarities[kind][seen.texture_N >= MIN_TEXTURE] for kind, seen in changed.items() if kind in MILD]
    return np.concatenate([np.empty(0, np.float32), *textured])


def nearest_similarities(vectors: OpenVectors, seen: Seen) -> np.ndarray:
    """Returns the similarity of each image to its nearest item, float32."""
    assert seen.vectors_ND is not None
    return nearest_items(vectors, seen.vectors_ND)[1]


def nearest_others(vectors_ND: np.ndarray, item_ids: Sequence[str], rows: np.ndarray) -> np.ndarray:
    """Returns the similarity of some items to their nearest other item, float32; equal files are one item."""
    ids, query_QD = np.array(item_ids), vectors_ND[rows].astype(np.float32)
    best_Q = np.full(len(rows), -1, np.float32)
    for start in range(0, len(vectors_ND), 16_384):
        block = slice(start, start + 16_384)
        product_QB = query_QD @ vectors_ND[block].astype(np.float32).T
        product_QB[ids[rows][:, None] == ids[block]] = -1
        best_Q = np.maximum(best_Q, product_QB.max(axis=1))
    return best_Q


def recall_table(
    changed: Mapping[str, Seen], hashes: HashSearch, similarities: Mapping[str, np.ndarray] | None, cut: float
) -> list[dict[str, Any]]:
    """Returns one row a kind of change: how many images were changed, and found by hash, by embedding, by either, by neither.

    One that a change leaves flat is found by neither, as in a crawl.

    Args:
      changed: the images after each kind of change.
      similarities: to the nearest item, as `nearest_similarities` returns them; None in an index of hashes alone.
    """
    rows = []
    for kind, seen in changed.items():
        count = len(seen.phash_N)
        by_hash, by_embedding = np.zeros(count, bool), np.zeros(count, bool)
        by_hash[match_hashes(hashes, seen.phash_N, seen.pdq_N32, seen.texture_N)[0]] = True
        row: dict[str, Any] = {"change": kind, "mild": kind in MILD, "images": count}
        if similarities is not None:
            by_embedding = (similarities[kind] >= np.float32(cut)) & (seen.texture_N >= MIN_TEXTURE)
            low, median = (round(float(value), 4) for value in np.quantile(similarities[kind], (0.01, 0.5)))
            row |= {"similarity_p1": low, "similarity_p50": median}
        found = {"hash": by_hash, "embedding": by_embedding, "either": by_hash | by_embedding, "neither": ~(by_hash | by_embedding)}
        rows.append(row | {name: int(which.sum()) for name, which in found.items()})
    order = list(CHANGES)
    return sorted(rows, key=lambda row: order.index(row["change"]))
