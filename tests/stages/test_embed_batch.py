from collections.abc import Callable
from typing import ClassVar

import numpy as np
import pytest

from pagepairs.images import ImageError
from pipeline.embed_batch import Passes, embed_batch, is_out_of_memory

SIZE = 8


class OutOfMemoryError(RuntimeError):
    """Called as torch's, which cannot be made to happen without a GPU."""


class FakeNetwork:
    """Stands in for a network on a GPU that has room for so many images, and breaks on images of some brightness."""

    errors: ClassVar[list[Callable[[], Exception]]] = [
        lambda: OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        lambda: RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        lambda: RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
        MemoryError,
    ]

    def __init__(self, *, room: int = 99, breaks_on: tuple[int, ...] = (), error: Callable[[], Exception] = MemoryError) -> None:
        self.room, self.breaks_on, self.error = room, breaks_on, error
        self.passes: list[int] = []
        self.released = 0

    def embed(self, batch_BHW3: np.ndarray) -> np.ndarray:
        self.passes.append(len(batch_BHW3))
        if len(batch_BHW3) > self.room:
            raise self.error()
        if set(self.breaks_on) & set(batch_BHW3[:, 0, 0, 0].tolist()):
            raise TypeError("a shape that was never seen")
        return np.stack([np.array([image[0, 0, 0], 1], np.float32) for image in batch_BHW3])

    def release(self) -> None:
        self.released += 1


def passes_of(network: FakeNetwork, size: int, *, batched: bool = True) -> Passes:
    return Passes(embed=network.embed, size=size, batched=batched, release=network.release)


def images(count: int) -> list[np.ndarray]:
    return [np.full((SIZE, SIZE, 3), number, np.uint8) for number in range(count)]


def brightness(found: list) -> list[object]:
    return [item.reason if isinstance(item, ImageError) else int(item[0]) for item in found]


def test_every_pass_is_filled_up_to_one_shape_unless_images_stand_alone() -> None:
    network = FakeNetwork()
    assert brightness(embed_batch(images(6), passes_of(network, 4))) == [0, 1, 2, 3, 4, 5]
    assert network.passes == [4, 4]
    network = FakeNetwork()
    assert brightness(embed_batch(images(6), passes_of(network, 4, batched=False))) == [0, 1, 2, 3, 4, 5]
    assert network.passes == [4, 2]


@pytest.mark.parametrize("error", FakeNetwork.errors)
def test_a_batch_that_does_not_fit_is_halved_until_it_does_and_stays_so(error: Callable[[], Exception]) -> None:
    network = FakeNetwork(room=3, error=error)
    passes = passes_of(network, 8)
    assert brightness(embed_batch(images(8), passes)) == list(range(8))
    assert (network.passes, passes.halved, passes.size, network.released) == ([8, 4, 2, 2, 2, 2], 2, 2, 2)
    assert brightness(embed_batch(images(3), passes)) == [0, 1, 2]
    assert (network.passes[6:], passes.halved) == ([2, 2], 2)


def test_an_image_that_does_not_fit_alone_is_a_drop() -> None:
    network = FakeNetwork(room=0, error=FakeNetwork.errors[0])
    passes = passes_of(network, 2)
    assert brightness(embed_batch(images(2), passes)) == ["out_of_memory"] * 2
    assert (network.passes, passes.halved) == ([2, 1, 1], 1)


@pytest.mark.parametrize("broken", [(3,), (0,), (7,), (2, 3), (0, 7), (1, 2, 4, 6)])
def test_images_that_break_a_network_are_found_and_the_others_keep_their_vectors(broken: tuple[int, ...]) -> None:
    network = FakeNetwork(breaks_on=broken)
    found = embed_batch(images(8), passes_of(network, 8))
    assert brightness(found) == ["model_error" if number in broken else number for number in range(8)]
    assert set(network.passes) == {8}  # the survivors saw the shape that they always see
    assert found[broken[0]].detail == "TypeError: a shape that was never seen"


def test_a_network_that_breaks_on_a_grey_image_too_is_an_error_and_no_drop() -> None:
    network = FakeNetwork(breaks_on=(0, 1, 128))
    with pytest.raises(TypeError, match="never seen"):
        embed_batch(images(2), passes_of(network, 2))


def test_a_vector_with_a_gap_is_a_drop() -> None:
    def embed(batch_BHW3: np.ndarray) -> np.ndarray:
        vectors = batch_BHW3[:, 0, 0, :2].astype(np.float32)
        vectors[vectors[:, 0] == 1] = np.nan
        return vectors

    assert brightness(embed_batch(images(3), Passes(embed=embed, size=2))) == [0, "not_finite", 2]


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    assert not is_out_of_memory(ValueError("not enough memory"))
    assert not is_out_of_memory(RuntimeError("CUDA error: device-side assert triggered"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
