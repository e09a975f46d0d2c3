"""Tables with one row an image: page_url, image_url, and the image itself or a path to it.

Other names that columns may have: page (page_url); url (image_url); image_path, file_name (path); image, image_bytes, jpg, jpeg, png,
webp (bytes); caption, text (alt); position (pos). Image bytes are binary in Parquet (also the `bytes` of a struct) and base64 elsewhere.
"""

import binascii
import json
import os
import posixpath
import shlex
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pagepairs.config import ScanConfig
from pagepairs.files import parquet_source
from pagepairs.stores import is_failure
from pagepairs.urls import canonical_page, resolve_url
from pipeline.sources.folder import read_file
from pipeline.sources.records import (
    ErrorRecord,
    ImageRecord,
    LinkRecord,
    PageRecord,
    Record,
    ScanUnit,
    hash64,
    safe_alt,
    safe_text,
)
from pipeline.sources.table_lines import csv_rows, json_rows, line_columns, line_pieces
from pipeline.sources.table_rows import COLUMNS, Row, named_columns

_ROWS_PER_UNIT = 20_000
_ROWS_PER_BATCH = 64
_MAX_POSITION = 2**31 - 1


class _BadRowError(Exception):
    """A row that cannot be used; the text says why."""


def find_pieces(path: str, _config: ScanConfig, cut_bytes: int) -> list[tuple[int, ...]]:
    """Returns the runs of row groups (Parquet) or bytes (all others) that a table is read in, these with the number of rows before.

    Raises:
      ValueError: if the columns do not say which image stands on which page.
    """
    if not path.lower().endswith(".parquet"):
        _check_columns(path, line_columns(path))
        return [*line_pieces(path, cut_bytes)]
    try:
        file = pq.ParquetFile(parquet_source(path))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} has a column whose name is no text in UTF-8: {error}; give it another name") from error
    except (pa.ArrowException, OSError) as error:
        if is_failure(error):
            raise
        raise ValueError(f"{path} is no Parquet file: {error}") from error
    with file:
        _check_columns(path, _parquet_columns(file.schema_arrow))
        return _row_group_runs([file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)])


def read_table(unit: ScanUnit, config: ScanConfig) -> Iterator[Record]:
    """Yields an image and a link a row, and each page of the unit once; a row that cannot be used is a `broken_record`."""
    pages: set[str] = set()
    for row in _rows(unit):
        try:
            yield from _read_row(unit, row, pages, config.max_bytes)
        except _BadRowError as error:
            yield ErrorRecord(reason="broken_record", detail=f"{unit.source} {row.label}: {error}")


def _rows(unit: ScanUnit) -> Iterator[Row]:
    name = unit.path.lower()
    read = next(read for suffix, read in _READERS.items() if name.endswith(suffix))
    return read(unit)


def _read_row(unit: ScanUnit, row: Row, pages: set[str], max_bytes: int) -> Iterator[Record]:
    values = row.values
    if row.error:
        raise _BadRowError(row.error)
    page = _text(values, "page_url")
    page_url = canonical_page(page)
    reference = _text(values, "image_url")
    image_url = resolve_url(reference, page) or resolve_url(reference) or reference
    position = _position(values, row.index)
    image = _image(unit, row, image_url, max_bytes)
    if page_url not in pages:
        pages.add(page_url)
        yield PageRecord(url=page_url)
    yield image
    yield LinkRecord(
        page_url=page_url,
        capture=hash64(unit.source),
        page_time_ms=None,
        image_url=image_url,
        position=position,
        alt=safe_alt(str(values["alt"]) if values.get("alt") is not None else ""),
        via="table",
    )


def _text(values: dict[str, Any], name: str) -> str:
    value = values.get(name)
    if not isinstance(value, str) or not value.strip():
        raise _BadRowError(f"no {name}")
    return safe_text(value.strip())


def _position(values: dict[str, Any], index: int) -> int:
    value = values.get("pos")
    if value is None or value == "":
        return min(index, _MAX_POSITION)
    try:
        position = int(value)
    except (ValueError, TypeError, OverflowError):
        raise _BadRowError(f"pos {value!r} is no number") from None
    if not 0 <= position <= _MAX_POSITION:
        raise _BadRowError(f"pos {position} lies outside 0 to {_MAX_POSITION}")
    return position


def _image(unit: ScanUnit, row: Row, url: str, max_bytes: int) -> ImageRecord:
    path, value = row.values.get("path"), row.values.get("bytes")
    if path is not None and path != "":
        return _image_at(unit, str(path), url, max_bytes)
    body = _decode_base64(value) if isinstance(value, str) else value
    reason = detail = ""
    if not isinstance(body, bytes):
        reason, detail, body = "missing_file", f"{unit.source} {row.label}: neither a path nor bytes", b""
    elif len(body) > max_bytes:
        reason, detail, body = "too_many_bytes", f"{len(body)} bytes", b""
    return ImageRecord(url=url, body=body, source=unit.source, offset=row.index, length=len(body), reason=reason, detail=detail, spill=True)


def _decode_base64(value: str) -> bytes | None:
    try:
        return binascii.a2b_base64(value, strict_mode=True) if value else None
    except ValueError as error:
        raise _BadRowError(f"the image is no base64 text: {error}") from error


def _image_at(unit: ScanUnit, path: str, url: str, max_bytes: int) -> ImageRecord:
    """Returns the image at a path relative to the table, which must not lead out of the input's root."""
    at_root = os.path.relpath(os.path.dirname(unit.path), unit.root).replace(os.sep, "/")
    relative = posixpath.normpath(posixpath.join(at_root, path))
    prefix = unit.source.removesuffix(os.path.relpath(unit.path, unit.root).replace(os.sep, "/"))
    if posixpath.isabs(path) or relative.startswith("../") or relative in ("..", ".") or "\0" in path or safe_text(path) != path:
        detail = safe_text(path).replace("\0", "\ufffd")
        return ImageRecord(url=url, body=b"", source=unit.source, offset=0, length=0, reason="path_outside_input", detail=detail)
    return read_file(os.path.join(unit.root, relative), url=url, source=prefix + relative, max_bytes=max_bytes)


def _row_group_runs(rows: list[int]) -> list[tuple[int, ...]]:
    runs, start, count = list[tuple[int, ...]](), 0, 0
    for index, size in enumerate(rows):
        if index > start and count + size > _ROWS_PER_UNIT:
            runs.append((start, index))
            start, count = index, 0
        count += size
    return [*runs, (start, len(rows))]


def _check_columns(path: str, columns: list[str] | None) -> None:
    if columns is None:  # no rows at all: an empty crawl
        return
    named = named_columns(columns)
    missing = [name for name in ("page_url", "image_url") if name not in named]
    if missing:
        raise ValueError(
            f"{path} has the columns {', '.join(columns) or '(none)'}: {' and '.join(missing)} missing; "
            "needed are page_url, image_url and either bytes or path"
        )
    if "path" not in named and "bytes" not in named:
        raise ValueError(
            f"{path} has URLs but no images (no column bytes or path). Fetch them with\n  {_fetch_command(path, named)}\n"
            "and give the folder that it writes as --input"
        )


def _fetch_command(path: str, named: dict[str, str]) -> str:
    kind = next(suffix for suffix in _READERS if path.lower().endswith(suffix))[1:]
    words = ["img2dataset", "--url_list", path, "--input_format", kind, "--url_col", named["image_url"]]
    words += ["--caption_col", named["alt"]] if "alt" in named else []
    words += ["--save_additional_columns", json.dumps([named["page_url"]])]
    words += ["--output_format", "parquet", "--disable_all_reencoding", "True", "--output_folder", f"{path}.images"]
    return shlex.join(words)


def _parquet_columns(schema: pa.Schema) -> list[str]:
    """Returns the columns that can be used: one that is named like image bytes but holds something else is none."""
    return [field.name for field in schema if field.name not in COLUMNS["bytes"] or _holds_bytes(field.type)]


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _holds_bytes(field.type) for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _parquet_rows(unit: ScanUnit) -> Iterator[Row]:
    with pq.ParquetFile(parquet_source(unit.path)) as file:
        named = named_columns(_parquet_columns(file.schema_arrow))
        index = sum(file.metadata.row_group(group).num_rows for group in range(unit.start))
        batches = file.iter_batches(_ROWS_PER_BATCH, row_groups=list(range(unit.start, unit.stop)), columns=list(named.values()))
        try:
            for batch in batches if unit.stop > unit.start else ():
                for values, error in _batch_values(batch):
                    row: dict[str, Any] = {name: values.get(column) for name, column in named.items()}
                    if isinstance(row.get("bytes"), dict):
                        row["bytes"] = row["bytes"]["bytes"]
                    yield Row(label=f"row {index}", index=index, values=row, error=error)
                    index += 1
        except (pa.ArrowException, OSError) as damage:
            if is_failure(damage):
                raise
            yield Row(label=f"after row {index}", index=index, values={}, error=str(damage))


def _batch_values(batch: pa.RecordBatch) -> list[tuple[dict[str, Any], str]]:
    """Returns the values of each row, and why it has none: text that is not UTF-8, a time that Python cannot hold."""
    try:
        return [(values, "") for values in batch.to_pylist()]
    except (ValueError, OverflowError, pa.ArrowException) as error:
        if batch.num_rows == 1:
            return [({}, str(error))]
    return [row for index in range(batch.num_rows) for row in _batch_values(batch.slice(index, 1))]


_READERS: dict[str, Callable[[ScanUnit], Iterator[Row]]] = {
    ".parquet": _parquet_rows,
    ".csv": csv_rows,
    ".tsv": csv_rows,
    ".jsonl": json_rows,
    ".jsonl.gz": json_rows,
}
