"""Sources against the library that reads the same file alone, on one core; and the links of HTML pages a second.

    python benchmarks/sources.py                               # generated files
    python benchmarks/sources.py ../shared/data/howtocook.warc.gz  # a real crawl instead; its pages are read, too

"library" reads every record and its HTTP headers, or every row, to its last byte, and keeps nothing. "read" does the same through this
project's own reading: records found, damage detected, references known. "source" is all that `read_unit` does: URLs resolved, pages
parsed for their links, bodies decoded. "bare" is the least that a user of the same libraries (fastwarc, selectolax, w3lib, ada) writes for
the same images and links: one plain loop, without damage, references, lazy images, style sheets or Referer headers. MB are those of the
inflated content.
"""

import argparse
import csv
import gzip
import io
import json
import tarfile
import tempfile
import zipfile
from base64 import b64encode
from binascii import a2b_base64
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq
from ada_url import URL
from decode import generated
from fastwarc.warc import ArchiveIterator, WarcRecordType
from inputs import photo_crawl
from processes import conditions, in_turn, measured, median, pin, ratio
from selectolax.lexbor import LexborHTMLParser
from w3lib.encoding import html_to_unicode
from w3lib.url import canonicalize_url, url_query_cleaner
from warcio.archiveiterator import ArchiveIterator as ArcIterator

from pagepairs.config import ScanConfig
from pipeline.sources import find_units, read_unit
from pipeline.sources.arc import read_arc_header
from pipeline.sources.frames import frames
from pipeline.sources.html import read_page
from pipeline.sources.tar_members import tar_members
from pipeline.sources.warc import open_record, read_warc_header

KEEP_BYTES = 100_000_000
Counted = tuple[int, int]  # records, bytes
SITE = "https://example.com"


def library_warc(path: str) -> Counted:
    bodies = [len(record.reader.read()) for record in ArchiveIterator(path, parse_http=True)]
    return len(bodies), sum(bodies)


def bare_warc(path: str) -> Counted:
    with open(path, "rb") as file:
        return bare_loop(file)


def bare_wacz(path: str) -> Counted:
    with zipfile.ZipFile(path) as archive, archive.open("archive/crawl.warc.gz") as file:
        return bare_loop(file)


def bare_loop(file: IO[bytes]) -> Counted:
    """Returns the number of what a loop over a WARC file finds (pages, images, links, redirects, requests) and the bytes of images."""
    kept: list[tuple[object, ...]] = []
    size = 0
    for record in ArchiveIterator(file, parse_http=True, auto_decode="all"):
        http = record.http_headers
        if http is None or record.record_type not in (WarcRecordType.response, WarcRecordType.request):
            continue
        url = URL(record.headers["WARC-Target-URI"]).href
        if record.record_type == WarcRecordType.request:
            if referer := http.get("Referer"):
                kept.append((url, URL(referer).href, record.record_date))
            continue
        kind, body = record.http_content_type or "", record.reader.read()
        if 300 <= http.status_code < 400:
            kept.append((url, http.get("Location")))
        elif kind.startswith("image/"):
            size += len(body)
            kept.append((url, record.record_date, record.stream_pos, record.headers.get("WARC-Payload-Digest"), http.get("X-Robots-Tag")))
        elif kind == "text/html" and http.status_code == 200:
            kept += bare_page(url, http.get("Content-Type"), body, record.record_date)
    return len(kept), size


def bare_page(url: str, content_type: str, html: bytes, time: object) -> list[tuple[object, ...]]:
    text = html_to_unicode(content_type, html)[1]
    page, robots = canonicalize_url(url_query_cleaner(url, ("utm_source",), remove=True)), ""
    links: list[tuple[object, ...]] = []
    for position, node in enumerate(LexborHTMLParser(text).css('img, picture source, meta[content], link[rel="preload"][as="image"]')):
        attributes = node.attributes
        if node.tag == "meta":
            if attributes.get("name") == "robots":
                robots = attributes["content"]
            found = [attributes["content"]] if attributes.get("property") == "og:image" else []
        else:
            srcset = (attributes.get("srcset") or "").split(",")
            found = [
                attributes.get("src"),
                attributes.get("data-src"),
                attributes.get("href"),
                *(part.split()[0] for part in srcset if part.strip()),
            ]
        for reference in found:
            with suppress(ValueError):
                if reference and (link := URL(reference, url).href).startswith("http"):
                    links.append((page, time, link, position, attributes.get("alt"), node.tag))
    return [(page, time, robots), *links]


def library_arc(path: str) -> Counted:
    with open(path, "rb") as file:
        bodies = [len(record.content_stream().read()) for record in ArcIterator(file)]
    return len(bodies), sum(bodies)


def library_wacz(path: str) -> Counted:
    with zipfile.ZipFile(path) as archive, archive.open("archive/crawl.warc.gz") as file:
        bodies = [len(record.reader.read()) for record in ArchiveIterator(file, parse_http=True)]
    return len(bodies), sum(bodies)


def library_tar(path: str) -> Counted:
    with tarfile.open(path) as archive:
        bodies = [len(file.read()) for member in archive if (file := archive.extractfile(member)) is not None]
    return len(bodies), sum(bodies)


def library_parquet(path: str) -> Counted:
    with pq.ParquetFile(path) as file:
        bodies = [len(body) for batch in file.iter_batches(64) for body in batch["bytes"].to_pylist()]
    return len(bodies), sum(bodies)


def library_jsonl(path: str) -> Counted:
    with open(path, "rb") as file:
        bodies = [len(a2b_base64(json.loads(line)["bytes"], strict_mode=True)) for line in file]
    return len(bodies), sum(bodies)


def library_csv(path: str) -> Counted:
    csv.field_size_limit(2**31 - 1)
    with open(path, encoding="utf-8", newline="") as file:
        bodies = [len(a2b_base64(row["bytes"], strict_mode=True)) for row in csv.DictReader(file)]
    return len(bodies), sum(bodies)


def read_frames(path: str) -> Counted:
    header = read_arc_header if ".arc" in Path(path).name else read_warc_header
    with open(path, "rb") as file:
        bodies = [len(open_record(frame)[1]) for frame in frames(file, header, keep_bytes=KEEP_BYTES)]
    return len(bodies), sum(bodies)


def read_tar(path: str) -> Counted:
    bodies = []
    with open(path, "rb") as file:
        for member in tar_members(file):
            file.seek(member.start)
            bodies.append(len(file.read(member.size)))
    return len(bodies), sum(bodies)


def source(path: str) -> Counted:
    records = sum(1 for unit in find_units((path,)) for _ in read_unit(unit, ScanConfig(max_bytes=KEEP_BYTES)))
    return records, 0


def _pages(path: str) -> list[bytes]:
    records = ArchiveIterator(path, parse_http=True)
    return [r.reader.read() for r in records if r.http_headers is not None and r.http_content_type == "text/html"]


LIBRARIES: dict[str, tuple[str, Callable[[str], Counted]]] = {
    ".warc": ("fastwarc", library_warc),
    ".warc.gz": ("fastwarc", library_warc),
    ".arc.gz": ("warcio", library_arc),
    ".wacz": ("zipfile, fastwarc", library_wacz),
    ".tar": ("tarfile", library_tar),
    ".parquet": ("pyarrow", library_parquet),
    ".jsonl": ("json", library_jsonl),
    ".csv": ("csv", library_csv),
}
BARE: dict[str, Callable[[str], Counted]] = {".warc": bare_warc, ".warc.gz": bare_warc, ".wacz": bare_wacz}
READERS = {".warc": read_frames, ".warc.gz": read_frames, ".arc.gz": read_frames, ".tar": read_tar}


def suffix_of(path: str) -> str:
    return max((suffix for suffix in LIBRARIES if path.endswith(suffix)), key=len)


def make_files(folder: Path, images: int) -> None:
    """Writes the same photos as every kind of file; the WARC is there."""
    bodies = generated(1.0, images)
    warc = (folder / "crawl.warc.gz").read_bytes()
    (folder / "crawl.warc").write_bytes(gzip.decompress(warc))
    with zipfile.ZipFile(folder / "crawl.wacz", "w") as archive:
        archive.writestr("archive/crawl.warc.gz", warc)
    urls = [f"{SITE}/{number}.jpg" for number in range(images)]
    arc = [b"filedesc://a.arc 0.0.0.0 20250302100000 text/plain 0\n\n"]
    arc += [_arc_record(url, body) for url, body in zip(urls, bodies, strict=True)]
    (folder / "crawl.arc.gz").write_bytes(b"".join(gzip.compress(record, 6) for record in arc))
    with tarfile.open(folder / "samples.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for number, (url, body) in enumerate(zip(urls, bodies, strict=True)):
            for name, content in ((f"{number}.jpg", body), (f"{number}.json", json.dumps({"url": url, "page_url": SITE}).encode())):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    columns = {"page_url": [SITE] * images, "image_url": urls, "bytes": bodies}
    pq.write_table(pa.table(columns), folder / "table.parquet", row_group_size=64)
    rows = [{"page_url": SITE, "image_url": url, "bytes": b64encode(body).decode()} for url, body in zip(urls, bodies, strict=True)]
    (folder / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _arc_record(url: str, body: bytes) -> bytes:
    content = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n\r\n" + body
    return f"{url} 127.0.0.1 20250302100000 image/jpeg {len(content)}\n".encode() + content + b"\n"


def run_side(side: str, path: str) -> None:
    """Reads the file once to warm up, then once to be measured."""
    pin(1)
    bytes(30_000_000)  # glibc keeps freed memory from now on, as it does in scan once a picture was decoded; else page faults blur it all
    suffix = suffix_of(path)
    work = {
        "library": LIBRARIES[suffix][1],
        "bare": BARE.get(suffix),
        "read": READERS.get(suffix, source),
        "source": source,
        "html": _pages,
    }[side]
    warm = work(path)
    with measured():
        if side == "html":
            for page in warm:
                read_page(page, "text/html; charset=utf-8", SITE)
        else:
            work(path)


def report(path: Path, repeats: int) -> None:
    """Prints the line of one file."""
    suffix = suffix_of(path.name)
    name, library = LIBRARIES[suffix]
    records, size = library(str(path))
    sides = ("library", *(["read"] * (suffix in READERS)), *(["bare"] * (suffix in BARE)), "source")
    runs = in_turn(__file__, sides, [str(path)], repeats)
    rates = "".join(
        f"{size / median(runs[side], 'cpu_s') / 1e6 if side in runs else 0:9.0f}" for side in ("library", "read", "bare", "source")
    )
    pairs = (("library", "read"), ("library", "source"), ("bare", "source"))
    ratios = [ratio(runs[above], runs[below], "cpu_s") if above in runs and below in runs else "" for above, below in pairs]
    each = records / median(runs["source"], "cpu_s")
    print(f"{path.name:26}{name:20}{records:8}{rates}{each:11.0f}  " + "".join(f"{text:20}" for text in ratios), flush=True)
    if suffix in BARE:
        print(f"{'':26}the bare loop keeps {BARE[suffix](str(path))[0]} items, the source {source(str(path))[0]}", flush=True)


def report_pages(path: Path, repeats: int) -> None:
    pages = _pages(str(path))
    run = median(in_turn(__file__, ["html"], [str(path)], repeats)["html"], "cpu_s")
    print(f"\n{path.name}: {len(pages) / run:.0f} HTML pages/s, {sum(map(len, pages)) / run / 1e6:.0f} MB/s, one core")


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", nargs="*", help="files to measure instead of the generated ones")
    parser.add_argument("--images", type=int, default=200, help="images of a generated file")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--side", help="measures one side and prints it as JSON")
    args = parser.parse_args()
    if args.side:
        run_side(args.side, args.archive[0])
        return
    print(conditions(args.repeats) + "; rates in MB/s of processor time")
    ratios = "".join(f"{name:20}" for name in ("read / library", "source / library", "source / bare"))
    print(f"{'':26}{'library':20} records  library     read     bare   source  records/s  {ratios}")
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(name) for name in args.archive]
        if not paths:
            photo_crawl(Path(folder, "crawl.warc.gz"), images=args.images, megapixels=1.0)
            make_files(Path(folder), args.images)
            paths = sorted(Path(folder).iterdir())
        for path in paths:
            report(path, args.repeats)
        for path in paths:
            if path.name.endswith(".warc.gz") and _pages(str(path)):
                report_pages(path, args.repeats)


if __name__ == "__main__":
    main()
