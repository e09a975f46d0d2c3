"""Files that are whole or absent: written under a temporary name, then renamed."""

import hashlib
import io
import itertools
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

_TEMPORARY = ".tmp-"


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


@contextmanager
def atomic(path: str) -> Iterator[BinaryIO]:
    """Opens a file that gets its name `path` only when the block ends without an error."""
    folder = os.path.dirname(os.path.abspath(path))
    os.makedirs(folder, exist_ok=True)
    temporary = os.path.join(folder, f"{_TEMPORARY}{uuid.uuid4().hex}")
    try:
        with open(temporary, "xb") as file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


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
    with open(path, "rb") as file:
        return json.load(file)


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


def describe_file(path: str) -> FileInfo:
    """Returns the entry of a Parquet file that is there."""
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return FileInfo(name=os.path.basename(path), rows=pq.read_metadata(path).num_rows, bytes=os.path.getsize(path), sha256=sha256)


def write_arrow(path: str, table: pa.Table) -> None:
    """Writes a table as an uncompressed Arrow file, for the next step to map into memory."""
    with atomic(path) as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def read_arrow(path: str) -> pa.Table:
    """Returns the table of an Arrow file, mapped into memory."""
    return pa.ipc.open_file(pa.memory_map(path)).read_all()


def write_arrow_parts(path: str, table: pa.Table, bounds: np.ndarray) -> None:
    """Writes one batch a part, `table[bounds[i] : bounds[i + 1]]`, for the parts of the next step to read by themselves."""
    table = table.combine_chunks()
    batch = table.to_batches()[0] if table.num_rows else pa.RecordBatch.from_pylist([], schema=table.schema)
    with atomic(path) as file, pa.ipc.new_file(file, table.schema) as writer:
        for start, stop in itertools.pairwise(bounds):
            writer.write_batch(batch.slice(start, stop - start))


def read_arrow_part(path: str, part: int) -> pa.Table:
    """Returns the batch of one part, mapped into memory."""
    return pa.Table.from_batches([pa.ipc.open_file(pa.memory_map(path)).get_batch(part)])


def remove_temporaries(root: str) -> None:
    """Deletes what killed runs left half-written below `root`."""
    for folder, _, names in os.walk(root):
        for name in names:
            if name.startswith(_TEMPORARY):
                os.unlink(os.path.join(folder, name))
