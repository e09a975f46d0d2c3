"""Near pairs of canonical images on their way through stage pair: edges, with what `stars` must know of both ends."""

import numpy as np
import pyarrow as pa

from dedup.groups import NODE

ENDS = [("id", pa.binary(32)), ("phash", pa.uint64()), ("pixels", pa.int64()), ("bytes", pa.int64()), ("reason", pa.string())]
assert tuple(name for name, _ in ENDS) == NODE
EDGES = pa.schema([*((f"{side}_{name}", kind) for side in "ab" for name, kind in ENDS), ("by_hash", pa.bool_())])


def make_edges(images: pa.Table, left: np.ndarray, right: np.ndarray, *, by_hash: bool) -> pa.Table:
    """Returns rows of EDGES.

    Args:
      images: the columns of NODE, and others.
      left, right: int64 of shape (E,), rows of `images`: the ends of each edge.
      by_hash: whether their hashes are near; else their vectors.
    """
    ends = {"a": images.take(pa.array(left)), "b": images.take(pa.array(right))}
    columns = {name: ends[name[0]][name[2:]] for name in EDGES.names if name != "by_hash"}
    return pa.table(columns | {"by_hash": pa.array(np.full(len(left), by_hash))}, schema=EDGES)


def bytes_of_ids(ids: pa.ChunkedArray) -> pa.Array:
    """Returns hex ids of 64 characters as binary(32)."""
    data = bytes.fromhex("".join(ids.to_pylist()))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(32), len(ids), [None, pa.py_buffer(data)])


def hex_of_ids(ids: pa.ChunkedArray) -> pa.Array:
    """Returns ids of 32 bytes as hex."""
    return pa.array([value.hex() for value in ids.to_pylist()], pa.string())
