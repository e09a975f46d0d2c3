"""Where crawls come from: one file a source, one table of them here. A new source is a new file and an entry in SOURCES and SUFFIXES."""

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pagepairs.config import ScanConfig
from pipeline.sources import arc, folder, table, wacz, warc, webdataset
from pipeline.sources.find import Found, find_files
from pipeline.sources.kept_pieces import kept_pieces
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
    "ErrorRecord",
    "ImageRecord",
    "LinkRecord",
    "PageRecord",
    "Record",
    "ScanUnit",
    "Source",
    "SourceMap",
    "decode_range",
    "find_units",
    "read_unit",
]


_DEFAULT = ScanConfig()


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """How one kind of input is cut into units, read, and read again by reference."""

    pieces: Callable[[str, ScanConfig], Sequence[tuple[int, ...]]]  # path -> (start, stop[, rows before]) of each unit
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


def find_units(inputs: tuple[str, ...], config: ScanConfig = _DEFAULT, *, cut: bool = True, kept: str = "") -> list[ScanUnit]:
    """Returns the units of all inputs, sorted by source and start; the order of the inputs does not matter.

    Args:
      inputs: files, folders (with all below them) and globs. A source is named relative to its input's root: the parent of a file, the
        folder itself, the part of a glob before its first wildcard. Where names could meet, all roots get as many of their last folder
        names as keep them apart.
      config: where a sample of a tar holds its page's URL.
      cut: False gives one unit a file, without a look into it: enough to find the sources, not to be read.
      kept: a folder that remembers where large files are cut, as finding that means to read them; "" for none.

    Raises:
      ValueError: if an input does not exist, matches nothing or is of a kind that no source reads, a table lacks columns or a tar pages.
    """
    return sorted(
        (unit for found in find_files(inputs, SUFFIXES) for unit in _units_of(found, config, cut=cut, kept=kept)),
        key=lambda unit: (unit.source, unit.start),
    )


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


def _units_of(found: Found, config: ScanConfig, *, cut: bool, kept: str) -> list[ScanUnit]:
    return [
        ScanUnit(
            name=unit_name(found.source, start),
            source=found.source,
            path=found.path,
            kind=found.kind,
            start=start,
            stop=stop,
            root=found.root,
            rows_before=sum(rows),
        )
        for start, stop, *rows in (kept_pieces(kept, found, config, SOURCES[found.kind].pieces) if cut else [(0, 0)])
    ]


class SourceMap:
    """Finds the file of a reference's source: `locate` for pipeline.references. Can be pickled."""

    def __init__(self, units: list[ScanUnit], output: str) -> None:
        """Takes the units of the inputs, and the folder that holds spill/."""
        self._output = output
        self._files = {unit.source: unit.path for unit in units if unit.kind != "folder"}
        self._roots = {_prefix_of(unit): unit.root for unit in units if unit.kind in ("folder", "table")}

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
