"""embed and shard read scattered images several at once, where a store is slow to answer."""

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "sources"))  # the slow store stands beside the tests of sources

from slow_store import SlowStore

from pagepairs.config import EmbedConfig, ScanConfig, ShardConfig
from pagepairs.files import write_parquet
from pagepairs.records import UNITS, rows_to_table
from pipeline import references
from pipeline.embed_unit import EmbedJob, Target, embed_unit
from pipeline.journal import Journal
from pipeline.models import load_models
from pipeline.progress import Meter
from pipeline.shard import Reference, ShardJob, make_images

Photo = Callable[..., None]
SCAN = ScanConfig(min_texture=0)


@pytest.fixture
def images(tmp_path: Path, photo: Photo) -> list[Reference]:
    """24 photos in files of their own, as a shard has them in archives of their own."""
    found = []
    for seed in range(24):
        path = tmp_path / f"{seed:02d}.jpg"
        photo(path, seed, width=64, height=64)
        body = path.read_bytes()
        found.append((hashlib.sha256(body).hexdigest(), path.name, 0, len(body)))
    return found


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> SlowStore:
    store = SlowStore()
    monkeypatch.setattr(references, "open_read", store.open_read)
    return store


@pytest.mark.parametrize("threads", [1, 8])
def test_shard(tmp_path: Path, images: list[Reference], store: SlowStore, threads: int) -> None:
    job = ShardJob(
        folder="",
        work="",
        scan=SCAN,
        shard=ShardConfig(size=16),
        shards=1,
        parts=1,
        threads=threads,
        vectors=None,
        locate=lambda source: str(tmp_path / source),
        meter=Meter(""),
    )
    made = list(make_images(images, job))
    assert [image_id for image_id, _ in made] == [image[0] for image in images]
    assert all(isinstance(image, bytes) for _, image in made)
    assert store.most_at_once == 1 if threads == 1 else store.most_at_once > threads / 2


@pytest.mark.parametrize("threads", [1, 8])
def test_embed(tmp_path: Path, images: list[Reference], store: SlowStore, threads: int) -> None:
    rows = [dict(zip(("image_id", "source", "offset", "length"), image, strict=True)) | {"width": 64, "height": 64} for image in images]
    write_parquet(str(tmp_path / "unit.parquet"), rows_to_table(rows, UNITS))
    config = EmbedConfig(encoder="builtin", batch_size=4)
    job = EmbedJob(
        output="",
        scan=SCAN,
        embed=config,
        targets=(Target(folder="builtin", digest={}, journal=Journal("")),),
        threads=threads,
        locate=lambda source: str(tmp_path / source),
        meter=Meter(""),
    )
    [embedded] = embed_unit(str(tmp_path / "unit.parquet"), (0,), load_models(config), job)
    assert embedded.image_ids == [image[0] for image in images]
    assert store.most_at_once == 1 if threads == 1 else store.most_at_once > threads / 2
