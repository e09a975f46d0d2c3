"""ARC and WACZ files: the same records as WARC, read in place where they can be."""

import gzip
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from archives import DATE_MS, JPEG, arc, arc_head, by_record, http, request, wacz, warc

from pipeline.sources import AliasRecord, ErrorRecord, ImageRecord, LinkRecord, PageRecord, Record

PAGE = "https://example.com/a page"  # old crawlers wrote URLs as they found them
IMAGE = "https://example.com/a.jpg"
Read = Callable[..., list[Record]]

ARC_RECORDS = [
    arc_head(),
    arc("dns:example.com", b"20240506070809\nexample.com. 1 IN A 127.0.0.1\n", "text/dns"),
    arc(PAGE, http(b"<img src=a.jpg>", "text/html")),
    arc(IMAGE, http(JPEG, "image/jpeg"), "image/jpeg"),
    arc("https://example.com/old.jpg", http(b"", "text/html", ("Location", "/a.jpg"), status="301 Moved")),
    arc("https://example.com/bare.jpg", JPEG, "image/jpeg"),
]


def named(records: list[Record]) -> list[tuple[str, str]]:
    return [(type(record).__name__, getattr(record, "url", "") or getattr(record, "image_url", "")) for record in records]


@pytest.mark.parametrize("name", ["crawl.arc", "crawl.arc.gz", "whole.arc.gz"])
def test_arc(tmp_path: Path, read_all: Read, name: str) -> None:
    data = {
        "crawl.arc": b"".join(ARC_RECORDS),
        "crawl.arc.gz": by_record(ARC_RECORDS),
        "whole.arc.gz": gzip.compress(b"".join(ARC_RECORDS)),
    }
    path = tmp_path / name
    path.write_bytes(data[name])
    page, link, image, alias, bare = read_all(path)
    assert page == PageRecord(url="https://example.com/a%20page", time_ms=DATE_MS)
    assert isinstance(link, LinkRecord)
    assert (link.page_url, link.image_url, link.via) == ("https://example.com/a%20page", IMAGE, "img")
    assert isinstance(image, ImageRecord)
    assert (image.url, image.body, image.time_ms, image.reason, image.spill) == (IMAGE, JPEG, DATE_MS, "", name == "whole.arc.gz")
    assert alias == AliasRecord(url="https://example.com/old.jpg", target=IMAGE, kind="redirect")
    assert isinstance(bare, ImageRecord)
    assert (bare.url, bare.body, bare.reason) == ("https://example.com/bare.jpg", JPEG, "")


def test_arc_of_version_2(tmp_path: Path, read_all: Read) -> None:
    content = http(JPEG, "image/jpeg")
    path = tmp_path / "crawl.arc"
    path.write_bytes(
        arc_head()
        + f"{IMAGE} 1.2.3.4 20240506070809 image/jpeg 200 0123456789abcdef - 17 x.arc {len(content)}\n".encode()
        + content
        + b"\n"
    )
    [image] = read_all(path)
    assert isinstance(image, ImageRecord)
    assert (image.url, image.body, image.time_ms) == (IMAGE, JPEG, DATE_MS)


@pytest.mark.parametrize("packed", [False, True])
def test_a_truncated_arc_names_file_and_offset(tmp_path: Path, read_all: Read, packed: bool) -> None:
    before = (by_record if packed else b"".join)(ARC_RECORDS[:3])
    path = tmp_path / ("crawl.arc.gz" if packed else "crawl.arc")
    path.write_bytes(before + (by_record if packed else b"".join)(ARC_RECORDS[3:4])[:-40])
    *whole, error = read_all(path)
    assert named(whole) == [("PageRecord", "https://example.com/a%20page"), ("LinkRecord", IMAGE)]
    assert isinstance(error, ErrorRecord)
    assert (error.reason, error.detail.split(": ")[0]) == ("broken_archive", f"{path.name} at offset {len(before)}")


@pytest.mark.parametrize(
    "line",
    [b"", b"x\n", b"https://e.com 1.2.3.4 2024 text/html -5\n", b"https://e.com 1.2.3.4 20240506070809 text/html\n", b"a " * 500_000],
)
def test_what_is_no_arc_record_is_damage(tmp_path: Path, read_all: Read, line: bytes) -> None:
    path = tmp_path / "crawl.arc"
    path.write_bytes(ARC_RECORDS[0] + line)
    assert [record.reason for record in read_all(path) if isinstance(record, ErrorRecord)] == ["broken_archive"] * bool(line)


WARC_RECORDS = [warc(PAGE, http(b"<img src=a.jpg>", "text/html")), warc(IMAGE, http(JPEG, "image/jpeg"))]
OTHER_RECORDS = [
    warc("https://e.com/b.jpg", http(JPEG + b"b", "image/jpeg")),
    warc("https://e.com/b.jpg", request("https://e.com/p"), "request"),
]


def test_members_of_a_wacz_are_read_in_place_or_spilled(tmp_path: Path, read_all: Read) -> None:
    path = tmp_path / "crawl.wacz"
    members = {
        "archive/a.warc.gz": (by_record(WARC_RECORDS), zipfile.ZIP_STORED),
        "indexes/index.cdx": (b"x" * 100, zipfile.ZIP_DEFLATED),
        "archive/b.warc.gz": (by_record(OTHER_RECORDS), zipfile.ZIP_DEFLATED),
        "archive/c.warc": (b"".join(WARC_RECORDS), zipfile.ZIP_STORED),
        "archive/empty.warc.gz": (b"", zipfile.ZIP_STORED),
    }
    path.write_bytes(wacz(members))
    records = read_all(path)
    images = [(record.url, record.body, record.spill) for record in records if isinstance(record, ImageRecord)]
    assert images == [(IMAGE, JPEG, False), ("https://e.com/b.jpg", JPEG + b"b", True), (IMAGE, JPEG, False)]
    links = [record for record in records if isinstance(record, LinkRecord)]
    assert [(link.image_url, link.via) for link in links] == [(IMAGE, "img"), ("https://e.com/b.jpg", "referer"), (IMAGE, "img")]
    assert len({link.capture for link in links}) == 3


def test_damage_in_a_wacz_is_an_error(tmp_path: Path, read_all: Read) -> None:
    path = tmp_path / "crawl.wacz"
    whole = wacz(
        {
            "archive/a.warc.gz": (by_record(WARC_RECORDS), zipfile.ZIP_STORED),
            "archive/b.warc": (b"".join(OTHER_RECORDS) * 9, zipfile.ZIP_DEFLATED),
        }
    )
    for data in (b"", b"no zip", whole[:-30], whole[: len(whole) // 2]):
        path.write_bytes(data)
        [error] = read_all(path)
        assert isinstance(error, ErrorRecord)
        assert error.reason == "broken_archive"
    packed = bytearray(whole)
    packed[whole.index(b"archive/b.warc") + 60] ^= 0xFF
    path.write_bytes(packed)
    records = read_all(path)
    assert named(records[:2]) == [("PageRecord", "https://example.com/a%20page"), ("LinkRecord", IMAGE)]
    assert [record.detail.split(" at ")[0] for record in records if isinstance(record, ErrorRecord)] == ["crawl.wacz/archive/b.warc"]


def test_members_that_overlap_are_refused(tmp_path: Path, read_all: Read) -> None:
    path = tmp_path / "crawl.wacz"
    data = wacz({name: (by_record(WARC_RECORDS), zipfile.ZIP_STORED) for name in ("a.warc.gz", "b.warc.gz")})
    first, second = data.index(b"PK\1\2"), data.rindex(b"PK\1\2")
    path.write_bytes(data[: second + 42] + data[first + 42 : first + 46] + data[second + 46 :])  # both entries point to the first member
    [error] = read_all(path)
    assert isinstance(error, ErrorRecord)
    assert "overlap" in error.detail
