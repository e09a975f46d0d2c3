"""Test sets as folders, tables of paths and lists of hashes; what is none of these is refused with its place."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pagepairs.images import ImageError
from pipeline.benchmark_items import Item, find_items, read_hashes

PDQ = bytes(range(32))


def test_a_folder_gives_its_images_with_all_below_it_by_name(tmp_path: Path) -> None:
    for name in ("b.JPG", "a/c.png", "a/notes.txt", "z.webp", "labels.csv"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    found = find_items(str(tmp_path), "--images")
    assert [item.name for item in found.items] == ["a/c.png", "b.JPG", "z.webp"]
    assert found.left_out == ["a/notes.txt", "labels.csv"]
    assert read_hashes(str(tmp_path)) is None


def test_images_without_a_suffix_and_behind_links_are_found(tmp_path: Path) -> None:
    test_set, elsewhere = tmp_path / "set", tmp_path / "elsewhere"
    for folder in (test_set / "a", elsewhere / "deep"):
        folder.mkdir(parents=True)
    jpeg, webp = b"\xff\xd8\xff\xe0" + bytes(20), b"RIFF\x10\0\0\0WEBPVP8 "
    for path, body in {
        test_set / "ILSVRC2012_val_00000001": jpeg,
        test_set / "a" / "x.JPEG_": webp,
        test_set / "a" / "labels": b"cat, dog",
        test_set / "page": b"<!doctype html><html>",
        elsewhere / "1.jpg": jpeg,
        elsewhere / "deep" / "2.png": jpeg,
    }.items():
        path.write_bytes(body)
    (test_set / "linked").symlink_to(elsewhere)
    (test_set / "linked-again").symlink_to(elsewhere)  # of one folder, one of both
    (elsewhere / "deep" / "back").symlink_to(test_set)  # a cycle
    (test_set / "nowhere").symlink_to(tmp_path / "none")  # listed as missing_file when it is read
    found = find_items(str(test_set), "--images")
    assert [item.name for item in found.items] == [
        *("ILSVRC2012_val_00000001", "a/x.JPEG_", "linked/1.jpg", "linked/deep/2.png", "nowhere")
    ]
    assert found.left_out == ["a/labels", "page"]


def test_rows_without_a_path_are_counted(tmp_path: Path) -> None:
    (tmp_path / "list.jsonl").write_text('{"path": "b.jpg"}\n{"path": null}\n{"path": ""}\n')
    assert find_items(str(tmp_path / "list.jsonl"), "--images").left_out == ["row 2, without a path", "row 3, without a path"]


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "parquet"])
def test_a_table_gives_the_files_that_its_paths_name(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"list.{form}"
    rows = {"path": ["b/2.jpg", "a/1.jpg"], "label": ["x", "y"]}
    if form == "parquet":
        pq.write_table(pa.table(rows), path)
    elif form == "jsonl":
        path.write_text('{"path": "b/2.jpg"}\n{"path": "a/1.jpg"}\n')
    else:
        comma = "," if form == "csv" else "\t"
        path.write_text(f"path{comma}label\nb/2.jpg{comma}x\na/1.jpg{comma}y\n")
    assert read_hashes(str(path)) is None
    found = find_items(str(path), "--images")
    assert found.left_out == []
    assert found.items == [Item(path=str(tmp_path / name), name=name) for name in ("a/1.jpg", "b/2.jpg")]


def test_an_item_that_cannot_be_read_has_a_reason(tmp_path: Path) -> None:
    (tmp_path / "large.jpg").write_bytes(b"12345")
    for name, reason in [("none.jpg", "missing_file"), ("large.jpg", "too_many_bytes")]:
        with pytest.raises(ImageError) as error:
            Item(path=str(tmp_path / name), name=name).read(4)
        assert error.value.reason == reason
    assert Item(path=str(tmp_path / "large.jpg"), name="large").read(5) == b"12345"


def test_a_list_of_hashes_holds_either_hash(tmp_path: Path) -> None:
    path = tmp_path / "hashes.txt"
    path.write_text(f"00000000000000ff  the first one\n\n{PDQ.hex().upper()}\n")
    found = read_hashes(str(path))
    assert found is not None
    rows = [(row["item"], row["phash"], row["pdq"], row["texture"]) for row in found.to_pylist()]
    assert rows == [(PDQ.hex(), None, PDQ, None), ("the first one", 255, None, None)]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_table_of_hashes(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"hashes.{form}"
    if form == "parquet":  # as another run's images/ holds them
        pq.write_table(pa.table({"phash": pa.array([2**63], pa.uint64()), "pdq": pa.array([PDQ], pa.binary(32)), "item": ["x"]}), path)
    elif form == "jsonl":
        path.write_text(f'{{"phash": "8000000000000000", "pdq": "{PDQ.hex()}", "item": "x"}}\n')
    else:
        path.write_text(f"phash,pdq,item\n8000000000000000,{PDQ.hex()},x\n")
    found = read_hashes(str(path))
    assert found is not None
    assert [(row["item"], row["phash"], row["pdq"]) for row in found.to_pylist()] == [("x", 2**63, PDQ)]


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.txt", "0123\n", "a.txt, line 1: give 16 hex digits of a pHash or 64 of a PDQ"),
        ("b.txt", f"00000000000000ff\n{'g' * 64}\n", "b.txt, line 2: give 16 hex digits"),
        ("c.txt", "\n", "c.txt: there is no hash in it"),
        ("d.csv", "phash\n12\n", "d.csv, row 1: give 16 hex digits"),
        ("e.jsonl", "{", "e.jsonl is no table"),
    ],
)
def test_a_wrong_list_names_its_line(name: str, text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=sentence):
        read_hashes(str(tmp_path / name))


def test_what_is_neither_folder_nor_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("url\nhttp://x\n")
    (tmp_path / "x.doc").write_text("")
    (tmp_path / "empty").mkdir()
    for name, sentence in [
        ("none", "there is no such folder or file"),
        ("x.csv", "neither a column path nor phash or pdq, only url"),
        ("x.doc", "give a folder, a table"),
        ("empty", "there is no image in it"),
    ]:
        with pytest.raises(ValueError, match=f"--images .*{name}.*{sentence}"):
            find_items(str(tmp_path / name), "--images")


def test_stages_and_audit_import_no_search_library_before_they_search() -> None:
    program = "import sys, pipeline.run, pipeline.audit; print(sorted({'faiss', 'torch', 'imagededup'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"
