"""Every shard format: the rows that went in come out, in the same bytes every time, for us and for the formats' own readers."""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pagepairs.records import SHARDS, shards_schema
from pagepairs.shards import BATCH_ROWS, FORMATS, read_shard, shard_name, write_shard
from pagepairs.shards.rows import rows_of
from pagepairs.shards.tfrecord import decode_example, encode_example

FULL = shards_schema(alt=True, embedding_width=3)


def image(shade: int, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (3 + shade % 5, 4), (shade, 0, 0)).save(buffer, kind)
    return buffer.getvalue()


def table(count: int, schema: pa.Schema = FULL, kind: str = "JPEG") -> pa.Table:
    """Rows with texts that need escapes, an empty text, and values that are no short decimals."""
    columns: dict[str, Any] = {name: [f'{name} "{i}"\n\\ 卷肉' for i in range(count)] for name in SHARDS.names[1:6]}
    columns["pair_id"] = [hashlib.sha256(b"%d" % i).hexdigest() for i in range(count)]
    columns["similarity"] = [np.float32(i) / np.float32(7) for i in range(count)]
    columns |= {f"{side}_image": [image((i + n) % 256, kind) for i in range(count)] for n, side in enumerate(("condition", "target"))}
    columns |= {f"{side}_alt": [""] * count for side in ("condition", "target")}
    columns |= {f"{side}_embedding": [np.array([i, -1 / 3, 0.1], np.float16) for i in range(count)] for side in ("condition", "target")}
    return pa.table([pa.array(columns[name], schema.field(name).type) for name in schema.names], schema=schema)


def batches(whole: pa.Table, rows: int = BATCH_ROWS) -> Iterator[pa.Table]:
    return (whole.slice(start, rows) for start in range(0, whole.num_rows, rows))


def write(folder: Path, form: str, whole: pa.Table, rows: int = BATCH_ROWS) -> Path:
    path = folder / shard_name(0, 1, form)
    info = write_shard(str(path), whole.schema, batches(whole, rows))
    data = path.read_bytes()
    assert (info.name, info.rows, info.bytes, info.sha256) == (path.name, whole.num_rows, len(data), hashlib.sha256(data).hexdigest())
    return path


def plain(rows: Any) -> list[dict[str, Any]]:
    return [{name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in row.items()} for row in rows]


def test_a_shard_is_named_by_its_number_the_count_and_the_format() -> None:
    assert shard_name(0, 1, "parquet") == "pairs-00000-of-00001.parquet"
    assert shard_name(12, 123_456, "webdataset") == "pairs-00012-of-123456.tar"
    assert shard_name(1, 2, "tfrecord") == "pairs-00001-of-00002.tfrecord"


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("schema", [SHARDS, FULL], ids=["fixed", "all"])
@pytest.mark.parametrize("count", [0, 1, 600])
def test_what_is_written_is_read(tmp_path: Path, form: str, schema: pa.Schema, count: int) -> None:
    whole = table(count, schema)
    found = list(read_shard(str(write(tmp_path, form, whole))))
    assert plain(found) == [
        {name: row[name] for name in [*SHARDS.names, *sorted(set(schema.names) - set(SHARDS.names))]} for row in plain(rows_of(whole))
    ]
    assert all(row["condition_embedding"].dtype == np.float16 for row in found if "condition_embedding" in row)


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_pairs_give_the_same_bytes(tmp_path: Path, form: str) -> None:
    first, second = (write(tmp_path / name, form, table(300)).read_bytes() for name in "ab")
    assert first == second


@pytest.mark.parametrize("form", ["webdataset", "tfrecord"])
def test_batches_do_not_show_in_formats_of_rows(tmp_path: Path, form: str) -> None:
    assert write(tmp_path / "a", form, table(10), rows=3).read_bytes() == write(tmp_path / "b", form, table(10)).read_bytes()


@pytest.mark.parametrize("form", FORMATS)
def test_a_shard_is_whole_or_absent(tmp_path: Path, form: str) -> None:
    def stops() -> Iterator[pa.Table]:
        yield table(1)
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        write_shard(str(tmp_path / shard_name(0, 1, form)), FULL, stops())
    assert list(tmp_path.iterdir()) == []


def test_columns_that_shards_do_not_have_stay_out(tmp_path: Path) -> None:
    write_shard(str(tmp_path / "a.parquet"), SHARDS, batches(table(2)))
    assert pq.read_table(tmp_path / "a.parquet").equals(table(2, SHARDS))


def test_parquet_holds_groups_of_256_rows_uncompressed(tmp_path: Path) -> None:
    file = pq.ParquetFile(write(tmp_path, "parquet", table(600, SHARDS)))
    assert file.read().equals(table(600, SHARDS))
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [256, 256, 88]
    assert {file.metadata.row_group(0).column(i).compression for i in range(9)} == {"UNCOMPRESSED"}


@pytest.mark.parametrize(("kind", "extension"), [("JPEG", "jpg"), ("WEBP", "webp"), ("PNG", "png")])
def test_tar_members_have_fixed_names_owners_and_times(tmp_path: Path, kind: str, extension: str) -> None:
    whole = table(2, kind=kind)
    with tarfile.open(write(tmp_path, "webdataset", whole)) as tar:
        members = tar.getmembers()
    names = [f"condition.{extension}", f"target.{extension}", "condition_embedding.npy", "target_embedding.npy", "json"]
    assert [member.name for member in members] == [f"{pair}.{name}" for pair in whole["pair_id"].to_pylist() for name in names]
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode, m.type) for m in members} == {(0, 0, 0, "", "", 0o644, tarfile.REGTYPE)}


def test_tars_are_those_of_the_standard_library(tmp_path: Path) -> None:
    path = write(tmp_path, "webdataset", table(3))
    with tarfile.open(path) as tar, tarfile.open(tmp_path / "again.tar", "w", format=tarfile.USTAR_FORMAT) as again:
        for member in tar:
            again.addfile(member, tar.extractfile(member))
    assert (tmp_path / "again.tar").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("check", ["check_examples", "check_records"])
def test_examples_and_records_are_those_of_tensorflow(check: str, tmp_path: Path) -> None:
    # In a process of its own: TensorFlow's LLVM aborts where Triton, which torch's optimizers import, has brought another.
    if find_spec("tensorflow") is None:
        pytest.skip("TensorFlow is not installed")
    root = str(Path(__file__).resolve().parents[2])
    program = f"import pathlib, sys, test_shards; test_shards.{check}(pathlib.Path(sys.argv[1]))"
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], cwd=Path(__file__).parent, env=os.environ | {"PYTHONPATH": root}, check=True
    )


def check_examples(_: Path) -> None:
    import tensorflow as tf

    for row in rows_of(table(3)):
        feature = {}
        for name, value in row.items():
            if isinstance(value, str | bytes):
                feature[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode() if isinstance(value, str) else value]))
            else:
                feature[name] = tf.train.Feature(float_list=tf.train.FloatList(value=np.atleast_1d(value)))
        example = tf.train.Example(features=tf.train.Features(feature=feature))
        assert encode_example(row) == example.SerializeToString(deterministic=True)
        assert plain([decode_example(example.SerializeToString(deterministic=True))]) == plain([dict(sorted(row.items()))])


def check_records(tmp_path: Path) -> None:
    import tensorflow as tf

    whole = table(5)
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for row in rows_of(whole):
            writer.write(encode_example(row))
    assert write(tmp_path, "tfrecord", whole).read_bytes() == (tmp_path / "theirs").read_bytes()


def test_every_damaged_byte_of_a_record_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path, "tfrecord", table(1))
    data = path.read_bytes()
    for at in range(0, len(data), 7):
        path.write_bytes(data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :])
        with pytest.raises(ValueError, match=r"damaged before byte"):
            list(read_shard(str(path)))
    for length in (1, 11, 12, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"damaged before byte"):
            list(read_shard(str(path)))


@pytest.mark.parametrize("message", [b"", b"\x08\x01", b"\x0a\xff\xff", b"\x0a\x02\x0a\x00", b"\x0a\x04\x0a\x02\x0a\x00"])
def test_other_messages_are_no_examples(message: bytes) -> None:
    with pytest.raises(ValueError, match="no Example of a pair"):
        decode_example(message)


def test_a_file_of_another_kind_is_no_shard(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"notes\.txt is no shard: the name ends in none of \.parquet, \.tar, \.tfrecord"):
        list(read_shard(str(tmp_path / "notes.txt")))
    with tarfile.open(tmp_path / "other.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"))
    (tmp_path / "broken.tar").write_bytes(b"no tar")
    for name in ("other.tar", "broken.tar"):
        with pytest.raises(ValueError, match=rf"{name} is no shard of pairs"):
            list(read_shard(str(tmp_path / name)))
