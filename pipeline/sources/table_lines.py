"""Tables of text: CSV and TSV, and JSON lines. Long ones are cut between rows."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

from pagepairs.files import open_read
from pagepairs.stores import size_of
from pipeline.sources.records import ScanUnit, safe_text
from pipeline.sources.table_rows import COLUMNS, Row, named_columns

_LINES_LOOKED_AT = 100
_MARK = b"\xef\xbb\xbf"
_DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error)


def line_columns(path: str) -> list[str] | None:
    """Returns the columns that a table has, of JSON lines those of the first 100; None where it has no rows.

    Raises:
      ValueError: if the first row of a CSV file cannot be read.
    """
    if _is_csv(path):
        return _csv_columns(path)
    columns: dict[str, None] = {}
    lines = 0
    with _open_lines(path) as file, suppress(*_DAMAGE):  # whoever reads the table reports it
        for line, _ in zip(file, range(_LINES_LOOKED_AT), strict=False):
            if line.strip():
                lines += 1
                columns |= dict.fromkeys(_parse_json(line)[0])
    return list(columns) if lines else None


def line_pieces(path: str, cut_bytes: int) -> Iterator[tuple[int, int, int]]:
    """Yields where the pieces of a table start and stop, and the number of rows before them: one, unless it is longer than `cut_bytes`.

    A line end in a quoted field ends no row, so that a pass over the file finds the rows. A compressed file is one piece.
    """
    size, start, rows_before = size_of(path), 0, 0
    if size > cut_bytes and not path.lower().endswith(".gz"):
        for rows, end in enumerate(_csv_ends(path) if _is_csv(path) else _json_ends(path), 1):
            if end - start >= cut_bytes and end < size:
                yield start, end, rows_before
                start, rows_before = end, rows
    yield start, size, rows_before


def json_rows(unit: ScanUnit) -> Iterator[Row]:
    """Yields the rows of a piece of a JSONL file; one that cannot be read says why."""
    index = unit.rows_before
    with _open_lines(unit.path) as file:
        if unit.start:
            file.seek(unit.start)
        left = unit.stop - unit.start
        try:
            for number, line in enumerate(file, 1):
                if line.strip():
                    values, error = _parse_json(line)
                    row = {name: values[column] for name, column in named_columns(list(values)).items()}
                    yield Row(label=_label(unit, number), index=index, values=row, error=error)
                    index += 1
                left -= len(line)
                if left <= 0 and not unit.path.lower().endswith(".gz"):
                    return
        except _DAMAGE as damage:
            yield Row(label=f"after row {index}", index=index, values={}, error=str(damage))


def csv_rows(unit: ScanUnit) -> Iterator[Row]:
    """Yields the rows of a piece of a CSV or TSV file; one that cannot be read says why."""
    columns = _csv_columns(unit.path) or []
    named = {name: columns.index(column) for name, column in named_columns(columns).items()}
    with _open_csv(unit.path, unit.start, unit.stop) as file:
        reader = _csv_reader(file, unit.path)
        if not unit.start:
            next(reader, None)
        index = unit.rows_before
        while True:
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as damage:
                values, error = dict[str, str](), str(damage)
            else:
                if not fields:
                    continue
                values, error = _csv_values(fields, len(columns), named)
            yield Row(label=_label(unit, reader.line_num), index=index, values=values, error=error)
            index += 1


def _label(unit: ScanUnit, line: int) -> str:
    return f"line {line}" + (f" after byte {unit.start}" if unit.start else "")


def _is_csv(path: str) -> bool:
    return path.lower().endswith((".csv", ".tsv"))


@contextmanager
def _open_lines(path: str) -> Iterator[Any]:
    with open_read(path) as file:
        yield gzip.GzipFile(fileobj=file) if path.lower().endswith(".gz") else file


def _parse_json(line: bytes) -> tuple[dict[str, Any], str]:
    """Returns the usable columns of a line, and what is wrong with it."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        return {}, f"no JSON: {error}"
    if not isinstance(values, dict):
        return {}, "no JSON object"
    return {name: value for name, value in values.items() if name not in COLUMNS["bytes"] or isinstance(value, str)}, ""


def _json_ends(path: str) -> Iterator[int]:
    """Yields where each row ends."""
    end = 0
    with open_read(path) as file:
        for line in file:
            end += len(line)
            if line.strip():
                yield end


def _csv_reader(file: Iterable[str], path: str) -> Any:
    csv.field_size_limit(2**31 - 1)
    return csv.reader(file, delimiter="\t" if path.lower().endswith(".tsv") else ",", strict=True)


class _Part(io.RawIOBase):
    """The bytes of a file up to `stop`, from where it stands."""

    def __init__(self, file: BinaryIO, stop: int) -> None:
        self._file, self._left = file, stop - file.tell()

    def readable(self) -> bool:
        """Is True."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Reads into the buffer and returns how much."""
        piece = self._file.read(min(len(buffer), self._left))
        self._left -= len(piece)
        buffer[: len(piece)] = piece
        return len(piece)


@contextmanager
def _open_csv(path: str, start: int = 0, stop: int = 2**62, encoding: str = "utf-8") -> Iterator[Iterable[str]]:
    """Opens the lines of a part of a file, without a byte order mark at its beginning; what is not UTF-8 becomes surrogates."""
    with open_read(path) as file:
        file.seek(start or (len(_MARK) if file.read(len(_MARK)) == _MARK else 0))
        yield io.TextIOWrapper(io.BufferedReader(_Part(file, stop), 64 * 1024), encoding=encoding, errors="surrogateescape", newline="")


def _csv_columns(path: str) -> list[str] | None:
    with _open_csv(path) as file:
        try:
            return [safe_text(column) for column in next(_csv_reader(file, path))]
        except StopIteration:
            return None
        except csv.Error as error:
            raise ValueError(f"{path} does not begin with the names of its columns: {error}") from error


def _csv_ends(path: str) -> Iterator[int]:
    """Yields where each row ends, but for the names of the columns; one that cannot be read ends where the reader goes on behind it."""
    end = 0

    def lines(file: Iterable[str]) -> Iterator[str]:
        nonlocal end
        for line in file:
            end += len(line)
            yield line

    with open_read(path) as marked:
        end = len(_MARK) if marked.read(len(_MARK)) == _MARK else 0
    with _open_csv(path, encoding="latin-1") as file:  # where a character is a byte, and line ends, quotes and commas are the same
        reader = _csv_reader(lines(file), path)
        next(reader, None)
        while True:
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error:
                fields = [""]
            if fields:
                yield end


def _csv_values(fields: list[str], columns: int, named: dict[str, int]) -> tuple[dict[str, str], str]:
    if len(fields) != columns:
        return {}, f"{len(fields)} fields, {columns} columns"
    values = {name: fields[column] for name, column in named.items()}
    return (values, "") if all(safe_text(value) == value for value in values.values()) else ({}, "not UTF-8")
