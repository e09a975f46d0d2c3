"""Scores of generated images from feature arrays, in float64: Fréchet distance, precision, recall, diversity, alignment, memorisation.

Definitions: Heusel et al. 2017 (Fréchet distance); Kynkäänniemi et al. 2019 (precision and recall: balls that reach to the k-th nearest of
their own set, `<=`); Semantica, arXiv 2405.14857 (K-shot recall, cosines). How K-shot recall is to be read stands in docs/evaluation.md.

Axes: N = real, M = generated vectors, D = width, C = conditions, S = samples of one condition.
"""

from dataclasses import dataclass

import numpy as np

from train.neighbours import inside_any, nearest_by_cosine, squared_radii


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Gaussian:
    """Mean and covariance of a set of vectors."""

    mean_D: np.ndarray
    covariance_DD: np.ndarray
    """With N - 1 in the denominator."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Balls:
    """A ball around each vector of a set, up to its k-th nearest other."""

    centre_ND: np.ndarray
    squared_radius_N: np.ndarray

    def share_inside(self, vector_MD: np.ndarray) -> float:
        """Returns the share of vectors that lie inside at least one ball."""
        return float(inside_any(_checked(vector_MD), self.centre_ND, self.squared_radius_N).mean())


def _checked(vector_ND: np.ndarray) -> np.ndarray:
    vector_ND = np.ascontiguousarray(vector_ND, np.float64)
    if vector_ND.ndim != 2 or not vector_ND.size:
        raise ValueError(f"features of shape {vector_ND.shape}: give one row a vector, at least one")
    if not np.isfinite(vector_ND).all():
        raise ValueError("features hold NaN or infinity: the feature network or its images are damaged")
    return vector_ND


def gaussian(vector_ND: np.ndarray) -> Gaussian:
    """Returns mean and covariance.

    Raises:
      ValueError: for fewer than two vectors, or numbers that are not finite.
    """
    vector_ND = _checked(vector_ND)
    if len(vector_ND) < 2:
        raise ValueError("a covariance takes at least two vectors")
    mean_D = vector_ND.mean(axis=0)
    centred_ND = vector_ND - mean_D
    return Gaussian(mean_D=mean_D, covariance_DD=centred_ND.T @ centred_ND / (len(vector_ND) - 1))


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Returns |mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)), never below 0.

    The trace of the square root is the sum of the square roots of the eigenvalues of W^T B W with A = W W^T, which is symmetric. W has
    a column for every eigenvalue of A above rounding: the others, fewer images than dimensions leave many, would add their noise's root.
    """
    value_D, vector_DD = np.linalg.eigh(a.covariance_DD)
    held_D = value_D > len(value_D) * np.finfo(np.float64).eps * value_D[-1]
    root_DR = vector_DD[:, held_D] * np.sqrt(value_D[held_D])
    squared_R = np.linalg.eigvalsh(root_DR.T @ b.covariance_DD @ root_DR)
    trace_of_root = np.sqrt(squared_R.clip(min=0)).sum()
    difference_D = a.mean_D - b.mean_D
    distance = difference_D @ difference_D + np.trace(a.covariance_DD) + np.trace(b.covariance_DD) - 2 * trace_of_root
    return max(0.0, float(distance))


def balls(vector_ND: np.ndarray, *, k: int) -> Balls:
    """Returns the balls of a set; precision asks the real ones about generated vectors, recall the generated ones about real vectors.

    Raises:
      ValueError: if a vector has fewer than k others, or a number is not finite.
    """
    vector_ND = _checked(vector_ND)
    if not 1 <= k < len(vector_ND):
        raise ValueError(f"--neighbours {k}: {len(vector_ND)} images have no {k}-th nearest other; give fewer neighbours or more images")
    return Balls(centre_ND=vector_ND, squared_radius_N=squared_radii(vector_ND, k=k))


def diversity(vector_CSD: np.ndarray) -> float:
    """Returns the mean pairwise cosine of the samples of a condition, averaged over conditions: 1 is the same image again and again.

    Args:
      vector_CSD: of unit length along D; S >= 2.
    """
    vector_CSD = vector_CSD.astype(np.float64)
    samples = vector_CSD.shape[1]
    sum_CD = vector_CSD.sum(axis=1)
    own_C = np.einsum("csd,csd->c", vector_CSD, vector_CSD)
    return float(((np.einsum("cd,cd->c", sum_CD, sum_CD) - own_C) / (samples * (samples - 1))).mean())


def alignment(vector_CSD: np.ndarray, condition_CD: np.ndarray) -> float:
    """Returns the mean cosine of samples to their condition; all vectors of unit length."""
    return float(np.einsum("csd,cd->cs", vector_CSD.astype(np.float64), condition_CD.astype(np.float64)).mean())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Nearest:
    """How near a set comes to training images: high cosines that real images do not reach are memorised."""

    index_M: np.ndarray
    """Row of the nearest training image, the lowest of a tie."""
    cosine_M: np.ndarray

    def as_json(self) -> dict[str, float]:
        """Returns median, 99th percentile and highest cosine."""
        median, high = np.quantile(self.cosine_M, [0.5, 0.99])
        return {"median": float(median), "p99": float(high), "highest": float(self.cosine_M.max())}


def nearest_training(vector_MD: np.ndarray, training_ND: np.ndarray) -> Nearest:
    """Returns each vector's nearest training image by cosine; all vectors of unit length."""
    index_M, cosine_M = nearest_by_cosine(_checked(vector_MD), _checked(training_ND))
    return Nearest(index_M=index_M, cosine_M=cosine_M)


def copier_warning(*, real: int, conditions: int, k: int) -> str:
    """Returns a sentence where recall cannot tell a copier from a model (N / K <= k), else ""."""
    if real > k * conditions:
        return ""
    return (
        f"N / K = {real / conditions:g} samples a condition with k = {k} neighbours: "
        f"a model that only copies its conditions can have full recall too; take more than {k} samples a condition"
    )
