"""Fuzzes tables of text: CSV, TSV, JSONL and JSONL.gz."""

import base64
import gzip

import atheris
from harness import MAX_BYTES, PACKAGES, check_record, fuzz, memory_file

with atheris.instrument_imports(include=PACKAGES):
    from pagepairs.config import ScanConfig
    from pipeline.sources import find_units, read_unit

CONFIG = ScanConfig(max_bytes=MAX_BYTES)
FILES = {b"c": memory_file(".csv"), b"t": memory_file(".tsv"), b"j": memory_file(".jsonl"), b"g": memory_file(".jsonl.gz")}


def target(data: bytes) -> None:
    """The first byte says which kind of table follows; z is g, compressed here."""
    mode, data = data[:1], data[1:]
    path = FILES.get(b"g" if mode == b"z" else mode, FILES[b"j"])
    path.write_bytes(gzip.compress(data, 1, mtime=0) if mode == b"z" else data)
    try:
        units = find_units((str(path),), CONFIG)
    except ValueError:  # the sentence that a user reads
        return
    for unit in units:
        for record in read_unit(unit, CONFIG):
            check_record(record)


BODY = base64.b64encode(b"\xff\xd8\xff\xe0 not much of a picture").decode()
ROWS = [
    f'{{"page_url": "https://a.example/", "image_url": "1.jpg", "bytes": "{BODY}", "alt": "\\u00e4", "pos": 3}}',
    '{"page": "https://a.example/", "url": "https://b.example/2.jpg", "path": "../x.jpg", "caption": null, "position": "7"}',
    '{"page_url": 1, "image_url": [], "bytes": {}, "path": 3.5, "pos": 1e400}',
]
TEXT = f'page_url,image_url,bytes,alt,pos\nhttps://a.example/,1.jpg,{BODY},"a, ""b""",1\nhttps://a.example/,2.jpg,!,,-1\n'
SEEDS = [b"c" + TEXT.encode(), b"t" + TEXT.replace(",", "\t").encode(), b"c\xef\xbb\xbf" + TEXT.replace("bytes", "path").encode()]
SEEDS += [mode + "\n".join(ROWS).encode() for mode in (b"j", b"z")]
SEEDS += [b"g" + gzip.compress("\n".join(ROWS).encode(), mtime=0)]

if __name__ == "__main__":
    fuzz(target, SEEDS)
