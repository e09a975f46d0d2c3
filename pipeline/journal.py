"""What finished tasks leave behind: a small file each in a journal, with their files and counts."""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from apache_beam.metrics import Metrics

from pagepairs.files import FileInfo, read_json, write_json
from pagepairs.stores import exists, names_in, store_of

_READERS = 32
"""Journal entries read at once: one in an object store takes 20 to 50 ms."""

_TIMES = {"embedded_s": "model_ms", "waited_s": "waited_ms"}
"""Counters of the runner for the times among an outcome's counters."""


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

    def once(self, label: str, task: str, work: Callable[[], Outcome], *, busy_s: float = 0.0) -> None:
        """Does a task and marks it as finished, unless it is: a bundle that a cluster tries again holds finished tasks.

        What it counted reaches the runner's counters in either case, under `label`; `busy_s` is the time that it took before.
        """
        started = time.monotonic()
        outcome = self.find(task)
        if outcome is None:
            outcome = work()
            self.write(task, outcome)
        report_metrics(label, outcome, busy_s=busy_s + time.monotonic() - started)

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

    def find(self, task: str) -> Outcome | None:
        """Returns what a finished task left behind; None if the task is not finished."""
        try:
            return self.read(task)
        except FileNotFoundError:
            return None

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


def report_metrics(label: str, outcome: Outcome, *, busy_s: float) -> None:
    """Adds an outcome to the runner's own counters, under the namespace `label`.

    in, kept, errors, dropped_<reason> and whatever else is a whole number; bytes_written; busy_ms, the time it took, which gives the rates;
    of stage embed, model_ms that the network ran and waited_ms that it waited for images.
    """
    counts = {name: value for name, value in outcome.counters.items() if isinstance(value, int)}
    counts |= {name: round(1000 * outcome.counters[key]) for key, name in _TIMES.items() if key in outcome.counters}
    counts |= {f"dropped_{reason}": value for reason, value in outcome.counters.get("dropped", {}).items()}
    counts["bytes_written"] = sum(info.bytes for infos in outcome.files.values() for info in infos)
    counts["busy_ms"] = round(1000 * busy_s)
    for name, value in counts.items():
        Metrics.counter(label, name).inc(value)


def part_name(part: int, parts: int) -> str:
    """Returns the name of a part, as its files and its journal entry carry it."""
    return f"part-{part:05d}-of-{parts:05d}"


def part_number(path: str) -> int:
    """Returns the part that a file is of, from its name."""
    return int(os.path.basename(path).split("-")[1])
