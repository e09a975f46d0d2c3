"""From near pairs to groups: which image stands for which, and which groups must go.

Groups are stars, not chains. In the total order (more pixels, more bytes, lower id) an image is kept unless a kept one is near it;
otherwise it belongs to the best of the kept ones that are near it. So every member is near the one that stands for it, however long the
chain of near pairs that connects it with others.
"""

import numpy as np
import pyarrow as pa
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

NODE = ("id", "phash", "pixels", "bytes", "reason")
"""What an edge says of each of its ends, as `a_<name>` and `b_<name>`; `id` is binary(32)."""


def number_nodes(edges: pa.Table) -> tuple[pa.Table, np.ndarray, np.ndarray]:
    """Numbers the images of some edges in the total order, the best first.

    Args:
      edges: `a_<name>` and `b_<name>` for each name of NODE.

    Returns:
      The images, one row each in that order, with the columns of NODE; and for each edge the numbers of its better and its other end.
    """
    names = list(NODE)
    ends = pa.concat_tables([edges.select([f"{side}_{name}" for name in names]).rename_columns(names) for side in "ab"])
    order = np.lexsort((*id_words(ends["id"]).T[::-1], -ends["bytes"].to_numpy(), -ends["pixels"].to_numpy()))
    words = id_words(ends["id"])[order]
    first = np.append(True, (words[1:] != words[:-1]).any(axis=1))[: len(order)]
    number = np.empty(len(order), np.int64)
    number[order] = np.cumsum(first) - 1
    a, b = number[: edges.num_rows], number[edges.num_rows :]
    return ends.take(pa.array(order[first])), np.minimum(a, b), np.maximum(a, b)


def id_words(ids: pa.ChunkedArray) -> np.ndarray:
    """Returns ids of 32 bytes as uint64 of shape (N, 4) whose order, word by word, is that of the ids."""
    array = ids.combine_chunks()
    if len(array) == 0:
        return np.empty((0, 4), np.uint64)
    data = np.frombuffer(array.buffers()[1], np.uint8)[array.offset * 32 : (array.offset + len(array)) * 32]
    return data.reshape(-1, 32).view(">u8").astype(np.uint64)


def choose_stars(better: np.ndarray, other: np.ndarray, nodes: int) -> np.ndarray:
    """Returns the number of the image that stands for each; a kept image stands for itself.

    Args:
      better, other: int64 of shape (E,): the ends of each near pair, numbered in the total order, better < other.
      nodes: how many images there are.
    """
    star = list(range(nodes))
    # When an image's turn comes, all that are better than it are decided, and the first kept one is the best.
    order = np.lexsort((better, other))
    for one, two in zip(better[order].tolist(), other[order].tolist(), strict=True):
        if star[two] == two and star[one] == one:
            star[two] = one
    return np.array(star, np.int64)


def label_components(one: np.ndarray, two: np.ndarray, nodes: int) -> np.ndarray:
    """Returns the lowest number in each image's connected component."""
    ones = np.ones(len(one), np.int8)
    _, label = connected_components(coo_array((ones, (one, two)), shape=(nodes, nodes)), directed=False)
    lowest = np.full(label.max(initial=-1) + 1, nodes, np.int64)
    np.minimum.at(lowest, label, np.arange(nodes))
    found: np.ndarray = lowest[label]
    return found


def removal_reasons(star: np.ndarray, better: np.ndarray, other: np.ndarray, reason: pa.ChunkedArray) -> pa.Array:
    """Returns why each image must go, "" where it may stay.

    An image with a reason of its own (matched, blocked, opted out) takes with it the group that it belongs to and every image that is
    near it, also those of other groups: each of them is as good as a copy of it. It goes no further along a chain.

    Args:
      star: what `choose_stars` returned.
      better, other: the ends of each near pair.
      reason: each image's own, or "".
    """
    names = sorted(set(reason.unique().to_pylist()) - {""})
    own = np.array([names.index(value) if value else len(names) for value in reason.to_pylist()], np.int64)
    group = np.full(len(star), len(names), np.int64)
    np.minimum.at(group, star, own)
    found = np.minimum(own, group[star])
    np.minimum.at(found, other, own[better])
    np.minimum.at(found, better, own[other])
    return pa.array([*names, ""], pa.string()).take(pa.array(found))


def size_counts(labels: np.ndarray) -> dict[str, int]:
    """Returns how many groups have which size, for groups of at least two: {"2": 17, "3": 1}."""
    sizes = np.bincount(labels) if len(labels) else np.empty(0, np.int64)
    values, counts = np.unique(sizes[sizes > 1], return_counts=True)
    return {str(value): int(count) for value, count in zip(values, counts, strict=True)}
