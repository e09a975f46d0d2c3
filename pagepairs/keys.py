"""Keys and keyed randomness: every choice is a hash of a record's key and the seed, never of order or machine."""

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def text_key(text: str) -> str:
    """Returns the 32 hex characters that stand for a URL or another text in joins."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def pair_id(condition_id: str, target_id: str) -> str:
    """Returns the sha256 of the two ids, in this order."""
    return hashlib.sha256((condition_id + target_id).encode()).hexdigest()


def prefix64(ids: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Returns the first 16 hex characters of each id as uint64, shape (N,).

    Args:
      ids: hex strings of one length >= 16, without nulls.
    """
    if len(ids) == 0:
        return np.empty(0, np.uint64)
    head = pc.binary_slice(ids.cast(pa.binary()), 0, 16).cast(pa.binary(16))
    array = head.combine_chunks() if isinstance(head, pa.ChunkedArray) else head
    text = np.frombuffer(array.buffers()[1], np.uint8)[array.offset * 16 : (array.offset + len(array)) * 16].reshape(-1, 8, 2)
    nibble = (text & 15) + 9 * (text >> 6)  # '0'-'9' are 0x30-0x39, 'a'-'f' are 0x61-0x66
    return ((nibble[..., 0] << 4) | nibble[..., 1]).astype(np.uint8).view(">u8").astype(np.uint64).ravel()


def mix(*values: np.ndarray | int) -> np.ndarray:
    """Returns a uint64 hash of the values, element by element (splitmix64's finaliser over a running sum)."""
    state = np.zeros(np.broadcast_shapes(*[np.shape(value) for value in values]), np.uint64)
    with np.errstate(over="ignore"):
        for value in values:
            state = state + np.asarray(value, np.uint64) + np.uint64(0x9E3779B97F4A7C15)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return state


def part_of(hashes: np.ndarray, parts: int) -> np.ndarray:
    """Returns the part, in [0, parts), of each uint64 hash: equal ranges of the hash space, parts < 2**32."""
    return (((hashes >> np.uint64(32)) * np.uint64(parts)) >> np.uint64(32)).astype(np.int64)


def order_by_part(hashes: np.ndarray, parts: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows ordered by part, int64 of shape (N,), and where each part begins and ends, int64 of shape (parts + 1,)."""
    owner = part_of(hashes, parts)
    order = np.argsort(owner, kind="stable")
    return order, np.searchsorted(owner[order], np.arange(parts + 1))
