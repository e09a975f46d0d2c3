"""Transfer and content encodings of bodies."""

import gzip
import zlib

import brotli
import pytest
import zstandard

from pipeline.sources.http_body import BodyError, BodyTooLongError, decode_body

BODY = b"hello world" * 100


def chunked(body: bytes) -> bytes:
    return b"".join(b"%X;ext=1\r\n%s\r\n" % (len(body[at : at + 90]), body[at : at + 90]) for at in range(0, len(body), 90)) + b"0\r\n\r\n"


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


def decode(body: bytes, transfer: str = "", content: str = "", max_bytes: int = 10_000) -> bytes:
    return decode_body(body, transfer=[transfer] if transfer else [], content=[content] if content else [], max_bytes=max_bytes)


@pytest.mark.parametrize(
    ("stored", "transfer", "content"),
    [
        (BODY, "", ""),
        (BODY, "identity", "identity"),
        (chunked(BODY), "chunked", ""),
        (chunked(gzip.compress(BODY, mtime=0)), " Chunked", "GZIP "),
        (gzip.compress(BODY[:500], mtime=0) + gzip.compress(BODY[500:], mtime=0), "", "x-gzip"),
        (zlib.compress(BODY), "", "deflate"),
        (raw_deflate(BODY), "", "deflate"),
        (brotli.compress(BODY), "", "br"),
        (zstandard.compress(BODY), "", "zstd"),
        (gzip.compress(brotli.compress(BODY), mtime=0), "", "br, gzip"),
        (chunked(gzip.compress(BODY, mtime=0)), "gzip, chunked", ""),
        (BODY, "chunked", "gzip"),
        (BODY, "", "br"),
        (BODY, "", "deflate"),
        (BODY, "", "zstd"),
    ],
)
def test_every_encoding_and_bodies_that_crawlers_decoded(stored: bytes, transfer: str, content: str) -> None:
    assert decode(stored, transfer, content) == BODY


@pytest.mark.parametrize(
    ("stored", "transfer", "content"),
    [
        (chunked(BODY)[:-50], "chunked", ""),
        (gzip.compress(BODY, mtime=0)[:-9], "", "gzip"),
        (gzip.compress(BODY, mtime=0)[:-5] + b"XXXXX", "", "gzip"),
        (brotli.compress(BODY)[:-2], "", "br"),
        (zstandard.compress(BODY)[:-9] + b"XXXXXXXXX", "", "zstd"),
    ],
)
def test_a_damaged_body_is_an_error(stored: bytes, transfer: str, content: str) -> None:
    with pytest.raises(BodyError):
        decode(stored, transfer, content)


@pytest.mark.parametrize("content", ["gzip", "deflate", "br", "zstd", ""])
def test_the_limit_is_exact_and_stops_bombs(content: str) -> None:
    pack = {"gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress, "zstd": zstandard.compress, "": bytes}[content]
    assert decode(pack(b"0" * 10_000), "", content) == b"0" * 10_000
    for size in (10_001, 30_000_000):
        with pytest.raises(BodyTooLongError):
            decode(pack(b"0" * size), "", content)
