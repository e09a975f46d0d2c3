"""How a stage becomes Beam jobs: tasks that stand alone, or parts of a shuffle. What is finished is never done again."""

import functools
import hashlib
import os
import pickle
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.windowed_value import WindowedValue

from pagepairs.files import FileInfo, open_read, read_json, write_bytes, write_json
from pagepairs.keys import part_of
from pagepairs.stores import exists, names_in, store_of
from pipeline.runners import CheckedDoFn, is_local, open_job

PART_ROWS = 100_000
"""Rows of the largest input that one part of a shuffle holds, about: 150 MB of 768-wide vectors."""
_WAVE_ROWS = 500_000
_PACK_BYTES = 32 * 1024 * 1024
_NAMED_IN_JOB = 10_000
"""Tasks or files that a job names itself; Dataflow takes 20 MB of job description."""
_READERS = 32
"""Journal entries read at once: one in an object store takes 20 to 50 ms."""

T = TypeVar("T")


@dataclass(kw_only=True)
class Outcome:
    """What one finished task left behind: its files by dataset, and its counts."""

    files: dict[str, list[FileInfo]] = field(default_factory=dict)
    counters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Journal:
    """The finished tasks of a stage: one small file each, written after the task's own files."""

    folder: str

    def _path(self, task: str) -> str:
        return os.path.join(self.folder, f"{task}.json")

    def has(self, task: str) -> bool:
        """Whether the task is finished."""
        return exists(self._path(task))

    def finished(self) -> set[str]:
        """Returns the names of all finished tasks."""
        return {name.removesuffix(".json") for name in names_in(self.folder) if name.endswith(".json")}

    def write(self, task: str, outcome: Outcome) -> None:
        """Marks the task as finished."""
        files = {dataset: [file.as_json() for file in infos] for dataset, infos in outcome.files.items()}
        write_json(self._path(task), {"files": files, "counters": outcome.counters})

    def once(self, label: str, task: str, work: Callable[[], Outcome]) -> None:
        """Does a task and marks it as finished, unless it is: a bundle that a cluster tries again holds finished tasks.

        What it counted reaches the runner's counters in either case, under `label`.
        """
        started = time.monotonic()
        if not self.has(task):
            self.write(task, work())
        report_metrics(label, self.read(task), busy_s=time.monotonic() - started)

    def forget_others(self, tasks: Iterable[str]) -> None:
        """Forgets all finished tasks but these: the files of tasks that a run does not name are deleted or written over."""
        keep = {f"{task}.json" for task in tasks}
        for name in names_in(self.folder):
            if name not in keep:
                store_of(self.folder).remove(os.path.join(self.folder, name))

    def read(self, task: str) -> Outcome:
        """Returns what a finished task left behind."""
        value = read_json(self._path(task))
        files = {dataset: [FileInfo(**info) for info in infos] for dataset, infos in value["files"].items()}
        return Outcome(files=files, counters=value["counters"])

    def read_all(self, tasks: Iterable[str]) -> list[Outcome]:
        """Returns what finished tasks left behind, in the order of their names given."""
        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(self.read, tasks))

    def read_parts(self, parts: int) -> list[Outcome]:
        """Returns what all parts of a shuffle left behind, in their order."""
        return self.read_all(part_name(part, parts) for part in range(parts))


def merge_counters(counters: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Adds counters key by key: numbers, lists of numbers of one length, and dicts of these."""
    merged: dict[str, Any] = {}
    for counter in counters:
        for key, value in counter.items():
            if key not in merged:
                merged[key] = value
            elif isinstance(value, Mapping):
                merged[key] = merge_counters([merged[key], value])
            elif isinstance(value, list):
                merged[key] = [a + b for a, b in zip(merged[key], value, strict=True)]
            else:
                merged[key] = merged[key] + value
    return merged


def merge_outcomes(outcomes: Iterable[Outcome]) -> Outcome:
    """Joins what tasks left behind; files in the order of their names."""
    outcomes = list(outcomes)
    datasets = sorted({dataset for outcome in outcomes for dataset in outcome.files})
    files = {d: sorted((f for o in outcomes for f in o.files.get(d, [])), key=lambda info: info.name) for d in datasets}
    return Outcome(files=files, counters=merge_counters(outcome.counters for outcome in outcomes))


def run_tasks(label: str, tasks: Mapping[str, T], work: Callable[[T], Outcome], journal: Journal, options: PipelineOptions) -> int:
    """Does every task that the journal does not hold, each by itself; returns how many that were.

    Args:
      tasks: by name; the name is the task's key in the journal.
      work: writes the task's files and returns them; doing it twice must give the same bytes.
    """
    finished = journal.finished()
    todo = sorted((name, task) for name, task in tasks.items() if name not in finished)
    if todo:
        with open_job(label, options) as pipeline:
            (
                name_elements(pipeline, f"{label}/Tasks", todo, journal.folder)
                | f"{label}/Balance" >> beam.Reshuffle()
                | f"{label}/Work" >> beam.ParDo(_Finish(label, work, journal))
            )
    return len(todo)


def name_elements(pipeline: beam.Pipeline, label: str, elements: list[Any], folder: str) -> beam.PCollection:
    """Returns the elements as a collection. A long list goes through a file in `folder`, of which the job names ranges only."""
    if len(elements) <= _NAMED_IN_JOB:
        return pipeline | label >> beam.Create(elements)
    data = pickle.dumps(elements)
    path = os.path.join(folder, f"elements-{hashlib.sha256(data).hexdigest()[:16]}.pickle")
    write_bytes(path, data)
    starts = beam.Create(list(range(0, len(elements), _NAMED_IN_JOB)))
    return pipeline | f"{label}/Ranges" >> starts | f"{label}/Read" >> beam.FlatMap(_read_elements, path)


def _read_elements(start: int, path: str) -> list[Any]:
    return _elements_of(path)[start : start + _NAMED_IN_JOB]


@functools.lru_cache(maxsize=1)
def _elements_of(path: str) -> list[Any]:
    with open_read(path) as file:
        elements: list[Any] = pickle.load(file)  # written by the driver of this run, as the job itself is
    return elements


class _Finish(CheckedDoFn):
    """Does one task, then notes it in the journal."""

    def __init__(self, label: str, work: Callable[[Any], Outcome], journal: Journal) -> None:
        super().__init__()
        self._label, self._work, self._journal = label, work, journal

    def process(self, element: tuple[str, Any]) -> None:
        name, task = element
        self._journal.once(self._label, name, lambda: self._work(task))


def report_metrics(label: str, outcome: Outcome, *, busy_s: float = 0.0) -> None:
    """Adds an outcome to the runner's own counters, under the namespace `label`.

    in, kept, errors, dropped_<reason> and whatever else is one number; bytes_written; busy_ms, the time it took, which gives the rates.
    """
    counts = {name: value for name, value in outcome.counters.items() if isinstance(value, int)}
    counts |= {f"dropped_{reason}": value for reason, value in outcome.counters.get("dropped", {}).items()}
    counts["bytes_written"] = sum(info.bytes for infos in outcome.files.values() for info in infos)
    counts["busy_ms"] = round(1000 * busy_s)
    for name, value in counts.items():
        Metrics.counter(label, name).inc(value)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows on their way through a shuffle: `hashes`, uint64 of shape (N,), decide the part of each row."""

    tag: str
    table: pa.Table
    hashes: np.ndarray


class Spread(Protocol):
    """Reads one input file and keys its rows."""

    def __call__(self, tag: str, path: str) -> Iterable[Rows]: ...


class Reduce(Protocol):
    """Turns all rows of one part, by tag, into files."""

    def __call__(self, part: int, tables: Mapping[str, pa.Table]) -> Outcome: ...


def count_parts(rows: int) -> int:
    """Returns the number of parts for `rows` of the largest input: of row counts only, never of the machine."""
    return max(1, -(-rows // PART_ROWS))


def part_name(part: int, parts: int) -> str:
    """Returns the name of a part, as its files and its journal entry carry it."""
    return f"part-{part:05d}-of-{parts:05d}"


def part_number(path: str) -> int:
    """Returns the part that a file is of, from its name."""
    return int(os.path.basename(path).split("-")[1])


def run_parts(
    label: str,
    inputs: Sequence[tuple[str, str]],
    spread: Spread,
    reduce: Reduce,
    parts: int,
    journal: Journal,
    options: PipelineOptions,
    *,
    part_rows: int = PART_ROWS,
) -> int:
    """Shuffles the rows of the input files by hash and reduces each part that the journal does not hold; returns how many.

    The local runner keeps its shuffles in memory, so it is given a few parts at a time; a cluster gets all at once.

    Args:
      inputs: (tag, path) of each input file.
      part_rows: rows of a part, about.
    """
    finished = journal.finished()
    todo = [part for part in range(parts) if part_name(part, parts) not in finished]
    wave = max(1, _WAVE_ROWS // part_rows) if is_local(options) else parts
    for start in range(0, len(todo), wave):
        wanted = todo[start : start + wave]
        with open_job(label, options) as pipeline:
            rows = (
                name_elements(pipeline, f"{label}/Files", list(inputs), journal.folder)
                | f"{label}/Balance" >> beam.Reshuffle()
                | f"{label}/Spread"
                >> beam.ParDo(_SpreadFn(spread, parts, frozenset(wanted))).with_output_types(tuple[int, tuple[str, bytes]])
            )
            # A part without rows is written too, empty.
            empty = pipeline | f"{label}/Parts" >> beam.Create([(part, ("", b"")) for part in wanted]).with_output_types(
                tuple[int, tuple[str, bytes]]
            )
            (
                (rows, empty)
                | f"{label}/Flatten" >> beam.Flatten()
                | f"{label}/Group" >> beam.GroupByKey()
                | f"{label}/Reduce" >> beam.ParDo(_ReduceFn(label, reduce, parts, journal))
            )
    return len(todo)


class _SpreadFn(CheckedDoFn):
    """Packs the rows of several files by part, so that a shuffle carries few large elements."""

    def __init__(self, spread: Spread, parts: int, wanted: frozenset[int]) -> None:
        super().__init__()
        self._spread, self._parts, self._wanted = spread, parts, np.array(sorted(wanted))
        self._tables: dict[str, list[pa.Table]] = {}
        self._owners: dict[str, list[np.ndarray]] = {}
        self._sizes: Counter[str] = Counter()

    def process(self, element: tuple[str, str]) -> Iterator[tuple[int, tuple[str, bytes]]]:
        for rows in self._spread(*element):
            owner = part_of(rows.hashes, self._parts)
            here = np.isin(owner, self._wanted)
            table = rows.table if here.all() else rows.table.filter(pa.array(here))
            self._tables.setdefault(rows.tag, []).append(table)
            self._owners.setdefault(rows.tag, []).append(owner[here])
            self._sizes[rows.tag] += table.nbytes
            if self._sizes[rows.tag] > _PACK_BYTES:
                yield from self._flush(rows.tag)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for tag in list(self._tables):
            for element in self._flush(tag):
                yield GlobalWindows.windowed_value(element)

    def _flush(self, tag: str) -> Iterator[tuple[int, tuple[str, bytes]]]:
        table = pa.concat_tables(self._tables.pop(tag))
        owner = np.concatenate(self._owners.pop(tag))
        del self._sizes[tag]
        order = np.argsort(owner, kind="stable")
        bounds = np.searchsorted(owner[order], np.append(self._wanted, self._parts))
        table = table.take(pa.array(order)) if len(self._wanted) > 1 else table
        for part, start, stop in zip(self._wanted, bounds, bounds[1:], strict=False):
            if stop > start:
                yield int(part), (tag, pack(table.slice(start, stop - start)))


class _ReduceFn(CheckedDoFn):
    """Gathers one part, reduces it and notes it in the journal."""

    def __init__(self, label: str, reduce: Reduce, parts: int, journal: Journal) -> None:
        super().__init__()
        self._label, self._reduce, self._parts, self._journal = label, reduce, parts, journal

    def process(self, element: tuple[int, Iterable[tuple[str, bytes]]]) -> None:
        part, packed = element
        self._journal.once(self._label, part_name(part, self._parts), lambda: self._reduce(part, gather(packed)))


def gather(packed: Iterable[tuple[str, bytes]]) -> dict[str, pa.Table]:
    """Returns the rows of packed tables by tag."""
    tables: dict[str, list[pa.Table]] = {}
    for tag, data in packed:
        if tag:
            tables.setdefault(tag, []).append(unpack(data))
    return {tag: pa.concat_tables(pieces) for tag, pieces in tables.items()}


def pack(table: pa.Table) -> bytes:
    """Returns a table as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def unpack(data: bytes) -> pa.Table:
    """Returns the table of an Arrow IPC stream, without copying it."""
    return pa.ipc.open_stream(data).read_all()
