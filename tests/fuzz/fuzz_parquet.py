"""Fuzzes Parquet tables."""

import io

import atheris
import pyarrow as pa
import pyarrow.parquet as pq
from harness import MAX_BYTES, PACKAGES, check_record, fuzz, memory_file

with atheris.instrument_imports(include=PACKAGES):
    from pagepairs.config import ScanConfig
    from pipeline.sources import find_units, read_unit

CONFIG = ScanConfig(max_bytes=MAX_BYTES)
FILE = memory_file(".parquet")


def target(data: bytes) -> None:
    """The input is the file."""
    FILE.write_bytes(data)
    try:
        units = find_units((str(FILE),), CONFIG)
    except ValueError:  # the sentence that a user reads
        return
    for unit in units:
        for record in read_unit(unit, CONFIG):
            check_record(record)


def seed(image: pa.Array, compression: str) -> bytes:
    """Returns a small table."""
    pages = pa.array(["https://a.example/"] * len(image))
    table = pa.table({"page_url": pages, "image_url": pa.array(["1.jpg", "2.jpg"]), "image": image, "alt": pa.array(["a", None])})
    sink = io.BytesIO()
    pq.write_table(table, sink, compression=compression)
    return sink.getvalue()


if __name__ == "__main__":
    bodies = pa.array([b"\xff\xd8\xff\xe0", None], pa.binary())
    nested = pa.array([{"bytes": b"\xff\xd8", "path": "x"}, None], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    fuzz(target, [seed(image, by) for image in (bodies, nested, pa.array(["x", "y"])) for by in ("none", "snappy", "zstd")], max_len=8192)
