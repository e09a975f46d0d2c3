"""Fuzzes the transfer and content encodings of HTTP bodies."""

import gzip
import zlib

import atheris
import brotli
import zstandard
from harness import MAX_BYTES, PACKAGES, fuzz

with atheris.instrument_imports(include=PACKAGES):
    from pipeline.sources.http_body import BodyError, decode_body

CODINGS = ["chunked", "gzip", "deflate", "br", "zstd", "x-gzip", "identity", "?"]


def target(data: bytes) -> None:
    """The first two bytes choose up to two encodings, the rest is the body."""
    names = [CODINGS[byte % len(CODINGS)] for byte in data[:2]]
    try:
        body = decode_body(data[2:], transfer=names[:1], content=names[1:], max_bytes=MAX_BYTES)
    except BodyError as error:
        str(error).encode("utf-8")
        return
    assert isinstance(body, bytes)
    assert len(body) <= MAX_BYTES


TEXT = b"a body that repeats, repeats, repeats"
SEEDS = [
    b"\0\6" + b"5;x=y\r\nhello\r\n3\r\nyou\r\n0\r\n\r\n",
    b"\1\6" + gzip.compress(TEXT, mtime=0) + gzip.compress(TEXT, mtime=0),
    b"\2\6" + zlib.compress(TEXT),
    b"\2\6" + zlib.compress(TEXT)[2:-4],
    b"\3\6" + brotli.compress(TEXT),
    b"\4\6" + zstandard.compress(TEXT),
    b"\0\1" + b"40\r\n" + gzip.compress(TEXT, mtime=0) + b"\r\n0\r\n\r\n",
    b"\1\6" + gzip.compress(bytes(10 * MAX_BYTES), mtime=0),
]

if __name__ == "__main__":
    fuzz(target, SEEDS)
