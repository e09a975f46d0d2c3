import json
from pathlib import Path

import pyarrow as pa
import pytest

from pagepairs.files import FileInfo, write_bytes, write_parquet
from pagepairs.manifest import Manifest, dataset_files, digest_of, find_manifest, read_dataset, read_manifest, write_manifest
from pagepairs.records import SCHEMA_VERSION


def info(name: str, sha256: str = "0" * 64, rows: int = 1) -> FileInfo:
    return FileInfo(name=name, rows=rows, bytes=2, sha256=sha256)


def manifest(*files: FileInfo, digest: str = "d") -> Manifest:
    return Manifest(dataset="images", digest=digest, files=files, counters={"in": 3, "dropped": {"é": 1}})


def test_a_manifest_comes_back_whole(tmp_path: Path) -> None:
    written = manifest(info("a", rows=2), info("b", rows=5))
    assert find_manifest(str(tmp_path)) is None
    write_manifest(str(tmp_path), written)
    assert find_manifest(str(tmp_path)) == written
    assert read_manifest(str(tmp_path)) == written
    assert written.rows == 7


def test_the_file_names_schema_rows_bytes_and_sha256(tmp_path: Path) -> None:
    write_manifest(str(tmp_path), manifest(info("a")))
    assert json.loads((tmp_path / "manifest.json").read_text()) == {
        "schema_version": SCHEMA_VERSION,
        "dataset": "images",
        "digest": "d",
        "rows": 1,
        "files": [{"name": "a", "rows": 1, "bytes": 2, "sha256": "0" * 64}],
        "counters": {"in": 3, "dropped": {"é": 1}},
    }


def test_a_folder_without_manifest_is_not_complete_and_the_message_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no manifest\.json: .*run it first"):
        read_manifest(str(tmp_path))


def test_another_schema_version_is_refused_with_both_numbers(tmp_path: Path) -> None:
    write_manifest(str(tmp_path), manifest())
    path = tmp_path / "manifest.json"
    path.write_text(path.read_text().replace(f'"schema_version": {SCHEMA_VERSION}', '"schema_version": 99'))
    with pytest.raises(ValueError, match=rf"schema version 99, this pagepairs reads {SCHEMA_VERSION}: .*--output"):
        find_manifest(str(tmp_path))


def test_content_depends_on_names_and_bytes_of_the_files_only() -> None:
    a, b = info("a", "1" * 64), info("b", "2" * 64)
    assert manifest(a, b).content == manifest(a, b, digest="other").content
    assert (
        len(
            {
                manifest(a, b).content,
                manifest(b, a).content,
                manifest(a).content,
                manifest(info("b", "1" * 64), info("a", "2" * 64)).content,
            }
        )
        == 4
    )


def test_digest_ignores_the_order_of_keys_and_sees_every_value() -> None:
    assert digest_of({"a": 1, "b": [1, 2]}) == digest_of({"b": [1, 2], "a": 1})
    assert (
        len({digest_of(value) for value in ({"a": 1}, {"a": 1.0}, {"a": "1"}, {"a": None}, {"a": True}, {"b": 1}, ["a", 1], {"a": [1]})})
        == 8
    )


def test_strays_are_never_read(tmp_path: Path) -> None:
    first = write_parquet(str(tmp_path / "a.parquet"), pa.table({"x": [1], "y": [2]}))
    second = write_parquet(str(tmp_path / "b.parquet"), pa.table({"x": [3], "y": [4]}))
    write_bytes(str(tmp_path / "c.parquet"), b"not parquet")
    write_manifest(str(tmp_path), manifest(second, first))
    assert dataset_files(str(tmp_path)) == [str(tmp_path / "b.parquet"), str(tmp_path / "a.parquet")]
    assert read_dataset(str(tmp_path)).to_pylist() == [{"x": 3, "y": 4}, {"x": 1, "y": 2}]
    assert read_dataset(str(tmp_path), ["y"]).to_pylist() == [{"y": 4}, {"y": 2}]
