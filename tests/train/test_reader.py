"""Samples: the same whatever the format, threads and process; damaged pairs are skipped, named, and stop the run above 1 %."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_pairs import make_classes, make_shards, picture
from PIL import Image

from encoders import load_encoder
from pagepairs.files import read_json, write_json
from pagepairs.records import SCHEMA_VERSION
from train.condition import Conditioner
from train.groups import DataError, Groups, open_classes, open_shards
from train.reader import Reader, ReaderConfig, check_sizes
from train.samples import Batch, augmented, fit, pixels_of, random_inputs, two_images

SETTINGS = ReaderConfig(
    image_px=16, micro_batch=4, seed=5, same_image=False, condition_dropout=0.25, augment="none", window_groups=2, threads=2
)


def conditioner() -> Conditioner:
    return Conditioner(load_encoder("builtin"), "cross_attention")


def read(groups: Groups, numbers: range, warn: list[str] | None = None, **changes: Any) -> list[Batch]:
    reader = Reader(groups, conditioner(), dataclasses.replace(SETTINGS, **changes))
    batches = []
    for batch in reader.batches(iter(numbers)):
        batches.append(batch)
        if warn is not None:
            warn += reader.new_warnings()
    return batches


def assert_same(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert (one.number, one.keys) == (other.number, other.keys)
        for name in ("target_BHW3", "condition_BS", "eps_B3HW", "t_B", "null_B"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name


def test_a_batch_holds_the_pairs_that_its_keys_name(tmp_path: Path) -> None:
    names = {}

    def note(row: dict[str, object], i: int) -> None:
        names[row["pair_id"]] = i

    groups = open_shards(str(make_shards(tmp_path / "shards", 10, shards=2, change=note)), "pairs")
    assert groups.sizes == (5, 5)
    made = conditioner()
    encoder = made.encoder
    seen = []
    for batch in read(groups, range(5)):
        for place, key in enumerate(batch.keys):
            seen.append(key)
            target, condition = (np.asarray(Image.open(io.BytesIO(picture(2 * names[key] + side)))) for side in (1, 0))
            np.testing.assert_array_equal(batch.target_BHW3[place].numpy(), fit(target, 16))
            np.testing.assert_array_equal(batch.condition_BS[place].numpy(), made.of_image(encoder.preprocess(condition)))
    assert sorted(seen) == sorted(2 * list(names))  # five batches of four: two epochs


@pytest.mark.parametrize("mode", ["pairs", "reconstruction"])
def test_every_format_gives_the_same_samples(tmp_path: Path, mode: Any) -> None:
    rows = 300  # more than a row group
    formats = {
        form: open_shards(str(make_shards(tmp_path / form, rows, form, shards=1, size=16)), mode)
        for form in ("parquet", "webdataset", "tfrecord")
    }
    assert {groups.sizes for groups in formats.values()} == {(256, 44)}
    batches = {form: read(groups, range(6), same_image=mode == "reconstruction") for form, groups in formats.items()}
    assert_same(batches["parquet"], batches["webdataset"])
    assert_same(batches["parquet"], batches["tfrecord"])


def test_threads_and_starting_points_change_nothing(pair_shards: Path) -> None:
    groups = open_shards(str(pair_shards), "pairs")
    straight = read(groups, range(12), augment="crop-flip")
    assert_same(read(groups, range(12), threads=1, augment="crop-flip"), straight)
    assert_same(read(groups, range(7, 12), threads=3, augment="crop-flip"), straight[7:])
    assert_same(read(groups, range(1, 12, 2), augment="crop-flip"), straight[1::2])


def test_random_inputs_belong_to_a_sample(pair_shards: Path) -> None:
    batches = read(open_shards(str(pair_shards), "pairs"), range(3))
    for batch in batches:
        for place in range(4):
            eps, t, null = random_inputs(5, 4 * batch.number + place, 16, 0.25)
            assert torch.equal(batch.eps_B3HW[place], torch.from_numpy(eps))
            assert (batch.t_B[place].item(), batch.null_B[place].item()) == (t, null)
    drawn = [random_inputs(5, sample, 1, 0.25) for sample in range(4000)]
    assert abs(np.mean([null for *_, null in drawn]) - 0.25) < 0.03
    assert np.histogram([t for _, t, _ in drawn], 4, (0, 1))[0].min() > 900


def test_in_reconstruction_both_images_are_augmented_alike() -> None:
    body = picture(3, 64)
    for sample in range(8):
        numbers = np.random.Generator(np.random.Philox(key=sample))
        condition, target = two_images(body, body, image_px=16, same=True, augment="crop-flip", numbers=numbers)
        np.testing.assert_array_equal(fit(condition, 16), target)
    numbers = np.random.Generator(np.random.Philox(key=1))
    pairs = [two_images(body, body, image_px=16, same=False, augment="crop-flip", numbers=numbers) for _ in range(8)]
    assert any((fit(condition, 16) != target).any() for condition, target in pairs)


def test_augmentation_mirrors_half_and_crops_inside() -> None:
    rgb = pixels_of(picture(3, 64))
    numbers = np.random.Generator(np.random.Philox(key=1))
    flipped = [not np.array_equal(augmented(rgb, "flip", numbers), rgb) for _ in range(400)]
    assert 150 < sum(flipped) < 250
    sides = {augmented(rgb, "crop-flip", numbers).shape[0] for _ in range(200)}
    assert (min(sides), max(sides)) == (54, 64)
    assert augmented(rgb, "none", numbers).shape == rgb.shape


def spoil(*pairs: int) -> Any:
    def change(row: dict[str, object], i: int) -> None:
        if i in pairs:
            row["target_image"] = b"\x89PNG\r\n\x1a\n" + b"no picture"

    return change


@pytest.mark.parametrize("form", ["parquet", "webdataset", "tfrecord"])
def test_a_damaged_pair_is_skipped_counted_and_named(tmp_path: Path, form: str) -> None:
    names = {}

    def change(row: dict[str, object], i: int) -> None:
        names[i] = row["pair_id"]
        spoil(7)(row, i)

    groups = open_shards(str(make_shards(tmp_path / "shards", 120, form, size=16, change=change)), "pairs")
    said: list[str] = []
    batches = read(groups, range(60), said)
    keys = [key for batch in batches for key in batch.keys]
    assert len(keys) == 240
    assert names[7] not in keys
    assert len(said) == 1
    assert said[0].startswith(f"skipped pair {names[7]}: broken_image")
    assert_same(read(groups, range(30, 60)), batches[30:])


def test_a_damaged_record_of_tfrecord_is_one_pair(tmp_path: Path) -> None:
    folder = make_shards(tmp_path / "shards", 120, "tfrecord", size=16)
    path = next(folder.glob("*.tfrecord"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    said: list[str] = []
    read(open_shards(str(folder), "pairs"), range(30), said)
    assert len(said) == 1
    assert "broken_record" in said[0]
    assert "the check of a record does not fit" in said[0]


def test_above_one_percent_the_run_stops(tmp_path: Path) -> None:
    groups = open_shards(str(make_shards(tmp_path / "shards", 120, size=16, change=spoil(3, 50))), "pairs")
    with pytest.raises(DataError, match=r"2 of 120 pairs are damaged, more than 1 %, the last [0-9a-f]{64}; run `pagepairs shard` again"):
        read(groups, range(30))


def test_label_mode_takes_another_image_of_the_class(tmp_path: Path) -> None:
    groups = open_classes(str(make_classes(tmp_path / "set", {"cat": 3, "dog": 2})))
    made = conditioner()
    tokens = {
        (name, place): made.of_image(made.encoder.preprocess(pixels_of(picture(100 * number + place))))
        for number, (name, count) in enumerate({"cat": 3, "dog": 2}.items())
        for place in range(count)
    }
    conditions: dict[tuple[str, int], set[tuple[str, int]]] = {}
    for batch in read(groups, range(40)):
        for key, condition in zip(batch.keys, batch.condition_BS, strict=True):
            target = (Path(key).parent.name, int(Path(key).stem))
            chosen = [place for place, value in tokens.items() if np.array_equal(value, condition.numpy())]
            conditions.setdefault(target, set()).update(chosen)
    everything = {
        (name, place): {(name, other) for other in range(count) if other != place}
        for name, count in (("cat", 3), ("dog", 2))
        for place in range(count)
    }
    assert conditions == everything


def test_wrong_data_is_one_sentence_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no pair shards there \(no manifest.json\); give the shards/ folder"):
        open_shards(str(tmp_path), "pairs")
    shards = make_shards(tmp_path / "shards", 3)
    manifest = read_json(str(shards / "manifest.json"))
    for change, match in (
        (
            {"schema_version": 99},
            f"shards of schema version 99, this pagepairs reads {SCHEMA_VERSION}; run `pagepairs shard` of this version again",
        ),
        ({"dataset": "pairs"}, "these are pairs; give the shards/ folder of the same run"),
        ({"files": [manifest["files"][0] | {"rows": 4}]}, "holds 3 pairs, its manifest says 4; copy it again"),
        ({"files": []}, "the shards hold no pair; widen the band"),
    ):
        write_json(str(shards / "manifest.json"), manifest | change)
        with pytest.raises(DataError, match=match):
            open_shards(str(shards), "pairs")


@pytest.mark.parametrize("form", ["parquet", "webdataset", "tfrecord"])
def test_a_cut_file_is_named(tmp_path: Path, form: str) -> None:
    folder = make_shards(tmp_path / "shards", 5, form)
    path = next(path for path in folder.iterdir() if path.name.startswith("pairs-"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"pairs-00000-of-00001\.\w+ (is damaged|holds \d pairs, its manifest says 5)"):
        open_shards(str(folder), "pairs")


def test_wrong_class_folders_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no class folders of images there; --mode label reads CLASS/IMAGE\.jpg"):
        open_classes(str(tmp_path))
    with pytest.raises(DataError, match="class dog has one image, and no other to be its condition"):
        open_classes(str(make_classes(tmp_path / "set", {"cat": 3, "dog": 1})))


def test_images_smaller_than_the_network_are_refused(tmp_path: Path) -> None:
    groups = open_shards(str(make_shards(tmp_path / "shards", 6, size=20)), "pairs")
    check_sizes(groups, 20, "D")
    with pytest.raises(
        DataError,
        match=r"--data D: 6 of 6 images are smaller than the network's 32 pixels \(the smallest has 20\); run `pagepairs shard --size 32`",
    ):
        check_sizes(groups, 32, "D")


def test_conditions_are_remembered() -> None:
    made = conditioner()
    image = made.encoder.preprocess(pixels_of(picture(1)))
    first = made.of_image(image)
    assert made.of_image(image.copy()) is first
    assert made.shape() == (64, 12)
    cells = made.encoder.tokens(image[None])[0]
    np.testing.assert_allclose(first, np.concatenate([cells[:, :3] / 100, cells[:, 3:]], axis=1), rtol=1e-6)
    assert Conditioner(load_encoder("builtin"), "film").shape() == (338,)
