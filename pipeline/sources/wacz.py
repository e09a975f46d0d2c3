"""WACZ files: zip archives of WARC files. A stored member is read in place, a compressed one is spilled."""

import itertools
import struct
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from pagepairs.config import ScanConfig
from pagepairs.files import open_read
from pagepairs.stores import is_failure, size_of
from pipeline.sources.frames import Inflated, Window, find_cuts
from pipeline.sources.records import ErrorRecord, Record, ScanUnit
from pipeline.sources.warc import read_archive, read_warc_header

_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, length of the name, length of the extra field
_ENCRYPTED = 1
# What zipfile raises for damaged directories, and for methods of compression that it does not know.
_DAMAGE = (zipfile.BadZipFile, NotImplementedError, OverflowError, EOFError, OSError, ValueError, struct.error)


def find_pieces(path: str, _config: ScanConfig, cut_bytes: int) -> list[tuple[int, int]]:
    """Returns the byte ranges of the WARC files in a WACZ; a stored one that is long is cut. A damaged one is one range."""
    try:
        with open_read(path) as file, zipfile.ZipFile(file) as archive:
            members = _members(archive)
    except _DAMAGE as error:
        if is_failure(error):
            raise
        return [(0, size_of(path))]
    pieces = []
    for start, stop, member in members:
        stored = member.compress_type == zipfile.ZIP_STORED
        pieces += find_cuts(path, read_warc_header, cut_bytes, start=start, stop=stop) if stored else [(start, stop)]
    return pieces or [(0, 0)]


def read_wacz(unit: ScanUnit, config: ScanConfig) -> Iterator[Record]:
    """Yields what one WARC file of a WACZ holds, as `read_warc` does."""
    with ExitStack() as files:
        try:
            file = files.enter_context(open_read(unit.path))
            archive = files.enter_context(zipfile.ZipFile(file))
            found = next((found for found in _members(archive) if found[0] <= unit.start < found[1]), None)
            if found is None:
                return
            start, stop, member = found
            in_place = member.compress_type == zipfile.ZIP_STORED
            content = Window(file, start, stop) if in_place else Inflated(files.enter_context(archive.open(member)))
        except _DAMAGE as error:
            if is_failure(error):
                raise
            yield ErrorRecord(reason="broken_archive", detail=f"{unit.source}: {error}")
            return
        name = f"{unit.source}/{member.filename}"
        yield from read_archive(unit, content, config, read_warc_header, name=name, in_place=in_place)


def _members(archive: zipfile.ZipFile) -> list[tuple[int, int, zipfile.ZipInfo]]:
    """Returns where the content of each WARC file starts and stops in the zip archive, in the order of the file."""
    file: Any = archive.fp
    members = []
    for member in archive.infolist():
        if member.filename.lower().endswith((".warc", ".warc.gz")) and member.compress_size:
            file.seek(member.header_offset)
            signature, name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
            if signature != b"PK\3\4" or member.flag_bits & _ENCRYPTED:
                raise zipfile.BadZipFile(f"{member.filename} cannot be read")
            start = member.header_offset + _LOCAL_HEADER.size + name + extra
            members.append((start, start + member.compress_size, member))
    members.sort(key=lambda found: found[:2])
    for before, after in itertools.pairwise(members):
        if after[0] < before[1]:
            raise zipfile.BadZipFile(f"{before[2].filename} and {after[2].filename} overlap")
    return members
