"""resize_shortest(), centre_crop() and encode_jpeg()."""

import io

import numpy as np
import pytest
from PIL import Image

from pagepairs.images import centre_crop, decode, encode_jpeg, resize_shortest, working_image


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 10_000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("shape", "side_px", "want"),
    [
        ((400, 600), 200, (200, 300)),
        ((600, 400), 200, (300, 200)),
        ((300, 301), 100, (100, 100)),  # 100.33
        ((200, 301), 100, (100, 151)),  # 150.5, half up
        ((257, 3000), 256, (256, 2988)),
        ((256, 256), 256, (256, 256)),
        ((255, 999), 256, (255, 999)),  # never larger
        ((1, 5000), 256, (1, 5000)),
    ],
)
def test_the_shortest_side_gets_the_asked_length(shape: tuple[int, int], side_px: int, want: tuple[int, int]) -> None:
    assert resize_shortest(noise(*shape), side_px).shape == (*want, 3)


def test_enlarging_happens_only_when_asked_for() -> None:
    small = noise(10, 20)
    assert resize_shortest(small, 256) is small
    assert resize_shortest(small, 30, upscale=True).shape == (30, 60, 3)


def test_below_four_times_it_is_pillows_bicubic() -> None:
    image = noise(511, 700)
    want = Image.fromarray(image).resize((351, 256), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(resize_shortest(image, 256), np.asarray(want))


def test_above_four_times_it_stays_near_bicubic() -> None:
    smooth = np.asarray(Image.fromarray(noise(40, 60)).resize((1800, 1200), Image.Resampling.BICUBIC))
    want = np.asarray(Image.fromarray(smooth).resize((384, 256), Image.Resampling.BICUBIC))
    assert np.abs(resize_shortest(smooth, 256).astype(int) - want).max() <= 2


def test_a_flat_image_stays_flat() -> None:
    assert (resize_shortest(np.full((2000, 3000, 3), 77, np.uint8), 256) == 77).all()


def test_the_working_image_is_256_pixels_or_smaller() -> None:
    assert working_image(noise(600, 900)).shape == (256, 384, 3)
    assert working_image(noise(100, 50)).shape == (100, 50, 3)


@pytest.mark.parametrize(("shape", "corner"), [((4, 4), (0, 0)), ((5, 4), (0, 0)), ((6, 4), (1, 0)), ((4, 7), (0, 1)), ((9, 8), (2, 2))])
def test_the_crop_is_the_middle_and_rounds_up_and_left(shape: tuple[int, int], corner: tuple[int, int]) -> None:
    image = noise(*shape)
    crop = centre_crop(image, 4)
    assert crop.flags.c_contiguous
    np.testing.assert_array_equal(crop, image[corner[0] : corner[0] + 4, corner[1] : corner[1] + 4])


def test_a_crop_larger_than_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="an image of 5 x 3 pixels has no square of 4"):
        centre_crop(noise(3, 5), 4)


def test_jpeg_is_444_without_metadata_and_the_same_each_time() -> None:
    image = noise(64, 48)
    body = encode_jpeg(image, 95)
    assert body == encode_jpeg(image.copy(), 95)
    opened = Image.open(io.BytesIO(body))
    assert [component[1:3] for component in opened.layer] == [(1, 1), (1, 1), (1, 1)]
    assert "exif" not in opened.info
    decoded = decode(body, max_bytes=10**6, max_pixels=10**6, timeout_s=9.0).rgb
    assert np.abs(decoded.astype(int) - image).mean() < 4
    assert len(encode_jpeg(image, 50)) < len(body)


def test_jpeg_of_an_array_that_is_a_view() -> None:
    image = noise(64, 48)
    assert encode_jpeg(image[:, ::-1], 90) == encode_jpeg(image[:, ::-1].copy(), 90)
