"""Tars of samples: grouping, pages, links and devices, damage, and a real tar."""

import gzip
import hashlib
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from archives import JPEG, sidecar, tar

from pagepairs.config import ScanConfig
from pipeline.sources import ErrorRecord, ImageRecord, LinkRecord, PageRecord, Record, find_units

PAGE = "https://example.com/page"
Read = Callable[..., list[Record]]


def image(name: str) -> str:
    return f"https://example.com/img/{name}.jpg"


def said(name: str, page: str = PAGE) -> bytes:
    return sidecar(url=image(name), page_url=page, caption=f"caption {name}", key=name)


MEMBERS = [
    ("a/1.jpg", JPEG + b"1"),
    ("a/1.json", said("1")),
    ("a/2.json", said("2", PAGE + "?utm_source=x")),
    ("a/1.txt", b"text of 1"),
    ("b/1.webp", JPEG + b"3"),
    ("a/2.JPEG", JPEG + b"2"),
    ("README", b"no sample"),
    (".hidden", b"no sample"),
    ("b/1.txt", "größer".encode()),
    ("b/1.json", sidecar(url=image("3"), page_url=PAGE + "2")),
]


def rows(records: list[Record]) -> list[tuple[str, bytes, str, int, str]]:
    images = [record for record in records if isinstance(record, ImageRecord)]
    links = [record for record in records if isinstance(record, LinkRecord)]
    assert [record.url for record in images] == [link.image_url for link in links]
    return [(i.url, i.body, link.page_url, link.position, link.alt) for i, link in zip(images, links, strict=True)]


def errors(records: list[Record]) -> list[str]:
    return [f"{record.reason}: {record.detail}" for record in records if isinstance(record, ErrorRecord)]


@pytest.mark.parametrize("name", ["t.tar", "t.tar.gz", "t.tgz"])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_grouped_wherever_they_stand(tmp_path: Path, read_all: Read, name: str, form: int) -> None:
    data = tar(MEMBERS, form)
    path = tmp_path / name
    path.write_bytes(data if name == "t.tar" else gzip.compress(data))
    records = read_all(path)
    assert rows(records) == [
        (image("1"), JPEG + b"1", PAGE, 0, "caption 1"),
        (image("3"), JPEG + b"3", PAGE + "2", 2, "größer"),
        (image("2"), JPEG + b"2", PAGE, 1, "caption 2"),
    ]
    assert [record.url for record in records if isinstance(record, PageRecord)] == [PAGE, PAGE + "2"]
    assert {record.spill for record in records if isinstance(record, ImageRecord)} == {name != "t.tar"}


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names(tmp_path: Path, read_all: Read, form: int) -> None:
    path = tmp_path / "t.tar"
    key = "folder-é/" * 40 + "1"
    path.write_bytes(tar([(f"{key}.jpg", JPEG), (f"{key}.json", said("1")), ("2.jpg", JPEG), ("2.json", said("2"))], form))
    assert [row[0] for row in rows(read_all(path))] == [image("1"), image("2")]


def test_other_keys_and_the_parent_of_the_url(tmp_path: Path, read_all: Read) -> None:
    path = tmp_path / "t.tar"
    path.write_bytes(tar([("1.jpg", JPEG), ("1.json", sidecar(url=image("1") + "?x=1", origin=PAGE))]))
    assert rows(read_all(path, ScanConfig(page_url_key="origin")))[0][2] == PAGE
    assert rows(read_all(path, ScanConfig(page_url_key="parent-of-url")))[0][2] == "https://example.com/img/"


def test_a_tar_that_names_no_page_stops_with_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "t.tar"
    for members, message in (
        (
            [("1.jpg", JPEG), ("1.json", sidecar(url="u", caption="c"))],
            "the JSON of its samples has the keys url, caption; give --page-url-key",
        ),
        ([("1.jpg", JPEG), ("1.txt", b"x")], "its samples have members jpg, txt but no JSON; give --page-url-key"),
    ):
        path.write_bytes(tar(members))
        with pytest.raises(ValueError, match=message):
            find_units((str(path),))
    with pytest.raises(ValueError, match="parent-of-url to take the folder"):
        find_units((str(path),), ScanConfig(page_url_key="parent-of-url"))


def test_a_sample_that_says_too_little_is_an_error(tmp_path: Path, read_all: Read) -> None:
    path = tmp_path / "t.tar"
    texts = {
        "1": said("1"),
        "2": b"{}",
        "3": b"not json",
        "4": b"[1]",
        "5": b"[" * 100_000,
        "6": b" " * 2_000_000,
        "8": sidecar(page_url=7),
    }
    names = [str(number) for number in range(1, 9)]
    path.write_bytes(tar([*((f"{name}.jpg", JPEG) for name in names), *((f"{name}.json", text) for name, text in texts.items())]))
    records = read_all(path)
    assert [row[0] for row in rows(records)] == [image("1")]
    assert [error.split(": ")[2] for error in errors(records)] == [f"{name}.jpg" for name in names[1:]]
    assert all(error.startswith("broken_record: t.tar at offset ") for error in errors(records))


def test_more_images_of_a_sample_and_images_without_a_url(tmp_path: Path, read_all: Read) -> None:
    path = tmp_path / "t.tar"
    path.write_bytes(
        tar([("1.a.jpg", JPEG), ("1.b.jpg", JPEG + b"b"), ("1.json", said("1")), ("2.png", JPEG), ("2.json", sidecar(page_url=PAGE))])
    )
    assert [row[0] for row in rows(read_all(path))] == [image("1"), "file:///t.tar/1.b.jpg", "file:///t.tar/2.png"]


def test_links_devices_and_names_that_lead_out(tmp_path: Path, read_all: Read) -> None:
    entries = [("1.jpg", JPEG), ("1.json", said("1")), ("../2.jpg", JPEG), ("/3.jpg", JPEG), ("a/../../4.jpg", JPEG), ("2.json", said("2"))]
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)
    for number, kind in enumerate(kinds, 5):
        info = tarfile.TarInfo(f"{number}.jpg")
        info.type, info.linkname = kind, "/etc/passwd"
        entries.append(info)
    path = tmp_path / "t.tar"
    path.write_bytes(tar(entries))
    records = read_all(path)
    assert [row[0] for row in rows(records)] == [image("1")]
    assert [error.split("'")[1] for error in errors(records)] == [
        "../2.jpg",
        "/3.jpg",
        "a/../../4.jpg",
        *(f"{n}.jpg" for n in range(5, 11)),
    ]


@pytest.mark.parametrize("packed", [False, True])
def test_a_truncated_tar(tmp_path: Path, read_all: Read, packed: bool) -> None:
    data = tar([("1.jpg", JPEG), ("1.json", said("1")), ("2.json", said("2")), ("2.jpg", JPEG)])
    path = tmp_path / ("t.tar.gz" if packed else "t.tar")
    start = data.rindex(b"2.jpg")
    for length, told in ((start + 700, 2), (start + 100, 1), (start, 1 if packed else 0)):
        path.write_bytes(gzip.compress(data[:length])[: -8 if packed else None] if packed else data[:length])
        records = read_all(path)
        assert [row[0] for row in rows(records)] == [image("1")]
        assert len(errors(records)) == told
        assert all(f"{path.name} at offset " in error for error in errors(records))


def test_a_header_that_is_damaged_or_too_long(tmp_path: Path, read_all: Read) -> None:
    data = bytearray(tar([("1.jpg", JPEG), ("1.json", said("1")), ("2.jpg", JPEG)]))
    path = tmp_path / "t.tar"
    data[data.rindex(b"2.jpg")] ^= 1
    path.write_bytes(data)
    assert "no tar header stands here" in errors(read_all(path))[0]
    huge = tarfile.TarInfo("x")
    huge.type, huge.size = tarfile.XHDTYPE, 2**40
    path.write_bytes(tar([("1.jpg", JPEG), ("1.json", said("1"))])[: 2 * 512 + 1_536 + 512] + huge.tobuf(tarfile.GNU_FORMAT))
    assert f"a header of {2**40} bytes" in errors(read_all(path))[0]


def test_a_table_beside_a_tar_of_the_same_name_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "00000.tar").write_bytes(tar(MEMBERS))
    (tmp_path / "00000.parquet").write_bytes(b"what img2dataset writes beside each tar")
    assert [unit.source for unit in find_units((str(tmp_path),))] == ["00000.tar"]
    assert [unit.source for unit in find_units((f"{tmp_path}/*",))] == ["00000.tar"]


def test_the_cc12m_tar(shared_data: Path, read_all: Read) -> None:
    path = shared_data / "webdataset_cc12m" / "cc12m-train-0000.tar"
    with pytest.raises(ValueError, match="has the keys caption, url, key, status, error_message, width, height, exif"):
        find_units((str(path),))
    found = rows(read_all(path, ScanConfig(page_url_key="parent-of-url")))
    with tarfile.open(path) as archive:
        expected = [hashlib.sha256(archive.extractfile(member).read()).digest() for member in archive if member.name.endswith(".jpg")]
    assert [hashlib.sha256(body).digest() for _, body, *_ in found] == expected
    assert len(found) == 32
    assert found[0][2] == "https://i1.wp.com/blog.tripfez.com/wp-content/uploads/2020/02/"
    assert found[0][4] == "Red Square is a city square in Moscow, Russia."
