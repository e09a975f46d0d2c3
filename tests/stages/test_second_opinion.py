"""imagededup's opinion: what it is shown of an index, how much of it at once, and what it finds there."""

import dataclasses
import io
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from dedup.benchmark import ITEMS, THUMBNAILS, Benchmark
from pagepairs.files import write_parquet
from pipeline import second_opinion
from pipeline.second_opinion import ask_hashes, choose_items


def picture(seed: int) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 255, (7, 7, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((96, 96), Image.Resampling.BICUBIC).save(buffer, "WEBP", quality=75)
    return buffer.getvalue()


def write_index(folder: Path, name: str, seeds: range, *, pictures: bool = True) -> Benchmark:
    folder.mkdir()
    rows = [{"item_id": f"{seed:016x}" + "0" * 48, "item": str(seed), "texture": 90 if pictures else None} for seed in seeds]
    write_parquet(str(folder / "items.parquet"), pa.Table.from_pylist(rows, schema=ITEMS))
    bodies = [picture(seed) if pictures else None for seed in seeds]
    write_parquet(str(folder / "thumbnails.parquet"), pa.table([pa.array(bodies, pa.binary())], schema=THUMBNAILS), row_group_rows=4)
    known: dict[str, Any] = {"width": 0, "cut": 0.0, "cut_source": "", "search": None, "content": str(folder), "manifest": {}, "spec": ""}
    return Benchmark(folder=str(folder), name=name, items=len(seeds), encoder=None, **known)


def test_only_a_batch_of_an_index_is_decoded_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    benchmarks = [write_index(tmp_path / "a", "a", range(23)), write_index(tmp_path / "b", "b", range(100, 109))]
    alive, peak = weakref.WeakSet(), 0

    class Pixels(np.ndarray):
        __hash__ = object.__hash__

    def decode(body: bytes) -> np.ndarray:
        nonlocal peak
        pixels = known(body).view(Pixels)
        alive.add(pixels)
        peak = max(peak, len(alive))
        return pixels

    known = second_opinion.decode
    monkeypatch.setattr(second_opinion, "decode", decode)
    monkeypatch.setattr(second_opinion, "_BATCH", 5)
    images = {f"image-{seed}": picture(seed) for seed in (3, 22, 107, 999)}
    opinion = ask_hashes(images, benchmarks, seed=0, crop=True)
    assert (opinion.images, opinion.items, opinion.of_items) == (4, 32, 32)
    found = [(row["image_id"], row["benchmark"], row["item"], row["bits"]) for row in opinion.rows if row["found"]]
    assert found == [("image-107", "b", "107", 0), ("image-22", "a", "22", 0), ("image-3", "a", "3", 0)]
    assert 5 <= peak <= 2 * 5 + 1


def test_more_items_than_are_hashed_are_sampled_by_seed_over_all_indexes(tmp_path: Path) -> None:
    benchmarks = [
        write_index(tmp_path / "a", "a", range(30)),
        write_index(tmp_path / "list", "list", range(40), pictures=False),
        write_index(tmp_path / "b", "b", range(30)),
    ]
    chosen = [choose_items(benchmarks, count=20, seed=seed, crop=False) for seed in (0, 0, 1)]
    rows = [[own.tolist() for own in items.rows] for items in chosen]
    assert rows[0] == rows[1] != rows[2]
    assert [items.count() for items in chosen] == [20, 20, 20]
    assert (len(rows[0][1]), len(rows[0][0]) > 0, len(rows[0][2]) > 0) == (0, True, True)
    everything = choose_items(benchmarks, count=60, seed=0, crop=False)
    assert [own.tolist() for own in everything.rows] == [list(range(30)), [], list(range(30))]
    names = [name for batch in dataclasses.replace(everything).batches() for name in batch]
    assert names == [f"0/{n}" for n in range(30)] + [f"2/{n}" for n in range(30)]
    assert choose_items(benchmarks, count=0, seed=0, crop=False).count() == 0
