"""Perceptual hashes of the working image, and their distances.

Both are taken of `pagepairs.images.working_image`. All flat images share their hashes, so a hash means nothing where PDQ's quality is low.
"""

import numpy as np
import pdqhash
from PIL import Image
from scipy.fft import dct


def phash64(working: np.ndarray) -> int:
    """Returns the 64-bit pHash, bit-identical to imagededup's `PHash().encode_image(image_array=working)`.

    The first bit, row-major, is the most significant. A bit is 1 where a coefficient of the lowest 8 x 8 of the cosine transform is at
    least the median of the 63 without the mean.

    Args:
      working: uint8, height x width x 3.
    """
    # Colour is resized before it is made grey because imagededup does so; the other order is twice as fast and not the same hash.
    grey = Image.fromarray(working).resize((32, 32), Image.Resampling.LANCZOS).convert("L")
    lowest = dct(dct(np.asarray(grey, np.float64), axis=0), axis=1)[:8, :8].ravel()
    return int.from_bytes(np.packbits(lowest >= np.median(lowest[1:])).tobytes(), "big")


def pdq256(working: np.ndarray) -> tuple[bytes, int]:
    """Returns the 256-bit PDQ hash (32 bytes) and its quality, 0 (flat) to 100.

    The image is made grey and shrunk to PDQ's own 64 x 64 first: four times as fast as handing over the whole image, and mostly without
    the interpreter lock, which pdqhash holds. Of Pillow's filters Hamming comes nearest to the full image's hash: 4 bits in the median
    of 209 photos, at most 11 for 95 of 100.

    Args:
      working: uint8, height x width x 3.
    """
    grey = Image.fromarray(working).convert("L").resize((64, 64), Image.Resampling.HAMMING)
    bits, quality = pdqhash.compute(np.repeat(np.asarray(grey)[:, :, np.newaxis], 3, axis=2))
    return np.packbits(bits.astype(np.uint8)).tobytes(), int(quality)


def hamming64(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns how many bits differ, element by element, of two uint64 arrays that broadcast."""
    distance: np.ndarray = np.bitwise_count(np.bitwise_xor(a, b))
    return distance


def hamming256(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns how many bits differ of hashes of 32 bytes: uint8 arrays of shape (..., 32) whose other axes broadcast."""
    words = [np.ascontiguousarray(hashes).view(np.uint64) for hashes in (a, b)]
    distance: np.ndarray = np.bitwise_count(np.bitwise_xor(*words)).sum(axis=-1, dtype=np.uint16)
    return distance
