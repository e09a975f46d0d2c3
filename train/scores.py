"""Scores of generated sets against one real set: the numbers of evaluation.json, from feature arrays alone."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from train.features import FeatureSpace
from train.kshot import Split
from train.metrics import Balls, Gaussian, Nearest, alignment, balls, diversity, frechet_distance, gaussian, nearest_training


class RealSide:
    """Real images of one feature space: what every generated set is compared with, computed once."""

    def __init__(self, real_ND: np.ndarray, *, k: int) -> None:
        """Takes the features, and how many neighbours a ball reaches."""
        self._vector_ND, self._k = real_ND, k
        self._gaussian: Gaussian = gaussian(real_ND)
        self._balls: Balls = balls(real_ND, k=k)

    def score(self, generated_MD: np.ndarray) -> dict[str, float]:
        """Returns Fréchet distance, precision and recall of a generated set."""
        return {
            "frechet": frechet_distance(self._gaussian, gaussian(generated_MD)),
            "precision": self._balls.share_inside(generated_MD),
            "recall": balls(generated_MD, k=self._k).share_inside(self._vector_ND),
        }


def score_space(space: FeatureSpace, real: np.ndarray, split: Split, generated: Mapping[str, np.ndarray], *, k: int) -> dict[str, Any]:
    """Returns all scores of one feature space.

    Args:
      space: names the distance.
      real: features of all real images, float32 (all, D).
      split: which of them are compared.
      generated: features of each generated set by its name, float32 (N, D).
      k: neighbours that a ball reaches.

    Returns:
      label, digest, images (N), `floor` (real against as many other real images: what a perfect model would get; null where there are
      too few), and `rows` by name. Where the floor has n < N images, rows hold `matched`, the same scores from n images.
    """
    side = RealSide(real[split.real], k=k)
    rows: dict[str, Any] = {name: side.score(vectors) for name, vectors in generated.items()}
    count, floor = len(split.floor_a), None
    if count > k:
        half = side if count == len(split.real) else RealSide(real[split.floor_a], k=k)
        floor = {"images": count, **half.score(real[split.floor_b])}
        if half is not side:
            rows = {name: row | {"matched": half.score(generated[name][split.matched])} for name, row in rows.items()}
    return {"label": space.label, "digest": dict(space.digest), "images": len(split.real), "floor": floor, "rows": rows}


def floor_warning(split: Split, *, k: int) -> str:
    """Returns a sentence where the floor stands on fewer images than the scores, else ""."""
    wanted, count = len(split.real), len(split.floor_a)
    if count == wanted:
        return ""
    if count <= k:
        return f"no real-against-real floor: it takes more than {2 * k} real images"
    return (
        f"the real-against-real floor has {count} images a side where the scores have {wanted}, as there are less than {2 * wanted} real "
        f"images (or too few of some class); compare it with the scores of {count} images"
    )


def cosines(generated: Mapping[str, np.ndarray], condition_CD: np.ndarray, *, samples: int) -> dict[str, Any]:
    """Returns diversity (None for one sample a condition) and alignment of each generated set.

    Args:
      generated: unit vectors by name, (C * samples, D), the samples of a condition one after the other.
      condition_CD: unit vectors of the conditions.
      samples: of a condition.
    """
    rows = {}
    for name, vectors in generated.items():
        vector_CSD = vectors.reshape(len(condition_CD), samples, -1)
        rows[name] = {
            "diversity": diversity(vector_CSD) if samples > 1 else None,
            "alignment": alignment(vector_CSD, condition_CD),
        }
    return rows


def memorisation(generated: Mapping[str, np.ndarray], real: np.ndarray, training: np.ndarray) -> tuple[dict[str, Any], dict[str, Nearest]]:
    """Returns cosines to the nearest training image, of generated sets and of the real images, and which image that is, by set."""
    found = {name: nearest_training(vectors, training) for name, vectors in generated.items()}
    scores = {
        "training_images": len(training),
        "real": nearest_training(real, training).as_json(),
        "rows": {name: nearest.as_json() for name, nearest in found.items()},
    }
    return scores, found
