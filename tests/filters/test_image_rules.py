"""Each image rule on both sides of its limit, and their order."""

import pytest

from filters import IMAGE_RULES, drop_reason
from filters.measured import Measured
from pagepairs.config import ScanConfig

CONFIG = ScanConfig()


@pytest.mark.parametrize(
    ("width", "height", "texture", "want"),
    [
        (200, 200, 50, ""),
        (199, 200, 50, "too_small"),
        (200, 199, 50, "too_small"),
        (600, 200, 50, ""),
        (200, 600, 50, ""),
        (601, 200, 50, "aspect"),
        (200, 601, 50, "aspect"),
        (400, 300, 49, "low_texture"),
        (400, 300, 100, ""),
        (1000, 10, 0, "too_small"),  # the first rule names the reason
        (1000, 200, 0, "aspect"),
    ],
)
def test_an_image_is_kept_or_dropped_with_the_first_reason(width: int, height: int, texture: int, want: str) -> None:
    assert drop_reason(Measured(width=width, height=height, texture=texture), CONFIG) == want


def test_limits_come_from_the_configuration() -> None:
    image = Measured(width=64, height=640, texture=3)
    assert drop_reason(image, ScanConfig(min_side_px=64, max_aspect=10.0, min_texture=3)) == ""
    assert drop_reason(image, ScanConfig(min_side_px=64, max_aspect=9.99, min_texture=3)) == "aspect"


def test_the_order_is_the_documented_one() -> None:
    assert [rule.__name__ for rule in IMAGE_RULES] == ["shortest_side", "aspect", "texture"]
