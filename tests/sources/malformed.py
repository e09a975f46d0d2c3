"""Inputs that want to break the sources, made by seed: each is a file of one of their kinds, damaged in one of many ways."""

import base64
import csv
import gzip
import io
import json
import random
import re
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from archives import arc, arc_head, by_record, http, request, sidecar, tar, wacz, warc
from PIL import Image

SITE = "https://example.com"
COUNT = 5  # images of an undamaged input


@dataclass(frozen=True, kw_only=True)
class Malformed:
    """A file, and how many of its first images the damage does not touch."""

    name: str
    data: bytes
    intact: int = 0


def _picture(kind: str, shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20, 20), (shade * 40, 0, 0)).save(file, kind)
    return file.getvalue()


PICTURES = [_picture(kind, shade) for shade, kind in enumerate(("JPEG", "PNG", "WEBP", "GIF", "BMP"))]


def url(number: int) -> str:
    return f"{SITE}/{number}.jpg"


def _html() -> bytes:
    named = "".join(f'<img src="{url(number)}" alt="ä {number}">' for number in range(COUNT))
    return f'<meta name="robots" content="all"><base href="/"><style>a {{ background: url(x.jpg) }}</style>{named}'.encode()


def _content(number: int, rng: random.Random) -> bytes:
    body = PICTURES[number]
    if rng.random() < 0.2:
        return http(gzip.compress(body, mtime=0), "image/jpeg", ("Content-Encoding", "gzip"))
    if rng.random() < 0.2:
        return http(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body), "image/jpeg", ("Transfer-Encoding", "chunked"))
    return http(body, "image/jpeg")


def _warc(rng: random.Random) -> list[bytes]:
    images = [warc(url(number), _content(number, rng)) for number in range(COUNT)]
    return [*images, warc(f"{SITE}/", http(_html(), "text/html")), warc(url(0), request(f"{SITE}/"), "request")]


def _arc(rng: random.Random) -> list[bytes]:
    images = [arc(url(number), _content(number, rng), "image/jpeg") for number in range(COUNT)]
    return [*images, arc(f"{SITE}/", http(_html(), "text/html")), arc_head()]


def _tar(rng: random.Random) -> list[bytes]:
    form = rng.choice([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    folder = rng.choice(["", "a/", "long/" * 60, "ä/"]) if form != tarfile.USTAR_FORMAT else ""
    samples = [
        tar([(f"{folder}{n}.json", sidecar(url=url(n), page_url=f"{SITE}/")), (f"{folder}{n}.jpg", PICTURES[n])], form).rstrip(b"\0")
        for n in range(COUNT)
    ]
    return [*(sample + bytes(-len(sample) % 512) for sample in samples), bytes(1024)]


def _rows() -> list[dict[str, Any]]:
    return [{"page_url": f"{SITE}/", "image_url": url(n), "bytes": PICTURES[n], "alt": f"ä {n}", "pos": n} for n in range(COUNT)]


def _jsonl(_: random.Random) -> list[bytes]:
    return [json.dumps(row | {"bytes": base64.b64encode(row["bytes"]).decode()}).encode() + b"\n" for row in _rows()]


def _csv(_: random.Random) -> list[bytes]:
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(["page_url", "image_url", "bytes", "alt"])
    writer.writerows([row["page_url"], row["image_url"], base64.b64encode(row["bytes"]).decode(), row["alt"]] for row in _rows())
    return [file.getvalue().encode()]


def _parquet(rng: random.Random) -> list[bytes]:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(_rows()), file, row_group_size=2, compression=rng.choice(["none", "zstd", "snappy", "gzip"]))
    return [file.getvalue()]


def _wacz(rng: random.Random) -> list[bytes]:
    method = rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    return [wacz({"archive/a.warc.gz": (by_record(_warc(rng)), zipfile.ZIP_STORED), "archive/b.warc": (b"".join(_warc(rng)), method)})]


def _packed(make: Callable[[random.Random], list[bytes]]) -> Callable[[random.Random], list[bytes]]:
    return lambda rng: [gzip.compress(record, mtime=0) for record in make(rng)]


def _whole(make: Callable[[random.Random], list[bytes]]) -> Callable[[random.Random], list[bytes]]:
    return lambda rng: [gzip.compress(b"".join(make(rng)), mtime=0)]


# name -> makes its pieces: where there is more than one, piece n holds image n
KINDS: dict[str, Callable[[random.Random], list[bytes]]] = {
    "a.warc": _warc,
    "a.warc.gz": _packed(_warc),
    "whole.warc.gz": _whole(_warc),
    "a.arc": _arc,
    "a.arc.gz": _packed(_arc),
    "a.wacz": _wacz,
    "a.tar": _tar,
    "a.tar.gz": _whole(_tar),
    "a.jsonl": _jsonl,
    "a.jsonl.gz": _packed(_jsonl),
    "a.csv": _csv,
    "a.tsv": lambda rng: [_csv(rng)[0].replace(b",", b"\t")],
    "a.parquet": _parquet,
}
MARKS = [b"\r\n\r\n", b"..", b"/", b"<", b'"', b"\x1f\x8b\x08", b"PK\3\4", b"PAR1", b"WARC/1.0\r\n"]
NOISE = [*MARKS, b"", b"\0" * 600, b"\xff\xfe\xed\xa0\x80", b"A" * 70_000, b"[" * 5_000]
NUMBERS = [b"0", b"-1", b"1", b"99999", b"4294967296", b"99999999999999999", b"9" * 30, b"1e9", b"0x10", b""]


def _flip(data: bytearray, at: int, rng: random.Random) -> int:
    places = sorted(rng.randrange(at, len(data)) for _ in range(rng.choice([1, 1, 2, 20])))
    for place in places:
        data[place] ^= 1 << rng.randrange(8)
    return places[0]


def _truncate(data: bytearray, at: int, rng: random.Random) -> int:
    place = rng.randrange(at, len(data))
    del data[place:]
    return place


def _other_number(data: bytearray, at: int, rng: random.Random) -> int:
    found = list(re.finditer(rb"\d+", bytes(data[at:])))
    if not found:
        return _flip(data, at, rng)
    chosen = rng.choice(found)
    data[at + chosen.start() : at + chosen.end()] = rng.choice(NUMBERS)
    return at + chosen.start()


def _insert(data: bytearray, at: int, rng: random.Random) -> int:
    place = rng.randrange(at, len(data) + 1)
    piece = rng.choice([*NOISE, bytes(data[:200]), bytes(data), rng.randbytes(50)])
    data[place : place + rng.choice([0, 0, 1, len(piece)])] = piece
    return place


def _remove(data: bytearray, at: int, rng: random.Random) -> int:
    place = rng.randrange(at, len(data))
    del data[place : place + rng.choice([1, 2, 7, 512, 513])]
    return place


DAMAGES = [_flip, _flip, _truncate, _other_number, _insert, _remove]


def malformed(seed: int) -> Malformed:
    """Returns the input of a seed."""
    rng = random.Random(seed)
    name = rng.choice(list(KINDS))
    make = KINDS[name]
    if rng.random() < 0.1:  # another format under this name, or one inside the other
        other = b"".join(KINDS[rng.choice(list(KINDS))](rng))
        inside = [_boxed(name, other), tar([("1.jpg", other), ("1.json", other)])]
        data = rng.choice([other, b"".join(make(rng)) + other, gzip.compress(other), *inside])
        return Malformed(name=name, data=data)
    pieces = make(rng)
    data = bytearray(b"".join(pieces))
    first = min(rng.choice(DAMAGES)(data, rng.choice([0, 0, len(data) // 2]), rng) for _ in range(rng.choice([1, 1, 3])) if data)
    ends = [sum(map(len, pieces[: number + 1])) for number in range(COUNT)] if len(pieces) > 1 else []
    return Malformed(name=name, data=bytes(data), intact=sum(end <= first for end in ends))


def _boxed(name: str, inner: bytes) -> bytes:
    if name.startswith("a.arc"):
        return arc(url(0), http(inner, "image/jpeg"))
    return wacz({"a.warc": (inner, zipfile.ZIP_DEFLATED)}) if name == "a.wacz" else warc(url(0), http(inner, "image/jpeg"))
