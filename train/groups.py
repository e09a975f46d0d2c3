"""Where samples come from: pair shards of any format or class folders, as groups of rows that are read together.

The groups of webdataset tars and TFRecords are runs of as many records as a row group of Parquet has, found by hopping over the headers
once; so a set has the same groups, and a run the same samples, whatever its format.
"""

import itertools
import os
import struct
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pagepairs.files import read_json
from pagepairs.images import ImageError
from pagepairs.manifest import digest_of, read_manifest
from pagepairs.records import SCHEMA_VERSION, SHARDS
from pagepairs.shards import BATCH_ROWS, tfrecord

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
Record = TypeVar("Record")
_CONDITION, _TARGET = "condition_image", "target_image"


class DataError(ValueError):
    """The training data cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two encoded images."""

    key: str
    """Names it to people: the pair's id, or the target's path."""
    condition: bytes
    target: bytes


Row = Callable[[np.random.Generator], Pair]
"""Reads a pair; the random numbers choose the condition where there is a choice. Raises ImageError if the pair is damaged."""


@dataclass(frozen=True, kw_only=True)
class Groups:
    """All rows of a data set."""

    sizes: tuple[int, ...]
    """Rows of each group."""
    read: Callable[[int], Sequence[Row]]
    """Reads a group."""
    digest: str
    """Of the content and its order: equal digests give equal runs."""


def open_shards(folder: str, mode: Literal["pairs", "reconstruction"]) -> Groups:
    """Opens a folder of pair shards; in reconstruction mode the target is its own condition.

    Raises:
      DataError: if it holds no complete shards, of this version.
    """
    path = os.path.join(folder, "manifest.json")
    if not os.path.exists(path):
        raise DataError(f"--data {folder}: no pair shards there (no manifest.json); give the shards/ folder that `pagepairs run` finished")
    value = read_json(path)
    if value.get("schema_version") != SCHEMA_VERSION:
        raise DataError(
            f"--data {folder}: shards of schema version {value.get('schema_version')}, this pagepairs reads {SCHEMA_VERSION}; "
            "run `pagepairs shard` of this version again"
        )
    manifest = read_manifest(folder)
    if manifest.dataset != "shards":
        raise DataError(f"--data {folder}: these are {manifest.dataset}; give the shards/ folder of the same run")
    if manifest.rows == 0:
        raise DataError(f"--data {folder}: the shards hold no pair; widen the band with `pagepairs pair --low --high`")
    sizes: list[int] = []
    readers: list[Callable[[], list[Row]]] = []
    for file in manifest.files:
        try:
            groups = _OPENERS[os.path.splitext(file.name)[1]](os.path.join(folder, file.name), mode == "reconstruction")
        except (OSError, KeyError, ValueError, tarfile.TarError) as error:
            raise DataError(f"--data {folder}: {file.name} is damaged ({error}); run `pagepairs shard` again") from error
        if sum(size for size, _ in groups) != file.rows:
            raise DataError(
                f"--data {folder}: {file.name} holds {sum(size for size, _ in groups)} pairs, its manifest says {file.rows}; copy it again"
            )
        sizes += [size for size, _ in groups if size]
        readers += [read for size, read in groups if size]
    return Groups(sizes=tuple(sizes), read=lambda group: readers[group](), digest=manifest.content)


def _parquet(path: str, reconstruct: bool) -> list[tuple[int, Callable[[], list[Row]]]]:
    with pq.ParquetFile(path) as file:
        missing = set(SHARDS.names) - set(file.schema_arrow.names)
        if missing:
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]

    def read(group: int, size: int) -> list[Row]:
        names = ["pair_id", _TARGET] if reconstruct else ["pair_id", _CONDITION, _TARGET]
        try:
            with pq.ParquetFile(path) as file:
                table = file.read_row_group(group, columns=names, use_threads=False)
        except (OSError, pa.ArrowException) as error:
            return [_broken(f"{os.path.basename(path)} row group {group} row {row}", str(error)) for row in range(size)]
        keys, targets = table["pair_id"].to_pylist(), table[_TARGET].to_pylist()
        conditions = targets if reconstruct else table[_CONDITION].to_pylist()
        return [_row(*values) for values in zip(keys, conditions, targets, strict=True)]

    return [(size, partial(read, group, size)) for group, size in enumerate(sizes)]


def _row(key: str, condition: bytes, target: bytes) -> Row:
    pair = Pair(key=key, condition=condition, target=target)
    return lambda _: pair


def _broken(key: str, detail: str) -> Row:
    def fail(_: np.random.Generator) -> Pair:
        raise ImageError("broken_record", f"{key}: {detail}"[:200])

    return fail


def _webdataset(path: str, reconstruct: bool) -> list[tuple[int, Callable[[], list[Row]]]]:
    places: dict[str, dict[str, tuple[int, int]]] = {}
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            key, _, name = member.name.partition(".")
            places.setdefault(key, {})[name.partition(".")[0]] = (member.offset_data, member.size)
    for key, parts in places.items():
        if not {"condition", "target"} <= parts.keys():
            raise ValueError(f"{key} lacks an image")
    records = [(key, parts["target" if reconstruct else "condition"], parts["target"]) for key, parts in places.items()]
    return [(len(run), partial(_read_members, path, run)) for run in _runs(records)]


def _read_members(path: str, records: Sequence[tuple[str, tuple[int, int], tuple[int, int]]]) -> list[Row]:
    start = min(min(condition[0], target[0]) for _, condition, target in records)
    end = max(max(sum(condition), sum(target)) for _, condition, target in records)
    with open(path, "rb") as file:
        file.seek(start)
        data = file.read(end - start)
    return [_row(key, *(data[at - start : at - start + size] for at, size in (condition, target))) for key, condition, target in records]


def _tfrecord(path: str, reconstruct: bool) -> list[tuple[int, Callable[[], list[Row]]]]:
    offsets, end = [0], os.path.getsize(path)
    with open(path, "rb") as file:
        while offsets[-1] < end:
            file.seek(offsets[-1])
            head = file.read(tfrecord.HEAD_BYTES)
            offsets.append(offsets[-1] + tfrecord.HEAD_BYTES + tfrecord.record_length(head) + tfrecord.CHECK_BYTES)
    if offsets[-1] != end:
        raise ValueError(f"it ends at byte {end} in the middle of a record")
    runs = _runs(list(itertools.pairwise(offsets)))
    return [(len(run), partial(_read_records, path, run, reconstruct)) for run in runs]


def _read_records(path: str, places: Sequence[tuple[int, int]], reconstruct: bool) -> list[Row]:
    with open(path, "rb") as file:
        file.seek(places[0][0])
        data = file.read(places[-1][1] - places[0][0])
    rows = []
    for start, end in places:
        try:
            row = tfrecord.decode_example(tfrecord.checked_body(data[start - places[0][0] : end - places[0][0]]))
            rows.append(_row(row["pair_id"], row[_TARGET if reconstruct else _CONDITION], row[_TARGET]))
        except (ValueError, KeyError, struct.error) as error:
            rows.append(_broken(f"{os.path.basename(path)} byte {start}", str(error)))
    return rows


def _runs(records: Sequence[Record]) -> list[Sequence[Record]]:
    return [records[start : start + BATCH_ROWS] for start in range(0, len(records), BATCH_ROWS)]


_OPENERS = {".parquet": _parquet, ".tar": _webdataset, ".tfrecord": _tfrecord}


def open_classes(folder: str) -> Groups:
    """Opens a folder of class folders of images; a target's condition is another image of its class.

    Raises:
      DataError: if there are no classes, or one has a single image.
    """
    classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir()) if os.path.isdir(folder) else []
    members = {name: _images(os.path.join(folder, name)) for name in classes}
    members = {name: paths for name, paths in members.items() if paths}
    if not members:
        raise DataError(f"--data {folder}: no class folders of images there; --mode label reads CLASS/IMAGE.jpg (or .png, .webp)")
    for name, paths in members.items():
        if len(paths) < 2:
            raise DataError(
                f"--data {folder}: class {name} has one image, and no other to be its condition; add one or take the class away"
            )
    rows = [(paths, place) for paths in members.values() for place in range(len(paths))]
    listing = [[os.path.relpath(path, folder), os.path.getsize(path)] for paths in members.values() for path in paths]
    runs = _runs(rows)
    return Groups(sizes=tuple(map(len, runs)), read=lambda group: [_class_row(*row) for row in runs[group]], digest=digest_of(listing))


def _images(folder: str) -> list[str]:
    return sorted(entry.path for entry in os.scandir(folder) if entry.is_file() and entry.name.lower().endswith(IMAGE_ENDINGS))


def _class_row(paths: Sequence[str], place: int) -> Row:
    def read(choice: np.random.Generator) -> Pair:
        other = (place + 1 + int(choice.integers(len(paths) - 1))) % len(paths)
        bodies = []
        for path in (paths[other], paths[place]):
            try:
                with open(path, "rb") as file:
                    bodies.append(file.read())
            except OSError as error:
                raise ImageError("broken_record", f"{path}: {error.strerror}") from error
        return Pair(key=paths[place], condition=bodies[0], target=bodies[1])

    return read
