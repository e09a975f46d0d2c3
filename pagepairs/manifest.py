"""A dataset folder is complete when its manifest.json exists; the manifest names its files, so that strays are never read."""

import hashlib
import json
import os
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pagepairs.files import FileInfo, find_json, read_parquet, write_json
from pagepairs.records import SCHEMA_VERSION

_NAME = "manifest.json"


def digest_of(value: Any) -> str:
    """Returns the sha256 of a value's canonical JSON: settings and inputs that decide a stage's output."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a complete dataset folder holds."""

    dataset: str
    digest: str
    files: tuple[FileInfo, ...]
    counters: dict[str, Any]

    @property
    def rows(self) -> int:
        """Number of rows in all files."""
        return sum(file.rows for file in self.files)

    @property
    def content(self) -> str:
        """Digest of the files' bytes: what later stages depend on."""
        return digest_of([[file.name, file.sha256] for file in self.files])


def write_manifest(folder: str, manifest: Manifest) -> None:
    """Completes a dataset folder."""
    write_json(
        os.path.join(folder, _NAME),
        {
            "schema_version": SCHEMA_VERSION,
            "dataset": manifest.dataset,
            "digest": manifest.digest,
            "rows": manifest.rows,
            "files": [file.as_json() for file in manifest.files],
            "counters": manifest.counters,
        },
    )


def find_manifest(folder: str) -> Manifest | None:
    """Returns the manifest of a dataset folder, or None while it is not complete.

    Raises:
      ValueError: if another version of pagepairs wrote the folder with other columns.
    """
    value = find_json(os.path.join(folder, _NAME))
    if value is None:
        return None
    if value["schema_version"] != SCHEMA_VERSION:
        raise ValueError(
            f"{folder} has schema version {value['schema_version']}, this pagepairs reads {SCHEMA_VERSION}: give a new --output"
        )
    files = tuple(FileInfo(**file) for file in value["files"])
    return Manifest(dataset=value["dataset"], digest=value["digest"], files=files, counters=value["counters"])


def read_manifest(folder: str) -> Manifest:
    """Returns the manifest of a complete dataset folder.

    Raises:
      ValueError: if the folder is not complete.
    """
    manifest = find_manifest(folder)
    if manifest is None:
        raise ValueError(f"{folder} has no manifest.json: the stage that writes it has not finished; run it first")
    return manifest


def dataset_files(folder: str) -> list[str]:
    """Returns the paths of a complete dataset's files, in the manifest's order."""
    return [os.path.join(folder, file.name) for file in read_manifest(folder).files]


def read_dataset(folder: str, columns: list[str] | None = None) -> pa.Table:
    """Returns all rows of a complete dataset, without columns where it has no file; meant for small ones, tests and inspection."""
    tables = [read_parquet(path, columns) for path in dataset_files(folder)]
    return pa.concat_tables(tables) if tables else pa.table({})
