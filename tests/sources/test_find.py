"""Files, folders and globs to units; folders of images."""

import itertools
import pickle
from pathlib import Path

import pytest

from pagepairs.keys import text_key
from pipeline.sources import ImageRecord, LinkRecord, PageRecord, SourceMap, find_units, read_unit

EMPTY_TABLE = "page_url,image_url,path\n"


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(EMPTY_TABLE.encode() if name.endswith(".csv") else name.encode())


def sources(*inputs: Path) -> list[tuple[str, str]]:
    return [(unit.source, unit.kind) for unit in find_units(tuple(map(str, inputs)))]


def test_a_folder_is_searched_to_its_end(tmp_path: Path) -> None:
    make(tmp_path, "b.warc.gz", "a/c.WARC", "a/deep/t.csv", "photos/1.jpg", "photos/more/2.PNG", "notes.txt")
    assert sources(tmp_path) == [
        ("a/c.WARC", "warc"),
        ("a/deep/t.csv", "table"),
        ("b.warc.gz", "warc"),
        ("photos", "folder"),
        ("photos/more", "folder"),
    ]


def test_images_below_a_table_belong_to_it(tmp_path: Path) -> None:
    make(tmp_path, "crawl/t.csv", "crawl/images/1.jpg", "crawlers/2.jpg")
    assert sources(tmp_path) == [("crawl/t.csv", "table"), ("crawlers", "folder")]


def test_roots_of_files_and_globs(tmp_path: Path) -> None:
    make(tmp_path, "x/a.warc", "x/y/b.warc.gz", "x/y/c.txt", "x/z/1.jpg")
    assert sources(tmp_path / "x" / "a.warc") == [("a.warc", "warc")]
    assert sources(tmp_path / "x" / "*" / "*.gz") == [("y/b.warc.gz", "warc")]
    assert sources(tmp_path / "x" / "**") == [("a.warc", "warc"), ("y/b.warc.gz", "warc"), ("z", "folder")]


def test_an_input_named_twice_is_read_once(tmp_path: Path) -> None:
    make(tmp_path, "x/a.warc", "x/y/b.warc")
    for inputs in itertools.permutations(
        [tmp_path / "x", tmp_path / "x" / "y" / "b.warc", tmp_path / "x" / ".." / "x", tmp_path / "*" / "a.warc"]
    ):
        assert sources(*inputs) == [("x/a.warc", "warc"), ("y/b.warc", "warc")] or sources(*inputs) == [
            ("x/a.warc", "warc"),
            ("x/y/b.warc", "warc"),
        ]
        assert sources(*inputs) == sources(*reversed(inputs))


def test_sources_that_would_meet_get_folder_names(tmp_path: Path) -> None:
    make(tmp_path, "a/s/crawl.warc", "b/s/crawl.warc", "c/other.warc")
    inputs = [tmp_path / "a" / "s" / "crawl.warc", tmp_path / "b" / "s" / "crawl.warc"]
    found = [("a/s/crawl.warc", "warc"), ("b/s/crawl.warc", "warc")]
    assert sources(*inputs) == sources(*reversed(inputs)) == found
    assert sources(inputs[0], tmp_path / "c" / "other.warc") == [("crawl.warc", "warc"), ("other.warc", "warc")]
    units = find_units(tuple(map(str, inputs)))
    locate = SourceMap(units, "")
    assert [locate(unit.source) for unit in units] == [str(path) for path in inputs]


def test_folders_and_tables_of_several_roots_are_kept_apart(tmp_path: Path) -> None:
    make(tmp_path, "a/photos/1.jpg", "b/photos/1.jpg", "a/0.jpg", "b/t.csv")
    make(tmp_path, "c/x.jpg")
    for inputs in itertools.permutations([tmp_path / "a", tmp_path / "b" / "photos", tmp_path / "c"]):
        units = find_units(tuple(map(str, inputs)))
        assert [unit.source for unit in units] == ["a", "a/photos", "c", "photos"]
        locate = SourceMap(units, "/out")
        assert [locate(name) for name in ("a/0.jpg", "a/photos/1.jpg", "c/x.jpg", "photos/1.jpg", "spill/x.tar")] == [
            str(tmp_path / "a" / "0.jpg"),
            str(tmp_path / "a" / "photos" / "1.jpg"),
            str(tmp_path / "c" / "x.jpg"),
            str(tmp_path / "b" / "photos" / "1.jpg"),
            "/out/spill/x.tar",
        ]
        with pytest.raises(LookupError, match=r"no --input holds d/1\.jpg"):
            locate("d/1.jpg")


def test_what_a_job_carries_does_not_grow_with_the_files_of_a_root(tmp_path: Path) -> None:
    make(tmp_path, *(f"in/{number % 7}/{number:03}.warc" for number in range(200)), "other/x.warc")
    sizes = []
    for inputs in [(f"{tmp_path}/in/*/00*.warc",), (f"{tmp_path}/in/*/*.warc",), (f"{tmp_path}/in", f"{tmp_path}/other/x.warc")]:
        units = find_units(inputs)
        locate = pickle.loads(pickle.dumps(SourceMap(units, "/out")))
        assert [locate(unit.source) for unit in units] == [unit.path for unit in units]
        assert locate("spill/x.tar") == "/out/spill/x.tar"
        sizes.append(len(pickle.dumps(locate)))
    assert sizes[0] == sizes[1] < sizes[2]


def test_names_depend_on_source_and_start_only(tmp_path: Path) -> None:
    make(tmp_path, "one/crawl.warc", "two/crawl.warc")
    (tmp_path / "two" / "crawl.warc").write_bytes(b"longer than before")
    [one], [two] = (find_units((str(tmp_path / name / "crawl.warc"),)) for name in ("one", "two"))
    assert one.name == two.name
    assert len(one.name) == 16
    assert int(one.name, 16) >= 0
    assert one.stop != two.stop
    assert one.name != text_key("crawl.warc")[:16]


def test_inputs_that_cannot_be_read(tmp_path: Path) -> None:
    make(tmp_path, "a.txt", "b.jpg", "empty/readme.md")
    for name, message in (
        ("gone", "there is no such file or folder"),
        ("a.txt", r"no source reads this kind of file; sources read \*\.warc, \*\.warc\.gz, .*\*\.parquet.* and folders of images"),
        ("b.jpg", "give the folder that the image stands in"),
        ("empty", "nothing there that a source reads"),
        ("*.parquet", "nothing there that a source reads"),
    ):
        with pytest.raises(ValueError, match=message):
            find_units((str(tmp_path / name),))


def test_a_folder_of_images(tmp_path: Path) -> None:
    make(tmp_path, "b é%/2.jpg", "b é%/10.JPG", "b é%/notes.txt", "top.png")
    units = find_units((str(tmp_path),))
    assert [(unit.source, unit.start, unit.stop) for unit in units] == [(".", 0, 1), ("b é%", 0, 2)]
    records = [record for unit in units for record in read_unit(unit)]
    assert [record.url for record in records if isinstance(record, PageRecord)] == ["file:///", "file:///b%20%C3%A9%25"]
    assert [(record.page_url, record.image_url, record.position, record.via) for record in records if isinstance(record, LinkRecord)] == [
        ("file:///", "file:///top.png", 0, "folder"),
        ("file:///b%20%C3%A9%25", "file:///b%20%C3%A9%25/10.JPG", 0, "folder"),
        ("file:///b%20%C3%A9%25", "file:///b%20%C3%A9%25/2.jpg", 1, "folder"),
    ]
    images = [record for record in records if isinstance(record, ImageRecord)]
    assert [(image.url, image.source, image.offset, image.length, image.body) for image in images] == [
        ("file:///top.png", "top.png", 0, 7, b"top.png"),
        ("file:///b%20%C3%A9%25/10.JPG", "b é%/10.JPG", 0, 12, "b é%/10.JPG".encode()),
        ("file:///b%20%C3%A9%25/2.jpg", "b é%/2.jpg", 0, 11, "b é%/2.jpg".encode()),
    ]


def test_a_large_folder_is_cut(tmp_path: Path) -> None:
    make(tmp_path, *(f"{index:05}.jpg" for index in range(2_001)))
    units = find_units((str(tmp_path),))
    assert [(unit.start, unit.stop) for unit in units] == [(0, 1_000), (1_000, 2_000), (2_000, 2_001)]
    records = [record for unit in units for record in read_unit(unit)]
    assert [record.position for record in records if isinstance(record, LinkRecord)] == list(range(2_001))
    assert len({record.capture for record in records if isinstance(record, LinkRecord)}) == 1


def test_the_benchmark_folder(shared_data: Path) -> None:
    units = find_units((str(shared_data / "bench_dreambooth" / "dataset"),))
    records = [record for unit in units for record in read_unit(unit)]
    assert len(units) == 14
    assert sum(isinstance(record, ImageRecord) for record in records) == 55
