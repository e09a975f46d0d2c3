"""Grids of samples: a row a condition, the condition on the left."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

GAP_PX, MARGIN_PX = 2, 12
_PAPER = 251


def draw_grid(conditions: Sequence[np.ndarray], samples: Sequence[Sequence[np.ndarray]], *, side_px: int) -> np.ndarray:
    """Returns the grid, uint8 (height, width, 3).

    Args:
      conditions: uint8 (H, W, 3) of any shape; their middle square is shown.
      samples: those of each condition, uint8 (H, W, 3).
      side_px: of a cell.
    """
    columns = max(map(len, samples))
    width = 3 * MARGIN_PX + side_px + columns * (side_px + GAP_PX) - GAP_PX
    height = 2 * MARGIN_PX + len(conditions) * (side_px + GAP_PX) - GAP_PX
    grid_HW3 = np.full((height, width, 3), _PAPER, np.uint8)
    for row, (condition, drawn) in enumerate(zip(conditions, samples, strict=True)):
        top = MARGIN_PX + row * (side_px + GAP_PX)
        grid_HW3[top : top + side_px, MARGIN_PX : MARGIN_PX + side_px] = cell(condition, side_px)
        for column, image in enumerate(drawn):
            left = 2 * MARGIN_PX + side_px + column * (side_px + GAP_PX)
            grid_HW3[top : top + side_px, left : left + side_px] = cell(image, side_px)
    return grid_HW3


def cell(rgb_HW3: np.ndarray, side_px: int) -> np.ndarray:
    """Returns the middle square of an image at `side_px`; one of that size as it is, and small ones are enlarged without smoothing."""
    height, width = rgb_HW3.shape[:2]
    side = min(height, width)
    if (height, width) == (side_px, side_px):
        return rgb_HW3
    left, top = (width - side) / 2, (height - side) / 2
    how = Image.Resampling.NEAREST if side < side_px else Image.Resampling.BICUBIC
    shown = Image.fromarray(rgb_HW3).resize((side_px, side_px), how, box=(left, top, left + side, top + side))
    return np.asarray(shown)
