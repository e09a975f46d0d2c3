"""Fuzzes WARC files: their frames, records, HTTP headers and encodings, and reading images again by reference."""

import gzip
import zlib

import atheris
from harness import MAX_BYTES, PACKAGES, check_record, fuzz, memory_file

with atheris.instrument_imports(include=PACKAGES):
    from pagepairs.config import ScanConfig
    from pipeline.sources import ImageRecord, decode_range, find_units, read_unit

CONFIG = ScanConfig(max_bytes=MAX_BYTES)
FILES = {compressed: memory_file(suffix) for compressed, suffix in ((False, ".warc"), (True, ".warc.gz"))}


def target(data: bytes) -> None:
    """The first byte says how the rest is compressed: not, as a whole, in two members, or as it stands."""
    mode, data = data[:1], data[1:]
    raw = data
    if mode == b"w":
        raw = gzip.compress(data, 1, mtime=0)
    elif mode == b"m":
        raw = b"".join(gzip.compress(b"WARC/" + piece, 1, mtime=0) for piece in data.split(b"WARC/")[1:])
    path = FILES[raw[:2] == b"\x1f\x8b"]
    path.write_bytes(raw)
    for unit in find_units((str(path),), CONFIG):
        for record in read_unit(unit, CONFIG):
            check_record(record)
            if isinstance(record, ImageRecord) and not record.reason and not record.spill:
                span = raw[record.offset : record.offset + record.length]
                assert decode_range(record.source, span, MAX_BYTES) == record.body


def record(kind: str, content: bytes, **headers: str) -> bytes:
    """Returns one WARC record."""
    fields = {"WARC-Type": kind, "WARC-Target-URI": "https://a.example/p", "WARC-Date": "2024-05-06T07:08:09Z"}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = ["WARC/1.1", *(f"{name}: {value}" for name, value in fields.items()), f"Content-Length: {len(content)}", "", ""]
    return "\r\n".join(lines).encode() + content + b"\r\n\r\n"


def response(head: bytes, body: bytes, status: bytes = b"200 OK", **headers: str) -> bytes:
    """Returns a response record."""
    http = b"HTTP/1.1 " + status + b"\r\n" + head + b"\r\n\r\n" + body
    return record("response", http, Content_Type="application/http; msgtype=response", **headers)


HTML = b'<html><base href="/b/"><img src="a.jpg" srcset="a.jpg 1x, b.jpg 2x" alt="x"><meta name=robots content=noai>'
JPEG = b"\xff\xd8\xff\xe0 not much of a picture"
RECORDS = [
    response(b"Content-Type: text/html; charset=utf-8", HTML),
    response(b"Content-Type: image/jpeg\r\nX-Robots-Tag: noimageai\r\ntdm-reservation: 1", JPEG, WARC_Payload_Digest="sha1:ABC"),
    response(b"Content-Type: image/png\r\nTransfer-Encoding: chunked", b"4\r\n\x89PNG\r\n0\r\n\r\n"),
    response(b"Content-Type: image/gif\r\nContent-Encoding: gzip", gzip.compress(b"GIF89a", mtime=0)),
    response(b"Content-Type: image/bmp\r\nContent-Encoding: deflate, br", zlib.compress(b"BM")),
    response(b"Location: /there", b"", b"301 Moved"),
    response(b"Content-Type: text/css", b"a{}", WARC_Truncated="length"),
    record("revisit", b"HTTP/1.1 200 OK\r\n\r\n", WARC_Refers_To_Target_URI="https://a.example/q", WARC_Payload_Digest="sha1:ABC"),
    record("request", b"GET /a.jpg HTTP/1.1\r\nReferer: https://a.example/p\r\n\r\n"),
    record("resource", JPEG, Content_Type="image/jpeg"),
    record("warcinfo", b"software: none\r\n", Content_Type="application/warc-fields"),
]

if __name__ == "__main__":
    fuzz(target, [mode + seed for mode in (b"p", b"w", b"m") for seed in (*RECORDS, b"".join(RECORDS))], max_len=8192)
