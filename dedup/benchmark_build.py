"""Writes a benchmark index aside and moves it to its place when it is whole."""

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa

from dedup.benchmark import UNREADABLE, VectorSearch, write_manifest_value
from dedup.benchmark_hashes import HASH_FILES
from dedup.benchmark_vectors import DECISION_RECALL, build_index, decision_recall, open_vectors
from pagepairs.files import FileInfo, write_json, write_parquet
from pagepairs.stores import is_remote

_RECALL_QUERIES = 1_000


@contextmanager
def index_folder(output: str) -> Iterator[str]:
    """Gives a folder to build in, which becomes `output` when the block ends without an error.

    Raises:
      ValueError: if `output` is there, or in an object store.
    """
    if is_remote(output):
        raise ValueError(f"--output {output}: an index is built on this machine; give a folder here, and copy it when it is whole")
    output = os.path.abspath(output)
    if os.path.exists(output):
        raise ValueError(f"--output {output} exists: delete it, or give another folder")
    os.makedirs(os.path.dirname(output), exist_ok=True)
    aside = os.path.join(os.path.dirname(output), f".tmp-{uuid.uuid4().hex}")
    os.mkdir(aside)
    try:
        yield aside
        os.rename(aside, output)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_vectors(folder: str, vectors_ND: np.ndarray, search: VectorSearch) -> None:
    """Writes the float16 vectors and their search structure."""
    np.save(os.path.join(folder, "vectors.npy"), vectors_ND)
    build_index(vectors_ND, search, os.path.join(folder, "vectors.faiss"))


def check_recall(folder: str, search: VectorSearch, *, cut: float, seed: int) -> dict[str, Any]:
    """Measures decision recall at the cut against comparing with everything, and returns how the index is searched, with it.

    Raises:
      ValueError: if it lies below 0.995.
    """
    recall, queries = decision_recall(open_vectors(folder, search), cut=cut, queries=_RECALL_QUERIES, seed=seed)
    if recall < DECISION_RECALL:
        remedy = f"--candidates {10 * search.candidates}, --index flat" + (f", or --nprobe {2 * search.nprobe}" if search.nprobe else "")
        raise ValueError(
            f"--index {search.kind} with --candidates {search.candidates} finds {recall:.4f} of the matches at the cut of {cut}, "
            f"at least {DECISION_RECALL} is asked for: give {remedy}"
        )
    names = VectorSearch.__dataclass_fields__
    return {name: getattr(search, name) for name in names} | {"decision_recall": recall, "decision_queries": queries}


def complete_index(folder: str, items: pa.Table, thumbnails: pa.Table, unreadable: list[dict[str, str]], value: Mapping[str, Any]) -> None:
    """Writes the tables and the manifest of an index whose hashes, and vectors, if any, are in the folder.

    Args:
      items: columns of dedup.benchmark.ITEMS.
      thumbnails: column of dedup.benchmark.THUMBNAILS, row by row as `items`.
      unreadable: rows of dedup.benchmark.UNREADABLE.
      value: what the manifest says besides the files.
    """
    files = [
        write_parquet(os.path.join(folder, "items.parquet"), items),
        write_parquet(os.path.join(folder, "thumbnails.parquet"), thumbnails, row_group_rows=256, compression="none"),
        write_parquet(os.path.join(folder, "unreadable.parquet"), pa.Table.from_pylist(unreadable, schema=UNREADABLE)),
    ]
    arrays = (name for name in (*HASH_FILES, "vectors.npy", "vectors.faiss") if os.path.exists(os.path.join(folder, name)))
    files += [_file_info(folder, name, items.num_rows) for name in arrays]
    write_json(os.path.join(folder, "manifest.json"), write_manifest_value(files, value))


def _file_info(folder: str, name: str, rows: int) -> FileInfo:
    path = os.path.join(folder, name)
    with open(path, "rb") as file:
        return FileInfo(name=name, rows=rows, bytes=os.path.getsize(path), sha256=hashlib.file_digest(file, "sha256").hexdigest())
