"""Rows of shards as plain values, for the formats that are written row by row."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from pagepairs.records import vectors_of

Row = dict[str, Any]
"""A pair by column: texts, the similarity, images as bytes, embeddings as float16 arrays."""


def rows_of(table: pa.Table) -> Iterator[Row]:
    """Yields the rows of a table in order."""
    columns = [_values(column) for column in table.columns]
    for values in zip(*columns, strict=True):
        yield dict(zip(table.column_names, values, strict=True))


def _values(column: pa.ChunkedArray) -> list[Any]:
    values: list[Any] = list(vectors_of(column)) if pa.types.is_fixed_size_list(column.type) else column.to_pylist()
    return values
