"""The K-shot protocol's choices: by hash, so that neither order nor other classes change them."""

import random

import pytest

from train.image_files import ImageFile, InputError
from train.kshot import by_class, check_classes, keyed_seed, sample_id

FILES = [ImageFile(path="", name=f"{name}/{number}.png") for name in ("b", "a", "a/deep") for number in range(9)]


def test_classes_are_the_folders_and_their_order_hangs_on_name_and_seed_alone() -> None:
    classes = by_class(FILES, seed=0)
    assert list(classes) == ["a", "a/deep", "b"]
    assert {name: len(files) for name, files in classes.items()} == {"a": 9, "a/deep": 9, "b": 9}
    shuffled = random.Random(1).sample(FILES, len(FILES))
    assert by_class(shuffled, seed=0) == classes
    assert by_class([file for file in FILES if file.folder == "b"], seed=0) == {"b": classes["b"]}
    assert [file.name for file in classes["b"]] != sorted(file.name for file in classes["b"])
    assert by_class(FILES, seed=1)["b"] != classes["b"]


def test_every_sample_has_a_seed_of_its_own_that_its_name_says() -> None:
    seeds = {keyed_seed(seed, image, index) for seed in (0, 1) for image in ("ab" * 32, "cd" * 32) for index in range(50)}
    assert len(seeds) == 200
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert sample_id("0123456789abcdef" * 4, 255) == "0123456789abcdef-00000000000000ff"


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        (
            {"": 3, "a": 5, "b": 5},
            "--images X: 3 images stand beside the class folders; move each into the folder of its class",
        ),
        ({"a": 50}, "--images X: 'a' is the only class; give a folder with two class folders or more"),
        (
            {"a": 10, "b": 9, "c": 4},
            "--images X: class 'c' has 4 readable images where shots x samples-per-condition = 10 are needed "
            "(2 of 3 classes have too few); lower --samples-per-condition or leave the class out",
        ),
    ],
)
def test_folders_that_the_protocol_cannot_use_are_refused_in_one_sentence(counts: dict[str, int], says: str) -> None:
    with pytest.raises(InputError) as caught:
        check_classes({name: range(count) for name, count in counts.items()}, folder="X", needed=10)
    assert str(caught.value) == says
    check_classes({"a": range(10), "b": range(11)}, folder="X", needed=10)
