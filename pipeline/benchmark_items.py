"""Where the images of a test set come from: a folder, a table of paths, or hashes alone."""

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from dedup.benchmark import ITEMS
from pagepairs.files import open_read, parquet_source, read_bytes
from pagepairs.images import ImageError, sniff
from pagepairs.stores import exists, is_folder, is_remote, store_of
from pipeline.sources.folder import IMAGE_SUFFIXES

_SNIFFED_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A file of a test set."""

    path: str
    name: str
    """As reports show it: relative to the folder or the table."""

    def read(self, max_bytes: int) -> bytes:
        """Returns the file's bytes.

        Raises:
          ImageError: missing_file or too_many_bytes.
        """
        stat = store_of(self.path).stat(self.path)
        if stat is None:
            raise ImageError("missing_file", self.name)
        if stat.bytes > max_bytes:
            raise ImageError("too_many_bytes", f"{stat.bytes} bytes")
        return read_bytes(self.path)


def _read_csv(path: str | BinaryIO, delimiter: str = ",") -> pa.Table:
    text = pa.csv.ConvertOptions(column_types=dict.fromkeys(("path", "item", "phash", "pdq"), pa.string()))
    return pa.csv.read_csv(path, parse_options=pa.csv.ParseOptions(delimiter=delimiter), convert_options=text)


_TABLES: dict[str, Callable[[str | BinaryIO], pa.Table]] = {
    ".csv": _read_csv,
    ".tsv": lambda path: _read_csv(path, "\t"),
    ".jsonl": pa.json.read_json,
    ".parquet": pq.read_table,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a folder or table holds."""

    items: list[Item]
    left_out: list[str]
    """Names of files that are no images by name or content, and of rows without a path."""


def find_items(images: str, flag: str) -> Found:
    """Returns the files of a folder that are images by name or by their first bytes, or those of a table's column path, sorted by name.

    Raises:
      ValueError: if there is no such folder or table, the table has no column path, or there is no image.
    """
    if is_folder(images):
        found = sorted(store_of(images).files(images) if is_remote(images) else _walk(images))
        named = {path[len(os.path.join(images, "")) :]: path for path in found}
        is_image = {name: _is_image(path) for name, path in named.items()}
        items = [Item(path=path, name=name) for name, path in named.items() if is_image[name]]
        left_out = [name for name in named if not is_image[name]]
    else:
        table = _read_table(images, flag)
        if "path" not in table.column_names:
            raise ValueError(f"{flag} {images}: the table has neither a column path nor phash or pdq, only {', '.join(table.column_names)}")
        paths = table["path"].to_pylist()
        folder = os.path.dirname(images)
        items = [Item(path=path if is_remote(path) else os.path.join(folder, path), name=path) for path in paths if path]
        left_out = [f"row {number}, without a path" for number, path in enumerate(paths, 1) if not path]
    if not items:
        raise ValueError(f"{flag} {images}: there is no image in it")
    return Found(items=sorted(items, key=lambda item: item.name), left_out=left_out)


def _walk(folder: str) -> Iterator[str]:
    """Yields all files below a folder, through links; a folder that is reached twice, as in a cycle, is walked once."""
    known: set[tuple[int, int]] = set()

    def refuse(error: OSError) -> None:
        raise error  # os.walk would leave the folder out without a word

    for top, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        stat = os.stat(top)
        if (stat.st_dev, stat.st_ino) in known:
            folders.clear()
            continue
        known.add((stat.st_dev, stat.st_ino))
        folders.sort()
        yield from (os.path.join(top, name) for name in files)


def _is_image(path: str) -> bool:
    """Tells whether a file is one to decode: what is named as an image, begins like one, or leads nowhere is listed if it gives none."""
    if path.lower().endswith(IMAGE_SUFFIXES) or not exists(path):
        return True
    with open_read(path) as file:
        return sniff(file.read(_SNIFFED_BYTES)) not in ("", "html", "pdf")


def read_hashes(images: str) -> pa.Table | None:
    """Returns a list of hashes as items, or None where `images` names images.

    A .txt holds one hash a line: 16 hex digits are a pHash, 64 a PDQ; a name may follow. A table without a column path holds phash (hex, or
    uint64), pdq (hex, or 32 bytes) or both, and may name its items in a column item.

    Raises:
      ValueError: for a line or row that is none of these.
    """
    if is_folder(images):
        return None
    if images.lower().endswith(".txt"):
        with io.TextIOWrapper(open_read(images), encoding="utf-8") as file:
            lines = [(number, line.split(maxsplit=1)) for number, line in enumerate(file, 1) if line.strip()]
        rows = [_from_text(words, f"--images {images}, line {number}") for number, words in lines]
    else:
        table = _read_table(images, "--images")
        if "path" in table.column_names or not {"phash", "pdq"} & set(table.column_names):
            return None
        names = [name for name in ("phash", "pdq", "item") if name in table.column_names]
        rows = [_from_row(row, f"--images {images}, row {number}") for number, row in enumerate(table.select(names).to_pylist(), 1)]
    if not rows:
        raise ValueError(f"--images {images}: there is no hash in it")
    return pa.Table.from_pylist(rows, schema=ITEMS).sort_by([("item", "ascending"), ("item_id", "ascending")])


def _read_table(path: str, flag: str) -> pa.Table:
    suffix = os.path.splitext(path)[1].lower()
    if not exists(path):
        raise ValueError(f"{flag} {path}: there is no such folder or file")
    if suffix not in _TABLES:
        raise ValueError(f"{flag} {path}: give a folder, a table ({', '.join(_TABLES)}) or a list of hashes (.txt)")
    try:
        return _TABLES[suffix](parquet_source(path))
    except pa.ArrowInvalid as error:
        raise ValueError(f"{flag} {path} is no table: {error}") from error


def _from_text(words: list[str], where: str) -> dict[str, object]:
    text = words[0].lower()
    row: dict[str, object] = {"item": words[1].strip() if len(words) > 1 else text}
    return _from_row(row | {"phash" if len(text) == 16 else "pdq": text}, where)


def _from_row(row: dict[str, object], where: str) -> dict[str, object]:
    try:
        phash, pdq = row.get("phash"), row.get("pdq")
        number = _phash(phash) if phash is not None else None
        digest = _pdq(pdq) if pdq is not None else None
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{where}: give 16 hex digits of a pHash or 64 of a PDQ ({error})") from error
    if number is None and digest is None:
        raise ValueError(f"{where}: there is no hash")
    text = f"{'' if number is None else format(number, '016x')}{'' if digest is None else digest.hex()}"
    named = row.get("item") or text
    return {"item_id": hashlib.sha256(text.encode()).hexdigest(), "item": str(named), "phash": number, "pdq": digest, "texture": None}


def _phash(value: object) -> int:
    if isinstance(value, int) and 0 <= value < 2**64:
        return value
    if not isinstance(value, str) or len(value) != 16:
        raise ValueError(f"not {value!r}")
    return int(value, 16)


def _pdq(value: object) -> bytes:
    digest = value if isinstance(value, bytes) else bytes.fromhex(str(value))
    if len(digest) != 32:
        raise ValueError(f"not {value!r}")
    return digest
