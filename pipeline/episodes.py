"""From references to episodes, and from episodes to sampled candidate pairs with their similarity."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pagepairs.keys import mix, prefix64

_CHUNK_NUMBERS = 8_000_000
"""Numbers of the largest temporary array: 64 MB of float64."""


def codes_of(column: pa.ChunkedArray) -> np.ndarray:
    """Returns an int64 code for each value, equal for equal values."""
    codes: np.ndarray = pc.index_in(column, column.unique()).to_numpy()
    return codes.astype(np.int64)


def bottom_k(codes: np.ndarray, hashes: np.ndarray, k: int) -> np.ndarray:
    """Marks the rows with the k lowest hashes of each code: a uniform sample that any split of the rows agrees on."""
    order = np.lexsort((hashes, codes))
    ordered = codes[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])) if len(ordered) else np.empty(0, np.int64)
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    kept = np.zeros(len(order), bool)
    kept[order[rank < k]] = True
    return kept


def close_pages(rows: pa.Table, closed: pa.Table) -> pa.Table:
    """Gives all references of a page the reason that one of its captures has for leaving it out.

    Args:
      rows: all rows of some pages.
      closed: `page_url` and `reason` of captures that are left out; a capture that names no image stands only here.
    """
    known = pa.concat_tables([closed.select(["page_url", "reason"]), rows.select(["page_url", "reason"])])
    for reason in ("page_blocked", "page_opt_out"):  # an opt-out outweighs a block
        pages = known.filter(pc.equal(known["reason"], reason))["page_url"].combine_chunks()
        told = pc.if_else(pc.is_in(rows["page_url"], pages), reason, rows["reason"])
        rows = rows.set_column(rows.schema.get_field_index("reason"), "reason", told)
    return rows


def choose_references(rows: pa.Table) -> pa.Table:
    """Reduces the alternatives of each element (src, srcset, picture, redirects) to one row: the largest image that was crawled.

    A Referer says nothing new where the page itself names the image, so such rows are not references.

    Args:
      rows: all rows of some pages, with `reason` "" for those that lead to an image.

    Returns:
      One row a reference, in the order of pages, captures and positions.
    """
    page, url = codes_of(rows["page_url"]), codes_of(rows["url_key"])
    named = page * (url.max(initial=0) + 1) + url
    referer = pc.equal(rows["via"], "referer").to_numpy(zero_copy_only=False)
    spoken = ~referer | ~np.isin(named, named[~referer])
    rows = rows.filter(pa.array(spoken))
    missing = pc.not_equal(rows["reason"], "")
    pixels = pc.fill_null(rows["pixels"], 0)
    # not_in_crawl sorts after the reasons that say more about what became of the image.
    unknown = pc.equal(rows["reason"], "not_in_crawl")
    rows = (
        rows.append_column("missing", missing)
        .append_column("unknown", unknown)
        .set_column(rows.schema.get_field_index("pixels"), "pixels", pixels)
    )
    keys = [
        ("page_key", "ascending"),
        ("page_url", "ascending"),
        ("capture", "ascending"),
        ("position", "ascending"),
        ("missing", "ascending"),
    ]
    keys += [
        ("unknown", "ascending"),
        ("pixels", "descending"),
        ("image_id", "ascending"),
        ("image_url", "ascending"),
        ("via", "ascending"),
    ]
    # Redirects repeat an element under one URL: where all of them were dropped, the lowest reason is the one that is told.
    keys += [("reason", "ascending"), ("detail", "ascending"), ("alt", "ascending")]
    rows = rows.sort_by(keys)
    capture, position = rows["capture"].to_numpy(), rows["position"].to_numpy()
    page = codes_of(rows["page_url"])
    first = np.ones(len(page), bool)
    first[1:] = (page[1:] != page[:-1]) | (capture[1:] != capture[:-1]) | (position[1:] != position[:-1])
    return rows.filter(pa.array(first)).drop_columns(["missing", "unknown"])


def cap_pages(rows: pa.Table, *, max_images: int, seed: int) -> pa.Table:
    """Gives the reason page_cap to the images that the sample of a page leaves out.

    The sample is a keyed bottom-k of all images that a page offers, alternatives too: each part of the images can take it by itself, before
    anyone knows which alternative an element will choose.

    Args:
      rows: all rows of some pages, with `reason` "" for those that lead to an image.
      max_images: images of a page, at most.
      seed: changes every sample.
    """
    offered = pc.equal(rows["reason"], "").to_numpy(zero_copy_only=False)
    if not offered.any():
        return rows
    there = rows.filter(pa.array(offered))
    page, image = codes_of(there["page_key"]), codes_of(there["image_id"])
    _, first, distinct = np.unique(page * (image.max() + 1) + image, return_index=True, return_inverse=True)
    sampled = bottom_k(page[first], page_image_hash(there.take(pa.array(first)), seed), max_images)
    capped = offered.copy()
    capped[offered] = ~sampled[distinct]
    return rows.set_column(rows.schema.get_field_index("reason"), "reason", pc.if_else(pa.array(capped), "page_cap", rows["reason"]))


def episode_reasons(references: pa.Table) -> pa.Array:
    """Returns the reason of each reference: its own, or duplicate_on_page, single_image; "" stands in an episode.

    Args:
      references: rows of `choose_references`, of whole pages.
    """
    reasons = references["reason"].to_numpy(zero_copy_only=False).astype(object)
    kept = np.flatnonzero(reasons == "")
    if len(kept) == 0:
        return pa.array(reasons, pa.string())
    rows = references.take(pa.array(kept))
    page, image = codes_of(rows["page_key"]), codes_of(rows["image_id"])
    _, first = np.unique(page * (image.max() + 1) + image, return_index=True)
    alone = np.zeros(len(kept), bool)
    alone[first] = True
    reasons[kept[~alone]] = "duplicate_on_page"
    kept, page = kept[alone], page[alone]
    reasons[kept[np.bincount(page, minlength=1)[page] < 2]] = "single_image"
    return pa.array(reasons, pa.string())


def page_image_hash(rows: pa.Table, seed: int) -> np.ndarray:
    """Returns the uint64 hash that decides which images of a page are kept when it holds too many.

    The page has no part in it: pages with the same images keep the same ones, and so stay mirrors of each other.
    """
    return mix(seed, prefix64(rows["image_id"]))


def sample_pairs(
    page_hash: np.ndarray, image_hash: np.ndarray, size: np.ndarray, *, pairs: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Samples unordered pairs of images of each page, uniformly and without replacement.

    P = pages, I = images, S = sampled pairs.

    Args:
      page_hash: uint64 of shape (P,).
      image_hash: uint64 of shape (I,): the images of the first page, then of the second, ...
      size: int64 of shape (P,), images of each page, at least 2.
      pairs: sampled pairs a page, at most.

    Returns:
      Two int64 arrays of shape (S,): the rows of both images of each pair.
    """
    starts = np.cumsum(size) - size
    lefts, rights = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for n in np.unique(size):
        left, right = np.triu_indices(n, 1)
        pages = np.flatnonzero(size == n)
        for chunk in _chunks(pages, len(left)):
            a, b = starts[chunk][:, None] + left, starts[chunk][:, None] + right
            if len(left) > pairs:
                low, high = np.minimum(image_hash[a], image_hash[b]), np.maximum(image_hash[a], image_hash[b])
                key = mix(seed, page_hash[chunk][:, None], low, high)
                chosen = np.argpartition(key, pairs, axis=1)[:, :pairs]
                a, b = np.take_along_axis(a, chosen, 1), np.take_along_axis(b, chosen, 1)
            lefts.append(a.ravel())
            rights.append(b.ravel())
    return np.concatenate(lefts), np.concatenate(rights)


def similarities(vectors: np.ndarray, size: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Returns the cosine of each pair, float32 of shape (S,): the float64 dot product of the stored vectors, rounded.

    The product of two float16 of magnitude <= 1 is a multiple of 2**-48, so sums of them are exact in float64: the same bytes everywhere.

    Args:
      vectors: float16 of shape (I, D), of unit length, page by page.
      size: int64 of shape (P,), images of each page.
      left, right: int64 of shape (S,), rows of the images; both of one page.
    """
    result = np.empty(len(left), np.float32)
    starts = np.cumsum(size) - size
    page_of = np.repeat(np.arange(len(size)), size)
    order = np.argsort(page_of[left], kind="stable")
    pair_bounds = np.searchsorted(page_of[left][order], np.arange(len(size) + 1))
    for n in np.unique(size):
        for chunk in _chunks(np.flatnonzero(size == n), n * max(n, vectors.shape[1])):
            rows_PN = starts[chunk][:, None] + np.arange(n)
            vectors_PND = vectors[rows_PN].astype(np.float64)
            cosine_PNN = vectors_PND @ vectors_PND.transpose(0, 2, 1)
            pairs = np.concatenate([order[pair_bounds[page] : pair_bounds[page + 1]] for page in chunk])
            count = pair_bounds[chunk + 1] - pair_bounds[chunk]
            row = np.repeat(np.arange(len(chunk)), count)
            offset = starts[chunk][row]
            result[pairs] = cosine_PNN[row, left[pairs] - offset, right[pairs] - offset]
    return result


def _chunks(pages: np.ndarray, numbers_per_page: int) -> Iterator[np.ndarray]:
    step = max(1, _CHUNK_NUMBERS // max(1, numbers_per_page))
    for start in range(0, len(pages), step):
        yield pages[start : start + step]
