"""ARC files, the Internet Archive's format before WARC: read as the WARC records that they would be today."""

import re
from collections.abc import Iterator

from pagepairs.config import ScanConfig
from pagepairs.files import open_read
from pipeline.sources.frames import Header, Stream, find_cuts
from pipeline.sources.records import Record, ScanUnit
from pipeline.sources.warc import read_archive, record_body

# URL, IP address, date, type; version 2 has more fields before the length. URLs of old crawls may hold spaces.
_FIELDS = re.compile(rb"([^\r\n]+?) [0-9a-fA-F.:]* (\d{8,14}) (\S*)")


def read_arc_header(stream: Stream) -> Header | str:
    """Reads the line before an ARC record and returns it as a WARC header; a string says why there is none."""
    line = stream.until(b"\n")
    if line is None:
        return "a record's first line does not end"
    fields, _, length = line.rstrip().rpartition(b" ")
    found = _FIELDS.match(fields)
    if found is None or not length.isdigit() or len(length) > 18:
        return "no ARC record begins here"
    url, date, kind = found.groups()
    is_http = stream.starts_with(b"HTTP/")
    lines = [
        b"WARC/1.0",
        b"WARC-Type: " + (b"warcinfo" if url.startswith(b"filedesc:") else b"response" if is_http else b"resource"),
        b"WARC-Target-URI: " + url,
        b"WARC-Date: " + _date(date.ljust(14, b"0")),
        b"Content-Type: " + (b"application/http; msgtype=response" if is_http else kind),
        b"Content-Length: ",
    ]
    return Header(b"\r\n".join(lines), int(length), b"\r\n\r\n")


def _date(digits: bytes) -> bytes:
    return b"%b-%b-%bT%b:%b:%bZ" % (digits[:4], digits[4:6], digits[6:8], digits[8:10], digits[10:12], digits[12:14])


def find_pieces(path: str, _config: ScanConfig, cut_bytes: int) -> list[tuple[int, int]]:
    """Returns the byte ranges that a file is read in."""
    return find_cuts(path, read_arc_header, cut_bytes)


def read_arc(unit: ScanUnit, config: ScanConfig) -> Iterator[Record]:
    """Yields what an ARC file holds, as `read_warc` does."""
    with open_read(unit.path) as file:
        yield from read_archive(unit, file, config, read_arc_header)


def arc_body(raw: bytes, max_bytes: int) -> bytes:
    """Returns the decoded body of the record that a reference of an ARC file points to.

    Raises:
      BodyError: if the range holds no whole record, or its body cannot be decoded.
    """
    return record_body(raw, max_bytes, read_arc_header)
