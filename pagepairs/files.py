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


def write_parquet(path: str, table: pa.Table, *, row_group_rows: int = 64 * 1024, compression: str = "zstd") -> FileInfo:
    """Writes a table as a Parquet file whose bytes depend on the table only, and returns its entry."""
    buffer = io.BytesIO()
    pq.write_table(
        table.combine_chunks(),
        buffer,
        row_group_size=row_group_rows,
        compression=compression,
        # Image bytes and vectors gain nothing from dictionaries and statistics, which take most of the time.
        use_dictionary=[f.name for f in table.schema if pa.types.is_string(f.type)],
        write_statistics=[f.name for f in table.schema if not (pa.types.is_binary(f.type) or pa.types.is_nested(f.type))],
    )
    data = buffer.getbuffer()
    write_bytes(path, data)
    return FileInfo(name=os.path.basename(path), rows=table.num_rows, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


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
