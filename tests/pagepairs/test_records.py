import pyarrow as pa
import pytest

from pagepairs.records import CANDIDATES, DROPS, LINKS, PAIRS, SHARDS, embeddings_schema, rows_to_table


def test_rows_become_exactly_the_schema() -> None:
    row = {"stage": "scan", "reason": "aspect", "error": False, "page_url": "", "image_url": "u", "detail": "9 x 1", "more": 1}
    table = rows_to_table([row, {**row, "error": True}], DROPS)
    assert table.schema == DROPS
    assert table["error"].to_pylist() == [False, True]
    assert rows_to_table([], DROPS).equals(DROPS.empty_table())


def test_a_missing_column_and_a_wrong_type_are_errors() -> None:
    row = {"stage": "scan", "reason": "aspect", "error": False, "page_url": "", "image_url": "u", "detail": ""}
    with pytest.raises(KeyError, match="detail"):
        rows_to_table([{name: value for name, value in row.items() if name != "detail"}], DROPS)
    with pytest.raises(pa.ArrowInvalid):
        rows_to_table([{**row, "error": "no"}], DROPS)


def test_unsigned_captures_keep_all_64_bits() -> None:
    row = dict.fromkeys(LINKS.names, "") | {"capture": 2**64 - 1, "page_time": None, "position": 0}
    assert rows_to_table([row], LINKS)["capture"].to_pylist() == [2**64 - 1]


def test_vectors_are_lists_of_one_width() -> None:
    assert embeddings_schema(3).field("embedding").type == pa.list_(pa.float16(), 3)


def test_the_columns_that_trainers_read_are_fixed() -> None:
    sides = ["condition_id", "target_id", "condition_url", "target_url"]
    assert SHARDS.names == ["pair_id", "page_url", *sides, "similarity", "condition_image", "target_image"]
    assert SHARDS.field("similarity").type == pa.float32()
    assert SHARDS.field("condition_image").type == SHARDS.field("target_image").type == pa.binary()
    assert [name for name in SHARDS.names if name in PAIRS.names] == SHARDS.names[:-2]
    assert CANDIDATES.names == ["page_url", "page_key", "a_id", "b_id", "a_url", "b_url", "similarity", "reason"]
