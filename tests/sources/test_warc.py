"""WARC files: pages, images, aliases, opt-outs, encodings, damage."""

import gzip
import hashlib
import io
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pagepairs.config import ScanConfig
from pagepairs.keys import text_key
from pipeline.inspection import inspect_dataset
from pipeline.progress import Meter
from pipeline.references import read_bodies, read_body
from pipeline.scan import ScanTask, ScanUnits
from pipeline.sources import (
    AliasRecord,
    ErrorRecord,
    ImageRecord,
    LinkRecord,
    PageRecord,
    Record,
    SourceMap,
    find_units,
    read_unit,
)

JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 4
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(255, -1, -1)) * 4
PAGE = "https://example.com/page"
DATE = "2024-05-06T07:08:09Z"
DATE_MS = 1_714_979_289_000


@dataclass(kw_only=True)
class Crawl:
    """Builds a WARC file record by record."""

    path: Path
    gzip: bool = True
    buffer: io.BytesIO = field(default_factory=io.BytesIO)
    ends: list[int] = field(default_factory=list)

    def add(
        self,
        kind: str,
        url: str,
        body: bytes,
        http: list[tuple[str, str]] | None,
        *,
        status: str = "200 OK",
        warc: dict[str, str] | None = None,
    ) -> None:
        if http is not None:
            first = "GET / HTTP/1.1" if kind == "request" else f"HTTP/1.1 {status}"
            body = "\r\n".join([first, *(f"{name}: {value}" for name, value in http), "", ""]).encode() + body
        headers = {"WARC-Type": kind, "WARC-Target-URI": url, "WARC-Date": DATE, "Content-Length": str(len(body))}
        headers |= {} if http is None else {"Content-Type": f"application/http; msgtype={'request' if kind == 'request' else 'response'}"}
        lines = ["WARC/1.1", *(f"{name}: {value}" for name, value in (headers | (warc or {})).items()), "", ""]
        record = "\r\n".join(lines).encode() + body + b"\r\n\r\n"
        self.buffer.write(gzip.compress(record) if self.gzip else record)
        self.ends.append(self.buffer.tell())

    def response(
        self, url: str, body: bytes, content_type: str = "", *headers: tuple[str, str], status: str = "200 OK", **warc: str
    ) -> None:
        http = [("Content-Type", content_type)] * bool(content_type) + list(headers)
        self.add("response", url, body, http, status=status, warc={name.replace("_", "-"): value for name, value in warc.items()})

    def page(self, html: str, *headers: tuple[str, str], url: str = PAGE) -> None:
        self.response(url, html.encode(), "text/html; charset=utf-8", *headers)

    def request(self, url: str, referer: str) -> None:
        self.add("request", url, b"", [("Referer", referer)], status="")

    def records(self, data: bytes | None = None, max_bytes: int = 1_000_000) -> list[Record]:
        self.path.write_bytes(self.buffer.getvalue() if data is None else data)
        [unit] = find_units((str(self.path),))
        return list(read_unit(unit, ScanConfig(max_bytes=max_bytes)))


@pytest.fixture(params=["crawl.warc.gz", "crawl.warc"])
def crawl(request: pytest.FixtureRequest, tmp_path: Path) -> Crawl:
    return Crawl(path=tmp_path / request.param, gzip=request.param.endswith(".gz"))


def images(records: list[Record]) -> list[tuple[str, str, bytes]]:
    return [(record.url, record.reason, record.body) for record in records if isinstance(record, ImageRecord)]


def errors(records: list[Record]) -> list[str]:
    return [f"{record.reason}: {record.detail}" for record in records if isinstance(record, ErrorRecord)]


def links(records: list[Record]) -> list[LinkRecord]:
    return [record for record in records if isinstance(record, LinkRecord)]


def read_again(records: list[Record], path: Path) -> None:
    found = [record for record in records if isinstance(record, ImageRecord) and record.body and not record.spill]
    references = [(record.source, record.offset, record.length) for record in found]
    locate = SourceMap(find_units((str(path),)), "")
    again = list(read_bodies(references, locate))
    assert [hashlib.sha256(body).hexdigest() for body in again if isinstance(body, bytes)] == [
        hashlib.sha256(r.body).hexdigest() for r in found
    ]


def test_a_page_and_its_image(crawl: Crawl) -> None:
    crawl.page('<img src="/a.jpg" alt="A">', url=PAGE + "?utm_source=x&b=1#top")
    crawl.response("https://example.com/a.jpg", JPEG, "image/jpeg", WARC_Payload_Digest="sha1:ABC")
    page, link, image = crawl.records()
    assert page == PageRecord(url=PAGE + "?b=1", time_ms=DATE_MS, opt_out="")
    assert isinstance(link, LinkRecord)
    assert (link.page_url, link.page_time_ms, link.image_url) == (PAGE + "?b=1", DATE_MS, "https://example.com/a.jpg")
    assert (link.position, link.alt, link.via) == (0, "A", "img")
    start, end = crawl.ends
    assert image == ImageRecord(
        url="https://example.com/a.jpg",
        body=JPEG,
        source=crawl.path.name,
        offset=start,
        length=end - start,
        time_ms=DATE_MS,
        digest_key=text_key("digest:sha1:ABC"),
    )
    read_again([image], crawl.path)


def test_two_captures_of_a_page_differ(crawl: Crawl) -> None:
    crawl.page("<img src=a.jpg>")
    crawl.page("<img src=b.jpg>")
    first, second = links(crawl.records())
    assert first.page_url == second.page_url
    assert first.capture != second.capture
    assert first.position == second.position == 0


def test_what_is_an_image(crawl: Crawl) -> None:
    crawl.response("https://e.com/typed", b"<html>not found</html>", "image/jpeg")
    crawl.response("https://e.com/sniffed", JPEG, "application/octet-stream")
    crawl.response("https://e.com/as-html", PNG, "text/html")
    crawl.response("https://e.com/untyped", PNG)
    crawl.response("https://e.com/a.svg", b"<svg/>", "image/svg+xml")
    crawl.response("https://e.com/empty", b"", "image/png")
    crawl.response("https://e.com/text", b"hello", "text/plain")
    crawl.response("https://e.com/gone", b"<html>", "text/html", status="404 Not Found")
    crawl.response("https://e.com/gone.jpg", JPEG, "image/jpeg", status="404 Not Found")
    crawl.response("https://e.com/part.jpg", JPEG, "image/jpeg", status="206 Partial Content")
    crawl.add("resource", "https://e.com/resource.png", PNG, None, warc={"Content-Type": "image/png"})
    crawl.add("resource", "urn:thumbnail:https://e.com/", PNG, None, warc={"Content-Type": "image/png"})
    crawl.add("metadata", "https://e.com/meta", PNG, None)
    records = crawl.records()
    assert images(records) == [
        ("https://e.com/typed", "", b"<html>not found</html>"),
        ("https://e.com/sniffed", "", JPEG),
        ("https://e.com/as-html", "", PNG),
        ("https://e.com/untyped", "", PNG),
        ("https://e.com/a.svg", "", b"<svg/>"),
        ("https://e.com/empty", "", b""),
        ("https://e.com/gone.jpg", "http_status", JPEG),
        ("https://e.com/part.jpg", "http_status", JPEG),
        ("https://e.com/resource.png", "", PNG),
    ]
    assert len(records) == 9
    read_again(records, crawl.path)


def test_encoded_bodies_and_bombs(crawl: Crawl) -> None:
    packed = gzip.compress(JPEG)
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(packed), packed)
    crawl.response("https://e.com/1", chunks, "image/jpeg", ("Content-Encoding", "gzip"), ("Transfer-Encoding", "chunked"))
    crawl.response("https://e.com/2", gzip.compress(b"0" * 5_000_000), "image/jpeg", ("Content-Encoding", "gzip"))
    crawl.response("https://e.com/3", packed[:-10], "image/jpeg", ("Content-Encoding", "gzip"))
    crawl.response("https://e.com/4", JPEG, "image/jpeg", WARC_Truncated="length")
    crawl.response("https://e.com/5", JPEG + bytes(3_000_000), "image/jpeg")
    crawl.response("https://e.com/6", JPEG, "image/jpeg")
    records = crawl.records()
    assert images(records) == [
        ("https://e.com/1", "", JPEG),
        ("https://e.com/2", "too_many_bytes", b""),
        ("https://e.com/3", "broken_image", b""),
        ("https://e.com/4", "broken_image", JPEG),
        ("https://e.com/5", "too_many_bytes", b""),
        ("https://e.com/6", "", JPEG),
    ]
    read_again(records, crawl.path)


def test_an_encoded_page(crawl: Crawl) -> None:
    crawl.response(PAGE, gzip.compress(b"<img src=a.jpg>"), "text/html", ("Content-Encoding", "gzip"))
    crawl.response(PAGE + "2", gzip.compress(b"<img src=a.jpg>")[:-3], "text/html", ("Content-Encoding", "gzip"))
    records = crawl.records()
    assert [link.image_url for link in links(records)] == ["https://example.com/a.jpg"]
    assert errors(records) == [f"broken_record: {crawl.path.name} at offset {crawl.ends[0]}: {PAGE}2: a compressed body ends early"]


def test_opt_outs_of_headers_and_meta_elements(crawl: Crawl) -> None:
    crawl.response("https://e.com/1", JPEG, "image/jpeg", ("X-Robots-Tag", "noindex"), ("x-robots-tag", "otherbot: noai, noimageai"))
    crawl.response("https://e.com/2", JPEG, "image/jpeg", ("X-Robots-Tag", "noindex"), ("tdm-reservation", "1"))
    crawl.response("https://e.com/3", JPEG, "image/jpeg", ("X-Robots-Tag", "noimageindex"), ("tdm-reservation", "0"))
    crawl.page("", ("X-Robots-Tag", "noimageai"))
    crawl.page('<meta name="robots" content="noai">')
    crawl.page("", ("TDM-Reservation", "1"))
    crawl.page("")
    records = crawl.records()
    assert [record.opt_out for record in records if isinstance(record, ImageRecord)] == ["noai", "tdm-reservation", ""]
    assert [record.opt_out for record in records if isinstance(record, PageRecord)] == ["noimageai", "noai", "tdm-reservation", ""]


def test_redirects_and_revisits(crawl: Crawl) -> None:
    crawl.response("https://e.com/old", b"<html>moved</html>", "text/html", ("Location", "/new?x=1#y"), status="301 Moved")
    crawl.response("https://e.com/loop", b"", "", ("Location", "/loop"), status="302 Found")
    crawl.response("https://e.com/same", b"", "image/png", status="304 Not Modified")
    named = {"WARC-Refers-To-Target-URI": "https://e.com/b.jpg", "WARC-Payload-Digest": "sha1:XYZ"}
    crawl.add("revisit", "https://e.com/a.jpg", b"", [("Content-Type", "image/jpeg")], warc=named)
    crawl.add("revisit", "https://e.com/c.jpg", b"", [("Content-Type", "image/jpeg")], warc={"WARC-Payload-Digest": "sha1:XYZ"})
    itself = {"WARC-Refers-To-Target-URI": "https://e.com/d.jpg", "WARC-Payload-Digest": "sha1:XYZ"}
    crawl.add("revisit", "https://e.com/d.jpg", b"", None, warc=itself)
    crawl.add("revisit", "https://e.com/e", b"", [("Location", "/f")], status="302 Found", warc={"WARC-Payload-Digest": "sha1:XYZ"})
    assert crawl.records() == [
        AliasRecord(url="https://e.com/old", target="https://e.com/new?x=1", kind="redirect"),
        AliasRecord(url="https://e.com/a.jpg", target="https://e.com/b.jpg", kind="revisit"),
        AliasRecord(url="https://e.com/c.jpg", target="digest:sha1:XYZ", kind="revisit"),
        AliasRecord(url="https://e.com/d.jpg", target="digest:sha1:XYZ", kind="revisit"),
        AliasRecord(url="https://e.com/e", target="https://e.com/f", kind="redirect"),
    ]


def test_referers_name_what_the_html_does_not(crawl: Crawl) -> None:
    crawl.request("https://example.com/early.jpg", PAGE)
    crawl.page("<img src=/a.jpg><img src=/b.jpg>")
    crawl.response("https://example.com/style", b"", "text/css")
    for name, referer in (
        ("a.jpg", PAGE),
        ("script.jpg", PAGE + "#x"),
        ("css.jpg", "https://example.com/style"),
        ("css2.jpg", "https://example.com/x.css?v=1"),
        ("elsewhere.jpg", "https://example.com/not-crawled"),
        ("home.jpg", "https://example.com/"),
    ):
        crawl.request(f"https://example.com/{name}", referer)
        crawl.response(f"https://example.com/{name}", JPEG, "image/jpeg")
    crawl.request("https://cdn.com/trimmed.jpg", "https://example.com/")
    crawl.response("https://cdn.com/trimmed.jpg", JPEG, "image/jpeg")
    crawl.response("https://example.com/early.jpg", JPEG, "image/jpeg")
    crawl.request("https://example.com/no-image.js", PAGE)
    found = links(crawl.records())
    assert [(link.page_url, link.image_url.rsplit("/", 1)[1], link.position, link.via) for link in found] == [
        (PAGE, "a.jpg", 0, "img"),
        (PAGE, "b.jpg", 1, "img"),
        (PAGE, "early.jpg", 2, "referer"),
        (PAGE, "script.jpg", 3, "referer"),
        ("https://example.com/not-crawled", "elsewhere.jpg", 0, "referer"),
        ("https://example.com/", "home.jpg", 0, "referer"),
    ]
    assert len({link.capture for link in found if link.page_url == PAGE}) == 1


@pytest.mark.parametrize("part", [0.02, 0.5, 0.98])
def test_a_truncated_archive_gives_all_before_and_one_error(crawl: Crawl, part: float) -> None:
    for index in range(3):
        crawl.response(f"https://e.com/{index}.jpg", JPEG + bytes([index]), "image/jpeg")
    whole = crawl.records()
    _, start, end = crawl.ends
    cut = crawl.records(crawl.buffer.getvalue()[: start + int((end - start) * part)])
    if crawl.gzip or part < 0.9:
        assert cut[:-1] == whole[:2]
        assert errors(cut[-1:])[0].startswith(f"broken_archive: {crawl.path.name} at offset {start}: ")


def test_a_plain_archive_may_lack_its_last_line_ends(tmp_path: Path) -> None:
    crawl = Crawl(path=tmp_path / "crawl.warc", gzip=False)
    crawl.response("https://e.com/1.jpg", JPEG, "image/jpeg")
    data = crawl.buffer.getvalue()
    assert images(crawl.records(data[:-4])) == [("https://e.com/1.jpg", "", JPEG)]
    [error] = crawl.records(data[:-5])
    assert isinstance(error, ErrorRecord)
    assert error.reason == "broken_archive"


def test_damage_in_the_middle(crawl: Crawl) -> None:
    for index in range(3):
        crawl.response(f"https://e.com/{index}.jpg", JPEG + bytes([index]), "image/jpeg")
    whole = crawl.records()
    data = bytearray(crawl.buffer.getvalue())
    data[crawl.ends[0] : crawl.ends[0] + 40] = b"\xff" * 40
    broken = crawl.records(bytes(data))
    assert broken[:-1] == whole[:1]
    assert errors(broken)[0].startswith(f"broken_archive: {crawl.path.name} at offset {crawl.ends[0]}: ")


def test_a_checksum_that_does_not_fit_is_damage(tmp_path: Path) -> None:
    crawl = Crawl(path=tmp_path / "crawl.warc.gz")
    crawl.response("https://e.com/1.jpg", JPEG, "image/jpeg")
    data = bytearray(crawl.buffer.getvalue())
    data[-8] ^= 1
    assert [record.reason for record in crawl.records(bytes(data)) if isinstance(record, ErrorRecord)] == ["broken_archive"]
    assert images(crawl.records(bytes(data))) == []


@pytest.mark.parametrize("data", [b"", b"\r\n"])
def test_an_empty_archive_is_an_empty_crawl(crawl: Crawl, data: bytes) -> None:
    assert crawl.records(gzip.compress(data) if crawl.gzip and data else data) == []


def test_something_else_under_the_name_of_an_archive(crawl: Crawl) -> None:
    assert errors(crawl.records(b"hello world")) == [f"broken_archive: {crawl.path.name} at offset 0: a record header does not end"]
    assert errors(crawl.records(b"GET / HTTP/1.0\r\n\r\n")) == [
        f"broken_archive: {crawl.path.name} at offset 0: no WARC record begins here"
    ]


def test_gzip_over_the_whole_archive_is_spilled(tmp_path: Path) -> None:
    plain = Crawl(path=tmp_path / "crawl.warc", gzip=False)
    plain.page("<img src=a.jpg>")
    plain.response("https://e.com/1.jpg", JPEG, "image/jpeg")
    plain.response("https://e.com/2.jpg", PNG, "image/png")
    alone = plain.records()
    whole = Crawl(path=tmp_path / "whole.warc.gz").records(gzip.compress(plain.buffer.getvalue()))
    assert images(whole) == images(alone)
    assert [record.spill for record in whole if isinstance(record, ImageRecord)] == [True, True]
    assert [record.spill for record in alone if isinstance(record, ImageRecord)] == [False, False]


def test_members_of_one_and_of_several_records(tmp_path: Path) -> None:
    plain = [Crawl(path=tmp_path / "x", gzip=False) for _ in range(3)]
    for index, part in enumerate(plain):
        for copy in range(1 + index % 2):
            part.response(f"https://e.com/{index}{copy}.jpg", JPEG + bytes([index, copy]), "image/jpeg")
    crawl = Crawl(path=tmp_path / "mixed.warc.gz")
    records = crawl.records(b"".join(gzip.compress(part.buffer.getvalue()) for part in plain))
    assert [(record.url, record.spill) for record in records if isinstance(record, ImageRecord)] == [
        ("https://e.com/00.jpg", False),
        ("https://e.com/10.jpg", True),
        ("https://e.com/11.jpg", True),
        ("https://e.com/20.jpg", False),
    ]
    read_again(records, crawl.path)


def test_urls_in_angle_brackets_and_records_without_a_date(crawl: Crawl) -> None:
    crawl.response("<https://e.com/1.jpg>", JPEG, "image/jpeg", WARC_Date="yesterday")
    [image] = crawl.records()
    assert isinstance(image, ImageRecord)
    assert (image.url, image.time_ms) == ("https://e.com/1.jpg", None)


def test_a_reference_whose_bytes_changed(crawl: Crawl) -> None:
    crawl.response("https://e.com/1.jpg", JPEG, "image/jpeg")
    [image] = crawl.records()
    assert isinstance(image, ImageRecord)
    locate = SourceMap(find_units((str(crawl.path),)), "")
    reference = (image.source, image.offset, image.length)
    assert read_body(reference, locate) == JPEG
    crawl.path.write_bytes(b"X" * image.length)
    assert not isinstance(read_body(reference, locate), bytes)
    crawl.path.write_bytes(b"X")
    assert not isinstance(read_body(reference, locate), bytes)
    crawl.path.unlink()
    assert not isinstance(read_body(reference, locate), bytes)


def test_howtocook(shared_data: Path) -> None:
    path = shared_data / "howtocook.warc.gz"
    [unit] = find_units((str(path),))
    records = list(read_unit(unit))
    assert Counter(type(record).__name__ for record in records) == {"PageRecord": 40, "ImageRecord": 154, "LinkRecord": 165}
    crawled = {url for url, _, _ in images(records)}
    assert sum(link.image_url in crawled for link in links(records)) == 154
    assert {link.via for link in links(records)} == {"img"}
    read_again(records, path)


def test_public_archives(shared_data: Path) -> None:
    found = {}
    for path in sorted((shared_data / "warc_public").iterdir()):
        units = find_units((str(path),))
        records = [record for unit in units for record in read_unit(unit)]
        read_again(records, path)
        counts = Counter(type(record).__name__ for record in records)
        via = Counter(record.via for record in records if isinstance(record, LinkRecord))
        aliases = Counter(record.kind for record in records if isinstance(record, AliasRecord))
        found[path.name] = (counts["PageRecord"], counts["ImageRecord"], via, aliases, errors(records))
    damage = "broken_archive: broken-badexample.arc.gz at offset 0: no ARC record begins here, 2369 bytes into this gzip member"
    assert found == {
        "archive-org-2008.arc.gz": (94, 55, {"css": 80, "img": 788}, {"redirect": 7}, []),
        "archive-org-2008.warc.gz": (94, 55, {"css": 80, "img": 788, "referer": 7}, {"redirect": 7}, []),
        "broken-badexample.arc.gz": (0, 0, {}, {}, [damage]),
        "data-gov-uk-2014.warc.gz": (32, 7, {"img": 74, "referer": 1}, {"redirect": 1}, []),
        "kiwix-with-redirects.warc.gz": (3, 22, {"img": 3, "lazy": 238, "og": 3, "preload": 1, "referer": 3}, {"redirect": 3}, []),
        "netzliteratur.warc": (4, 5, {"img": 10}, {"redirect": 1, "revisit": 5}, []),
        "valid_signed_example_1.wacz": (1, 0, {}, {}, []),
        "wikipedia-mona-lisa.warc.gz": (2, 22, {"css": 2, "img": 48, "srcset": 54}, {}, []),
    }


def test_arc_and_warc_of_one_crawl_hold_the_same(shared_data: Path) -> None:
    found = []
    for name in ("archive-org-2008.arc.gz", "archive-org-2008.warc.gz"):
        records = [record for unit in find_units((str(shared_data / "warc_public" / name),)) for record in read_unit(unit)]
        pages = [record.url for record in records if isinstance(record, PageRecord)]
        named = [(link.page_url, link.image_url, link.position, link.via) for link in links(records) if link.via != "referer"]
        found.append((images(records), pages, named, [record for record in records if isinstance(record, AliasRecord)]))
    assert found[0] == found[1]


def test_the_title_of_a_page_is_stored_as_text_and_shown(crawl: Crawl) -> None:
    crawl.page("<title>&lt;script&gt;alert('1')&lt;/script&gt;\n \u202ereversed\u2069 \x1b[31m\x07red</title><img src=a.jpg>")
    crawl.page("no title", url=PAGE + "2")
    crawl.path.write_bytes(crawl.buffer.getvalue())
    [unit] = find_units((str(crawl.path),))
    output = crawl.path.parent / "out"
    ScanUnits(config=ScanConfig(), output=str(output), threads=1, meter=Meter(""))(ScanTask(unit=unit))
    [file] = (output / "pages").iterdir()
    titles = pq.read_table(file).column("title").to_pylist()
    assert titles == ["<script>alert('1')</script> \u202ereversed\u2069 \x1b[31m\x07red", ""]
    [shown, _] = [line for line in inspect_dataset(str(file)).splitlines() if line.startswith("  title") and "string" not in line]
    assert "<script>alert('1')</script>" in shown
    assert not {"\x1b", "\x07", "\u202e", "\u2069"} & set(shown)
