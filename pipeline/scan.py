"""Stage scan: crawl files to images/, pages/, links/, aliases/ and drops/scan/, one task a unit; then the kept ids, cut into units/."""

import hashlib
import io
import itertools
import os
import tarfile
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.options.pipeline_options import PipelineOptions

from filters.block_list import BlockList
from filters.sprite import sprite
from pagepairs.config import ScanConfig
from pagepairs.files import FileInfo, atomic, read_parquet, write_parquet
from pagepairs.images import ImageError
from pagepairs.keys import prefix64, text_key
from pagepairs.manifest import Manifest
from pagepairs.records import ALIASES, IMAGES, LINKS, PAGES, SCAN_DROPS, UNITS, rows_to_table
from pagepairs.urls import url_key
from pipeline.jobs import Rows, count_parts, run_parts
from pipeline.journal import Journal, Outcome, part_name
from pipeline.look import Look, look
from pipeline.progress import Meter
from pipeline.sources import AliasRecord, ErrorRecord, ImageRecord, LinkRecord, PageRecord, ScanUnit, read_unit

UNIT_IMAGES = 1_000
DATASETS = {"images": IMAGES, "pages": PAGES, "links": LINKS, "aliases": ALIASES, "drops/scan": SCAN_DROPS}


@dataclass(frozen=True, kw_only=True)
class ScanTask:
    """One unit and how much of it; `first` 0 reads all, else so many images."""

    unit: ScanUnit
    first: int = 0


class ScanUnits:
    """Scans one unit: the task function of stage scan."""

    def __init__(self, *, config: ScanConfig, output: str, threads: int, meter: Meter) -> None:
        self._config, self._output, self._threads, self._meter = config, output, threads, meter

    def __call__(self, task: ScanTask) -> Outcome:
        blocked = BlockList.read(self._config.block_list) if self._config.block_list else BlockList()
        rows = _UnitRows(config=self._config, source=task.unit.source, blocked=blocked)
        position = task.unit.start
        records = read_unit(task.unit, self._config)
        with _Spill(self._output, task.unit.name) as spill:
            for record, seen in _look_ahead(records, self._config, self._threads, task.first):
                rows.add(record, seen, spill)
                if isinstance(record, ImageRecord) and record.source == task.unit.source:
                    self._meter.add(max(0, record.offset - position))
                    position = max(position, record.offset)
        name = f"{task.unit.name}.parquet"
        files = {
            dataset: [write_parquet(os.path.join(self._output, dataset, name), rows_to_table(rows.rows[dataset], schema))]
            for dataset, schema in DATASETS.items()
        }
        self._meter.add(max(0, task.unit.stop - position))
        return Outcome(files=files, counters=rows.counters())


def _look_ahead(records: Iterator[Any], config: ScanConfig, threads: int, first: int) -> Iterator[tuple[Any, Look | ImageError | None]]:
    """Yields the records in order, images with what `look` found; decoding runs ahead in threads, by a bounded number of images."""
    waiting: deque[tuple[Any, Future[Look] | None]] = deque()
    images = 0
    with ThreadPoolExecutor(threads) as pool:
        for record in records:
            future = None
            if isinstance(record, ImageRecord):
                if first and images == first:
                    break
                images += 1
                future = None if record.reason else pool.submit(look, record.body, config)
            waiting.append((record, future))
            while len(waiting) > 4 * threads:
                yield _result(waiting.popleft())
        while waiting:
            yield _result(waiting.popleft())


def _result(entry: tuple[Any, "Future[Look] | None"]) -> tuple[Any, Look | ImageError | None]:
    record, future = entry
    if future is None:
        return record, None
    try:
        return record, future.result()
    except ImageError as error:
        return record, error


class _Spill:
    """A plain tar of the kept images that cannot be read in place, made when the first one comes; each id stands in it once."""

    def __init__(self, output: str, unit: str) -> None:
        self._source = f"spill/{unit}.tar"
        self._path = os.path.join(output, self._source)
        self._files = ExitStack()
        self._tar: tarfile.TarFile | None = None
        self._references: dict[str, tuple[str, int, int]] = {}

    def add(self, image_id: str, body: bytes) -> tuple[str, int, int]:
        """Copies the body and returns its reference."""
        if self._tar is None:
            file = self._files.enter_context(atomic(self._path))
            self._tar = self._files.enter_context(tarfile.TarFile(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT))
        if image_id not in self._references:
            member = tarfile.TarInfo(image_id)
            member.size = len(body)
            self._references[image_id] = (self._source, self._tar.offset + tarfile.BLOCKSIZE, len(body))
            self._tar.addfile(member, io.BytesIO(body))
        return self._references[image_id]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        """Completes the tar, or drops it where the block ended with an error."""
        self._files.__exit__(*error)


@dataclass(kw_only=True)
class _UnitRows:
    """The rows of one unit, by dataset."""

    config: ScanConfig
    source: str
    blocked: BlockList
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {name: [] for name in DATASETS})
    counts: Counter[str] = field(default_factory=Counter)
    page_reasons: dict[str, str] = field(default_factory=dict)

    def add(self, record: Any, seen: Look | ImageError | None, spill: _Spill) -> None:
        """Turns one record into rows."""
        match record:
            case ImageRecord():
                self._add_image(record, seen, spill)
            case LinkRecord():
                self._add_link(record)
            case PageRecord():
                self._add_page(record)
            case AliasRecord():
                target = record.target
                key = text_key(target) if target.startswith("digest:") else url_key(target)
                row = {"url": record.url, "url_key": url_key(record.url), "target": target, "target_key": key, "kind": record.kind}
                self.rows["aliases"].append(row)
            case ErrorRecord():
                self._drop(record.reason, "", record.detail, error=True)

    def _add_image(self, record: ImageRecord, seen: Look | ImageError | None, spill: _Spill) -> None:
        if seen is None:
            self._drop(record.reason, record.url, record.detail, place=_place(record))
        elif isinstance(seen, ImageError):
            self._drop(seen.reason, record.url, seen.detail, place=_place(record))
        elif seen.reason:
            self._drop(seen.reason, record.url, f"{seen.width} x {seen.height}, texture {seen.texture}", place=_place(record))
        elif sprite(record.url):
            self._drop(sprite(record.url), record.url, "by its name", place=_place(record))
        else:
            reason, detail = self._policy(record, seen)
            if reason:
                self._drop(reason, record.url, detail)
            source, offset, length = record.source, record.offset, record.length
            if record.spill:
                source, offset, length = spill.add(seen.image_id, record.body)
            self.counts["kept"] += not reason
            self.rows["images"].append(
                {
                    "image_id": seen.image_id,
                    "image_url": record.url,
                    "url_key": url_key(record.url),
                    "source": source,
                    "offset": offset,
                    "length": length,
                    "bytes": len(record.body),
                    "width": seen.width,
                    "height": seen.height,
                    "format": seen.format,
                    "phash": seen.phash,
                    "pdq": seen.pdq,
                    "texture": seen.texture,
                    "time": record.time_ms,
                    "digest_key": record.digest_key,
                    "reason": reason,
                }
            )

    def _policy(self, record: ImageRecord, seen: Look) -> tuple[str, str]:
        """Reason and detail of an image that must not be used although it could be: its copies must go too."""
        if record.opt_out and not self.config.ignore_opt_out:
            return "opt_out", record.opt_out
        if self.blocked.blocks_url(record.url) or self.blocked.blocks_id(seen.image_id):
            return "blocked", self.config.block_list
        return "", ""

    def _add_page(self, record: PageRecord) -> None:
        row = {"page_url": record.url, "time": record.time_ms, "opt_out": record.opt_out, "source": self.source, "title": record.title}
        self.rows["pages"].append(row | {"reason": self._page_reason(record.url, record.opt_out)})

    def _page_reason(self, page_url: str, opt_out: str = "") -> str:
        """Why no image of a page may be used, "" if nothing speaks against it."""
        if opt_out and not self.config.ignore_opt_out:
            self.page_reasons[page_url] = "page_opt_out"
        if page_url not in self.page_reasons:
            self.page_reasons[page_url] = "page_blocked" if self.blocked.blocks_url(page_url) else ""
        return self.page_reasons[page_url]

    def _add_link(self, record: LinkRecord) -> None:
        self.rows["links"].append(
            {
                "page_url": record.page_url,
                "capture": record.capture,
                "page_time": record.page_time_ms,
                "image_url": record.image_url,
                "url_key": url_key(record.image_url),
                "position": record.position,
                "alt": record.alt,
                "via": record.via,
                "reason": self._page_reason(record.page_url),
            }
        )

    def _drop(self, reason: str, image_url: str, detail: str, *, error: bool = False, place: tuple[str, int, int] = ("", 0, 0)) -> None:
        self.counts["errors" if error else f"dropped {reason}"] += 1
        row = {"stage": "scan", "reason": reason, "error": error, "page_url": "", "image_url": image_url, "detail": detail[:500]}
        self.rows["drops/scan"].append(row | dict(zip(("source", "offset", "length"), place, strict=True)))

    def counters(self) -> dict[str, Any]:
        """Counts as the manifest holds them."""
        dropped = {name.removeprefix("dropped "): n for name, n in sorted(self.counts.items()) if name.startswith("dropped ")}
        kept, errors = self.counts["kept"], self.counts["errors"]
        return {"in": kept + sum(dropped.values()) + errors, "kept": kept, "dropped": dropped, "errors": errors}


def _place(record: ImageRecord) -> tuple[str, int, int]:
    """The reference of a dropped image; images that cannot be read in place are copied only if they are kept."""
    return ("", 0, 0) if record.spill else (record.source, record.offset, record.length)


def task_name(task: ScanTask) -> str:
    """Names a task by its unit and the file's size and modification time, so that a changed file is scanned again."""
    stamp = hashlib.sha256(f"{task.unit.version} {task.unit.stop}".encode()).hexdigest()[:12]
    return f"{task.unit.name}-{stamp}" + (f"-first{task.first}" if task.first else "")


def cut_units(output: str, work: str, images: Manifest, options: PipelineOptions) -> list[FileInfo]:
    """Writes units/: every kept id once, with its lowest reference, in runs of at most 1 000 in (source, offset) order.

    A unit is named by what it holds, so that more input leaves the units of what was scanned before as they are.
    """
    parts = count_parts(images.rows)
    inputs = [("image", os.path.join(output, "images", file.name)) for file in images.files]
    distinct, cut = (Journal(os.path.join(work, "done", name)) for name in ("distinct", "cut"))
    run_parts("distinct", inputs, _spread_kept, _Distinct(work, parts), parts, distinct, options)
    inputs = [("image", os.path.join(work, "distinct", f"{part_name(part, parts)}.parquet")) for part in range(parts)]
    run_parts("cut", inputs, _spread_by_unit, _Cut(output), parts, cut, options)
    return [file for outcome in cut.read_parts(parts) for file in outcome.files["units"]]


def _spread_kept(tag: str, path: str) -> Iterator[Rows]:
    table = read_parquet(path, ["reason", *UNITS.names])
    table = table.filter(pc.equal(table["reason"], "")).drop_columns(["reason"])
    unit = pa.array([os.path.basename(path)] * table.num_rows, pa.string())
    yield Rows(tag, table.append_column("unit", unit), prefix64(table["image_id"]))


class _Distinct:
    """Keeps the lowest reference of each id."""

    def __init__(self, work: str, parts: int) -> None:
        self._folder, self._parts = os.path.join(work, "distinct"), parts

    def __call__(self, part: int, tables: Mapping[str, pa.Table]) -> Outcome:
        table = tables.get("image", _KEPT.empty_table())
        table = table.sort_by([(name, "ascending") for name in ("image_id", "source", "offset")])
        ids = pc.index_in(table["image_id"], table["image_id"].unique()).to_numpy()
        first = np.append(True, ids[1:] != ids[:-1]) if len(ids) else np.empty(0, bool)
        write_parquet(os.path.join(self._folder, f"{part_name(part, self._parts)}.parquet"), table.filter(pa.array(first)))
        return Outcome()


_KEPT = UNITS.append(pa.field("unit", pa.string()))


def _spread_by_unit(tag: str, path: str) -> Iterator[Rows]:
    table = read_parquet(path)
    keys = pa.array([text_key(unit) for unit in table["unit"].to_pylist()], pa.string())
    yield Rows(tag, table, prefix64(keys))


class _Cut:
    """Cuts the kept ids of each scan unit into runs."""

    def __init__(self, output: str) -> None:
        self._folder = os.path.join(output, "units")

    def __call__(self, part: int, tables: Mapping[str, pa.Table]) -> Outcome:
        table = tables.get("image", _KEPT.empty_table()).sort_by([(name, "ascending") for name in ("unit", "source", "offset")])
        units = pc.index_in(table["unit"], table["unit"].unique()).to_numpy()
        bounds = [0, *(np.flatnonzero(units[1:] != units[:-1]) + 1), table.num_rows]
        runs = [
            table.slice(start, min(UNIT_IMAGES, stop - start)).select(UNITS.names)
            for first, stop in itertools.pairwise(bounds)
            for start in range(first, stop, UNIT_IMAGES)
        ]
        return Outcome(files={"units": [write_parquet(os.path.join(self._folder, f"{_unit_name(run)}.parquet"), run) for run in runs]})


def _unit_name(run: pa.Table) -> str:
    rows = zip(*(run[name].to_pylist() for name in ("image_id", "source", "offset")), strict=True)
    return hashlib.sha256("\n".join(f"{image_id} {source} {offset}" for image_id, source, offset in rows).encode()).hexdigest()[:16]
