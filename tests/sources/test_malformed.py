"""Malformed inputs of every kind: no crash, no hang, all that is undamaged is kept, and every record is accounted for."""

import gzip
import resource
import signal
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archives import JPEG, arc, by_record, http, sidecar, tar, wacz, warc
from malformed import PICTURES, SITE, malformed, url

from pagepairs.config import ScanConfig
from pipeline.progress import Meter
from pipeline.references import read_bodies
from pipeline.scan import ScanTask, ScanUnits
from pipeline.sources import ErrorRecord, ImageRecord, Record, SourceMap, find_units, read_unit

LIMIT_S = 20.0  # an input, at most; a busy machine needs a tenth
CONFIG = ScanConfig(max_bytes=2_000_000)
REASONS = {"", "http_status", "broken_image", "too_many_bytes", "missing_file", "path_outside_input"}


@contextmanager
def time_limit(seconds: float, what: object) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise AssertionError(f"{what} took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def check(path: Path, *, scan: bool) -> list[Record] | None:
    """Reads an input, by reference too, and returns its records; None where it is refused before the first record."""
    try:
        units = find_units((str(path),), CONFIG)
    except ValueError as refusal:
        return None if str(path) in str(refusal) else pytest.fail(f"refused without its name: {refusal}")
    records = [record for unit in units for record in read_unit(unit, CONFIG)]
    images = [record for record in records if isinstance(record, ImageRecord)]
    assert {image.reason for image in images} <= REASONS
    assert {record.reason for record in records if isinstance(record, ErrorRecord)} <= {"broken_archive", "broken_record"}
    assert all(len(image.body) <= CONFIG.max_bytes for image in images)
    repr(records).encode()
    kept = [image for image in images if not image.reason and not image.spill and image.length]
    assert list(read_bodies([(i.source, i.offset, i.length) for i in kept], SourceMap(units, ""))) == [i.body for i in kept]
    if scan:
        output = path.parent / "out"
        outcomes = [ScanUnits(config=CONFIG, output=str(output), threads=1, meter=Meter(""))(ScanTask(unit=unit)) for unit in units]
        counters = [outcome.counters for outcome in outcomes]
        assert sum(c["in"] for c in counters) == len(images) + sum(isinstance(record, ErrorRecord) for record in records)
        assert all(c["in"] == c["kept"] + sum(c["dropped"].values()) + c["errors"] for c in counters)
        assert {entry.name for entry in path.parent.iterdir()} == {path.name, "out"}
    return records


def check_seeds(folder: Path, seeds: range, *, scan_every: int) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = 0
    for seed in seeds:
        made = malformed(seed)
        path = folder / str(seed) / made.name
        path.parent.mkdir()
        path.write_bytes(made.data)
        with time_limit(LIMIT_S, f"seed {seed}"):
            records = check(path, scan=seed % scan_every == 0)
        refused += records is None
        if records is not None:
            first = [(record.url, record.body) for record in records if isinstance(record, ImageRecord)][: made.intact]
            assert first == [(url(number), PICTURES[number]) for number in range(made.intact)], f"seed {seed}"
    assert refused < len(seeds) / 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


@pytest.mark.parametrize("part", range(4))
def test_malformed_inputs(tmp_path: Path, part: int) -> None:
    check_seeds(tmp_path, range(part * 1_000, (part + 1) * 1_000), scan_every=20)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(12))
def test_many_malformed_inputs(tmp_path: Path, part: int) -> None:
    check_seeds(tmp_path, range(10_000 + part * 1_000, 11_000 + part * 1_000), scan_every=1)


def bomb(size: int) -> bytes:
    return gzip.compress(bytes(size), 9)


def huge_pax() -> bytes:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 2**33
    return header.tobuf(tarfile.GNU_FORMAT) + bytes(10_000)


def said(**values: object) -> bytes:
    return sidecar(url=url(1), page_url=f"{SITE}/", **values)


def image_record(body: bytes, codings: str) -> bytes:
    return warc(url(1), http(body, "image/png", ("Content-Encoding", codings)))


SURROGATES = b'{"url": "https://e.com/\\ud800", "page_url": "https://e.com/\\udfff\\u0000"}'
LONG = f"{SITE}/" + "a" * 10_000_000
HOSTILE: dict[str, Callable[[], tuple[str, bytes]]] = {
    "a member of 500 MB of zeros": lambda: ("a.warc.gz", bomb(500_000_000)),
    "a record of 500 MB of zeros": lambda: (
        "a.warc.gz",
        gzip.compress(warc(url(1), b"")[:-8].replace(b"Content-Length: 0", b"Content-Length: 500000000\r\n\r\n") + bytes(500_000_000)),
    ),
    "a body that is a bomb": lambda: ("a.warc", image_record(bomb(500_000_000), "gzip")),
    "a bomb in a bomb": lambda: ("a.warc", image_record(gzip.compress(bomb(500_000_000)), "gzip, gzip")),
    "a page that is a bomb": lambda: ("a.arc", arc(url(1), http(bomb(500_000_000), "text/html", ("Content-Encoding", "gzip")))),
    "a zip bomb": lambda: ("a.wacz", wacz({"a.warc": (warc(url(1), http(bytes(200_000_000), "image/png")), zipfile.ZIP_DEFLATED)})),
    "a tar bomb": lambda: ("a.tar.gz", gzip.compress(tar([("1.json", said()), ("1.jpg", bytes(200_000_000))]))),
    "a sidecar bomb": lambda: ("a.tar.gz", gzip.compress(tar([("1.json", b" " * 200_000_000), ("1.jpg", JPEG)]))),
    "a pax header of 8 GB": lambda: ("a.tar", tar([("1.json", said()), ("1.jpg", JPEG)])[:-8192] + huge_pax()),
    "a URL of 10 MB": lambda: ("a.warc", warc(LONG, http(JPEG, "image/jpeg"))),
    "a redirect to 10 MB": lambda: ("a.warc", warc(url(1), http(b"", "text/html", ("Location", LONG), status="301 Moved"))),
    "a page that names 10 MB": lambda: ("a.warc", warc(url(1), http(b"<img src=" + LONG.encode()[:1_900_000] + b">", "text/html"))),
    "an ARC URL of 10 MB": lambda: ("a.arc", arc(LONG, http(JPEG, "image/jpeg"))),
    "a JSON URL of 900 kB": lambda: ("a.tar", tar([("1.json", sidecar(url=LONG[:900_000], page_url=SITE)), ("1.jpg", JPEG)])),
    "surrogates": lambda: ("a.tar", tar([("1.json", SURROGATES), ("1.jpg", JPEG)])),
    "names that are no UTF-8": lambda: ("a.tar", tar([("\udcff.json", said()), ("\udcff.jpg", JPEG), ("\udcff.png", JPEG)])),
    "30 000 empty samples": lambda: ("a.tar.gz", gzip.compress(b"".join(tar([(f"{n % 7}.jpg", b"")])[:512] for n in range(300)) * 100)),
    "30 000 empty records": lambda: ("a.warc.gz", by_record([warc(url(1), b"")]) * 30_000),
    "100 000 images in a page": lambda: ("a.warc", warc(url(1), http(b"<img src=a><p style='background:url(b)'>" * 40_000, "text/html"))),
    "deep nesting": lambda: ("a.warc", warc(url(1), http(b"<div>" * 100_000 + b"<img src=a>", "text/html"))),
    "nested JSON": lambda: ("a.jsonl", b'{"page_url":' * 100_000),
    "a zip with 20 000 members": lambda: ("a.wacz", wacz({f"{n}.warc": (b"", 0) for n in range(20_000)})),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_inputs(tmp_path: Path, what: str) -> None:
    name, data = HOSTILE[what]()
    path = tmp_path / name
    path.write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with time_limit(LIMIT_S, what):
        check(path, scan=True)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # kB


@pytest.mark.parametrize(
    "table",
    [
        pa.table({"a": [1]}),
        pa.table({"page_url": [1], "image_url": [2.5], "bytes": [b"x"]}),
        pa.table({"page_url": [["x"]], "image_url": [{"a": 1}], "bytes": [b"x"]}),
        pa.table({"page_url": ["x"], "image_url": ["y"], "bytes": [1]}),
        pa.table({"page_url": [None], "image_url": [None], "bytes": [None]}),
        pa.table({"page_url": ["x"], "image_url": ["y"], "path": [7]}),
        pa.table({"page_url": pa.array([b"\xff"]), "image_url": pa.array([b"\xff"]), "bytes": [b"x"]}),
        pa.table(
            {"page_url": ["x"] * 3, "image_url": ["y"] * 3, "image": [{"bytes": b"x", "path": None}, {"bytes": None, "path": "z"}, None]}
        ),
        pa.table({"page_url": pa.array(["x"]).dictionary_encode(), "image_url": ["y"], "bytes": [b"x"], "pos": ["one"]}),
        pa.table({"page_url": ["x"], "image_url": ["y"], "bytes": [b"x"], "pos": [2**40]}),
        pa.table([], names=[]),
    ],
    ids=lambda table: str(table.schema.names),
)
def test_parquet_of_other_schemas(tmp_path: Path, table: pa.Table) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(table, path)
    records = check(path, scan=True)
    assert records is None or sum(isinstance(record, ImageRecord | ErrorRecord) for record in records) == table.num_rows


def test_a_column_whose_name_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"page_url": ["x"], "image_url": ["y"], "bytes": [b"z"], "other": [1]}), path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"other", b"oth\xe5r"))
    with pytest.raises(ValueError, match=r"t\.parquet has a column whose name is no text in UTF-8: .* give it another name"):
        find_units((str(path),))


def test_a_zip_that_says_other_lengths(tmp_path: Path) -> None:
    data = bytearray(wacz({"a.warc": (warc(url(1), http(JPEG, "image/jpeg")), zipfile.ZIP_STORED)}))
    entry = data.index(b"PK\1\2")
    path = tmp_path / "a.wacz"
    for at in (20, 24, 42):  # compressed size, size, offset
        for value in (0, 1, 2**31, 2**32 - 1):
            damaged = data[: entry + at] + struct.pack("<I", value) + data[entry + at + 4 :]
            path.write_bytes(damaged)
            with time_limit(LIMIT_S, (at, value)):
                assert check(path, scan=False) is not None
