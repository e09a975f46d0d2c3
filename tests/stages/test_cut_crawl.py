"""Long files are cut in a job before scan: once a file and version, in any process, and never for a plan."""

import dataclasses
import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pagepairs.config import Config, RunConfig
from pagepairs.manifest import read_dataset, read_manifest
from pipeline.commands import main
from pipeline.cuts import cut_crawl
from pipeline.run import plan, run_stages
from pipeline.runners import pipeline_options
from pipeline.sources import SOURCES, find_units, frames, list_crawl
from pipeline.stage import Run

Photo = Callable[..., None]
Settings = Callable[..., Config]
CUT_BYTES = 20_000


def warc_record(url: str, body: bytes) -> bytes:
    http = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n\r\n" + body
    names = ["WARC/1.1", "WARC-Type: response", f"WARC-Target-URI: {url}", "Content-Type: application/http", f"Content-Length: {len(http)}"]
    return "\r\n".join([*names, "", ""]).encode() + http + b"\r\n\r\n"


@pytest.fixture
def crawl(tmp_path: Path, photo: Photo, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two archives of eight photos, the second damaged at its end, and a short one; the limit is lowered in this process only."""
    monkeypatch.setattr(frames, "CUT_BYTES", CUT_BYTES)
    folder = tmp_path / "in"
    records = []
    for seed in range(17):
        photo(tmp_path / "photo.jpg", seed)
        records.append(warc_record(f"https://example.com/{seed}.jpg", (tmp_path / "photo.jpg").read_bytes()))
    folder.mkdir()
    (folder / "a.warc").write_bytes(b"".join(records[:8]))
    (folder / "b.warc").write_bytes(b"".join(records[8:16])[:-100])
    (folder / "c.warc").write_bytes(records[16])
    assert min((folder / name).stat().st_size for name in ("a.warc", "b.warc")) / 2 > CUT_BYTES
    assert (folder / "c.warc").stat().st_size < CUT_BYTES
    return folder


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the archives that were read to be cut, in this process."""
    found: list[str] = []
    find = SOURCES["warc"].pieces

    def noted(path: str, config: Any, cut_bytes: int) -> Any:
        if os.path.getsize(path) > cut_bytes:
            found.append(os.path.basename(path))
        return find(path, config, cut_bytes)

    monkeypatch.setitem(SOURCES, "warc", replace(SOURCES["warc"], pieces=noted))
    return found


def scan(config: Config) -> list[str]:
    said: list[str] = []
    run_stages(config, ("scan",), said.append)
    return said


def units_of(output: Path) -> list[str]:
    """Names of the units that were scanned: those of the files of images/."""
    return sorted(file.name.removesuffix(".parquet") for file in read_manifest(str(output / "images")).files)


def entries(output: Path) -> list[Path]:
    return sorted((output / ".work" / "cuts").glob("*.json"))


def test_a_file_is_read_once_to_be_cut_whatever_comes_after(tmp_path: Path, crawl: Path, passes: list[str], settings: Settings) -> None:
    expected = sorted(unit.name for unit in find_units((str(crawl),)))
    assert len(expected) > 6
    passes.clear()
    said = scan(settings())
    assert said[0] == "scan: 2 files above 20,000 bytes are read once, to be cut into units"
    assert sorted(passes) == ["a.warc", "b.warc"]
    assert units_of(tmp_path / "out") == expected
    assert len(entries(tmp_path / "out")) == 2
    images = read_dataset(str(tmp_path / "out" / "images")).to_pylist()
    assert sorted(int(row["image_url"].split("/")[-1].removesuffix(".jpg")) for row in images) == [*range(15), 16]
    assert read_manifest(str(tmp_path / "out" / "images")).counters["errors"] == 1  # the record that the file ends in

    passes.clear()
    assert scan(settings())[0].startswith("scan: kept")
    again = dataclasses.replace(settings().scan, min_side_px=100)
    said = scan(dataclasses.replace(settings(), scan=again, run=RunConfig(output=str(tmp_path / "out"), rebuild=True)))
    assert said[0].startswith("scan: other settings and --rebuild")
    assert passes == []
    assert units_of(tmp_path / "out") == expected

    os.utime(crawl / "b.warc", ns=(1, 1))
    scan(dataclasses.replace(settings(), scan=again))
    assert passes == ["b.warc"]
    assert len(entries(tmp_path / "out")) == 3


def test_worker_processes_cut_as_this_one_does(tmp_path: Path, crawl: Path, settings: Settings) -> None:
    """The limit travels with the job: the module of a worker process still holds the one that was not lowered."""
    files, said = list_crawl((str(crawl),)), list[str]()
    output, options = str(tmp_path / "out"), pipeline_options((), 2)
    run = Run(
        config=settings(), output=output, options=options, locate=str, say=said.append, progress=str(tmp_path), check_lock=lambda: None
    )
    units = cut_crawl(run, files)
    assert [replace(unit, version="") for unit in units] == [replace(unit, version="") for unit in find_units((str(crawl),))]
    assert len(said) == 1


def test_what_was_cut_before_a_kill_is_kept(
    tmp_path: Path, crawl: Path, passes: list[str], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = SOURCES["warc"].pieces

    def broken(path: str, config: Any, cut_bytes: int) -> Any:
        if os.path.getsize(path) > cut_bytes and passes:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return noted(path, config, cut_bytes)

    with monkeypatch.context() as patch:
        patch.setitem(SOURCES, "warc", replace(SOURCES["warc"], pieces=broken))
        with pytest.raises(RuntimeError, match=r"\[Errno 5\]"):
            scan(settings())
    assert len(entries(tmp_path / "out")) == len(passes) == 1
    scan(settings())
    assert sorted(passes) == ["a.warc", "b.warc"]


def test_a_plan_reads_no_file_whole_and_takes_cuts_that_are_known(
    tmp_path: Path, crawl: Path, passes: list[str], settings: Settings
) -> None:
    shown = plan(settings(), ("scan",))
    sizes = {path.name: path.stat().st_size for path in crawl.iterdir()}
    assert passes == []
    assert (shown["files"], shown["units"], shown["bytes"]) == (3, 3, sum(sizes.values()))
    assert (shown["to be cut"]["files"], shown["to be cut"]["bytes"]) == (2, sizes["a.warc"] + sizes["b.warc"])
    assert "longer than 20,000 bytes" in shown["to be cut"]["why"]
    assert not (tmp_path / "out").exists()
    scan(settings())
    passes.clear()
    shown = plan(settings(), ("scan",))
    assert "to be cut" not in shown
    assert (shown["units"], shown["bytes"]) == (len(units_of(tmp_path / "out")), sum(sizes.values()))
    assert passes == []


def test_a_long_file_that_no_source_can_use_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(frames, "CUT_BYTES", 100)
    (tmp_path / "long.csv").write_bytes(b"name,number\n" + b"x,1\n" * 100)
    assert main("run", ["--input", str(tmp_path / "long.csv"), "--output", str(tmp_path / "out"), "--encoder", "builtin"]) == 3
    assert "long.csv" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_long_file_that_cannot_be_read_is_named(
    tmp_path: Path, crawl: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = SOURCES["warc"].pieces

    def broken(path: str, config: Any, cut_bytes: int) -> Any:
        if os.path.getsize(path) > cut_bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return find(path, config, cut_bytes)

    monkeypatch.setitem(SOURCES, "warc", replace(SOURCES["warc"], pieces=broken))
    command = ["--input", str(crawl / "a.warc"), "--output", str(tmp_path / "out")]
    assert main("scan", command) == 3
    assert capsys.readouterr().err.splitlines()[-1] == f"pagepairs: {crawl / 'a.warc'}: Input/output error"
    assert main("scan", [*command, "--dry-run"]) == 0
    assert json.loads(capsys.readouterr().out)["plan"]["to be cut"]["files"] == 1
