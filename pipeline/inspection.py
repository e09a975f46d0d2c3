"""Shows what a dataset holds: columns, counts, first rows, and a contact sheet of its images or pairs."""

import io
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tyro
from PIL import Image

from pagepairs.config import ScanConfig
from pagepairs.files import parquet_source, read_json, read_parquet
from pagepairs.images import ImageError, decode
from pagepairs.manifest import Manifest, dataset_files, read_manifest
from pagepairs.shards import FORMATS, read_shard
from pagepairs.stores import absolute, exists, is_remote, size_of, store_of
from pipeline.commands import EXIT_SETTING, config_from_json, fail
from pipeline.contact_sheet import SIDE_PX, Tile, draw_sheet
from pipeline.references import SourceChanged, read_images
from pipeline.report_text import plain
from pipeline.report_thumbnails import decode_limits
from pipeline.sources import SourceMap, find_units

_SHEET_PAIRS = 24
_SHEET_IMAGES = 48
_SHEET_PAGES = 12
_PAGE_IMAGES = 8
_TEXT_CHARS = 100
_REFERENCE = ("source", "offset", "length")
_NONE = "none"
_OTHER_FORMATS = {form.extension for form in FORMATS.values()} - {".parquet"}

Reference = tuple[str, str, int, int]
"""An image to be read: image_id, source, offset, length."""


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """What is looked at."""

    dataset: Annotated[str, tyro.conf.Positional]
    """Folder of a dataset (OUT/pairs), of a whole run (OUT), or one file of a dataset."""
    rows: int = 5
    """First rows that are printed."""
    contact_sheet: str = ""
    """PNG file with the dataset's images; inspect-DATASET.png in the current folder where not given, `none` for no file."""

    def __post_init__(self) -> None:
        if self.rows < 0:
            raise ValueError(f"--rows {self.rows}: give 0 or more")


def main(command: str, argv: Sequence[str]) -> int:
    """Runs `pagepairs inspect`; returns 0, or 2 where there is nothing to show."""
    try:
        config = tyro.cli(InspectConfig, prog=f"pagepairs {command}", args=list(argv), config=(tyro.conf.OmitArgPrefixes,))
        sheet = config.contact_sheet or f"inspect-{os.path.basename(absolute(config.dataset))}.png"
        print(inspect_dataset(config.dataset, rows=config.rows, contact_sheet=None if sheet == _NONE else sheet))
    except (ValueError, OSError) as error:
        return fail(error, EXIT_SETTING)
    return 0


def inspect_dataset(path: str, *, rows: int = 5, contact_sheet: str | None = None) -> str:
    """Returns a description of a dataset, and writes its contact sheet.

    Shards bring their images along; all other datasets need the crawl files, where the run's config.json names them.

    Args:
      path: folder of a dataset or a run, or a file of a dataset.
      rows: first rows to show.
      contact_sheet: PNG file to write; None writes none. Datasets without images have none either.

    Raises:
      ValueError: if there is no dataset, or the crawl files are gone.
    """
    files = _data_files(path)
    if files is None:
        return _describe_run(path)
    lines = [*_describe_files(path, files), "", *_describe_columns(files), "", *_describe_rows(files, rows)]
    if contact_sheet is not None and files:
        tiles = make_tiles(path, files)
        if tiles:
            draw_sheet(contact_sheet, tiles)
            lines += ["", f"contact sheet: {contact_sheet}"]
    return "\n".join(lines)


def _data_files(path: str) -> list[str] | None:
    """Returns the files of a dataset, None for the folder of a run."""
    if exists(path):
        return [path]
    if exists(os.path.join(path, "manifest.json")):
        return dataset_files(path)
    if any(_find_datasets(path)):
        return None
    raise ValueError(f"{path} is neither a dataset (a folder with manifest.json), nor a run, nor a file of a dataset")


def _find_datasets(root: str) -> Iterator[tuple[str, Manifest]]:
    """Yields the datasets below a folder, without those that are hidden; parents before what lies in them."""
    files = (path for path in store_of(root).files(root) if os.path.basename(path) == "manifest.json")
    for folder in sorted(map(os.path.dirname, files), key=lambda folder: folder.split("/")):
        if "/." not in folder[len(root) :]:
            yield folder, read_manifest(folder)


def _describe_run(path: str) -> str:
    rows = [(os.path.relpath(folder, path), manifest) for folder, manifest in _find_datasets(path)]
    lines = [f"{path}: a run with {len(rows)} datasets; name one of them to see inside", ""]
    for name, manifest in rows:
        size = _size(sum(file.bytes for file in manifest.files))
        lines.append(
            f"  {name:<22}{manifest.rows:>14,} rows{len(manifest.files):>8,} files{size:>12}{_describe_counters(manifest.counters)}"
        )
    return "\n".join(lines)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _describe_counters(counters: Mapping[str, Any]) -> str:
    if "in" not in counters:
        return ""
    dropped = [
        f"{count:,} {reason}" for reason, count in sorted(counters["dropped"].items(), key=lambda item: (-item[1], item[0])) if count
    ]
    errors = [f"{counters['errors']:,} errors"] if counters["errors"] else []
    return f"   {counters['kept']:,} of {counters['in']:,} kept" + "".join(f", {text}" for text in (*dropped, *errors))


def _is_parquet(file: str) -> bool:
    """Whether a file is Parquet, whatever its name: of all others the name tells the format."""
    return os.path.splitext(file)[1] not in _OTHER_FORMATS


def _count_rows(file: str) -> int:
    return int(pq.ParquetFile(parquet_source(file)).metadata.num_rows) if _is_parquet(file) else sum(1 for _ in read_shard(file))


def _schema(file: str) -> pa.Schema:
    return pq.read_schema(parquet_source(file)) if _is_parquet(file) else _read_rows(file, 1).schema


def _read_rows(file: str, rows: int | None = None) -> pa.Table:
    """Returns the first rows of a file, all of them where not told how many."""
    if not _is_parquet(file):
        return pa.Table.from_pylist(list(itertools.islice(read_shard(file), rows)))
    if rows is None:
        return read_parquet(file)
    batches = pq.ParquetFile(parquet_source(file)).iter_batches(batch_size=rows)
    return pa.Table.from_batches(itertools.islice(batches, 1), _schema(file)).slice(0, rows)


def _describe_files(path: str, files: Sequence[str]) -> list[str]:
    rows = sum(_count_rows(file) for file in files)
    line = f"{path}: {_count(rows, 'row')} in {_count(len(files), 'file')}, {_size(sum(map(size_of, files)))}"
    return [line + (_describe_counters(read_manifest(path).counters) if path not in files else "")]


def _describe_columns(files: Sequence[str]) -> list[str]:
    schema = _schema(files[0]) if files else pa.schema([])
    return [f"  {field.name:<20}{field.type}" for field in schema]


def _describe_rows(files: Sequence[str], rows: int) -> list[str]:
    lines: list[str] = []
    for number, row in enumerate(_first_rows(files, rows), start=1):
        lines += [f"row {number}", *(f"  {name:<20}{show_value(value)}" for name, value in row.items())]
    return lines


def _first_rows(files: Sequence[str], rows: int) -> Iterator[dict[str, Any]]:
    for file in files:
        if rows <= 0:
            return
        found = _read_rows(file, rows).to_pylist()
        yield from found
        rows -= len(found)


def show_value(value: Any) -> str:
    """Returns a value on one line: long texts shortened, control characters replaced, binaries as sizes, long lists by their length."""
    if isinstance(value, bytes):
        return f"<{len(value):,} bytes>"
    if isinstance(value, str):
        return plain(_abridge(value)) or '""'
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {show_value(entry)}" for name, entry in value.items()) + "}"
    if isinstance(value, list):
        shown = [show_value(entry) for entry in value[:3]]
        return f"[{', '.join(shown)}{', ...' if len(value) > len(shown) else ''}] ({len(value):,})"
    return str(value)


def _abridge(text: str) -> str:
    """Keeps both ends of a long text: those of a URL say most."""
    return text if len(text) <= _TEXT_CHARS else f"{text[: _TEXT_CHARS // 2]}…{text[1 - _TEXT_CHARS // 2 :]}"


def _size(count_bytes: int) -> str:
    size = float(count_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def make_tiles(path: str, files: Sequence[str]) -> list[Tile]:
    """Returns the tiles of the contact sheet of the dataset's first file; none for a dataset without images.

    Pairs are spread evenly over the similarities there are, lowest first; images and pages over the file.
    """
    kind = _kind(set(_schema(files[0]).names))
    if not kind:
        return []
    rows = _spread(_read_rows(files[0]), {"images": _SHEET_IMAGES, "episodes": _SHEET_PAGES}.get(kind, _SHEET_PAIRS))
    if kind == "shards":
        return [_embedded_pair(row) for row in rows]
    crawl = Crawl.of(path)
    tiles = {"images": crawl.images, "episodes": crawl.pages, "pairs": crawl.pairs, "candidates": crawl.candidates}
    return tiles[kind](rows)


def _kind(names: set[str]) -> str:
    """Tells from its columns what a dataset holds; "" has no images. Units look like images."""
    if {"condition_image", "target_image"} <= names:
        return "shards"
    if {"condition_source", "target_source"} <= names:
        return "pairs"
    if {"a_id", "b_id"} <= names:
        return "candidates"
    if "images" in names:
        return "episodes"
    return "images" if {"image_id", "source"} <= names else ""


def _spread(table: pa.Table, count: int) -> list[dict[str, Any]]:
    order = np.arange(table.num_rows)
    if "similarity" in table.column_names:
        order = np.argsort(table["similarity"].to_numpy(), kind="stable")
    chosen = order[np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(np.int64))] if len(order) else order
    rows: list[dict[str, Any]] = table.take(pa.array(chosen)).to_pylist()
    return rows


def _embedded_pair(row: Mapping[str, Any]) -> Tile:
    images = [Image.open(io.BytesIO(row[f"{side}_image"])).convert("RGB") for side in ("condition", "target")]
    return Tile(images=tuple(images), caption=f"{row['similarity']:.3f}")


@dataclass(frozen=True, kw_only=True)
class Crawl:
    """The crawl files of a run, from which images are read by reference."""

    output: str
    scan: ScanConfig
    locate: Callable[[str], str]

    @classmethod
    def of(cls, path: str) -> "Crawl":
        """Finds the run that a dataset belongs to, and its crawl files.

        Raises:
          ValueError: if either is gone.
        """
        output = os.path.dirname(absolute(path))
        while not exists(os.path.join(output, "config.json")):
            parent = os.path.dirname(output)
            if parent == output or is_remote(parent) != is_remote(path):
                raise ValueError(
                    f"{path} belongs to no run (no config.json above it): its images cannot be found; --contact-sheet none leaves them out"
                )
            output = parent
        scan = config_from_json(read_json(os.path.join(output, "config.json"))).scan
        try:
            units = find_units(scan.input, scan, cut=False)
        except (ValueError, OSError) as error:
            raise ValueError(f"the crawl files are needed for a contact sheet: {error}; --contact-sheet none does without") from error
        return cls(output=output, scan=scan, locate=SourceMap(units, output))

    def images(self, rows: Sequence[Mapping[str, Any]]) -> list[Tile]:
        """Returns a tile an image, with its size."""
        pictures = self._read([(row["image_id"], *(row[name] for name in _REFERENCE)) for row in rows])
        return [
            Tile(images=(pictures[row["image_id"]],), caption=f"{row['width']} x {row['height']} {row.get('format', '')}") for row in rows
        ]

    def pairs(self, rows: Sequence[Mapping[str, Any]]) -> list[Tile]:
        """Returns a tile a pair: condition, target and their similarity."""
        sides = [(row, side) for row in rows for side in ("condition", "target")]
        pictures = self._read([(row[f"{side}_id"], *(row[f"{side}_{name}"] for name in _REFERENCE)) for row, side in sides])
        return [
            Tile(images=(pictures[row["condition_id"]], pictures[row["target_id"]]), caption=f"{row['similarity']:.3f}") for row in rows
        ]

    def candidates(self, rows: Sequence[Mapping[str, Any]]) -> list[Tile]:
        """Returns a tile a sampled pair, with its similarity and the reason why it was dropped, if it was."""
        pictures = self._read(self._find({row[side] for row in rows for side in ("a_id", "b_id")}))
        captions = [f"{row['similarity']:.3f} {row['reason'].replace('_', ' ')}" for row in rows]
        return [
            Tile(images=(pictures[row["a_id"]], pictures[row["b_id"]]), caption=caption)
            for row, caption in zip(rows, captions, strict=True)
        ]

    def pages(self, rows: Sequence[Mapping[str, Any]]) -> list[Tile]:
        """Returns a tile a page: its first images."""
        shown = [[image["image_id"] for image in row["images"][:_PAGE_IMAGES]] for row in rows]
        pictures = self._read(self._find({image_id for ids in shown for image_id in ids}))
        return [
            Tile(images=tuple(pictures[image_id] for image_id in ids), caption=f"{len(row['images'])} images  {row['page_url']}")
            for row, ids in zip(rows, shown, strict=True)
        ]

    def _find(self, image_ids: set[str]) -> list[Reference]:
        files = dataset_files(os.path.join(self.output, "units"))
        wanted = [("image_id", "in", sorted(image_ids))]
        tables = [pq.read_table(parquet_source(file), columns=["image_id", *_REFERENCE], filters=wanted) for file in files]
        return [tuple(row.values()) for table in tables for row in table.to_pylist()] if image_ids else []

    def _read(self, references: Sequence[Reference]) -> dict[str, Image.Image | str]:
        """Returns the picture of each image id, or the reason why there is none."""
        pictures: dict[str, Image.Image | str] = {}
        for (image_id, *_), body in zip(references, read_images(references, self.locate), strict=True):
            try:
                if isinstance(body, SourceChanged):
                    raise ImageError("source_changed")
                pictures[image_id] = Image.fromarray(decode(body, at_least_px=SIDE_PX, **decode_limits(self.scan)).rgb)
            except ImageError as error:
                pictures[image_id] = error.reason
        return pictures
