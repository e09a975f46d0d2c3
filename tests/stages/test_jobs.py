import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from hypothesis import given
from hypothesis import strategies as st

import pipeline.jobs as jobs
from pagepairs.files import FileInfo, read_json, write_arrow_parts, write_json, write_parquet
from pagepairs.keys import mix, part_of
from pipeline.jobs import Rows, count_parts, name_elements, pack, run_parts, run_tasks, unpack
from pipeline.journal import Journal, Outcome, merge_counters, merge_outcomes, part_name
from pipeline.runners import pipeline_options


def info(name: str) -> FileInfo:
    return FileInfo(name=name, rows=1, bytes=2, sha256="3")


# Journal and counters


def test_a_journal_gives_back_what_was_written(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "done"))
    outcome = Outcome(
        files={"images": [info("a"), info("b")], "links": []}, counters={"in": 3, "dropped": {"aspect": 1}, "histogram": [0, 2]}
    )
    assert not journal.has("task")
    journal.write("task", outcome)
    assert journal.has("task")
    assert not journal.has("tas")
    assert journal.read("task") == outcome


COUNTERS = st.fixed_dictionaries(
    {},
    optional={
        "in": st.integers(0, 9),
        "errors": st.integers(0, 9),
        "dropped": st.dictionaries(st.sampled_from("abc"), st.integers(0, 9)),
        "bins": st.lists(st.integers(0, 9), min_size=3, max_size=3),
    },
)


@given(st.lists(COUNTERS))
def test_merged_counters_are_sums_in_any_order_and_leave_their_parts_alone(counters: list[dict[str, Any]]) -> None:
    before = repr(counters)
    merged = merge_counters(counters)
    for name in ("in", "errors"):
        assert merged.get(name, 0) == sum(counter.get(name, 0) for counter in counters)
    assert dict(merged.get("dropped", {})) == {
        reason: sum(c.get("dropped", {}).get(reason, 0) for c in counters) for reason in {r for c in counters for r in c.get("dropped", {})}
    }
    if "bins" in merged:
        assert merged["bins"] == [sum(column) for column in zip(*(c["bins"] for c in counters if "bins" in c), strict=True)]
    assert merge_counters(counters[::-1]) == merged
    assert repr(counters) == before


def test_lists_of_other_lengths_do_not_add() -> None:
    with pytest.raises(ValueError, match="zip"):
        merge_counters([{"bins": [1]}, {"bins": [1, 2]}])


def test_merged_outcomes_list_files_by_name() -> None:
    outcomes = [
        Outcome(files={"x": [info("b")]}, counters={"in": 1}),
        Outcome(files={"x": [info("a")], "y": [info("c")]}, counters={"in": 2}),
        Outcome(),
    ]
    assert merge_outcomes(iter(outcomes)) == Outcome(files={"x": [info("a"), info("b")], "y": [info("c")]}, counters={"in": 3})
    assert merge_outcomes([]) == Outcome()


@pytest.mark.parametrize(("rows", "parts"), [(0, 1), (1, 1), (100_000, 1), (100_001, 2), (10**9, 10_000)])
def test_parts_come_from_row_counts(rows: int, parts: int) -> None:
    assert count_parts(rows) == parts


def test_part_names_sort_like_parts() -> None:
    assert part_name(3, 12) == "part-00003-of-00012"


# Tasks

_DONE: list[str] = []
_LOCK = threading.Lock()


def note(task: str) -> Outcome:
    with _LOCK:
        _DONE.append(task)
    return Outcome(counters={"in": len(task), "dropped": {"x": 1}})


def test_every_task_is_done_once_and_never_again(tmp_path: Path) -> None:
    journal, options = Journal(str(tmp_path)), pipeline_options((), 1)
    _DONE.clear()
    tasks = {f"t{i}": "x" * i for i in range(20)}
    assert run_tasks("work", tasks, note, journal, options) == 20
    assert sorted(_DONE) == sorted(tasks.values())
    assert {name: journal.read(name).counters["in"] for name in tasks} == {name: len(task) for name, task in tasks.items()}
    _DONE.clear()
    (tmp_path / "t7.json").unlink()
    assert run_tasks("work", tasks | {"new": "yy"}, note, journal, options) == 2
    assert sorted(_DONE) == ["xxxxxxx", "yy"]
    assert run_tasks("work", {}, note, journal, options) == 0


def fail_on_three(task: int) -> Outcome:
    if task == 3:
        raise OSError(28, "No space left on device")
    return Outcome()


def test_a_failed_task_fails_the_run_and_is_not_in_the_journal(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path))
    with pytest.raises(Exception, match=r"\[Errno 28\] No space left"):
        run_tasks("work", {str(i): i for i in range(5)}, fail_on_three, journal, pipeline_options((), 1))
    assert not journal.has("3")


def described_bytes(elements: list[Any], folder: Path) -> int:
    """Returns the length of the description of a job that counts elements, and runs it."""
    pipeline = beam.Pipeline(options=pipeline_options((), 1))
    counts = name_elements(pipeline, "Names", elements, str(folder)) | beam.combiners.Count.PerElement()
    counts | beam.combiners.ToList() | beam.Map(lambda found, path: write_json(path, sorted(found)), str(folder / "found.json"))
    pipeline.run().wait_until_finish()
    return len(pipeline.to_runner_api().SerializeToString())


@pytest.mark.parametrize("count", [0, 7, 8, 200])
def test_a_long_list_goes_through_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(jobs, "_NAMED_IN_JOB", 7)
    paths = [f"gs://bucket/out/images/{hashlib.sha256(bytes([n % 256, n // 256])).hexdigest()}.parquet" for n in range(count)]
    described = described_bytes(paths, tmp_path)
    assert read_json(str(tmp_path / "found.json")) == [[path, 1] for path in sorted(paths)]
    assert len(list(tmp_path.glob("elements-*.pickle"))) == (count > 7)
    if count == 200:  # they would take at least the bytes of their hashes
        assert described < described_bytes(paths[:8], tmp_path) + 200 * 8
        monkeypatch.setattr(jobs, "_NAMED_IN_JOB", 200)
        assert described_bytes(paths, tmp_path) > described + 200 * 32


def test_all_tasks_of_a_long_list_are_done_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_NAMED_IN_JOB", 3)
    _DONE.clear()
    assert run_tasks("work", {f"t{i}": "x" * i for i in range(20)}, note, Journal(str(tmp_path)), pipeline_options((), 1)) == 20
    assert sorted(_DONE) == ["x" * i for i in range(20)]
    assert run_tasks("work", {f"t{i}": "x" * i for i in range(20)}, note, Journal(str(tmp_path)), pipeline_options((), 1)) == 0


# Parts

SCHEMA = pa.schema([("n", pa.int64())])


def note_call(folder: str, name: object, fatal: object) -> None:
    """Counts the calls in files, whatever process they are in; the process dies in that of `fatal`."""
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/{name}", "a", encoding="ascii") as file:
        file.write("x")
    if name == fatal:
        os.kill(os.getpid(), signal.SIGKILL)


def calls(folder: Path) -> dict[str, int]:
    return {path.name: len(path.read_text()) for path in folder.iterdir()}


class Spread:
    """Every number of a range "start stop" in two pieces."""

    def __init__(self, folder: Path | str, fatal: str = "") -> None:
        self.folder, self.fatal = str(folder), fatal

    def __call__(self, tag: str, path: str) -> Iterator[Rows]:
        note_call(f"{self.folder}/reads", path, self.fatal)
        start, stop = map(int, path.split())
        for piece in np.array_split(np.arange(start, stop), 2):
            yield Rows(tag, pa.table({"n": piece}, schema=SCHEMA), mix(piece.astype(np.uint64)))


class Collect:
    """Writes the rows of a part by tag."""

    def __init__(self, folder: Path | str, fatal: int = -1) -> None:
        self.folder, self.fatal = str(folder), fatal

    def __call__(self, part: int, tables: Mapping[str, pa.Table]) -> Outcome:
        note_call(f"{self.folder}/calls", part, self.fatal)
        rows = {tag: sorted(table["n"].to_pylist()) for tag, table in tables.items()}
        table = pa.table(
            {"tag": pa.array(sorted(rows), pa.string()), "rows": pa.array([rows[tag] for tag in sorted(rows)], pa.list_(pa.int64()))}
        )
        return Outcome(files={"x": [write_parquet(f"{self.folder}/{part}.parquet", table)]}, counters={"in": sum(map(len, rows.values()))})


INPUTS = [("a", "0 40"), ("a", "40 41"), ("b", "10 30"), ("a", "70 70")]


def expected_part(part: int, parts: int) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for tag, path in INPUTS:
        numbers = np.arange(*map(int, path.split()))
        mine = numbers[part_of(mix(numbers.astype(np.uint64)), parts) == part].tolist()
        if mine:
            rows[tag] = sorted(rows.get(tag, []) + mine)
    return rows


def assert_done(folder: Path, parts: int) -> None:
    """Every part holds its rows of all files, and nothing is left of the way there."""
    journal = Journal(str(folder / "done"))
    for part in range(parts):
        rows = pq.read_table(folder / f"{part}.parquet").to_pylist()
        assert {row["tag"]: row["rows"] for row in rows} == expected_part(part, parts)
        assert journal.read(part_name(part, parts)).counters["in"] == sum(len(row["rows"]) for row in rows)
    assert sorted(path.name for path in (folder / "done").iterdir()) == [f"{part_name(part, parts)}.json" for part in range(parts)]


def run_in_a_process(folder: Path, parts: int, workers: int, *, by_files: bool = True, file: str = "", part: int = -1) -> int:
    """Runs the shuffle in a process of its own, which dies at a file or part; worker processes import this file by name."""
    code = f"""
import test_jobs as t
if __name__ == "__main__":
    t.jobs.is_local, t.jobs._PACK_BYTES = (lambda _: {by_files}), 1
    spread, reduce = t.Spread({str(folder)!r}, {file!r}), t.Collect({str(folder)!r}, {part})
    journal, options = t.Journal({str(folder / "done")!r}), t.pipeline_options((), {workers})
    t.run_parts("x", t.INPUTS, spread, reduce, {parts}, journal, options)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, env=environment).returncode


@pytest.mark.parametrize("by_files", [False, True])
@pytest.mark.parametrize(("parts", "pack_bytes"), [(1, 1), (5, 100), (5, 1), (90, 2**25)])
def test_every_part_gets_its_rows_of_all_files_which_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: int, pack_bytes: int, by_files: bool
) -> None:
    monkeypatch.setattr(jobs, "is_local", lambda _: by_files)
    monkeypatch.setattr(jobs, "_PACK_BYTES", pack_bytes)
    journal, options = Journal(str(tmp_path / "done")), pipeline_options((), 1)
    assert run_parts("x", INPUTS, Spread(tmp_path), Collect(tmp_path), parts, journal, options) == parts
    assert_done(tmp_path, parts)
    assert calls(tmp_path / "reads") == {path: 1 for _, path in INPUTS}
    assert calls(tmp_path / "calls") == {str(part): 1 for part in range(parts)}


@pytest.mark.parametrize("by_files", [False, True])
def test_two_processes_share_the_files_and_the_parts(tmp_path: Path, by_files: bool) -> None:
    assert run_in_a_process(tmp_path, 4, 2, by_files=by_files) == 0
    assert_done(tmp_path, 4)
    assert calls(tmp_path / "reads") == {path: 1 for _, path in INPUTS}
    assert calls(tmp_path / "calls") == {str(part): 1 for part in range(4)}


@pytest.mark.parametrize(("file", "part", "workers"), [("10 30", -1, 1), ("0 40", -1, 2), ("", 2, 1), ("", 2, 2)])
def test_killed_anywhere_a_shuffle_through_files_goes_on_from_what_is_finished(tmp_path: Path, file: str, part: int, workers: int) -> None:
    assert run_in_a_process(tmp_path, 6, workers, file=file, part=part) != 0
    finished = Journal(str(tmp_path / "done")).finished()
    assert part_name(2, 6) not in finished
    assert not (file and finished)
    # What a killed process leaves whole is not read either, nor what is half-written.
    left = tmp_path / "done" / "spread"
    write_arrow_parts(str(left / "a.arrow"), pa.table({"n": [5]}, schema=SCHEMA), np.repeat([0, 1], [3, 4]))
    (left / ".tmp-a").write_bytes(b"ARROW1")
    journal, options = Journal(str(tmp_path / "done")), pipeline_options((), 1)
    assert run_parts("x", INPUTS, Spread(tmp_path), Collect(tmp_path), 6, journal, options) == 6 - len(finished)
    assert_done(tmp_path, 6)
    again = calls(tmp_path / "calls")
    assert {name: again[str(number)] for number in range(6) if (name := part_name(number, 6)) in finished} == dict.fromkeys(finished, 1)
    assert all(count <= 2 for count in calls(tmp_path / "reads").values())


@pytest.mark.parametrize("by_files", [False, True])
def test_a_part_in_the_journal_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_files: bool) -> None:
    monkeypatch.setattr(jobs, "is_local", lambda _: by_files)
    journal, reduce, options = Journal(str(tmp_path / "done")), Collect(tmp_path), pipeline_options((), 1)
    journal.write(part_name(1, 4), Outcome(counters={"in": 99}))
    assert run_parts("x", INPUTS, Spread(tmp_path), reduce, 4, journal, options) == 3
    assert run_parts("x", INPUTS, Spread(tmp_path), reduce, 4, journal, options) == 0
    assert calls(tmp_path / "calls") == {"0": 1, "2": 1, "3": 1}
    assert calls(tmp_path / "reads") == {path: 1 for _, path in INPUTS}
    assert journal.read(part_name(1, 4)).counters == {"in": 99}


@pytest.mark.parametrize("by_files", [False, True])
def test_parts_without_rows_are_written_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_files: bool) -> None:
    monkeypatch.setattr(jobs, "is_local", lambda _: by_files)
    journal = Journal(str(tmp_path / "done"))
    assert run_parts("x", [], Spread(tmp_path), Collect(tmp_path), 2, journal, pipeline_options((), 1)) == 2
    assert [journal.read(part_name(part, 2)).counters for part in range(2)] == [{"in": 0}] * 2


@pytest.mark.parametrize(("runner", "files"), [("FnApiRunner", True), ("FlinkRunner", False)])
def test_only_what_this_machine_would_hold_in_memory_goes_through_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runner: str, files: bool
) -> None:
    written = []

    class Pipeline(jobs.beam.Pipeline):  # type: ignore[misc, name-defined]
        def __init__(self, options: PipelineOptions) -> None:
            super().__init__(options=pipeline_options((), 1))

    def write(path: str, table: pa.Table, bounds: np.ndarray) -> None:
        written.append(os.path.dirname(path))
        write_arrow_parts(path, table, bounds)

    monkeypatch.setattr(jobs.beam, "Pipeline", Pipeline)
    monkeypatch.setattr(jobs, "write_arrow_parts", write)
    journal, options = Journal(str(tmp_path / "done")), pipeline_options([f"--runner={runner}"], 1)
    run_parts("x", INPUTS, Spread(tmp_path), Collect(tmp_path), 6, journal, options)
    assert written == [str(tmp_path / "done" / "spread")] * (2 * files)  # one a tag
    assert_done(tmp_path, 6)


@given(st.lists(st.integers(-5, 5)), st.integers(0, 3))
def test_packed_tables_come_back(values: list[int], skip: int) -> None:
    table = pa.table({"n": pa.array(values, pa.int64()), "s": pa.array([None if v < 0 else str(v) for v in values], pa.string())}).slice(
        skip
    )
    assert unpack(pack(table)).equals(table)


def test_a_slice_is_packed_without_the_rest() -> None:
    table = pa.table({"s": ["x" * 1000] * 1000})
    assert len(pack(table.slice(500, 1))) < 5_000
