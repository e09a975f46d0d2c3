"""Metrics against brute force in float64, and against prdc, torch-fidelity and scipy where their definitions agree."""

import numpy as np
import prdc
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_prc import calculate_precision_recall_part

from train import neighbours
from train.metrics import (
    Gaussian,
    alignment,
    balls,
    copier_warning,
    diversity,
    frechet_distance,
    gaussian,
    nearest_training,
)

SMALL = arrays(np.float64, st.tuples(st.integers(5, 12), st.just(3)), elements=st.sampled_from([-1.0, 0.0, 0.5, 1.0]))


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=seed))


def clouds(seed: int, real: int = 120, generated: int = 100, width: int = 16) -> tuple[np.ndarray, np.ndarray]:
    rng = generator(seed)
    mix = rng.normal(size=(width, width))
    return rng.normal(size=(real, width)) @ mix, 1.1 * rng.normal(size=(generated, width)) @ mix + 0.3


def slow_squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.array([[np.square(x - y).sum() for y in b] for x in a])


def slow_radii(vectors: np.ndarray, k: int) -> np.ndarray:
    distances = slow_squared(vectors, vectors)
    return np.array([sorted(np.delete(row, i))[k - 1] for i, row in enumerate(distances)])


def slow_share(query: np.ndarray, centres: np.ndarray, k: int) -> float:
    return float((slow_squared(query, centres) <= slow_radii(centres, k)).any(axis=1).mean())


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_radii_equal_brute_force_to_the_bit(k: int) -> None:
    real, _ = clouds(1)
    real[10:15] = real[3]  # copies have others at distance 0
    assert (neighbours.squared_radii(real, k=k) == slow_radii(real, k)).all()


@settings(deadline=None, max_examples=60)
@given(real=SMALL, generated=SMALL, k=st.integers(1, 4))
def test_ties_are_decided_as_brute_force_decides_them(real: np.ndarray, generated: np.ndarray, k: int) -> None:
    assert (neighbours.squared_radii(real, k=k) == slow_radii(real, k)).all()
    assert balls(real, k=k).share_inside(generated) == slow_share(generated, real, k)
    assert balls(generated, k=k).share_inside(real) == slow_share(real, generated, k)


def test_small_blocks_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    real, generated = clouds(2)
    whole = neighbours.squared_radii(real, k=3), neighbours.inside_any(generated, real, slow_radii(real, 3))
    monkeypatch.setattr(neighbours, "_BLOCK_ENTRIES", 700)
    monkeypatch.setattr(neighbours, "_PAIR_ENTRIES", 50)
    parts = neighbours.squared_radii(real, k=3), neighbours.inside_any(generated, real, slow_radii(real, 3))
    assert [(a == b).all() for a, b in zip(whole, parts, strict=True)] == [True, True]


def test_far_from_the_origin_where_products_lose_every_digit() -> None:
    real, generated = (cloud + 1e7 for cloud in clouds(3, 60, 50))
    assert (neighbours.squared_radii(real, k=3) == slow_radii(real, 3)).all()
    assert balls(real, k=3).share_inside(generated) == slow_share(generated, real, 3)


@pytest.mark.parametrize("seed", [4, 5, 6])
def test_precision_and_recall_equal_brute_force_prdc_and_torch_fidelity(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    real, generated = clouds(seed)
    precision, recall = balls(real, k=3).share_inside(generated), balls(generated, k=3).share_inside(real)
    assert (precision, recall) == (slow_share(generated, real, 3), slow_share(real, generated, 3))
    assert 0 < precision < 1
    assert 0 < recall < 1
    theirs = prdc.compute_prdc(real, generated, nearest_k=3)  # `<`, which differs on ties only
    assert (theirs["precision"], theirs["recall"]) == pytest.approx((precision, recall), abs=1e-12)
    fidelity = calculate_precision_recall_part(torch.from_numpy(generated), torch.from_numpy(real), 3)
    assert fidelity == pytest.approx((precision, recall), abs=1e-7)  # means taken in float32
    capsys.readouterr()


def test_a_pure_copier_has_a_one_shot_recall_of_at_most_k_over_n_and_a_full_recall_of_1() -> None:
    real = generator(7).normal(size=(200, 64)) * 3
    conditions = real[::10]  # K = 20 of N = 200, 10 samples each
    one_shot = balls(np.repeat(conditions, 10, axis=0), k=3)
    assert one_shot.share_inside(real) == 20 / 200
    assert balls(real.copy(), k=3).share_inside(real) == 1.0
    few = np.repeat(real[::2], 2, axis=0)  # N / K = 2 <= k: the copies' balls reach to other conditions
    assert balls(few, k=3).share_inside(real) > 100 / 200
    assert copier_warning(real=200, conditions=20, k=3) == ""
    assert copier_warning(real=200, conditions=50, k=3) == ""
    assert copier_warning(real=200, conditions=100, k=3).startswith("N / K = 2 samples a condition with k = 3 neighbours: ")
    assert copier_warning(real=150, conditions=50, k=3).startswith("N / K = 3 samples")


def test_copies_keep_their_bound_where_float32_products_would_break_it() -> None:
    rng = generator(8)
    real = rng.normal(size=(100, 2048)).astype(np.float32) * 0.5
    copies = np.repeat(real[::10], 10, axis=0)
    assert balls(copies, k=3).share_inside(real) == 10 / 100
    assert balls(real, k=3).share_inside(copies) == 1.0


@pytest.mark.parametrize(("images", "width"), [(400, 24), (30, 64)])  # 30 images leave 35 of 64 dimensions empty
def test_the_frechet_distance_equals_sqrtm_and_torch_fidelity(images: int, width: int) -> None:
    real, generated = clouds(9, images, images, width)
    ours = frechet_distance(gaussian(real), gaussian(generated))
    a, b = np.cov(real, rowvar=False), np.cov(generated, rowvar=False)
    difference = real.mean(axis=0) - generated.mean(axis=0)
    root = scipy.linalg.sqrtm(scipy.linalg.sqrtm(a).real @ b @ scipy.linalg.sqrtm(a).real).real
    assert ours == pytest.approx(difference @ difference + np.trace(a + b - 2 * root), rel=1e-5)
    theirs = [fid_features_to_statistics(torch.from_numpy(features)) for features in (real, generated)]
    assert ours == pytest.approx(fid_statistics_to_metric(*theirs, verbose=False)["frechet_inception_distance"], rel=1e-6)


def test_the_frechet_distance_of_known_gaussians() -> None:
    a = Gaussian(mean_D=np.array([0.0, 1.0]), covariance_DD=np.diag([4.0, 9.0]))
    b = Gaussian(mean_D=np.array([2.0, 1.0]), covariance_DD=np.diag([1.0, 16.0]))
    assert frechet_distance(a, b) == pytest.approx(4 + (2 - 1) ** 2 + (3 - 4) ** 2, abs=1e-12)
    point = Gaussian(mean_D=np.zeros(2), covariance_DD=np.zeros((2, 2)))
    assert frechet_distance(point, b) == frechet_distance(b, point) == pytest.approx(5 + 17, abs=1e-12)


@pytest.mark.parametrize(("images", "width"), [(300, 32), (40, 128)])
def test_identical_sets_have_distance_0_precision_1_and_recall_1(images: int, width: int) -> None:
    real, _ = clouds(10, images, 1, width)
    shuffled = real[generator(11).permutation(images)]
    scale = np.trace(gaussian(real).covariance_DD)
    assert frechet_distance(gaussian(real), gaussian(shuffled)) == pytest.approx(0, abs=1e-11 * scale)
    assert balls(real, k=3).share_inside(shuffled) == 1.0


def test_float32_features_are_summed_in_float64() -> None:
    real = (generator(12).normal(size=(500, 8)) + 300).astype(np.float32)
    exact = np.cov(real.astype(np.float64), rowvar=False)
    np.testing.assert_allclose(gaussian(real).covariance_DD, exact, rtol=1e-10, atol=1e-12)


def test_diversity_and_alignment_equal_their_definitions() -> None:
    rng = generator(13)
    samples, conditions = unit(rng.normal(size=(4, 5, 7))), unit(rng.normal(size=(4, 7)))
    pairs = [samples[c, i] @ samples[c, j] for c in range(4) for i in range(5) for j in range(i)]
    assert diversity(samples) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert alignment(samples, conditions) == pytest.approx(
        np.mean([s @ c for c, row in zip(conditions, samples, strict=True) for s in row])
    )
    copies = np.repeat(conditions[:, None], 5, axis=1)
    assert (diversity(copies), alignment(copies, conditions)) == pytest.approx((1.0, 1.0), abs=1e-12)


def test_the_nearest_training_image_is_found() -> None:
    rng = generator(14)
    training, fresh = unit(rng.normal(size=(50, 12))), unit(rng.normal(size=(9, 12)))
    query = np.concatenate([fresh, training[[31, 7]]])
    found = nearest_training(query, training)
    cosines = query @ training.T
    assert found.index_M.tolist() == cosines.argmax(axis=1).tolist()
    assert found.index_M[-2:].tolist() == [31, 7]
    assert found.as_json() == pytest.approx({"median": np.median(cosines.max(axis=1)), "p99": 1.0, "highest": 1.0}, abs=0.01)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: balls(np.zeros((3, 2)), k=3), "3 images have no 3-th nearest other; give fewer neighbours or more images"),
        (lambda: balls(np.full((9, 2), np.nan), k=3), "NaN or infinity"),
        (lambda: gaussian(np.zeros((1, 4))), "at least two vectors"),
        (lambda: gaussian(np.zeros((0, 4))), "at least one"),
    ],
)
def test_features_that_cannot_be_scored_are_refused(call: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call()  # type: ignore[operator]
