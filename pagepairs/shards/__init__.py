"""The shards that trainers read: one file a shard, pairs in the order of their ids, the same pairs and pixels in every format."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa

from pagepairs.files import FileInfo, Hashed, atomic
from pagepairs.records import SHARDS
from pagepairs.shards import parquet, tfrecord, webdataset
from pagepairs.shards.rows import Row

BATCH_ROWS = 256
"""Rows written at a time, and of a row group: few enough to shuffle by row groups, enough to read at full speed."""


@dataclass(frozen=True, kw_only=True)
class ShardFormat:
    """One file format."""

    extension: str
    write: Callable[[Hashed, pa.Schema, Iterable[pa.Table]], None]
    """Writes batches of rows of the schema as they come; the bytes depend on the batches only."""
    read: Callable[[str], Iterator[Row]]
    """Yields the rows of a file in order."""


FORMATS: Mapping[str, ShardFormat] = {
    "parquet": ShardFormat(extension=".parquet", write=parquet.write, read=parquet.read),
    "webdataset": ShardFormat(extension=".tar", write=webdataset.write, read=webdataset.read),
    "tfrecord": ShardFormat(extension=".tfrecord", write=tfrecord.write, read=tfrecord.read),
}


def shard_name(shard: int, shards: int, form: str) -> str:
    """Returns the file name of a shard."""
    return f"pairs-{shard:05d}-of-{shards:05d}{FORMATS[form].extension}"


def write_shard(path: str, schema: pa.Schema, batches: Iterable[pa.Table]) -> FileInfo:
    """Writes one shard, whole or not at all, in the format that its extension names.

    Args:
      path: a folder and a name of `shard_name`.
      schema: of records.shards_schema.
      batches: rows of the schema, sorted by pair_id, BATCH_ROWS at a time; one batch is held at a time.
    """
    rows = 0

    def counted() -> Iterator[pa.Table]:
        nonlocal rows
        for batch in batches:
            rows += batch.num_rows
            yield batch.select(schema.names).cast(schema)

    with atomic(path) as file:
        hashed = Hashed(file)
        _format_of(path).write(hashed, schema, counted())
    return FileInfo(name=os.path.basename(path), rows=rows, bytes=hashed.bytes, sha256=hashed.sha256)


def read_shard(path: str) -> Iterator[Row]:
    """Yields the rows of a shard of any format, its fixed columns first; an embedding is a float16 array.

    Raises:
      ValueError: if the file is no shard, or damaged.
    """
    for row in _format_of(path).read(path):
        try:
            yield {name: row.pop(name) for name in SHARDS.names} | dict(sorted(row.items()))
        except KeyError as error:
            raise ValueError(f"{path} is no shard of pairs: it lacks {error}") from error


def _format_of(path: str) -> ShardFormat:
    extension = os.path.splitext(path)[1]
    for form in FORMATS.values():
        if form.extension == extension:
            return form
    raise ValueError(f"{path} is no shard: the name ends in none of {', '.join(form.extension for form in FORMATS.values())}")
