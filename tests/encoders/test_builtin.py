"""The descriptor without weights."""

import io
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from encoders import embed_all, load_encoder
from encoders.builtin import SIZE, Builtin, colour_cells, edge_cells


@pytest.fixture(scope="module")
def builtin() -> Builtin:
    """The encoder under test."""
    return Builtin()


def _stripes(degrees: float) -> np.ndarray:
    """Returns faint waves whose gradient runs along `degrees`, x to the right and y down."""
    angle = math.radians(degrees)
    y_HW, x_HW = np.mgrid[0:SIZE, 0:SIZE]
    wave_HW = 127 + 100 * np.sin((x_HW * math.cos(angle) + y_HW * math.sin(angle)) * 0.4)
    return np.repeat(wave_HW.round().astype(np.uint8)[..., None], 3, axis=-1)


def _reference_pool(map_HW: np.ndarray, cells: int) -> np.ndarray:
    """Pools pixel by pixel, the slow way: the weighted mean around each cell's centre, edges repeated."""
    step = SIZE // cells
    result = np.zeros((cells, cells))
    for i in range(cells):
        for j in range(cells):
            total = weights = 0.0
            for y in range(-step // 2, step + step // 2):
                for x in range(-step // 2, step + step // 2):
                    weight = (step + 0.5 - abs(y - (step - 1) / 2)) * (step + 0.5 - abs(x - (step - 1) / 2))
                    row, column = (min(max(place, 0), SIZE - 1) for place in (i * step + y, j * step + x))
                    total, weights = total + weight * map_HW[row, column], weights + weight
            result[i, j] = total / weights
    return result


def test_interface(builtin: Builtin, pictures: list[np.ndarray]) -> None:
    assert load_encoder("builtin").digest == {
        "name": "builtin",
        "weights": "",
        "preprocessing": "box-64-v1",
        "library": "numpy",
        "engine": "numpy",
        "dtype": "float64",
        "input_size": "64",
    }
    images = [builtin.preprocess(rgb) for rgb in pictures]
    assert {(image.shape, image.dtype) for image in images} == {((64, 64, 3), np.dtype(np.uint8))}
    vector_ND = embed_all(builtin, images, batch_size=5)
    assert (vector_ND.shape, vector_ND.dtype, builtin.width) == ((12, 338), np.float32, 338)
    np.testing.assert_allclose(np.linalg.norm(vector_ND, axis=1), 1, atol=1e-6)
    tokens_BNC = builtin.tokens(np.stack(images))
    assert (tokens_BNC.shape, tokens_BNC.dtype) == ((12, 64, 12), np.float32)


def test_vector_does_not_depend_on_its_batch(builtin: Builtin, pictures: list[np.ndarray]) -> None:
    images = [builtin.preprocess(rgb) for rgb in pictures]
    alone = np.concatenate([builtin.embed(image[None]) for image in images])
    for size in (2, 5, 12):
        np.testing.assert_array_equal(embed_all(builtin, images, batch_size=size), alone)


def test_vector_is_the_same_on_every_machine(builtin: Builtin) -> None:
    image = np.random.Generator(np.random.Philox(key=3)).integers(0, 256, (64, 64, 3), np.uint8)
    # Written once; the arithmetic is exact up to its last, correctly rounded steps.
    assert [float.hex(float(value)) for value in builtin.embed(image[None])[0, [0, 1, 191, 192, 200, 337]]] == [
        "0x1.d835260000000p-8",
        "-0x1.4131200000000p-4",
        "-0x1.a9ad6c0000000p-5",
        "0x1.fb50fa0000000p-5",
        "-0x1.d3e9e80000000p-5",
        "0x1.eb68520000000p-2",
    ]


def test_colours_against_a_slow_mean() -> None:
    image = np.random.Generator(np.random.Philox(key=4)).integers(0, 256, (64, 64, 3), np.uint8)
    red, green, blue = np.moveaxis(image.astype(float), -1, 0)
    brightness = _reference_pool((red + green + blue) / 3, 8)
    expected = [brightness - brightness.mean(), _reference_pool(red - green, 8) - 20, _reference_pool((red + green) / 2 - blue, 8) - 30]
    np.testing.assert_allclose(colour_cells(image), np.stack(expected, axis=-1), atol=1e-9)


@pytest.mark.parametrize("bin_number", range(9))
def test_waves_fill_the_bin_of_their_direction(bin_number: int) -> None:
    cells = edge_cells(_stripes(20 * bin_number))
    assert (cells.argmax(-1) == bin_number).all()
    np.testing.assert_allclose(cells.sum(-1), 0, atol=1e-12)


def test_waves_between_two_bins_fill_both_alike() -> None:
    cells = edge_cells(_stripes(50))[1:3, 1:3].mean((0, 1))
    assert sorted(np.argsort(cells)[-2:].tolist()) == [2, 3]
    assert cells[2] == pytest.approx(cells[3], rel=0.05)


def test_flat_images_have_a_direction_too(builtin: Builtin) -> None:
    grey, other = np.full((64, 64, 3), 127, np.uint8), np.full((64, 64, 3), 200, np.uint8)
    vector_ND = builtin.embed(np.stack([grey, other]))
    np.testing.assert_array_equal(vector_ND[0], vector_ND[1])
    assert np.linalg.norm(vector_ND[0]) == pytest.approx(1)


def _as_jpeg(image: Image.Image, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as again:
        return np.asarray(again)


def _copies(rgb_HW3: np.ndarray) -> dict[str, np.ndarray]:
    height, width = rgb_HW3.shape[:2]
    half = Image.fromarray(rgb_HW3).resize((width // 2, height // 2), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return {
        "whole": rgb_HW3,
        "half": _as_jpeg(half, 30),
        "frame": rgb_HW3[int(height * 0.04) : int(height * 0.96), int(width * 0.04) : int(width * 0.96)],
        "right": rgb_HW3[:, : int(width * 0.9)],
    }


def test_similarities_are_those_of_the_docstring(
    builtin: Builtin, recipe_photos: list[tuple[str, Path]], read_photo: Callable[[Path], np.ndarray]
) -> None:
    small: dict[str, list[np.ndarray]] = {}
    for _, path in recipe_photos:
        for kind, rgb in _copies(read_photo(path)).items():
            small.setdefault(kind, []).append(builtin.preprocess(rgb))
    vectors = {kind: embed_all(builtin, images, batch_size=32) for kind, images in small.items()}
    pages = np.array([page for page, _ in recipe_photos])
    first, second = np.triu_indices(len(pages), 1)
    same = pages[first] == pages[second]
    cosine = (vectors["whole"] @ vectors["whole"].T)[first, second]
    found = {"one page": cosine[same], "two pages": cosine[~same]}
    found |= {kind: (vectors["whole"] * vectors[kind]).sum(1) for kind in ("frame", "right", "half")}
    assert [len(found["one page"]), len(found["two pages"])] == [364, 11417]
    expected = {
        "one page": [-0.32, -0.07, 0.21, 0.55, 0.80],
        "two pages": [-0.34, -0.16, 0.10, 0.40, 0.61],
        "frame": [0.84, 0.92, 0.96, 0.98, 0.99],
        "right": [0.82, 0.89, 0.94, 0.97, 0.99],
        "half": [0.99, 1, 1, 1, 1],
    }
    for kind, row in expected.items():
        np.testing.assert_allclose(np.percentile(found[kind], [1, 10, 50, 90, 99]), row, atol=0.011, err_msg=kind)
    assert np.mean(found["one page"] >= 0.3) == pytest.approx(0.38, abs=0.01)
    assert np.mean(found["two pages"] >= 0.3) == pytest.approx(0.19, abs=0.01)
    assert [(found[kind] > 0.9).sum() for kind in ("one page", "two pages")] == [2, 0]
    copies_above = [np.mean(found[kind] > 0.9) for kind in ("half", "frame", "right")]
    np.testing.assert_allclose(copies_above, [1, 0.95, 0.85], atol=0.011)
