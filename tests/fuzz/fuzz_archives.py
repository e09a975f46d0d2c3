"""ARC files, tars of samples and WACZ files."""

import gzip
import io
import json
import tarfile
import zipfile

import atheris
from harness import MAX_BYTES, PACKAGES, check_record, fuzz, memory_file

with atheris.instrument_imports(include=PACKAGES):
    from pagepairs.config import ScanConfig
    from pipeline.sources import ImageRecord, decode_range, find_units, read_unit

CONFIG = ScanConfig(max_bytes=MAX_BYTES)
FILES = {
    b"a": memory_file(".arc"),
    b"A": memory_file(".arc.gz"),
    b"t": memory_file(".tar"),
    b"T": memory_file(".tar.gz"),
    b"w": memory_file(".wacz"),
}
HTML = b'<html><base href="/b/"><img src="a.jpg" srcset="a.jpg 1x, b.jpg 2x" alt="x"><meta name=robots content=noai>'
JPEG = b"\xff\xd8\xff\xe0 not much of a picture"


def target(data: bytes) -> None:
    """Reads one archive, of the kind that the first byte names; each image must be there again by its reference."""
    mode, data = data[:1], data[1:]
    path = FILES.get(mode, FILES[b"a"])
    raw = gzip.compress(data, 1, mtime=0) if mode in (b"A", b"T") else data
    path.write_bytes(raw)
    try:
        units = find_units((str(path),), CONFIG)
    except ValueError:
        return
    for unit in units:
        for record in read_unit(unit, CONFIG):
            check_record(record)
            if isinstance(record, ImageRecord) and not record.reason and not record.spill:
                span = raw[record.offset : record.offset + record.length]
                assert decode_range(record.source, span, MAX_BYTES) == record.body


def arc() -> bytes:
    """Returns an ARC file of a page and its image."""

    def entry(url: bytes, kind: bytes, body: bytes) -> bytes:
        http = b"HTTP/1.1 200 OK\r\nContent-Type: " + kind + b"\r\n\r\n" + body
        return b"%s 1.2.3.4 20080101000000 %s %d\n" % (url, kind, len(http)) + http + b"\n"

    head = b"1 0 A\nURL IP-address Archive-date Content-type Archive-length\n"
    first = b"filedesc://x.arc 0.0.0.0 20080101000000 text/plain %d\n" % len(head) + head + b"\n"
    return first + entry(b"http://a.example/", b"text/html", HTML) + entry(b"http://a.example/b/a.jpg", b"image/jpeg", JPEG)


def tar(form: int) -> bytes:
    """Returns a tar of a sample, a long name, a name that leads out and a link."""
    sample = json.dumps({"page_url": "https://a.example/", "url": "https://a.example/0.jpg", "caption": "x"}).encode()
    long_name = "x" * (90 if form == tarfile.USTAR_FORMAT else 120) + ".png"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as file:
        for name, body in (("0.jpg", JPEG), ("0.json", sample), ("0.txt", b"x"), (long_name, JPEG), ("../1.json", b"{")):
            member = tarfile.TarInfo(name)
            member.size = len(body)
            file.addfile(member, io.BytesIO(body))
        link = tarfile.TarInfo("l.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    return buffer.getvalue()[:8192]


def wacz(how: int) -> bytes:
    """Returns a WACZ of one response."""
    http = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n\r\n" + JPEG
    head = b"WARC/1.1\r\nWARC-Type: response\r\nWARC-Target-URI: https://a.example/p\r\nWARC-Date: 2024-05-06T07:08:09Z\r\n"
    record = head + b"Content-Type: application/http\r\nContent-Length: %d\r\n\r\n" % len(http) + http + b"\r\n\r\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as file:
        file.writestr("archive/data.warc.gz", gzip.compress(record, mtime=0))
        file.writestr("datapackage.json", "{}")
    return buffer.getvalue()


TARS = [tar(form) for form in (tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)]
SEEDS = [b"a" + arc(), b"A" + arc(), *(b"t" + data for data in TARS), *(b"T" + data for data in TARS)]
SEEDS += [b"w" + wacz(how) for how in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)]

if __name__ == "__main__":
    fuzz(target, SEEDS, max_len=16384)
