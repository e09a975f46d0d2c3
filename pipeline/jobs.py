"""How a stage becomes Beam jobs: tasks that stand alone, or parts of a shuffle. What is finished is never done again."""

import functools
import hashlib
import itertools
import os
import pickle
import uuid
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

from pagepairs.files import read_arrow_part, read_bytes, write_arrow_parts, write_bytes
from pagepairs.keys import part_of
from pagepairs.stores import store_of
from pipeline.journal import Journal, Outcome, part_name
from pipeline.runners import CheckedDoFn, is_alone, is_local, open_job

PART_ROWS = 100_000
"""Rows of the largest input that one part of a shuffle holds, about: 150 MB of 768-wide vectors."""
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
        with open_job(label, options, tasks=len(todo)) as pipeline:
            named = name_elements(pipeline, f"{label}/Tasks", todo, journal.folder)
            named | f"{label}/Work" >> beam.ParDo(_Finish(label, work, journal))
    return len(todo)


def name_elements(pipeline: beam.Pipeline, label: str, elements: list[Any], folder: str) -> beam.PCollection:
    """Returns the elements as a collection, spread over the workers, if there are several, before anything is done with them.

    A long list goes through a file in `folder`, of which the job names ranges only.
    """
    if len(elements) <= _NAMED_IN_JOB:
        return pipeline | label >> beam.Create(elements, reshuffle=not is_alone(pipeline.options))
    data = pickle.dumps(elements)
    path = os.path.join(folder, f"elements-{hashlib.sha256(data).hexdigest()[:16]}.pickle")
    write_bytes(path, data)
    starts = beam.Create(list(range(0, len(elements), _NAMED_IN_JOB)))
    read = pipeline | f"{label}/Ranges" >> starts | f"{label}/Read" >> beam.FlatMap(_read_elements, path)
    return read | f"{label}/Balance" >> beam.Reshuffle()


def _read_elements(start: int, path: str) -> list[Any]:
    return _elements_of(path)[start : start + _NAMED_IN_JOB]


@functools.lru_cache(maxsize=1)
def _elements_of(path: str) -> list[Any]:
    elements: list[Any] = pickle.loads(read_bytes(path))  # written by the driver of this run, as the job itself is
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
) -> int:
    """Shuffles the rows of the input files by hash and reduces each part that the journal does not hold; returns how many.

    The local runner would keep its shuffles in memory: there they go through files. Either way every input file is read once.

    Args:
      inputs: (tag, path) of each input file.
    """
    finished = journal.finished()
    todo = [part for part in range(parts) if part_name(part, parts) not in finished]
    folder = os.path.join(journal.folder, "spread")
    store_of(folder).remove_tree(folder)  # of an attempt that was killed
    if todo:
        by_files = is_local(options)
        with open_job(label, options, tasks=len(todo)) as pipeline:
            emit, kind = (functools.partial(_write_parts, folder), tuple[str, str]) if by_files else (_pack_parts, _PACKED)
            files = name_elements(pipeline, f"{label}/Files", list(inputs), journal.folder)
            pieces = files | f"{label}/Spread" >> beam.ParDo(_SpreadFn(spread, parts, todo, emit)).with_output_types(kind)
            gathered = _gather_files(pipeline, label, pieces, todo, folder) if by_files else _gather_packed(pipeline, label, pieces, todo)
            gathered | f"{label}/Reduce" >> beam.ParDo(_ReduceFn(label, reduce, parts, journal))
        store_of(folder).remove_tree(folder)
    return len(todo)


_PACKED = tuple[int, tuple[str, bytes]]


def _gather_packed(pipeline: beam.Pipeline, label: str, packed: beam.PCollection, todo: list[int]) -> beam.PCollection:
    """Returns each part with its packed tables, (tag, bytes)."""
    # A part without rows is written too, empty.
    empty = pipeline | f"{label}/Parts" >> beam.Create([(part, ("", b"")) for part in todo], reshuffle=False).with_output_types(_PACKED)
    return (packed, empty) | f"{label}/Flatten" >> beam.Flatten() | f"{label}/Group" >> beam.GroupByKey()


def _gather_files(pipeline: beam.Pipeline, label: str, files: beam.PCollection, todo: list[int], folder: str) -> beam.PCollection:
    """Returns each part with the files that hold a range of it, (tag, path), once the last of them is written."""
    wanted = name_elements(pipeline, f"{label}/Parts", todo, folder)
    return wanted | f"{label}/Gather" >> beam.Map(lambda part, files: (part, files), beam.pvalue.AsList(files))


class _SpreadFn(CheckedDoFn):
    """Orders the rows of several files by part, so that few large tables are handed to `emit`: one of `_pack_parts` and `_write_parts`."""

    def __init__(self, spread: Spread, parts: int, todo: list[int], emit: Callable[[str, pa.Table, np.ndarray], Iterable[Any]]) -> None:
        super().__init__()
        self._spread, self._emit = spread, emit
        self._wanted = np.isin(np.arange(parts), todo)
        self._tables: dict[str, list[pa.Table]] = {}
        self._owners: dict[str, list[np.ndarray]] = {}
        self._sizes: Counter[str] = Counter()

    def process(self, element: tuple[str, str]) -> Iterator[Any]:
        for rows in self._spread(*element):
            owner = part_of(rows.hashes, len(self._wanted))
            here = self._wanted[owner]
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

    def _flush(self, tag: str) -> Iterable[Any]:
        table = pa.concat_tables(self._tables.pop(tag))
        owner = np.concatenate(self._owners.pop(tag))
        del self._sizes[tag]
        order = np.argsort(owner, kind="stable")
        bounds = np.searchsorted(owner[order], np.arange(len(self._wanted) + 1))
        return self._emit(tag, table.take(pa.array(order)) if len(self._wanted) > 1 else table, bounds)


def _pack_parts(tag: str, table: pa.Table, bounds: np.ndarray) -> Iterator[tuple[int, tuple[str, bytes]]]:
    """Yields the rows of each part, `table[bounds[part] : bounds[part + 1]]`, for the shuffle to carry."""
    for part, (start, stop) in enumerate(itertools.pairwise(bounds)):
        if stop > start:
            yield part, (tag, pack(table.slice(start, stop - start)))


def _write_parts(folder: str, tag: str, table: pa.Table, bounds: np.ndarray) -> Iterator[tuple[str, str]]:
    """Writes the rows as a file with a range for each part, and yields its path: only files that were yielded are read."""
    path = os.path.join(folder, f"{uuid.uuid4().hex}.arrow")
    write_arrow_parts(path, table, bounds)
    yield tag, path


class _ReduceFn(CheckedDoFn):
    """Gathers one part, reduces it and notes it in the journal."""

    def __init__(self, label: str, reduce: Reduce, parts: int, journal: Journal) -> None:
        super().__init__()
        self._label, self._reduce, self._parts, self._journal = label, reduce, parts, journal

    def process(self, element: tuple[int, Iterable[tuple[str, bytes | str]]]) -> None:
        part, pieces = element
        self._journal.once(self._label, part_name(part, self._parts), lambda: self._reduce(part, gather(part, pieces)))


def gather(part: int, pieces: Iterable[tuple[str, bytes | str]]) -> dict[str, pa.Table]:
    """Returns the rows of one part by tag, from packed tables of the part or from the paths of files with a range for each part."""
    tables: dict[str, list[pa.Table]] = {}
    for tag, piece in pieces:
        if piece and len(rows := unpack(piece) if isinstance(piece, bytes) else read_arrow_part(piece, part)):
            tables.setdefault(tag, []).append(rows)
    return {tag: pa.concat_tables(found) for tag, found in tables.items()}


def pack(table: pa.Table) -> bytes:
    """Returns a table as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def unpack(data: bytes) -> pa.Table:
    """Returns the table of an Arrow IPC stream, without copying it."""
    return pa.ipc.open_stream(data).read_all()
