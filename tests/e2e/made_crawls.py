"""Small crawls that tests write themselves: pictures by seed, pages that name them, WARC files that hold both."""

import functools
import io
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

DATE = "2025-03-02T10:00:00Z"


@dataclass(frozen=True, kw_only=True)
class Response:
    """One record of a crawl: what a server answered."""

    url: str
    body: bytes
    kind: str = "image/jpeg"
    status: str = "200 OK"
    headers: tuple[tuple[str, str], ...] = ()
    date: str = DATE


@functools.cache
def picture(theme: int, view: int, *, width: int = 280, height: int = 260) -> bytes:
    """Returns a JPEG; views of one theme share its colours and shapes, so that their vectors are alike."""
    rng, own = (np.random.Generator(np.random.Philox(key=key)) for key in (theme, 1_000_003 + 1_009 * theme + view))
    blocks = 0.65 * rng.uniform(0, 255, (6, 6, 3)) + 0.35 * own.uniform(0, 255, (6, 6, 3))
    smooth = Image.fromarray(blocks.astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    grain = own.normal(0, 12, (height, width, 1))
    return encode(Image.fromarray(np.clip(np.asarray(smooth) + grain, 0, 255).astype(np.uint8)))


def encode(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    """Returns the image's file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 90} if kind == "JPEG" else {}), **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """Returns a PNG of a few bytes that says it holds width x height pixels."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(10_000))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)


def page(url: str, sources: Iterable[str], *, head: str = "", **more: object) -> Response:
    """Returns an HTML page that names the images, in this order."""
    images = "".join(f'<p><img src="{source}" alt="picture"></p>' for source in sources)
    html = f"<!doctype html><html><head><meta charset=utf-8>{head}<title>t</title></head><body>{images}</body></html>"
    return Response(url=url, body=html.encode(), kind="text/html; charset=utf-8", **more)


def site(pages: Iterable[int], *, views: int = 3, host: str = "site.example") -> list[Response]:
    """Returns pages of `views` related pictures each, images after their page."""
    records = []
    for number in pages:
        urls = [f"https://{host}/{number}/{view}.jpg" for view in range(views)]
        records.append(page(f"https://{host}/{number}/", urls))
        records += [Response(url=url, body=picture(number, view)) for view, url in enumerate(urls)]
    return records


def write_warc(path: Path, records: Sequence[Response], *, info: bool = True) -> Path:
    """Writes the records into one archive, compressed record by record."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        writer = WARCWriter(file, gzip=True, warc_version="WARC/1.1")
        if info:
            writer.write_record(writer.create_warcinfo_record(path.name, {"software": "test"}))
        for record in records:
            http = StatusAndHeaders(record.status, [("Content-Type", record.kind), *record.headers], protocol="HTTP/1.1")
            dates: Mapping[str, str] = {"WARC-Date": record.date}
            body = io.BytesIO(record.body)
            writer.write_record(
                writer.create_warc_record(record.url, "response", body, len(record.body), warc_headers_dict=dict(dates), http_headers=http)
            )
    return path


def write_site(folder: Path, *, files: int = 4, pages: int = 8, views: int = 3) -> list[Path]:
    """Writes a site over several archives, each with some of its pages and their images."""
    return [write_warc(folder / f"crawl-{n}.warc.gz", site(range(n, pages, files), views=views)) for n in range(files)]
