"""Random numbers of a sample: a function of (seed, purpose, number of the sample), never of process, thread or order."""

import zlib

import numpy as np

from pagepairs.keys import mix


def stream(seed: int, purpose: str) -> int:
    """Returns the 64-bit key of one purpose's numbers."""
    return int(mix(seed, zlib.crc32(purpose.encode())))


def generator(seed: int, purpose: str, number: int) -> np.random.Generator:
    """Returns the random numbers of a sample (or step, or micro-batch) for one purpose."""
    return np.random.Generator(np.random.Philox(key=np.array([stream(seed, purpose), number], np.uint64)))
