from pathlib import Path

import pyarrow as pa
import pytest

from pagepairs.files import FileInfo, write_bytes, write_parquet
from pagepairs.manifest import find_manifest, read_dataset
from pipeline.datasets import complete_dataset, is_complete, publish_dataset, work_folder


def write(folder: Path, *names: str, value: int = 1) -> list[FileInfo]:
    return [write_parquet(str(folder / name), pa.table({"x": [value]})) for name in names]


def test_a_dataset_is_complete_under_its_digest_only(tmp_path: Path) -> None:
    files = write(tmp_path, "b.parquet", "a.parquet")
    assert not is_complete(str(tmp_path), "d")
    manifest = complete_dataset(str(tmp_path), "images", "d", files, {"in": 2})
    assert [file.name for file in manifest.files] == ["a.parquet", "b.parquet"]
    assert find_manifest(str(tmp_path)) == manifest
    assert is_complete(str(tmp_path), "d")
    assert not is_complete(str(tmp_path), "e")


def test_files_that_the_manifest_does_not_name_are_deleted(tmp_path: Path) -> None:
    files = write(tmp_path, "a.parquet")
    write(tmp_path, "stray.parquet")
    (tmp_path / "folder").mkdir()
    complete_dataset(str(tmp_path), "images", "d", files, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet", "folder", "manifest.json"]


def test_an_equal_manifest_is_not_written_again(tmp_path: Path) -> None:
    files = write(tmp_path, "a.parquet")
    complete_dataset(str(tmp_path), "images", "d", files, {})
    before = (tmp_path / "manifest.json").stat()
    complete_dataset(str(tmp_path), "images", "d", files, {})
    assert (tmp_path / "manifest.json").stat().st_ino == before.st_ino
    complete_dataset(str(tmp_path), "images", "e", files, {})
    assert (tmp_path / "manifest.json").stat().st_ino != before.st_ino


def test_a_dataset_without_files_is_complete_too(tmp_path: Path) -> None:
    complete_dataset(str(tmp_path / "new"), "images", "d", [], {})
    assert is_complete(str(tmp_path / "new"), "d")


@pytest.mark.parametrize("before", [False, True])
def test_publishing_replaces_the_whole_folder(tmp_path: Path, before: bool) -> None:
    place, work = tmp_path / "out" / "drops" / "pair", tmp_path / "out" / ".work" / "w"
    aside = work / "final" / "drops" / "pair"
    if before:
        complete_dataset(str(place), "x", "old", write(place, "old.parquet"), {})
    complete_dataset(str(aside), "x", "new", write(aside, "new.parquet", value=2), {})
    publish_dataset(str(aside), str(place), str(work))
    assert sorted(path.name for path in place.iterdir()) == ["manifest.json", "new.parquet"]
    assert read_dataset(str(place)).to_pylist() == [{"x": 2}]
    assert not aside.exists()
    assert list((work / "replaced").iterdir()) == [] if before else not (work / "replaced").exists()
    publish_dataset(str(aside), str(place), str(work))
    assert is_complete(str(place), "new")


def test_a_kill_between_the_renames_is_finished_by_the_next_run(tmp_path: Path) -> None:
    place, work = tmp_path / "pairs", tmp_path / ".work"
    aside = work / "final" / "pairs"
    complete_dataset(str(aside), "x", "new", write(aside, "new.parquet"), {})
    write_bytes(str(work / "replaced" / "pairs" / "old.parquet"), b"")
    publish_dataset(str(aside), str(place), str(work))
    assert is_complete(str(place), "new")


def test_work_folders_lie_below_the_output() -> None:
    assert work_folder("/o", "a", "b") == "/o/.work/a/b"
