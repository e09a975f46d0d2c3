"""Files that are whole or absent, on this machine or in an object store."""

import hashlib
import io
import itertools
import json
import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pagepairs.stores import TEMPORARY, is_remote, store_of


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInfo:
    """One file of a dataset, as its manifest lists it."""

    name: str
    rows: int
    bytes: int
    sha256: str

    def as_json(self) -> dict[str, Any]:
        """Returns the entry for the manifest."""
        return asdict(self)


def atomic(path: str) -> AbstractContextManager[BinaryIO]:
    """Opens a file that gets its name `path` only when the block ends without an error."""
    return store_of(path).open_write(path)


def open_read(path: str) -> BinaryIO:
    """Opens a file for reading and seeking.

    Raises:
      FileNotFoundError: if there is none.
    """
    return store_of(path).open_read(path)


def read_bytes(path: str) -> bytes:
    """Returns a whole file, which a store sends in one request.

    Raises:
      FileNotFoundError: if there is none.
    """
    return store_of(path).read(path)


class Hashed:
    """A file that is written once, from its beginning, with the sha256 and the number of its bytes."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._hash = file, hashlib.sha256()
        self.bytes = 0

    @property
    def sha256(self) -> str:
        """Of the bytes written so far, in hex."""
        return self._hash.hexdigest()

    def write(self, data: bytes | memoryview) -> int:
        """Appends the bytes."""
        self._hash.update(data)
        self.bytes += len(data)
        return self._file.write(data)

    def tell(self) -> int:
        """Returns the number of bytes written so far."""
        return self.bytes

    def flush(self) -> None:
        """Hands on what the file holds back."""
        self._file.flush()


def write_bytes(path: str, data: bytes | memoryview) -> None:
    """Writes the file whole or not at all."""
    with atomic(path) as file:
        file.write(data)


def write_json(path: str, value: Any) -> None:
    """Writes `value` as sorted, indented JSON, whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())


def read_json(path: str) -> Any:
    """Returns what a JSON file holds."""
    return json.loads(read_bytes(path))


def find_json(path: str) -> Any:
    """Returns what a JSON file holds; None where there is none."""
    try:
        return read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def parquet_options(schema: pa.Schema) -> dict[str, list[str]]:
    """Returns Parquet's options for some columns.

    Image bytes and vectors gain nothing from dictionaries and statistics, which take most of the time.
    """
    return {
        "use_dictionary": [f.name for f in schema if pa.types.is_string(f.type)],
        "write_statistics": [f.name for f in schema if not (pa.types.is_binary(f.type) or pa.types.is_nested(f.type))],
    }


def write_parquet(path: str, table: pa.Table, *, row_group_rows: int = 64 * 1024, compression: str = "zstd") -> FileInfo:
    """Writes a table as a Parquet file whose bytes depend on the table only, and returns its entry."""
    buffer = io.BytesIO()
    options = parquet_options(table.schema)
    pq.write_table(table.combine_chunks(), buffer, row_group_size=row_group_rows, compression=compression, **options)
    data = buffer.getbuffer()
    write_bytes(path, data)
    return FileInfo(name=os.path.basename(path), rows=table.num_rows, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def parquet_source(path: str) -> str | BinaryIO:
    """Returns what pyarrow reads a Parquet file from: its own reader where the file is on this machine."""
    return open_read(path) if is_remote(path) else path


def read_parquet(path: str, columns: list[str] | None = None) -> pa.Table:
    """Returns the rows of a Parquet file."""
    return pq.read_table(parquet_source(path), columns=columns)


def describe_file(path: str) -> FileInfo:
    """Returns the entry of a Parquet file that is there."""
    data = read_bytes(path)
    rows = pq.read_metadata(pa.BufferReader(data)).num_rows
    return FileInfo(name=os.path.basename(path), rows=rows, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def write_arrow(path: str, table: pa.Table) -> None:
    """Writes a table as an uncompressed Arrow file, for the next step to map into memory."""
    with atomic(path) as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def read_arrow(path: str) -> pa.Table:
    """Returns the table of an Arrow file, mapped into memory where it is on this machine."""
    return _open_arrow(path).read_all()


def _open_arrow(path: str) -> pa.ipc.RecordBatchFileReader:
    return pa.ipc.open_file(pa.PythonFile(open_read(path), "r") if is_remote(path) else pa.memory_map(path))


def write_arrow_parts(path: str, table: pa.Table, bounds: np.ndarray) -> None:
    """Writes one batch a part, `table[bounds[i] : bounds[i + 1]]`, for the parts of the next step to read by themselves."""
    batches = table.combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], schema=table.schema)]
    assert len(batches) == 1  # Arrow leaves strings of more than 2 GB in several
    batch = batches[0]
    write_arrow_batches(path, table.schema, (batch.slice(start, stop - start) for start, stop in itertools.pairwise(bounds)))


def write_arrow_batches(path: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Writes batches, one a part, as an Arrow file."""
    with atomic(path) as file, pa.ipc.new_file(file, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def read_arrow_part(path: str, part: int) -> pa.Table:
    """Returns the batch of one part, mapped into memory where it is on this machine."""
    return pa.Table.from_batches([_open_arrow(path).get_batch(part)])


def remove_temporaries(root: str) -> None:
    """Deletes what killed runs left half-written below `root`; an object store shows nothing half-written."""
    if is_remote(root):
        return
    for path in store_of(root).files(root):
        if os.path.basename(path).startswith(TEMPORARY):
            os.unlink(path)
