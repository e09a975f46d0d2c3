"""A descriptor without weights: where the colours lie and which way the edges run.

It needs no download and no GPU, and tells copies from other images well; of what an image shows it knows nothing. Recipe, version 1:

1. Resize to 64 x 64, each pixel the mean of its box.
2. Colours: brightness without its mean, red-green and yellow-blue, in an 8 x 8 grid of overlapping triangular windows.
3. Edges: the gradient of brightness, spread over 9 orientations, in a 4 x 4 grid of such windows. Each cell is normalised by itself
   and loses its mean over the orientations. The tuning curve is cos^8, whose nine rotations are a complete (steerable) basis: no bin
   has an edge.
4. Each half gets unit norm together with one constant, which only counts where the half is nearly flat; both halves weigh the same.

Pillow shrinks in fixed point, sums are over integers, the rest are single IEEE operations and `math.fsum`: a vector depends neither
on its batch nor on the machine.

Cosine, percentiles on 154 photos of 40 recipe pages:

| pairs | 1 | 10 | 50 | 90 | 99 |
|---|---|---|---|---|---|
| of one page (364) | -0.32 | -0.07 | 0.21 | 0.55 | 0.80 |
| of two pages (11 417) | -0.34 | -0.16 | 0.10 | 0.40 | 0.61 |
| a photo and itself less 4 % on each side | 0.84 | 0.92 | 0.96 | 0.98 | 0.99 |
| a photo and itself less 10 % at the right | 0.82 | 0.89 | 0.94 | 0.97 | 0.99 |
| a photo and itself at half size as JPEG 30 | 0.99 | 1.00 | 1.00 | 1.00 | 1.00 |

Hence the band of 0.3 to 0.9. Above 0.9 lie all copies of the last row, 95 and 85 % of the two cropped ones, and 2 of the 364 pairs of
one page. From 0.3 up lie 38 % of the pairs of one page and 19 % of those of two: a weak sign that two images belong together, which is
why a network should take this encoder's place where one can be had. In the example crawl, views of one scene lie between 0.41 and
0.88, and opposites below 0.15.
"""

import math

import numpy as np
from PIL import Image

from encoders.table import Settings, refuse_torch_settings

PREPROCESSING = "box-64-v1"
SIZE = 64
COLOUR_CELLS = 8
EDGE_CELLS = 4
ORIENTATIONS = 9
WIDTH = (COLOUR_CELLS**2 * 3 + 1) + (EDGE_CELLS**2 * ORIENTATIONS + 1)

# Red-green and yellow-blue of the mean photo, in grey levels: without it warm light alone would make two photos alike.
_MEAN_RED_GREEN, _MEAN_YELLOW_BLUE = 20.0, 30.0
# The constants of step 4: root mean square contrast of the colours in grey levels, and of the normalised edges, that counts as flat.
_FLAT_COLOURS, _FLAT_EDGES = 2.0, 0.02
# Mean gradient of a cell, in grey levels over two pixels, below which its orientations fade out.
_FAINT_EDGE = 10.0
# (cos, sin) of 0, 20, ... 160 degrees as integers over _ONE: no machine's own sine is involved.
_ONE = 4096
_DIRECTIONS_92 = np.array(
    [[4096, 0], [3849, 1401], [3138, 2633], [2048, 3547], [711, 4034], [-711, 4034], [-2048, 3547], [-3138, 2633], [-3849, 1401]], np.int64
)
# Gradients are rounded to this part of a grey level, so that their sums are exact.
_STEPS_PER_LEVEL = 16


class Builtin:
    """The encoder `builtin`; the interface is `encoders.Encoder`."""

    name = "builtin"
    batched = False
    width = WIDTH
    input_size = SIZE

    def __init__(self) -> None:
        self.digest = {
            "name": self.name,
            "weights": "",
            "preprocessing": PREPROCESSING,
            "library": "numpy",
            "engine": "numpy",
            "dtype": "float64",
            "input_size": str(SIZE),
        }

    def preprocess(self, rgb_HW3: np.ndarray) -> np.ndarray:
        """Returns uint8 (64, 64, 3); Pillow shrinks with fixed-point arithmetic and without the interpreter's lock."""
        # The gap lets Pillow average whole blocks first: half the time.
        return np.asarray(Image.fromarray(rgb_HW3).resize((SIZE, SIZE), Image.Resampling.BOX, reducing_gap=2.0))

    def embed(self, batch_BHW3: np.ndarray) -> np.ndarray:
        """Returns float32 (B, 338) of unit norm."""
        return np.stack([_describe(image_HW3) for image_HW3 in batch_BHW3])

    def tokens(self, batch_BHW3: np.ndarray) -> np.ndarray:
        """Returns float32 (B, 64, 12): each colour cell's three values, then the nine orientations of the edge cell around it."""
        return np.stack([_cells(image_HW3) for image_HW3 in batch_BHW3])


def load(spec: str, settings: Settings) -> Builtin:
    """Returns the encoder; it has no weights and runs on the CPU in the caller's thread."""
    if settings.weights:
        raise ValueError(f"--encoder-weights {settings.weights}: builtin has no weights; leave the flag out")
    refuse_torch_settings(spec, settings)
    return Builtin()


def colour_cells(image_HW3: np.ndarray) -> np.ndarray:
    """Returns brightness, red-green and yellow-blue of each cell in grey levels, centred: float64 (8, 8, 3)."""
    red, green, blue = np.moveaxis(image_HW3.astype(np.int64), -1, 0)
    sums_HWC = np.stack([red + green + blue, red - green, red + green - 2 * blue], axis=-1)
    cells = _pool(sums_HWC, COLOUR_CELLS) / (np.array([3.0, 1.0, 2.0]) * _pool_weight(COLOUR_CELLS))
    mean = math.fsum(cells[..., 0].ravel()) / COLOUR_CELLS**2
    centred: np.ndarray = cells - np.array([mean, _MEAN_RED_GREEN, _MEAN_YELLOW_BLUE])
    return centred


def edge_cells(image_HW3: np.ndarray) -> np.ndarray:
    """Returns how the edges of each cell lie on nine orientations, locally normalised, without their mean: float64 (4, 4, 9)."""
    brightness = np.pad(image_HW3.sum(-1, dtype=np.int64), 1, mode="edge")  # three times a grey level
    right_HW = brightness[1:-1, 2:] - brightness[1:-1, :-2]
    down_HW = brightness[2:, 1:-1] - brightness[:-2, 1:-1]
    square_HW = right_HW**2 + down_HW**2
    along_HW9 = right_HW[..., None] * _DIRECTIONS_92[:, 0] + down_HW[..., None] * _DIRECTIONS_92[:, 1]
    cos2_HW9 = along_HW9**2 / (np.maximum(square_HW, 1) * _ONE**2)[..., None]
    cos4_HW9 = cos2_HW9 * cos2_HW9
    strength_HW = np.sqrt(square_HW) * (_STEPS_PER_LEVEL / 3)
    steps_HW9 = np.rint(cos4_HW9 * cos4_HW9 * strength_HW[..., None]).astype(np.int64)
    cells = _pool(steps_HW9, EDGE_CELLS) / (_STEPS_PER_LEVEL * _pool_weight(EDGE_CELLS))
    normalised = [_without_mean(cell / math.sqrt(math.fsum(cell * cell) + _FAINT_EDGE**2)) for cell in cells.reshape(-1, ORIENTATIONS)]
    return np.stack(normalised).reshape(cells.shape)


def _pool(map_HWC: np.ndarray, cells: int) -> np.ndarray:
    """Returns the sums of an int64 map under overlapping triangular windows, two cells wide: int64 (cells, cells, C)."""
    step = SIZE // cells
    rising = np.arange(1, step + 1)
    window = np.concatenate([rising, rising[::-1]])
    padded = np.pad(map_HWC, ((step // 2, step // 2), (step // 2, step // 2), (0, 0)), mode="edge")
    rows = np.stack([np.tensordot(window, padded[i * step : (i + 2) * step], (0, 0)) for i in range(cells)])
    return np.stack([np.tensordot(window, rows[:, i * step : (i + 2) * step], (0, 1)) for i in range(cells)], axis=1)


def _without_mean(values: np.ndarray) -> np.ndarray:
    mean = math.fsum(values) / len(values)
    return values - mean


def _pool_weight(cells: int) -> int:
    """Returns the sum of a window of `_pool`."""
    step = SIZE // cells
    return (step * (step + 1)) ** 2


def _half(values: np.ndarray, flat: float) -> np.ndarray:
    """Returns the values and the constant of step 4, together of norm sqrt(1/2)."""
    half = np.append(values.ravel(), flat * math.sqrt(values.size))
    return half / math.sqrt(2 * math.fsum(half * half))


def _describe(image_HW3: np.ndarray) -> np.ndarray:
    halves = [_half(colour_cells(image_HW3), _FLAT_COLOURS), _half(edge_cells(image_HW3), _FLAT_EDGES)]
    return np.concatenate(halves).astype(np.float32)


def _cells(image_HW3: np.ndarray) -> np.ndarray:
    edges = edge_cells(image_HW3).repeat(COLOUR_CELLS // EDGE_CELLS, axis=0).repeat(COLOUR_CELLS // EDGE_CELLS, axis=1)
    return np.concatenate([colour_cells(image_HW3), edges], axis=-1).reshape(COLOUR_CELLS**2, -1).astype(np.float32)
