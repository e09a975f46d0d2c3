"""The shards that trainers read: one file a shard, pairs in the order of their ids."""

import os

import pyarrow as pa

from pagepairs.files import FileInfo, write_parquet
from pagepairs.records import SHARDS

ROW_GROUP_ROWS = 256
"""Small enough to shuffle by row groups, large enough to read at full speed."""


def shard_name(shard: int, shards: int) -> str:
    """Returns the file name of a shard."""
    return f"pairs-{shard:05d}-of-{shards:05d}.parquet"


def write_shard(folder: str, shard: int, shards: int, pairs: pa.Table) -> FileInfo:
    """Writes one shard, whole or not at all.

    Args:
      pairs: rows of records.SHARDS, sorted by pair_id.
    """
    table = pairs.select(SHARDS.names).cast(SHARDS)
    # The images are compressed already.
    return write_parquet(os.path.join(folder, shard_name(shard, shards)), table, row_group_rows=ROW_GROUP_ROWS, compression="none")
