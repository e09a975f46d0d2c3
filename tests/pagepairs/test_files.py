import errno
import hashlib
import itertools
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagepairs.files import FileInfo, atomic, read_json, remove_temporaries, write_bytes, write_json, write_parquet
from pagepairs.records import EPISODES, SHARDS


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    with atomic(str(path)) as file:
        file.write(b"half")
        assert not path.exists()
        file.write(b" whole")
    assert path.read_bytes() == b"half whole"
    assert names(path.parent) == ["file"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_what_was_there_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file"
    write_bytes(str(path), b"before")

    def fail() -> None:
        with atomic(str(path)) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_bytes() == b"before"
    assert names(tmp_path) == ["file"]


def test_an_exception_leaves_no_new_file(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_json(str(tmp_path / "file"), object())
    assert names(tmp_path) == []


def test_a_folder_under_the_final_name_is_an_error_and_leaves_no_temporary(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        write_bytes(str(tmp_path / "taken"), b"x")
    assert names(tmp_path) == ["taken"]


def test_a_target_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        write_bytes(str(tmp_path / "file" / "below"), b"x")
    with pytest.raises(OSError, match="proc"):
        write_bytes("/proc/none/file", b"x")


def test_a_full_target_leaves_what_was_there_and_no_temporary(tmp_path: Path) -> None:
    """A file-size limit stops the write half-way, as a full disk does."""
    path = tmp_path / "file"
    write_bytes(str(path), b"before")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        with pytest.raises(OSError, match="File too large") as caught:
            write_bytes(str(path), b"x" * 1_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.errno == errno.EFBIG
    assert path.read_bytes() == b"before"
    assert names(tmp_path) == ["file"]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    path = str(tmp_path / "a" / "file")
    code = f"import os; from pagepairs.files import atomic\nwith atomic({path!r}) as f:\n    f.write(b'x'); os.kill(os.getpid(), 9)\n"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert [name.startswith(".tmp-") for name in names(tmp_path / "a")] == [True]
    write_bytes(str(tmp_path / "a" / "kept"), b"")
    remove_temporaries(str(tmp_path))
    assert names(tmp_path / "a") == ["kept"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=10,
)


@given(JSON)
def test_json_comes_back(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = str(tmp_path_factory.mktemp("json") / "value.json")
    write_json(path, value)
    assert read_json(path) == value


def test_json_is_sorted_indented_and_readable(tmp_path: Path) -> None:
    write_json(str(tmp_path / "f"), {"b": "é", "a": [1]})
    assert (tmp_path / "f").read_text("utf-8") == '{\n "a": [\n  1\n ],\n "b": "é"\n}\n'


def test_file_info_is_what_the_manifest_lists(tmp_path: Path) -> None:
    table = pa.table({"x": ["a", "b", None]})
    info = write_parquet(str(tmp_path / "t.parquet"), table)
    data = (tmp_path / "t.parquet").read_bytes()
    assert info == FileInfo(name="t.parquet", rows=3, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    assert json.loads(json.dumps(info.as_json())) == {"name": "t.parquet", "rows": 3, "bytes": len(data), "sha256": info.sha256}
    assert pq.read_table(tmp_path / "t.parquet").equals(table)


TABLE = pa.table(
    {
        "text": pa.array(["a", None, "", "é"] * 50),
        "number": pa.array(range(200), pa.int64()),
        "half": pa.FixedSizeListArray.from_arrays(pa.array([0.5, 1, 0, 0.25] * 100, pa.float16()), 2),
        "list": pa.array([[{"id": "x", "n": 1}], [], None, [{"id": None, "n": 2}] * 3] * 50),
        "body": pa.array([b"\0", None, b"", b"abc"] * 50),
    }
)


@given(st.lists(st.integers(0, 200), max_size=5))
def test_parquet_bytes_depend_on_the_rows_not_on_how_they_lie_in_memory(tmp_path_factory: pytest.TempPathFactory, cuts: list[int]) -> None:
    folder = tmp_path_factory.mktemp("parquet")
    bounds = [0, *sorted(cuts), 200]
    pieces = [TABLE.slice(start, stop - start) for start, stop in itertools.pairwise(bounds)]
    around = pa.concat_tables([TABLE.slice(150), TABLE, TABLE.slice(0, 3)]).combine_chunks().slice(50, 200)
    infos = [write_parquet(str(folder / "t"), table) for table in (TABLE, pa.concat_tables(pieces), around)]
    assert infos[1:] == [infos[0]] * 2


def test_parquet_bytes_are_the_same_in_another_process(tmp_path: Path) -> None:
    path, table = str(tmp_path / "x"), "pa.table({'a': ['é', None] * 9, 'b': list(range(18))})"
    code = f"import pyarrow as pa\nfrom pagepairs.files import write_parquet\nprint(write_parquet({path!r}, {table}).sha256)"
    out = {
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env={"PYTHONHASHSEED": seed}).stdout
        for seed in "12"
    }
    assert out == {write_parquet(str(tmp_path / "y"), pa.table({"a": ["é", None] * 9, "b": list(range(18))})).sha256 + "\n"}


def test_row_groups_are_as_long_as_asked_for(tmp_path: Path) -> None:
    write_parquet(str(tmp_path / "t"), pa.table({"x": range(10)}), row_group_rows=4)
    file = pq.ParquetFile(tmp_path / "t")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [4, 4, 2]


@pytest.mark.parametrize("schema", [EPISODES, SHARDS])
def test_a_table_without_rows_keeps_its_columns(tmp_path: Path, schema: pa.Schema) -> None:
    assert write_parquet(str(tmp_path / "t"), schema.empty_table()).rows == 0
    assert pq.read_schema(tmp_path / "t").equals(schema)


def test_only_strings_are_dictionary_encoded(tmp_path: Path) -> None:
    write_parquet(str(tmp_path / "t"), pa.table({"s": ["a"] * 9, "b": [b"a"] * 9, "f": [0.5] * 9}))
    group = pq.ParquetFile(tmp_path / "t").metadata.row_group(0)
    assert [group.column(i).has_dictionary_page for i in range(3)] == [True, False, False]


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = str(tmp_path / "f")
    with atomic(path) as first, atomic(path) as second:
        first.write(b"1")
        second.write(b"22")
        assert len(os.listdir(tmp_path)) == 2
    assert (tmp_path / "f").read_bytes() == b"1"
    assert names(tmp_path) == ["f"]
