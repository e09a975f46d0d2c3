"""A benchmark index: a folder with what is known of the images of a test set, so that a crawl can be kept free of them.

    items.parquet        one row an item: item_id (sha256 of the file), item (its path or name), phash, pdq, texture; those with both
                         hashes first, then those with pHash alone, with PDQ alone, and flat ones, each in the order of their names
    phash.npy            uint64 (N,), in the order of items.parquet; 0 where there is none
    pdq.npy              uint8 (N, 32), likewise
    kinds.npy            int64 (4,): how many items hold both hashes, pHash alone, PDQ alone, and how many are flat
    ids.npy              S32 (N,): the item_ids as bytes, in ascending order
    id_rows.npy          int64 (N,): the row of each of them
    vectors.npy          float16 (N, D), of unit length (zeros: a flat image), in the order of items.parquet; absent with hashes alone
    vectors.faiss        the same as a search structure (dedup/benchmark_vectors.py)
    thumbnails.parquet   one row an item: a small WebP, whole; null where there are no pixels
    unreadable.parquet   path, reason and detail of every file that gave no image
    manifest.json        name, counts, the encoder's digest, cut, calibration, versions, bytes and sha256 of the files

It is complete when it stands under its name: `dedup.benchmark_build` writes it aside.
"""

import hashlib
import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from pagepairs.files import FileInfo, read_json
from pagepairs.manifest import digest_of
from pagepairs.stores import local_copy

INDEX_VERSION = 2
HASHING = "phash64 and pdq256 of the image at 256 px, v1"
"""What the hashes are of; an index with another one is refused."""

ITEMS = pa.schema(
    [
        ("item_id", pa.string()),
        ("item", pa.string()),
        ("phash", pa.uint64()),  # null: a list that holds PDQ only
        ("pdq", pa.binary(32)),  # null: a list that holds pHash only
        ("texture", pa.int16()),  # PDQ's quality, 0 (flat) to 100; null in a list of hashes
    ]
)
THUMBNAILS = pa.schema([("thumbnail", pa.binary())])
UNREADABLE = pa.schema([("path", pa.string()), ("reason", pa.string()), ("detail", pa.string())])


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorSearch:
    """How the vectors of an index are searched."""

    kind: str
    """flat, pq or ivf."""
    candidates: int
    """Rows that are compared again exactly, a query."""
    nprobe: int
    """Cells of an IVF that are looked into, a query; 0 where there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """What the manifest of an index says."""

    folder: str
    name: str
    items: int
    encoder: Mapping[str, str] | None
    """The encoder's digest; None in an index of hashes alone."""
    spec: str
    """The encoder as --encoder takes it, without the folder of a file; "" in an index of hashes alone."""
    width: int
    """D; 0 in an index of hashes alone."""
    cut: float
    """Cosine from which on an image is a match."""
    cut_source: str
    search: VectorSearch | None
    content: str
    """Digest of the files' bytes and of what decides a match: equal contents give equal matches."""
    manifest: Mapping[str, Any]
    """All of manifest.json."""


def write_manifest_value(files: list[FileInfo], value: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what manifest.json holds, given all but the files."""
    return {"index_version": INDEX_VERSION, "hashing": HASHING, **value, "files": [asdict(file) for file in files]}


def read_benchmark(folder: str) -> Benchmark:
    """Returns an index.

    Raises:
      ValueError: if the folder is no index, an index of another version, or a file of it has another length; `check_bytes` looks closer.
    """
    try:
        here = local_copy(folder)
    except FileNotFoundError:
        here = folder
    path = os.path.join(here, "manifest.json")
    if not os.path.isfile(path):
        raise ValueError(f"--benchmark {folder}: no index there; make one with `pagepairs benchmark build --output {folder}`")
    value = read_json(path)
    if not isinstance(value, dict) or (value.get("index_version"), value.get("hashing")) != (INDEX_VERSION, HASHING):
        raise ValueError(f"--benchmark {folder}: no index, or one of another version of pagepairs: build it again")
    for file in value["files"]:
        there = os.path.join(here, file["name"])
        if not os.path.isfile(there) or os.path.getsize(there) != file["bytes"]:
            raise ValueError(f"--benchmark {folder}: {file['name']} is missing or not as it was built: build it again")
    search = value["search"]
    decides = [value["name"], value["encoder"], value["cut"], search, value["hashes"]["rule"]]
    return Benchmark(
        folder=folder,
        name=value["name"],
        items=value["items"],
        encoder=value["encoder"],
        spec=value["spec"],
        width=value["width"],
        cut=value["cut"],
        cut_source=value["cut_source"],
        search=None if search is None else VectorSearch(**{name: search[name] for name in VectorSearch.__dataclass_fields__}),
        content=digest_of([decides, [[file["name"], file["sha256"]] for file in value["files"]]]),
        manifest=value,
    )


def check_bytes(benchmarks: Sequence[Benchmark]) -> None:
    """Compares the files of indexes with the sha256 in their manifests: 1.1 GB/s of a core, so 4 s for a flat million of 768 numbers.

    Raises:
      ValueError: if a file holds other bytes, as after a bad copy.
    """
    for benchmark in benchmarks:
        here = local_copy(benchmark.folder)
        for entry in benchmark.manifest["files"]:
            with open(os.path.join(here, entry["name"]), "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
                    raise ValueError(
                        f"--benchmark {benchmark.folder}: {entry['name']} holds other bytes than were built: copy or build it again"
                    )


def read_benchmarks(folders: tuple[str, ...]) -> list[Benchmark]:
    """Returns several indexes, in the order of their names, whatever the order of the folders.

    Raises:
      ValueError: see `read_benchmark`; or if two have one name.
    """
    found = sorted((read_benchmark(folder) for folder in folders), key=lambda benchmark: benchmark.name)
    for one, other in itertools.pairwise(found):
        if one.name == other.name:
            raise ValueError(f"--benchmark {other.folder}: it has the name of {one.folder}; build it with another --name")
    return found
