"""Images from folders and shards: what is found, how it is cropped, and what is dropped under which reason."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pagepairs.images import centre_crop, resize_shortest
from pagepairs.records import SHARDS
from pagepairs.shards import shard_name, write_shard
from train.image_files import Dropped, find_images, read_images, read_shard_images, shard_files


def picture(seed: int, height: int = 40, width: int = 60) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=seed)).integers(0, 256, (height, width, 3), np.uint8)


def png(rgb: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, body: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)


def test_images_are_found_at_any_depth_sorted_and_nothing_else_is(tmp_path: Path) -> None:
    for name in ("b/2.PNG", "b/1.jpg", "a/deep/x.webp", "z.gif", "b/notes.txt", ".hidden/1.png", "b/._1.png"):
        write(tmp_path / name, b"x")
    found = find_images(str(tmp_path), flag="--images")
    assert [(file.name, file.folder) for file in found] == [("a/deep/x.webp", "a/deep"), ("b/1.jpg", "b"), ("b/2.PNG", "b"), ("z.gif", "")]
    assert [file.name for file in find_images(str(tmp_path / "z.gif"), flag="--images")] == ["z.gif"]


@pytest.mark.parametrize(
    ("path", "says"), [("", "--real is missing: "), ("absent", "there is no such folder"), (".", "the folder holds no image")]
)
def test_nothing_to_find_is_one_sentence(path: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=says):
        find_images(str(tmp_path / path) if path else "", flag="--real")


def test_images_are_cropped_as_shards_are_and_the_rest_is_counted(tmp_path: Path) -> None:
    bodies = {
        "a.png": png(picture(1)),
        "b.png": b"\x89PNG\r\n\x1a\nbroken",
        "c.png": png(picture(2, 31, 90)),
        "d.png": b"",
        "e.png": png(picture(3, 32, 32)),
    }
    for name, body in bodies.items():
        write(tmp_path / name, body)
    (tmp_path / "f.png").symlink_to(tmp_path / "absent.png")
    files, dropped = find_images(str(tmp_path), flag="--images"), Dropped()
    found = list(read_images(files, size_px=32, dropped=dropped))
    assert [one.name for one in found] == ["a.png", "e.png"]
    assert (found[0].rgb_HW3 == centre_crop(resize_shortest(picture(1), 32), 32)).all()
    assert (found[1].rgb_HW3 == picture(3, 32, 32)).all()
    assert {reason: entry["count"] for reason, entry in dropped.as_json().items()} == {
        "broken_image": 1, "empty_body": 1, "too_small": 1, "unreadable_file": 1,
    }  # fmt: skip
    assert dropped.as_json()["too_small"]["examples"] == ["c.png: 90 x 31, not 32"]
    assert "empty_body 1 (d.png)" in str(dropped)
    small = next(read_images([file for file in files if file.name == "c.png"], size_px=32, dropped=Dropped(), small_ok=True))
    assert (small.rgb_HW3 == centre_crop(picture(2, 31, 90), 31)).all()


@pytest.mark.parametrize("form", ["parquet", "webdataset", "tfrecord"])
def test_conditions_of_shards_come_once_each_and_damaged_ones_are_counted(form: str, tmp_path: Path) -> None:
    rows = [("p1", "c1", "t1"), ("p2", "c2", "t2"), ("p3", "c1", "t3")]
    bodies = {name: png(picture(number)) for number, name in enumerate(("c1", "t1", "t2", "t3"))} | {"c2": b"\xff\xd8\xff\xe0"}
    table = pa.table(
        {
            **{name: ["x"] * 3 for name in ("page_url", "condition_url", "target_url")},
            "pair_id": [row[0] for row in rows],
            "condition_id": [row[1] for row in rows],
            "target_id": [row[2] for row in rows],
            "similarity": pa.array([0.5] * 3, pa.float32()),
            "condition_image": [bodies[row[1]] for row in rows],
            "target_image": [bodies[row[2]] for row in rows],
        }
    )
    write_shard(str(tmp_path / shard_name(0, 1, form)), SHARDS, [table])
    shards, dropped = shard_files(str(tmp_path)), Dropped()
    assert [Path(path).name for path in shards] == [shard_name(0, 1, form)]
    found = list(read_shard_images(shards, side="condition", dropped=dropped))
    assert [(one.name, one.image_id) for one in found] == [("c1", "c1")]
    assert (found[0].rgb_HW3 == picture(0)).all()
    assert dropped.counts == {"broken_image": 1}
    assert [one.image_id for one in read_shard_images(shards, side="target", dropped=dropped)] == ["t1", "t2", "t3"]
    assert shard_files(str(tmp_path / "absent")) == ()
