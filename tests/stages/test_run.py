"""All stages over folders of photos: what is kept, what is done again, what is refused."""

import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import pipeline.scan
from pagepairs.config import Config, PairConfig, RunConfig, ShardConfig
from pagepairs.manifest import find_manifest, read_dataset, read_manifest
from pipeline.run import NothingFound, plan, run_stages
from pipeline.stage import InputError

Photo = Callable[..., None]
Settings = Callable[..., Config]
STAGES = ("scan", "embed", "pair", "shard")
ALL = PairConfig(low=-1.0, high=1.0)
SMALL = ShardConfig(size=32, pairs_per_shard=2)
DATASETS = ["images", "pages", "links", "aliases", "units", "embeddings/builtin", "episodes", "candidates", "pairs", "shards"]
DATASETS += [f"drops/{name}" for name in ("scan", "embed-builtin", "pair", "shard")]


def write_crawl(folder: Path, photo: Photo) -> Path:
    """Two pages of three and two photos, one of them broken, one a copy."""
    for page, seeds in (("one", (1, 2, 3)), ("two", (4, 1))):
        for seed in seeds:
            photo(folder / page / f"{seed}.jpg", seed)
    (folder / "one" / "broken.jpg").write_bytes(b"\xff\xd8\xff no image")
    return folder


@pytest.fixture
def crawl(tmp_path: Path, photo: Photo) -> Path:
    return write_crawl(tmp_path / "in", photo)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, photo: Photo, settings_of: Settings) -> Path:
    """A folder with a crawl and a whole run over it; tests that change either make their own."""
    root = tmp_path_factory.mktemp("first")
    write_crawl(root / "in", photo)
    run(settings_of(root, pair=ALL, shard=SMALL))
    return root


def run(config: Config, *stages: str) -> list[str]:
    said: list[str] = []
    run_stages(config, stages or STAGES, said.append)
    return said


def hashes(output: Path) -> dict[str, str]:
    """The sha256 of every file of every dataset, manifests included."""
    files = [path for name in DATASETS for path in (output / name).glob("*") if path.is_file()]
    return {str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def rows(output: Path, name: str) -> list[dict[str, Any]]:
    return list(read_dataset(str(output / name)).to_pylist())


def test_a_run_leaves_complete_datasets_that_add_up(first: Path) -> None:
    output, crawl = first / "out", first / "in"
    assert [name for name in DATASETS if find_manifest(str(output / name)) is None] == []
    images = rows(output, "images")
    assert [row["source"] for row in images] == ["one/1.jpg", "one/2.jpg", "one/3.jpg", "two/1.jpg", "two/4.jpg"]
    assert {row["image_id"] for row in images} == {hashlib.sha256(path.read_bytes()).hexdigest() for path in crawl.glob("*/[1-9].jpg")}
    assert read_manifest(str(output / "images")).counters == {"in": 6, "kept": 5, "dropped": {"broken_image": 1}, "errors": 0}
    vectors = rows(output, "embeddings/builtin")
    assert sorted(row["image_id"] for row in vectors) == sorted({row["image_id"] for row in images})
    norms = np.linalg.norm(np.array([row["embedding"] for row in vectors], np.float64), axis=1)
    assert np.abs(norms - 1).max() < 1e-3
    assert sorted(len(row["images"]) for row in rows(output, "episodes")) == [2, 3]
    candidates = read_manifest(str(output / "candidates")).counters
    assert (candidates["in"], candidates["kept"], candidates["dropped"]) == (4, 4, {})
    assert [(row["reason"], row["detail"]) for row in rows(output, "drops/pair")] == [("image_dropped", "broken_image")]
    assert not (output / ".work" / "progress").exists() or os.listdir(output / ".work" / "progress") == []


def test_shards_hold_both_images_cropped_to_size_in_the_order_of_their_ids(first: Path) -> None:
    shards, pairs = rows(first / "out", "shards"), {row["pair_id"]: row for row in rows(first / "out", "pairs")}
    assert [file.name for file in read_manifest(str(first / "out" / "shards")).files] == [
        "pairs-00000-of-00002.parquet",
        "pairs-00001-of-00002.parquet",
    ]
    assert [row["pair_id"] for row in shards] == sorted(pairs)
    for row in shards:
        assert {name: row[name] for name in row if not name.endswith("_image")} == {
            name: pairs[row["pair_id"]][name] for name in row if not name.endswith("_image")
        }
        assert {Image.open(io.BytesIO(row[f"{side}_image"])).size for side in ("condition", "target")} == {(32, 32)}


def test_another_folder_and_other_threads_give_the_same_bytes(first: Path, crawl: Path, settings: Settings, tmp_path: Path) -> None:
    for path in crawl.glob("*/*"):  # a digest of scan covers the times of the files
        stat = (first / "in" / path.relative_to(crawl)).stat()
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    for path in crawl.glob("*"):
        stat = (first / "in" / path.name).stat()
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    run(settings(pair=ALL, shard=SMALL, run=RunConfig(output=str(tmp_path / "again"), threads=1)))
    assert hashes(tmp_path / "again") == hashes(first / "out")


def test_a_second_run_keeps_everything_and_says_so(first: Path, settings_of: Settings) -> None:
    before = {path: path.stat().st_mtime_ns for path in (first / "out").rglob("*.parquet")}
    said = run(settings_of(first, pair=ALL, shard=SMALL))
    assert [line.split(",")[0] for line in said] == ["scan: kept", "embed: kept", "pair: kept", "shard: kept"]
    assert {path: path.stat().st_mtime_ns for path in (first / "out").rglob("*.parquet")} == before


def test_other_pair_settings_rebuild_pair_and_shard_only(tmp_path: Path, crawl: Path, settings: Settings) -> None:
    run(settings(pair=ALL, shard=SMALL))
    embedded = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "embeddings").rglob("*")}
    said = run(settings(pair=dataclasses.replace(ALL, directions="both"), shard=SMALL))
    assert [line.split(":")[0] for line in said if "building it again" in line] == ["pair", "shard"]
    assert read_manifest(str(tmp_path / "out" / "shards")).rows == 8
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "embeddings").rglob("*")} == embedded


def test_what_kills_left_is_finished_byte_by_byte(first: Path, settings_of: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every attempt dies at its 12th rename (a unit takes 6, the preamble up to 4), until one comes through."""
    config = settings_of(first, pair=ALL, shard=SMALL, run=RunConfig(output=str(first / "killed"), threads=2))
    left = 0

    def counted(real: Callable[[str, str], None]) -> Callable[[str, str], None]:
        def rename(source: str, target: str) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
            real(source, target)

        return rename

    for name in ("replace", "rename"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    kills = 0
    while True:
        left = 12
        try:
            run(config)
            break
        except BaseException as error:
            if "KeyboardInterrupt" not in f"{type(error).__name__} {error}":
                raise
            kills += 1
            assert kills < 20, "no attempt gets further than the one before"
    assert kills >= 3
    assert hashes(first / "killed") == hashes(first / "out")
    assert list((first / "killed").rglob(".tmp-*")) == []


def test_a_run_goes_on_with_children_where_it_ended_without(first: Path, settings_of: Settings) -> None:
    config = settings_of(first, pair=ALL, shard=SMALL)
    config = dataclasses.replace(config, scan=dataclasses.replace(config.scan, isolate=True))
    assert [line.split(",")[0] for line in run(config)] == ["scan: kept", "embed: kept", "pair: kept", "shard: kept"]
    run(dataclasses.replace(config, run=RunConfig(output=str(first / "apart"), threads=2)))
    assert hashes(first / "apart") == hashes(first / "out")


def test_other_scan_settings_are_refused_with_the_difference_unless_rebuild(tmp_path: Path, crawl: Path, settings: Settings) -> None:
    config = settings(pair=ALL, shard=SMALL)
    run(config, "scan")
    other = dataclasses.replace(config, scan=dataclasses.replace(config.scan, min_side_px=300))
    with pytest.raises(ValueError, match=r"min_side_px was 64, is 300.*--rebuild"):
        run(other, "scan")
    assert read_manifest(str(tmp_path / "out" / "images")).counters["kept"] == 5
    run(dataclasses.replace(other, run=dataclasses.replace(other.run, rebuild=True)), "scan")
    assert read_manifest(str(tmp_path / "out" / "images")).counters == {
        "in": 6,
        "kept": 0,
        "dropped": {"broken_image": 1, "too_small": 5},
        "errors": 0,
    }


def test_a_foreign_folder_is_never_touched(tmp_path: Path, crawl: Path, settings: Settings) -> None:
    (tmp_path / "out" / "images").mkdir(parents=True)
    (tmp_path / "out" / "images" / "mine.txt").write_text("x")
    with pytest.raises(ValueError, match="holds folders that pagepairs would write"):
        run(settings(), "scan")
    assert (tmp_path / "out" / "images" / "mine.txt").exists()


def test_a_photo_that_changed_after_scan_is_dropped_by_name(tmp_path: Path, crawl: Path, settings: Settings, photo: Photo) -> None:
    run(settings(pair=ALL, shard=SMALL), "scan")
    photo(crawl / "one" / "2.jpg", 77)
    (crawl / "one" / "3.jpg").unlink()
    run(settings(pair=ALL, shard=SMALL), "embed", "pair")
    manifest = read_manifest(str(tmp_path / "out" / "embeddings" / "builtin"))
    assert {name: manifest.counters[name] for name in ("in", "kept", "dropped", "errors")} == {
        "in": 4,
        "kept": 2,
        "dropped": {"source_changed": 2},
        "errors": 0,
    }
    assert sorted(row["reason"] for row in rows(tmp_path / "out", "drops/pair")) == [
        "image_dropped",
        "not_embedded",
        "not_embedded",
        "single_image",
    ]
    assert {row["stage"] for row in rows(tmp_path / "out", "drops/embed-builtin")} == {"embed"}
    photo(crawl / "two" / "4.jpg", 78)
    run(settings(pair=ALL, shard=SMALL), "pair")
    with pytest.raises(NothingFound, match="no pair was found"):
        run(settings(pair=ALL, shard=SMALL), "shard")
    counters = read_manifest(str(tmp_path / "out" / "shards")).counters
    assert (counters["in"], counters["kept"], counters["dropped"]) == (1, 0, {"source_changed": 1})


def test_limit_stops_after_so_many_images(tmp_path: Path, crawl: Path, settings: Settings) -> None:
    config = settings(pair=ALL, shard=SMALL)
    for limit in (1, 5, 6, 9):
        run(dataclasses.replace(config, scan=dataclasses.replace(config.scan, limit=limit)), "scan")
        assert read_manifest(str(tmp_path / "out" / "images")).counters["in"] == min(limit, 6)


def test_more_input_adds_units_and_keeps_what_was_scanned(tmp_path: Path, crawl: Path, settings: Settings, photo: Photo) -> None:
    config = settings(pair=ALL, shard=SMALL)
    run(config, "scan", "embed")
    embedded = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "embeddings" / "builtin").glob("*.parquet")}
    photo(crawl / "three" / "9.jpg", 9)
    said = run(config, "scan", "embed")
    assert "scan: 2 of 3 units were scanned before and are kept" in said
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "embeddings" / "builtin").glob("*.parquet")}
    assert {name: after.get(name) for name in embedded} == embedded
    assert len(after) == len(embedded) + 1


def test_units_hold_every_kept_id_once_in_runs(tmp_path: Path, crawl: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.scan, "UNIT_IMAGES", 2)
    run(settings(), "scan")
    images = [row for row in rows(tmp_path / "out", "images") if not row["reason"]]
    lowest = {row["image_id"]: min((r["source"], r["offset"]) for r in images if r["image_id"] == row["image_id"]) for row in images}
    units = [
        pq.read_table(tmp_path / "out" / "units" / file.name).to_pylist() for file in read_manifest(str(tmp_path / "out" / "units")).files
    ]
    assert sorted((row["image_id"], (row["source"], row["offset"])) for unit in units for row in unit) == sorted(lowest.items())
    assert sorted(len(unit) for unit in units) == [1, 1, 2]
    assert all(unit == sorted(unit, key=lambda row: (row["source"], row["offset"])) for unit in units)


def test_a_folder_without_images_ends_with_no_pair(tmp_path: Path, settings: Settings, photo: Photo) -> None:
    photo(tmp_path / "in" / "p" / "small.jpg", 1, width=20, height=20)
    with pytest.raises(NothingFound):
        run(settings(pair=ALL, shard=SMALL))
    assert [(row["stage"], row["reason"]) for row in rows(tmp_path / "out", "drops/scan")] == [("scan", "too_small")]
    assert read_manifest(str(tmp_path / "out" / "shards")).rows == 0


def test_a_stage_without_its_input_says_what_to_run(tmp_path: Path, crawl: Path, settings: Settings) -> None:
    with pytest.raises(InputError, match="run `pagepairs scan"):
        run(settings(), "pair")


def test_an_encoder_without_band_needs_low_and_high_before_anything_is_written(tmp_path: Path, crawl: Path, settings: Settings) -> None:
    config = settings()
    config = dataclasses.replace(config, embed=dataclasses.replace(config.embed, encoder="tflite:x.tflite"))
    with pytest.raises(ValueError, match=r"--encoder tflite:x\.tflite has no similarity band.*--low"):
        run(config)
    assert not (tmp_path / "out").exists()


def test_the_plan_counts_files_and_units(crawl: Path, settings: Settings) -> None:
    shown = plan(settings(), STAGES)
    assert json.loads(json.dumps(shown)) == shown
    assert (shown["units"], shown["stages"], shown["encoder"]) == (2, list(STAGES), "builtin")
