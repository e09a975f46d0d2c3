"""Parquet: a row group a batch, uncompressed, as the images are compressed already."""

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from pagepairs.files import Hashed, parquet_options, parquet_source
from pagepairs.shards.rows import Row, rows_of


def write(file: Hashed, schema: pa.Schema, batches: Iterable[pa.Table]) -> None:
    """Writes the batches as they come."""
    with pq.ParquetWriter(file, schema, compression="none", **parquet_options(schema)) as writer:
        for batch in batches:
            writer.write_table(batch.combine_chunks(), row_group_size=max(1, batch.num_rows))


def read(path: str) -> Iterator[Row]:
    """Yields the rows, one row group in memory at a time."""
    with pq.ParquetFile(parquet_source(path)) as file:
        for group in range(file.num_row_groups):
            yield from rows_of(file.read_row_group(group))
