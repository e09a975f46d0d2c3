"""Stage shard's own parts: where its images wait, the vectors that it looks up, the hosts that it counts."""

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import pipeline.shard
from pagepairs.config import ShardConfig
from pagepairs.images import ImageError
from pagepairs.keys import pair_id
from pagepairs.records import PAIRS, embeddings_schema, shards_schema
from pipeline.shard import EncodedImages, count_hosts, fill_batches, fit


def pairs(count: int) -> pa.Table:
    ids = [f"{i:064x}" for i in range(count + 1)]
    rows = [
        {"pair_id": pair_id(a, b), "page_url": f"https://h{a[-1]}.example/{a}", "condition_id": a, "target_id": b, "similarity": 0.5}
        for a, b in itertools.pairwise(ids)
    ]
    return pa.Table.from_pylist(rows, schema=PAIRS)


@pytest.mark.parametrize("limit_bytes", [1, 1000, 10**9])
def test_images_are_read_back_from_memory_and_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit_bytes: int) -> None:
    monkeypatch.setattr(pipeline.shard, "_STORE_BYTES", limit_bytes)
    with EncodedImages(str(tmp_path)) as images:
        for i in range(100):
            images.add(str(i), bytes([i]) * i)
        images.add("broken", ImageError("broken_image", "why"))
        assert [images.read(str(i)) for i in (99, 0, 50)] == [bytes([99]) * 99, b"", bytes([50]) * 50]
        assert str(images.error("broken")) == "broken_image: why"
        assert images.error("50") is None
    assert list(tmp_path.iterdir()) == []


def test_batches_hold_each_pairs_own_images_and_vectors(tmp_path: Path) -> None:
    count, schema = 600, shards_schema(alt=True, embedding_width=2)
    ids = [f"{i:064x}" for i in range(count + 1)]
    vectors = pa.table({"image_id": ids[::-1], "embedding": [np.array([i, -i], np.float16) for i in range(count, -1, -1)]}).cast(
        embeddings_schema(2)
    )
    with EncodedImages(str(tmp_path)) as images:
        for image_id in ids:
            images.add(image_id, image_id.encode())
        batches = list(fill_batches(pairs(count), images, schema, vectors))
        with pytest.raises(ValueError, match="run `pagepairs pair` again"):
            list(fill_batches(pairs(count), images, schema, vectors.slice(1)))
    assert [batch.num_rows for batch in batches] == [256, 256, 88]
    assert {tuple(batch.column_names) for batch in batches} == {tuple(schema.names)}
    for batch in batches:
        for row in batch.to_pylist():
            for side in ("condition", "target"):
                number = int(row[f"{side}_id"], 16)
                assert row[f"{side}_image"] == row[f"{side}_id"].encode()
                assert row[f"{side}_embedding"] == [number, -number]


def test_hosts_are_counted_by_pair() -> None:
    assert count_hosts(pairs(18)) == {f"h{i:x}.example": 2 if i < 2 else 1 for i in range(16)}
    assert count_hosts(PAIRS.empty_table()) == {}


@pytest.mark.parametrize(("width", "height"), [(300, 200), (200, 300), (100, 100), (101, 250)])
def test_shapes(width: int, height: int) -> None:
    rgb = np.zeros((height, width, 3), np.uint8)
    assert fit(rgb, ShardConfig(size=100)).shape == (100, 100, 3)
    kept = fit(rgb, ShardConfig(size=100, resize="keep-ratio")).shape
    assert min(kept[:2]) == 100
    assert abs(kept[1] / kept[0] - width / height) < 0.01 * width / height
