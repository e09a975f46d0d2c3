"""Pair shards and class folders of small pictures, made by number."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from pagepairs.keys import pair_id
from pagepairs.manifest import Manifest, write_manifest
from pagepairs.records import SHARDS
from pagepairs.shards import BATCH_ROWS, shard_name, write_shard

Change = Callable[[dict[str, object], int], None]


def picture(number: int, size: int = 40) -> bytes:
    """A smooth picture by number, as PNG."""
    rng = np.random.Generator(np.random.Philox(key=number))
    small = rng.integers(0, 256, (4, 4, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize((size, size), Image.Resampling.BILINEAR).save(buffer, "png")
    return buffer.getvalue()


def make_shards(folder: Path, rows: int, form: str = "parquet", *, shards: int = 1, size: int = 40, change: Change | None = None) -> Path:
    """Writes a shards/ folder of numbered pictures: pair i has condition 2i and target 2i + 1."""
    values = []
    for i in range(rows):
        a, b = f"{2 * i:064x}", f"{2 * i + 1:064x}"
        row: dict[str, object] = dict.fromkeys(SHARDS.names, "https://example.org/page")
        row |= {"pair_id": pair_id(a, b), "condition_id": a, "target_id": b, "similarity": 0.5}
        row |= {"condition_image": picture(2 * i, size), "target_image": picture(2 * i + 1, size)}
        if change:
            change(row, i)
        values.append(row)
    files = []
    for shard in range(shards):
        table = pa.Table.from_pylist(values[shard::shards], schema=SHARDS).sort_by("pair_id")
        batches = (table.slice(start, BATCH_ROWS) for start in range(0, table.num_rows, BATCH_ROWS))
        files.append(write_shard(str(folder / shard_name(shard, shards, form)), SHARDS, batches))
    write_manifest(str(folder), Manifest(dataset="shards", digest="", files=tuple(files), counters={}))
    return folder


def make_classes(folder: Path, counts: dict[str, int], size: int = 40) -> Path:
    """Writes CLASS/NUMBER.png."""
    for place, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            (folder / name / f"{i}.png").write_bytes(picture(100 * place + i, size))
    return folder
