"""The tf.data reader sees the pairs and pixels that the Parquet reader sees."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from made_pairs import make_shards

from pagepairs.images import encode_jpeg
from pagepairs.manifest import dataset_files
from pagepairs.shards import read_shard
from train.samples import pixels_of


def as_jpeg(row: dict[str, object], i: int) -> None:
    if i % 2:
        for side in ("condition", "target"):
            row[f"{side}_image"] = encode_jpeg(pixels_of(bytes(row[f"{side}_image"])), 90)  # type: ignore[call-overload]


def test_tf_data_sees_the_same_pairs_and_pixels(tmp_path: Path) -> None:
    # In a process of its own: TensorFlow's LLVM aborts where Triton, which torch's optimizers import, has brought another.
    if find_spec("tensorflow") is None:
        pytest.skip("TensorFlow is not installed")
    for form in ("parquet", "tfrecord"):
        make_shards(tmp_path / form, 12, form, shards=2, change=as_jpeg)
    program = "import sys, conftest, test_tfdata; test_tfdata.check(*sys.argv[1:])"
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "parquet"), str(tmp_path / "tfrecord")],
        cwd=Path(__file__).parent,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        check=True,
    )


def check(parquet: str, tfrecord: str) -> None:
    from train.tfdata import pairs

    expected = [row for path in dataset_files(parquet) for row in read_shard(path)]
    found = list(pairs(tfrecord).as_numpy_iterator())
    assert len(found) == len(expected) == 12
    for theirs, ours in zip(found, expected, strict=True):
        assert theirs.keys() == ours.keys()
        for name, value in ours.items():
            if name.endswith("_image"):
                np.testing.assert_array_equal(theirs[name], pixels_of(value))
            else:
                assert theirs[name] == (value.encode() if isinstance(value, str) else np.float32(value)), name
    encoded = list(pairs(tfrecord, decode=False).as_numpy_iterator())
    assert [row["target_image"] for row in encoded] == [row["target_image"] for row in expected]
    shuffled = [row["pair_id"].decode() for row in pairs(tfrecord, shuffle_pairs=12, seed=1).as_numpy_iterator()]
    assert shuffled != [row["pair_id"] for row in expected]
    assert sorted(shuffled) == sorted(row["pair_id"] for row in expected)
    with pytest.raises(ValueError, match="holds no TFRecord shards: run `pagepairs shard --format tfrecord`"):
        pairs(parquet)
