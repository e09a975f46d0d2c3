from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pagepairs.records import SHARDS
from pagepairs.shards import ROW_GROUP_ROWS, shard_name, write_shard


def rows(count: int) -> pa.Table:
    columns = {name: pa.array([f"{name}{i:04d}" for i in range(count)]) for name in SHARDS.names[:6]}
    columns |= {"similarity": pa.array([0.5] * count, pa.float64()), "condition_image": pa.array([b"\xff\xd8"] * count)}
    return pa.table(columns | {"target_image": pa.array([b"\xff"] * count), "more": range(count)})


def test_a_shard_is_named_by_its_number_and_the_count() -> None:
    assert shard_name(0, 1) == "pairs-00000-of-00001.parquet"
    assert shard_name(12, 123_456) == "pairs-00012-of-123456.parquet"


def test_a_shard_holds_the_contract_columns_in_groups_of_256_rows(tmp_path: Path) -> None:
    info = write_shard(str(tmp_path), 1, 2, rows(600))
    path = tmp_path / "pairs-00001-of-00002.parquet"
    assert (info.name, info.rows, info.bytes) == (path.name, 600, path.stat().st_size)
    assert pq.read_table(path).equals(rows(600).select(SHARDS.names).cast(SHARDS))
    file = pq.ParquetFile(path)
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [ROW_GROUP_ROWS, 256, 88]
    assert {file.metadata.row_group(0).column(i).compression for i in range(9)} == {"UNCOMPRESSED"}


def test_a_shard_without_pairs_is_a_file_too(tmp_path: Path) -> None:
    write_shard(str(tmp_path), 0, 1, SHARDS.empty_table())
    assert pq.read_table(tmp_path / shard_name(0, 1)).equals(SHARDS.empty_table())
