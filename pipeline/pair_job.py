"""What the steps of stage pair share: where each leaves its rows, and which columns these have."""

import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa

from dedup.benchmark import Benchmark
from pagepairs.config import PairConfig
from pagepairs.files import FileInfo, read_arrow_part, write_arrow, write_parquet
from pagepairs.manifest import dataset_files
from pagepairs.records import CANDIDATES
from pagepairs.stores import is_remote
from pipeline.journal import part_name
from pipeline.progress import Meter

REFERENCE = ("source", "offset", "length")
CARRIED = ("alt", *REFERENCE)
"""What a pair knows of its images besides the ledger."""

# Rows between the shuffles: a reference in a page, and what it led to.
REFERENCES = pa.schema(
    [
        ("page_key", pa.string()),
        ("page_url", pa.string()),
        ("capture", pa.uint64()),
        ("page_time", pa.timestamp("ms", tz="UTC")),
        ("position", pa.int32()),
        ("image_url", pa.string()),
        ("url_key", pa.string()),
        ("alt", pa.string()),
        ("via", pa.string()),
        ("host", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("page_set", pa.uint64()),  # equal for one page under several addresses: the same path and the same images
        ("pixels", pa.int64()),  # of the image that the URL led to; the next columns are of the image that stands for it
        ("image_id", pa.string()),
        ("source", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
    ]
)

# A candidate on its way to the ledger, with what its pair needs.
CANDIDATE_ROWS = pa.schema([*CANDIDATES, *(pa.field(f"{side}_{name}", REFERENCES.field(name).type) for side in "ab" for name in CARRIED)])

_READERS = 32
"""Slices of files that are read at once from an object store: each waits for four requests."""


def _read_part(path: str, part: int) -> pa.Table | None:
    try:
        return read_arrow_part(path, part)
    except FileNotFoundError:
        return None


@dataclass(frozen=True, kw_only=True)
class PairJob:
    """What the shuffles of stage pair share."""

    output: str
    work: str
    config: PairConfig
    encoder_folder: str
    low: float
    high: float
    size_px: int
    parts: int
    meter: Meter
    benchmarks: tuple[Benchmark, ...] = ()
    copies_folder: str = ""
    """Folder under embeddings/ of the vectors that --copy-cosine compares."""

    def path(self, phase: str, part: int) -> str:
        """Path of what a shuffle leaves for the next."""
        return os.path.join(self.work, phase, f"{part_name(part, self.parts)}.arrow")

    def write(self, phase: str, part: int, table: pa.Table) -> None:
        """Writes what a shuffle leaves for the next."""
        write_arrow(self.path(phase, part), table)

    def read_range(self, phase: str, part: int) -> pa.Table | None:
        """The rows that all parts of an earlier step left for this part; None where they left none."""
        paths = [self.path(phase, other) for other in range(self.parts)]
        with ThreadPoolExecutor(_READERS if is_remote(self.work) else 1) as pool:
            pieces = [piece for piece in pool.map(_read_part, paths, itertools.repeat(part)) if piece is not None]
        return pa.concat_tables(pieces) if pieces else None

    def write_final(self, dataset: str, part: int, table: pa.Table) -> FileInfo:
        """Writes a file of a dataset aside; it moves to its place when the stage is complete."""
        return write_parquet(os.path.join(self.work, "final", dataset, f"{part_name(part, self.parts)}.parquet"), table)

    @property
    def matches(self) -> str:
        """Path of the file of matches/, while it is built aside."""
        return os.path.join(self.work, "final", "matches", "matches.parquet")

    def dataset(self, name: str, tag: str) -> list[tuple[str, str]]:
        """Files of a dataset as inputs of a shuffle."""
        return [(tag, path) for path in dataset_files(os.path.join(self.output, name))]

    def phase(self, name: str, tag: str) -> list[tuple[str, str]]:
        """Files of an earlier shuffle as inputs of the next."""
        return [(tag, self.path(name, part)) for part in range(self.parts)]
