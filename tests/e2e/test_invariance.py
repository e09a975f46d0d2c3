"""Same input, settings and code: same bytes, whatever the order, the number of workers, or how often."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_crawls import Response, page, picture, write_warc
from outputs import assert_conserved, assert_sound, data_hashes, rows

import pipeline.jobs

DATASETS = ("images", "pages", "links", "aliases", "units", "embeddings/builtin", "episodes", "candidates", "pairs", "shards")


def test_again_gives_the_same_bytes(site_files: list[Path], site_run: Path, tmp_path: Path, pagepairs) -> None:
    done = pagepairs("run", "--input", *site_files, "--output", tmp_path, "--encoder", "builtin")
    assert done.code == 0, done.err
    assert data_hashes(tmp_path) == data_hashes(site_run)
    assert_sound(tmp_path)


def test_two_workers_give_the_same_bytes(site_files: list[Path], site_run: Path, tmp_path: Path, pagepairs) -> None:
    done = pagepairs("run", "--input", *site_files, "--output", tmp_path, "--encoder", "builtin", "--workers", 2, "--threads", 2)
    assert done.code == 0, done.err
    assert data_hashes(tmp_path) == data_hashes(site_run)


@pytest.mark.slow
def test_two_workers_give_the_same_bytes_of_the_real_crawl(shared_data: Path, howtocook_run: Path, tmp_path: Path, pagepairs) -> None:
    done = pagepairs("run", "--input", shared_data / "howtocook.warc.gz", "--output", tmp_path, "--encoder", "builtin", "--workers", 2)
    assert done.code == 0, done.err
    assert data_hashes(tmp_path) == data_hashes(howtocook_run)


def test_inputs_in_another_order_or_as_folder_or_glob_give_the_same_bytes(
    site_files: list[Path], site_run: Path, tmp_path: Path, pagepairs
) -> None:
    folder = site_files[0].parent
    shuffled = random.Random(0).sample(site_files, len(site_files))
    ways = {
        "shuffled": ["--input", *shuffled],
        "twice": ["--input", shuffled[0], "--input", folder / "*.warc.gz"],
        "folder": ["--input", folder],
    }
    for name, inputs in ways.items():
        done = pagepairs("run", *inputs, "--output", tmp_path / name, "--encoder", "builtin")
        assert done.code == 0, done.err
        assert data_hashes(tmp_path / name) == data_hashes(site_run), name


def test_the_same_crawl_in_another_place_gives_the_same_bytes(site_files: list[Path], site_run: Path, tmp_path: Path, pagepairs) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(site_files[0].parent, elsewhere)  # copytree keeps modification times, which digests see
    done = pagepairs("run", "--input", elsewhere, "--output", tmp_path / "out", "--encoder", "builtin")
    assert done.code == 0, done.err
    assert data_hashes(tmp_path / "out") == data_hashes(site_run)


def test_records_in_another_order_give_the_same_rows(tmp_path: Path, pagepairs) -> None:
    """Which of two files holds a page or a picture, and where in it, decides nothing but references."""
    urls = [f"https://a.example/{n}.jpg" for n in range(9)]
    records = [page(f"https://a.example/{n}/", urls[3 * n : 3 * n + 4]) for n in range(3)] + [
        Response(url=url, body=picture(n // 3, n)) for n, url in enumerate(urls)
    ]
    found = []
    for seed in range(2):
        mixed = random.Random(seed).sample(records, len(records))
        crawl, output = tmp_path / f"crawl-{seed}", tmp_path / f"out-{seed}"
        write_warc(crawl / "a.warc.gz", mixed[:5])
        write_warc(crawl / "b.warc.gz", mixed[5:])
        done = pagepairs("run", "--input", crawl, "--output", output, "--encoder", "builtin")
        assert done.code == 0, done.err
        # References, and `capture`, a hash of where the page stands, are the only things that may differ.
        found.append({name: _without_places(output, name) for name in ("images", "links", "episodes", "candidates", "pairs", "shards")})
    assert found[0] == found[1]
    assert len(found[0]["shards"]) >= 9


def _without_places(output: Path, dataset: str) -> list[str]:
    places = ("source", "offset", "length", "capture")
    return sorted(
        str({name: value for name, value in row.items() if name.removeprefix("condition_").removeprefix("target_") not in places})
        for row in rows(output, dataset)
    )


def test_the_order_of_the_rows_of_a_part_changes_no_byte(
    site_files: list[Path], site_run: Path, tmp_path: Path, pagepairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    gather = pipeline.jobs.gather

    def mixed(part: int, pieces: list[tuple[str, bytes]]) -> dict[str, pa.Table]:
        rng = np.random.default_rng(part)
        return {tag: table.take(pa.array(rng.permutation(len(table)))) for tag, table in gather(part, pieces).items()}

    monkeypatch.setattr(pipeline.jobs, "gather", mixed)
    done = pagepairs("run", "--input", *site_files, "--output", tmp_path, "--encoder", "builtin")
    assert done.code == 0, done.err
    assert data_hashes(tmp_path) == data_hashes(site_run)


@pytest.mark.parametrize("part_rows", [7])
def test_many_small_parts_give_the_same_rows(
    site_files: list[Path], site_run: Path, tmp_path: Path, pagepairs, part_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of parts follows from row counts, so a small PART_ROWS stands for a large crawl."""
    monkeypatch.setattr(pipeline.jobs, "PART_ROWS", part_rows)
    done = pagepairs("run", "--input", *site_files, "--output", tmp_path, "--encoder", "builtin", "--pairs-per-shard", 5)
    assert done.code == 0, done.err
    assert len(list((tmp_path / "episodes").glob("*.parquet"))) == 4
    assert len(list((tmp_path / "shards").glob("*.parquet"))) == 5
    for name in DATASETS:
        assert sorted(map(str, rows(tmp_path, name))) == sorted(map(str, rows(site_run, name))), name
    assert_conserved(tmp_path)
    assert_sound(tmp_path)


def test_config_json_repeats_a_run(site_run: Path, tmp_path: Path, pagepairs) -> None:
    done = pagepairs("run", "--config", site_run / "config.json", "--output", tmp_path)
    assert done.code == 0, done.err
    assert data_hashes(tmp_path) == data_hashes(site_run)
    ours, theirs = (json.loads((folder / "config.json").read_text()) for folder in (tmp_path, site_run))
    assert ours["run"].pop("output") != theirs["run"].pop("output")
    assert ours == theirs


def test_every_path_in_the_datasets_is_relative(site_run: Path) -> None:
    for path in site_run.rglob("*.parquet"):
        if ".work" not in path.parts:
            assert str(site_run) not in str(pq.read_table(path).to_pylist()), path
    for name in data_hashes(site_run):
        assert str(site_run.parent).encode() not in (site_run / name).read_bytes(), name
