"""Which images are the same picture, and which of them stands for the others."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

CANONICAL = ("source", "offset", "length", "width", "height")


def choose_canonical(images: pa.Table) -> pa.Table:
    """Maps every image row to the best image with the same 64-bit pHash.

    The order is total: more pixels, then more bytes, then the lower id; of one id, the lowest (source, offset) is its reference.
    If one member of a group has a `reason` (opted out, blocked), the others get `copy_removed`: no copy of it may stay.

    Args:
      images: rows of records.IMAGES; all rows of one phash.

    Returns:
      The rows in that order, with `canonical_id` and the reference and size of the canonical image as `canonical_<name>`.
    """
    ranked = images.append_column("pixels", pc.multiply(images["width"].cast(pa.int64()), images["height"].cast(pa.int64())))
    order = [("phash", "ascending"), ("pixels", "descending"), ("bytes", "descending")]
    order += [(name, "ascending") for name in ("image_id", "source", "offset", "url_key")]
    ranked = ranked.sort_by(order)
    phash = ranked["phash"].to_numpy()
    if len(phash) == 0:
        first = group = np.empty(0, np.int64)
    else:
        starts = np.flatnonzero(np.append(True, phash[1:] != phash[:-1]))
        group = np.cumsum(np.append(True, phash[1:] != phash[:-1])) - 1
        first = starts[group]
    own = pc.not_equal(ranked["reason"], "").to_numpy(zero_copy_only=False)
    removed = np.zeros(group.max(initial=-1) + 1, bool)
    removed[group[own]] = True
    reason = pc.if_else(pa.array(removed[group] & ~own), "copy_removed", ranked["reason"])
    ranked = ranked.set_column(ranked.schema.get_field_index("reason"), "reason", reason)
    best = ranked.take(pa.array(first))
    for name in ("image_id", *CANONICAL):
        ranked = ranked.append_column("canonical_id" if name == "image_id" else f"canonical_{name}", best[name])
    return ranked
