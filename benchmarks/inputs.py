"""Crawls to measure with: WARC files of JPEGs and the pages they stand on, compressed record by record."""

import io
from collections.abc import Iterable
from pathlib import Path

from decode import generated
from fastwarc.warc import ArchiveIterator, WarcRecordType
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

PER_PAGE = 8


def photo_crawl(path: Path, *, images: int, megapixels: float) -> None:
    """Writes a crawl of generated JPEGs that differ; the number is the seed."""
    write_crawl(path, generated(megapixels, images), images)


def jpeg_crawl(path: Path, crawl: str) -> int:
    """Writes the JPEGs of a WARC as a crawl of their own and returns their number."""
    with open(crawl, "rb") as file:
        bodies = [record.reader.read() for record in ArchiveIterator(file, record_types=WarcRecordType.response)]
    bodies = [body for body in bodies if body.startswith(b"\xff\xd8\xff")]
    write_crawl(path, bodies, len(bodies))
    return len(bodies)


def write_crawl(path: Path, bodies: Iterable[bytes], count: int) -> None:
    """Writes `count` JPEGs with pages that show 8 each."""
    with path.open("wb") as file:
        writer = WARCWriter(file, gzip=True)
        for number, body in enumerate(bodies):
            url = f"https://images.example.org/{number}.jpg"
            if number % PER_PAGE == 0:
                names = (f"https://images.example.org/{n}.jpg" for n in range(number, min(number + PER_PAGE, count)))
                html = "".join(f'<p><img src="{name}" alt="a photo"></p>' for name in names)
                _write(writer, f"https://www.example.org/{number}.html", "text/html", html.encode())
            _write(writer, url, "image/jpeg", body)


def _write(writer: WARCWriter, url: str, content_type: str, body: bytes) -> None:
    http = StatusAndHeaders("200 OK", [("Content-Type", content_type), ("Content-Length", str(len(body)))], protocol="HTTP/1.1")
    dated = {"WARC-Date": "2025-03-02T10:00:00Z"}
    writer.write_record(writer.create_warc_record(url, "response", io.BytesIO(body), len(body), warc_headers_dict=dated, http_headers=http))
