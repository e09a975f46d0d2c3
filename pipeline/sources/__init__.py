"""Where crawls come from: one file a source, one table of them here. A new source is a new file and an entry in SOURCES and SUFFIXES."""

import functools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pagepairs.config import ScanConfig
from pagepairs.stores import store_of
from pipeline.sources import arc, folder, frames, table, wacz, warc, webdataset
from pipeline.sources.find import Found, find_files
from pipeline.sources.records import (
    AliasRecord,
    ErrorRecord,
    ImageRecord,
    LinkRecord,
    PageRecord,
    Record,
    ScanUnit,
    unit_name,
)

__all__ = [
    "SOURCES",
    "SUFFIXES",
    "AliasRecord",
    "CrawlFile",
    "ErrorRecord",
    "ImageRecord",
    "LinkRecord",
    "PageRecord",
    "Record",
    "ScanUnit",
    "Source",
    "SourceMap",
    "decode_range",
    "find_pieces",
    "find_units",
    "list_crawl",
    "read_unit",
    "sort_units",
]


_DEFAULT = ScanConfig()
_LOOKED_AT = 32
"""Files looked at at once: a request to an object store takes 20 to 50 ms."""
_UNCUT = sys.maxsize
_NEVER_CUT = (".parquet", ".jsonl.gz", ".tar.gz", ".tgz")
"""Long files of which no pass finds more pieces than a look does."""

Pieces = Sequence[Sequence[int]]
"""(start, stop[, rows before]) of each unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """How one kind of input is cut into units, read, and read again by reference."""

    pieces: Callable[[str, ScanConfig, int], Pieces]  # path, config, bytes above which a file is cut by a pass over it -> its pieces
    read: Callable[[ScanUnit, ScanConfig], Iterator[Record]]
    body: Callable[[bytes, int], bytes] | None = None  # (range of the file, max_bytes) -> image; None: the range is the image


SOURCES = {
    "warc": Source(pieces=warc.find_pieces, read=warc.read_warc, body=warc.warc_body),
    "arc": Source(pieces=arc.find_pieces, read=arc.read_arc, body=arc.arc_body),
    "wacz": Source(pieces=wacz.find_pieces, read=wacz.read_wacz, body=warc.warc_body),
    "webdataset": Source(pieces=webdataset.find_pieces, read=webdataset.read_tar),
    "table": Source(pieces=table.find_pieces, read=table.read_table),
    "folder": Source(pieces=folder.find_pieces, read=folder.read_folder),
}
SUFFIXES = {
    ".warc": "warc",
    ".warc.gz": "warc",
    ".arc": "arc",
    ".arc.gz": "arc",
    ".wacz": "wacz",
    ".tar": "webdataset",
    ".tar.gz": "webdataset",
    ".tgz": "webdataset",
    ".parquet": "table",
    ".csv": "table",
    ".tsv": "table",
    ".jsonl": "table",
    ".jsonl.gz": "table",
}


def kind_of(path: str) -> str | None:
    """Returns the kind of source that reads a file, by its suffix; None if there is none."""
    name = path.lower()
    return next((kind for suffix, kind in SUFFIXES.items() if name.endswith(suffix)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class CrawlFile:
    """One file or folder of the input, as far as it is known without reading it whole."""

    found: Found
    bytes: int = 0  # 0 for a folder
    version: str = ""
    pieces: Pieces = ((0, 0),)
    long: bool = False  # `pieces` are cut further by a pass over the file

    def units(self, pieces: Pieces | None = None) -> list[ScanUnit]:
        """Returns the units of the file, of its own pieces or of those that a pass over it found."""
        return [
            ScanUnit(
                name=unit_name(self.found.source, start),
                source=self.found.source,
                path=self.found.path,
                kind=self.found.kind,
                start=start,
                stop=stop,
                root=self.found.root,
                rows_before=sum(rows),
                version=self.version,
            )
            for start, stop, *rows in pieces or self.pieces
        ]


def list_crawl(inputs: tuple[str, ...], config: ScanConfig = _DEFAULT, *, look: bool = True) -> list[CrawlFile]:
    """Returns the files and folders of all inputs, sorted by path; no file is read whole.

    Args:
      inputs: files, folders (with all below them) and globs. A source is named relative to its input's root: the parent of a file, the
        folder itself, the part of a glob before its first wildcard. Where names could meet, all roots get as many of their last folder
        names as keep them apart.
      config: where a sample of a tar holds its page's URL.
      look: False gives one piece a file, without a look into it: enough to find the sources, not to be read.

    Raises:
      ValueError: if an input does not exist, matches nothing or is of a kind that no source reads, a table lacks columns or a tar pages.
    """
    found = find_files(inputs, SUFFIXES)
    if not look:
        return [CrawlFile(found=one) for one in found]
    with ThreadPoolExecutor(_LOOKED_AT) as pool:
        return list(pool.map(functools.partial(_look_at, config=config), found))


def _look_at(found: Found, config: ScanConfig) -> CrawlFile:
    store, pieces = store_of(found.path), find_pieces(found, config, _UNCUT)
    if found.kind == "folder":
        return CrawlFile(found=found, version=store.folder_version(found.path), pieces=pieces)
    stat = store.stat(found.path)
    assert stat is not None, f"{found.path} was there a moment ago"
    long = stat.bytes > frames.CUT_BYTES and not found.path.lower().endswith(_NEVER_CUT)
    return CrawlFile(found=found, bytes=stat.bytes, version=str(stat), pieces=pieces, long=long)


def find_pieces(found: Found, config: ScanConfig, cut_bytes: int) -> Pieces:
    """Returns the pieces of a file or folder; of one longer than `cut_bytes`, all of it may be read for that.

    Raises:
      ValueError: if a table lacks columns or a tar pages.
    """
    return SOURCES[found.kind].pieces(found.path, config, cut_bytes)


def find_units(inputs: tuple[str, ...], config: ScanConfig = _DEFAULT, *, cut: bool = True) -> list[ScanUnit]:
    """Returns the units of all inputs, sorted by source and start; the order of the inputs does not matter.

    Long files are read one after the other to be cut; `pipeline.cuts` does that in a job.

    Args:
      inputs: as `list_crawl` takes them.
      config: as `list_crawl` takes it.
      cut: False gives one unit a file, without a look into it: enough to find the sources, not to be read.

    Raises:
      ValueError: as `list_crawl` does.
    """
    files = list_crawl(inputs, config, look=cut)
    cuts = (find_pieces(file.found, config, frames.CUT_BYTES) if file.long else None for file in files)
    return sort_units(unit for file, pieces in zip(files, cuts, strict=True) for unit in file.units(pieces))


def sort_units(units: Iterable[ScanUnit]) -> list[ScanUnit]:
    """Returns units in the order in which they are scanned."""
    return sorted(units, key=lambda unit: (unit.source, unit.start))


def read_unit(unit: ScanUnit, config: ScanConfig = _DEFAULT) -> Iterator[Record]:
    """Yields the records of a unit, as `find_units` returned it, always in the same order."""
    return SOURCES[unit.kind].read(unit, config)


def decode_range(source: str, raw: bytes, max_bytes: int) -> bytes:
    """Returns the image that a range of a source holds.

    Raises:
      BodyError: if it holds none, or one longer than `max_bytes`.
    """
    kind = kind_of(source)
    decode = SOURCES[kind].body if kind is not None else None
    return raw if decode is None else decode(raw, max_bytes)


class SourceMap:
    """Finds the file of a reference's source: `locate` for pipeline.references.

    Every job carries it, so it holds the roots of the inputs, and the files of those roots only whose sources begin alike.
    """

    def __init__(self, units: list[ScanUnit], output: str) -> None:
        """Takes the units of the inputs, and the folder that holds spill/."""
        self._output = output
        roots: dict[str, set[str]] = {}
        for unit in units:
            roots.setdefault(_prefix_of(unit), set()).add(unit.root)
        self._roots = {prefix: root for prefix, [root, *others] in roots.items() if not others}
        self._files = {unit.source: unit.path for unit in units if _prefix_of(unit) not in self._roots}

    def __call__(self, source: str) -> str:
        """Returns the path of a source.

        Raises:
          LookupError: if no input holds it.
        """
        if source.startswith("spill/"):
            return os.path.join(self._output, source)
        if source in self._files:
            return self._files[source]
        for prefix in self._prefixes:
            if source.startswith(prefix):
                return os.path.join(self._roots[prefix], source[len(prefix) :])
        raise LookupError(f"no --input holds {source}")

    @functools.cached_property
    def _prefixes(self) -> list[str]:
        return sorted(self._roots, key=len, reverse=True)


def _prefix_of(unit: ScanUnit) -> str:
    inside = os.path.relpath(unit.path, unit.root).replace(os.sep, "/")
    if inside == ".":
        return "" if unit.source == "." else f"{unit.source}/"
    return unit.source.removesuffix(inside)
