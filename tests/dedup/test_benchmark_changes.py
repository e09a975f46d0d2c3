"""The seeded changes and the cut that is taken from them."""

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from dedup.benchmark import ITEMS
from dedup.benchmark_cut import Seen, choose_cut, mild_similarities, nearest_others, recall_table
from dedup.benchmark_hashes import MIN_TEXTURE, search_of
from dedup.changes import CHANGES, HARD, MILD, change
from dedup.hashes import hamming64, phash64


def photo(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 255, (7, 9, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((360, 280), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_is_decided_by_key_and_seed_alone(kind: str) -> None:
    rgb = photo(1)
    before = rgb.copy()
    first = change(rgb, kind, key="a")
    assert (first.dtype, first.ndim, first.shape[2]) == (np.uint8, 3, 3)
    assert np.array_equal(rgb, before)
    assert np.array_equal(first, change(rgb, kind, key="a"))
    assert first.shape != rgb.shape or not np.array_equal(first, rgb)
    if kind not in ("greyed", "flipped"):
        others = [change(rgb, kind, key=key, seed=seed) for key, seed in (("b", 0), ("c", 0), ("a", 1), ("a", 2))]
        assert any(other.shape != first.shape or not np.array_equal(other, first) for other in others)


def test_changes_do_what_they_are_called() -> None:
    rgb = photo(2)
    assert change(rgb, "cropped to 60 %", key="k").shape == (168, 216, 3)
    assert change(rgb, "cropped to 95 %", key="k").shape == (266, 342, 3)
    assert np.array_equal(change(rgb, "flipped", key="k"), rgb[:, ::-1])
    grey = change(rgb, "greyed", key="k")
    assert (grey[..., 0] == grey[..., 1]).all()
    assert (grey[..., 0] == grey[..., 2]).all()
    padded = change(rgb, "padded", key="k")
    assert (padded.shape[0] > 280, padded.shape[1] > 360) != (False, False)
    shapes = {change(rgb, "resized", key=str(n)).shape for n in range(20)}
    assert all(127 <= min(shape[:2]) <= 513 for shape in shapes)
    assert len(shapes) > 10
    assert any(change(rgb, "rotated", key=str(n)).shape == (360, 280, 3) for n in range(20))
    captioned = change(rgb, "captioned", key="k")
    different = (captioned != rgb).any((1, 2))
    assert 0.05 * 280 < different.sum() < 0.12 * 280


def test_photometric_changes_leave_the_hash_near() -> None:
    for kind in ("recompressed", "resized", "greyed"):
        near = [int(hamming64(np.uint64(phash64(photo(n))), np.uint64(phash64(change(photo(n), kind, key=str(n)))))) for n in range(10)]
        assert max(near) <= 6, kind


def test_mild_and_hard_are_all_and_no_kind_is_both() -> None:
    assert {**MILD, **HARD} == CHANGES
    assert not MILD.keys() & HARD.keys()


def test_the_cut_finds_99_of_100() -> None:
    similarities = np.arange(1000, dtype=np.float32) / 1000 + np.float32(0.0005)
    cut, source = choose_cut("anything", 512, similarities[::-1])
    assert (cut, source) == (0.01, "calibrated: finds 99% of 1,000 mild changes")
    assert (similarities >= np.float32(cut)).mean() >= 0.99
    cut, _ = choose_cut("anything", 512, np.full(7, 0.87654, np.float32))
    assert cut == 0.876


@pytest.mark.parametrize(
    ("name", "width", "published"),
    [
        ("sscd-sscd_disc_mixup.torchscript", 512, True),
        ("sscd-sscd_disc_mixup.torchvision", 512, True),
        ("sscd-sscd_disc_mixup.torchscript", 64, False),  # another network under that name
        ("sscd-sscd_disc_large.torchscript", 1024, False),
        ("sscd-sscd_imagenet_mixup.torchscript", 512, False),
        ("sscd-mine", 512, False),
    ],
)
def test_a_published_cut_is_of_one_network(name: str, width: int, published: bool) -> None:
    cut, source = choose_cut(name, width, np.full(100, 0.5, np.float32))
    assert (cut, source.partition(":")[0]) == ((0.45, "published") if published else (0.5, "calibrated"))


def test_the_nearest_other_item_is_no_copy_of_the_file() -> None:
    rows = np.array([[1, 0], [1, 0], [0.6, 0.8], [0, 1]], np.float16)
    assert nearest_others(rows, ["a", "a", "b", "c"], np.array([0, 2, 3])).tolist() == pytest.approx([0.6, 0.8, 0.8], abs=1e-3)
    assert nearest_others(rows[:2], ["a", "a"], np.array([0])).tolist() == [-1]


def test_what_a_change_leaves_flat_is_found_by_nothing_and_moves_no_cut() -> None:
    seen = Seen(
        phash_N=np.zeros(3, np.uint64), pdq_N32=np.zeros((3, 32), np.uint8), texture_N=np.array([90, MIN_TEXTURE, 49]), vectors_ND=None
    )
    changed = dict.fromkeys(CHANGES, seen)
    similarities = dict.fromkeys(CHANGES, np.array([0.9, 0.8, 0.7], np.float32))
    assert np.unique(mild_similarities(changed, similarities)).tolist() == pytest.approx([0.8, 0.9])
    [item] = [{"item_id": "0" * 64, "item": "", "phash": 0, "pdq": bytes(32), "texture": 90}]
    hashes = search_of(pa.Table.from_pylist([item], schema=ITEMS))
    for row in recall_table(changed, hashes, similarities, 0.6):
        assert (row["images"], row["hash"], row["embedding"], row["either"], row["neither"]) == (3, 2, 2, 2, 1)
    with pytest.raises(ValueError, match="all its images are flat"):
        choose_cut("anything", 512, np.empty(0, np.float32))
