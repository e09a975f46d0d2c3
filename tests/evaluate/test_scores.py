"""Scores of sets: which images are compared, the floor, and what is said where numbers cannot be compared."""

import numpy as np
import pytest

from train.features import FeatureSpace
from train.kshot import split_classes, split_folders
from train.metrics import balls, frechet_distance, gaussian
from train.scores import cosines, floor_warning, memorisation, score_space

SPACE = FeatureSpace(label="FD(none)", digest={"name": "none"}, width=8, preprocess=lambda image: image, embed=lambda batch: batch)


def vectors(seed: int, count: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=seed)).normal(size=(count, 8)).astype(np.float32)


def fd(a: np.ndarray, b: np.ndarray) -> float:
    return frechet_distance(gaussian(a), gaussian(b))


def test_classes_are_split_into_real_conditions_and_a_floor_of_the_same_number() -> None:
    split = split_classes([8, 9], shots=1, samples=4)
    assert split.real.tolist() == [0, 1, 2, 3, 8, 9, 10, 11]
    assert split.conditions.tolist() == [0, 8]
    assert split.floor_a.tolist() == split.real.tolist()
    assert split.floor_b.tolist() == [4, 5, 6, 7, 12, 13, 14, 15]
    assert split.matched.tolist() == list(range(8))
    assert floor_warning(split, k=3) == ""


def test_two_shots_make_twice_the_real_images() -> None:
    split = split_classes([12, 12], shots=2, samples=3)
    assert split.real.tolist() == [*range(6), *range(12, 18)]
    assert split.conditions.tolist() == [0, 1, 12, 13]


def test_classes_without_twice_the_images_give_a_smaller_floor_and_it_is_said() -> None:
    split = split_classes([4, 5, 8], shots=1, samples=4)
    assert split.real.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12]
    assert split.floor_a.tolist() == [0, 1, 4, 5, 9, 10, 11, 12]
    assert split.floor_b.tolist() == [2, 3, 6, 7, 13, 14, 15, 16]
    assert split.matched.tolist() == [0, 1, 4, 5, 8, 9, 10, 11]
    assert floor_warning(split, k=3).startswith("the real-against-real floor has 8 images a side where the scores have 12, as ")
    assert floor_warning(split_classes([4, 4], shots=1, samples=4), k=4).startswith("no real-against-real floor: ")


@pytest.mark.parametrize(("real", "generated", "count", "half"), [(50, 20, 20, 20), (30, 20, 20, 15), (20, 30, 20, 10)])
def test_folders_are_compared_with_equal_numbers(real: int, generated: int, count: int, half: int) -> None:
    split = split_folders(real, generated)
    assert split.real.tolist() == list(range(count))
    assert split.floor_a.tolist() == split.matched.tolist() == list(range(half))
    assert split.floor_b.tolist() == list(range(half, 2 * half))


def test_scores_are_those_of_the_rows() -> None:
    real, generated = vectors(1, 40), {"a": vectors(2, 20), "b": vectors(3, 20)}
    split = split_folders(40, 20)
    scores = score_space(SPACE, real, split, generated, k=3)
    assert (scores["label"], scores["digest"], scores["images"]) == ("FD(none)", {"name": "none"}, 20)
    assert scores["floor"] == {
        "images": 20,
        "frechet": fd(real[:20], real[20:]),
        "precision": balls(real[:20], k=3).share_inside(real[20:]),
        "recall": balls(real[20:], k=3).share_inside(real[:20]),
    }
    assert scores["rows"]["b"] == {
        "frechet": fd(real[:20], generated["b"]),
        "precision": balls(real[:20], k=3).share_inside(generated["b"]),
        "recall": balls(generated["b"], k=3).share_inside(real[:20]),
    }
    assert scores["rows"].keys() == {"a", "b"}


def test_a_smaller_floor_brings_scores_of_as_many_images() -> None:
    real, generated = vectors(4, 30), {"a": vectors(5, 20)}
    scores = score_space(SPACE, real, split_folders(30, 20), generated, k=3)
    assert scores["floor"]["images"] == 15
    assert scores["floor"]["frechet"] == fd(real[:15], real[15:])
    assert scores["rows"]["a"]["frechet"] == fd(real[:20], generated["a"])
    assert scores["rows"]["a"]["matched"]["frechet"] == fd(real[:15], generated["a"][:15])


def test_samples_are_grouped_by_their_condition() -> None:
    conditions = np.eye(8, dtype=np.float32)[:3]
    copies = np.repeat(conditions, 4, axis=0)
    mixed = np.tile(np.eye(8, dtype=np.float32)[:4], (3, 1))
    found = cosines({"copies": copies, "mixed": mixed}, conditions, samples=4)
    assert found == {"copies": {"diversity": 1.0, "alignment": 1.0}, "mixed": {"diversity": 0.0, "alignment": 0.25}}
    assert cosines({"one": conditions}, conditions, samples=1) == {"one": {"diversity": None, "alignment": 1.0}}


def test_memorised_images_stand_out_from_real_ones() -> None:
    basis = np.eye(8, dtype=np.float32)
    scores, found = memorisation({"copied": basis[[2, 5]]}, basis[[7]], basis[:6])
    assert scores == {
        "training_images": 6,
        "real": {"median": 0.0, "p99": 0.0, "highest": 0.0},
        "rows": {"copied": {"median": 1.0, "p99": 1.0, "highest": 1.0}},
    }
    assert found["copied"].index_M.tolist() == [2, 5]
