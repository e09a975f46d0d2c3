"""Which images are the same file or have the same hash, and which of them stands for the others: the cheap steps, by one key."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dedup.hashes import hamming256
from dedup.near import MAX_EQUAL, NEAR_PDQ_BITS

FLAT_TEXTURE = 50
"""Images below this PDQ quality resemble everything: they have no copies but those of the same bytes."""


def choose_canonical(images: pa.Table) -> pa.Table:
    """Maps every image row to the best image with the same hashes, pHash and PDQ.

    The order is total: more pixels, then more bytes, then the lower id; of one id, the lowest (source, offset) is its reference. Images of
    equal hashes are near the same images, so that what is decided of one is right for all of them (but see `equal_stars`).
    If one member of a group has a `reason` (opted out, blocked), the others get `copy_removed`: no copy of it may stay.

    Args:
      images: rows of records.IMAGES; all rows of each phash.

    Returns:
      The rows in that order with `pixels`, `canonical_id`, `detail` (of copy_removed: the reason of the member; else "") and, of each
      group, `group_reason` (the lowest reason of its members, or "") and `stands`, true in one row: the canonical image's own.
    """
    ranked = images.append_column("pixels", pc.multiply(images["width"].cast(pa.int64()), images["height"].cast(pa.int64())))
    order = [("phash", "ascending"), ("pixels", "descending"), ("bytes", "descending")]
    order += [(name, "ascending") for name in ("image_id", "source", "offset", "url_key")]
    ranked = ranked.sort_by(order)
    ids = pc.index_in(ranked["image_id"], ranked["image_id"].unique()).to_numpy()
    first_of_id = np.flatnonzero(np.append(True, ids[1:] != ids[:-1])[: len(ids)])
    distinct = ranked.select(["phash", "pdq", "texture"]).take(pa.array(first_of_id))
    star = first_of_id[equal_stars(distinct["phash"].to_numpy(), pdq_rows(distinct["pdq"]), distinct["texture"].to_numpy())]
    canonical = np.repeat(star, np.diff(np.append(first_of_id, len(ids))))  # the row of the image that stands for each row
    group_reason, detail, reason = _reasons(ranked["reason"], canonical)
    ranked = ranked.set_column(ranked.schema.get_field_index("reason"), "reason", reason)
    columns = {"canonical_id": ranked["image_id"].take(pa.array(canonical)), "detail": detail, "group_reason": group_reason}
    columns["stands"] = pa.array(canonical == np.arange(len(canonical)))
    for name, column in columns.items():
        ranked = ranked.append_column(name, column)
    return ranked


def equal_stars(phash: np.ndarray, pdq: np.ndarray, texture: np.ndarray) -> np.ndarray:
    """Returns the row of the image that stands for each: the first with its hashes, or its own.

    Where more than MAX_EQUAL images have one pHash and different PDQ, comparing all of them with each other would be too much: of these an
    image is kept unless a kept one has a PDQ within 48 bits. PDQ costs no true copy there (0 of 209 photos in 17 changed versions; the
    farthest with an equal pHash is 40 bits away) and keeps drawings apart that only share their coarse layout.

    Args:
      phash: uint64 of shape (N,), sorted; rows of one value in the total order.
      pdq: uint8 of shape (N, 32).
      texture: of shape (N,); flat images stand for themselves.
    """
    star = np.arange(len(phash))
    left = np.flatnonzero(texture >= FLAT_TEXTURE)
    left = left[_run_lengths(phash[left]) > 1]
    words = np.ascontiguousarray(pdq[left]).view(np.uint64)
    order = np.lexsort((*words.T, phash[left]))  # stable: of equal hashes the best comes first
    ordered = np.column_stack([phash[left], words])[order]
    new = np.append(True, (ordered[1:] != ordered[:-1]).any(axis=1))[: len(order)]
    first = left[order][new]
    star[left[order]] = first[np.cumsum(new) - 1]
    left = np.sort(first)
    left = left[_run_lengths(phash[left]) > MAX_EQUAL]
    while len(left):
        new = np.append(True, phash[left[1:]] != phash[left[:-1]])
        kept = left[new][np.cumsum(new) - 1]  # of those left with the same pHash: kept, as none before it was near
        near = hamming256(pdq[left], pdq[kept]) <= NEAR_PDQ_BITS
        star[left[near]] = kept[near]
        left = left[~near]
    return star[star]


def _run_lengths(values: np.ndarray) -> np.ndarray:
    """Returns how often each of some sorted values stands there."""
    return np.searchsorted(values, values, side="right") - np.searchsorted(values, values, side="left")


def pdq_rows(column: pa.ChunkedArray) -> np.ndarray:
    """Returns a column of 32-byte hashes as uint8 of shape (N, 32)."""
    array = column.combine_chunks()
    if len(array) == 0:
        return np.empty((0, 32), np.uint8)
    return np.frombuffer(array.buffers()[1], np.uint8)[array.offset * 32 : (array.offset + len(array)) * 32].reshape(-1, 32)


def _reasons(own: pa.ChunkedArray, canonical: np.ndarray) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Returns for each row the reason of its group, the detail and the reason that result."""
    names = sorted(set(own.unique().to_pylist()) - {""})
    code = pc.fill_null(pc.index_in(own, pa.array(names, pa.string())), len(names)).to_numpy()
    group = np.full(len(code), len(names), np.int64)
    np.minimum.at(group, canonical, code)
    lowest = group[canonical]
    group_reason = pa.array([*names, ""], pa.string()).take(pa.array(lowest))
    copy = pa.array((lowest < len(names)) & (code == len(names)))
    return group_reason, pc.if_else(copy, group_reason, ""), pc.if_else(copy, "copy_removed", own).combine_chunks()
