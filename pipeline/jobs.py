"""How a stage becomes Beam jobs: tasks that stand alone, or parts of a shuffle. What is finished is never done again."""

import functools
import hashlib
import os
import pickle
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.windowed_value import WindowedValue

from pagepairs.files import open_read, write_bytes
from pagepairs.keys import part_of
from pipeline.journal import Journal, Outcome, part_name
from pipeline.runners import CheckedDoFn, is_local, open_job

PART_ROWS = 100_000
"""Rows of the largest input that one part of a shuffle holds, about: 150 MB of 768-wide vectors."""
_WAVE_ROWS = 500_000
_PACK_BYTES = 32 * 1024 * 1024
_NAMED_IN_JOB = 10_000
"""Tasks or files that a job names itself; Dataflow takes 20 MB of job description."""

T = TypeVar("T")


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
    """Returns the elements as a collection. A long list goes through a file in `folder`, of which the job names ranges only.

    The elements of a range are spread over workers before anything is done with them.
    """
    if len(elements) <= _NAMED_IN_JOB:
        return pipeline | label >> beam.Create(elements)
    data = pickle.dumps(elements)
    path = os.path.join(folder, f"elements-{hashlib.sha256(data).hexdigest()[:16]}.pickle")
    write_bytes(path, data)
    starts = beam.Create(list(range(0, len(elements), _NAMED_IN_JOB)))
    read = pipeline | f"{label}/Ranges" >> starts | f"{label}/Read" >> beam.FlatMap(_read_elements, path)
    return read | f"{label}/Spread" >> beam.Reshuffle()


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
