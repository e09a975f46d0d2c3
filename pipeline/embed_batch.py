"""Forward passes that survive: a batch that does not fit into memory is halved, an image that breaks the network is found and left out.

B = images of a batch, D = width of a vector.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from pagepairs.images import ImageError

_NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory", "alloc_failed")
_GREY = 128


@dataclass(kw_only=True)
class Passes:
    """How one unit's images go through one network, and what became of it.

    Every pass sees `size` images; the last is filled up. So the arithmetic of an image does not depend on how many there are, as long as
    memory suffices: after a halving, `size` stays halved to the end of the unit, and the last bits of its vectors may differ.
    """

    embed: Callable[[np.ndarray], np.ndarray]
    size: int
    batched: bool = True
    """Whether the network computes images together; else nothing is filled up."""
    release: Callable[[], None] = lambda: None
    """Gives back memory after a pass that failed for want of it."""
    halved: int = 0
    seconds: float = 0.0
    works: bool = field(default=False, init=False)
    """Whether the network has returned vectors, so that a failure is an image's."""


def embed_batch(images: Sequence[np.ndarray], passes: Passes) -> list[np.ndarray | ImageError]:
    """Returns each image's vector, float32 (D,), or why it has none: out_of_memory, model_error or not_finite.

    Raises:
      Exception: the network's own, where it fails on a plain grey image too: then no image is to blame.
    """
    found: list[np.ndarray | ImageError] = []
    while len(found) < len(images):
        piece = images[len(found) : len(found) + passes.size]
        try:
            found += _pass(piece, passes)
            continue
        except Exception as error:  # whatever a network's library raises
            if not is_out_of_memory(error):
                found += _blame(piece, passes, error)
                continue
            reason = str(error)
        # Only here are the error, and the tensors that its traceback held, gone.
        passes.release()
        if passes.size == 1:
            found.append(ImageError("out_of_memory", reason))
        else:
            passes.size //= 2
            passes.halved += 1
    return found


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or a CPU; torch's CPU allocator raises a plain RuntimeError."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or (isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _NO_MEMORY))


def _pass(images: Sequence[np.ndarray], passes: Passes) -> list[np.ndarray | ImageError]:
    filled = [*images, *([images[-1]] * (passes.size - len(images) if passes.batched else 0))]
    started = time.perf_counter()
    try:
        vector_BD = passes.embed(np.stack(filled))[: len(images)]
    finally:
        passes.seconds += time.perf_counter() - started
    passes.works = True
    finite = np.isfinite(vector_BD).all(axis=1)
    return [vector if good else ImageError("not_finite") for vector, good in zip(vector_BD, finite, strict=True)]


def _blame(images: Sequence[np.ndarray], passes: Passes, error: Exception) -> list[np.ndarray | ImageError]:
    """Returns what `embed_batch` does for a batch that failed, by halving it down to the images that fail by themselves."""
    if not passes.works:
        _pass([np.full_like(images[0], _GREY)], passes)  # raises where the network fails on anything
    if len(images) == 1:
        return [ImageError("model_error", f"{type(error).__name__}: {error}")]
    middle = len(images) // 2
    return [*embed_batch(images[:middle], passes), *embed_batch(images[middle:], passes)]
