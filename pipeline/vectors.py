"""Vectors on their way from embeddings/ to the parts that want them: each file of vectors is read once, and none goes through a shuffle."""

import os
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pagepairs.files import read_arrow, read_parquet, write_arrow_parts
from pagepairs.keys import order_by_part, prefix64, text_key
from pagepairs.records import vectors_of
from pipeline.jobs import Rows


def spread_vectors(tag: str, path: str) -> Iterator[Rows]:
    """Keys the images of a file of embeddings/ by their ids; `vectors` is the name of the file."""
    table = read_parquet(path, ["image_id"])
    table = table.append_column("vectors", pa.array([os.path.basename(path)] * table.num_rows, pa.string()))
    yield Rows(tag, table, prefix64(table["image_id"]))


def spread_by_file(tag: str, path: str) -> Iterator[Rows]:
    """Keys what is wanted by the file of embeddings/ where it stands."""
    table = read_arrow(path)
    files = table["vectors"].unique()
    keys = pa.array([text_key(name) for name in files.to_pylist()], pa.string())
    yield Rows(tag, table, prefix64(keys.take(pc.index_in(table["vectors"], files))))


def copy_vectors(wanted: pa.Table, key: str, *, folder: str, path: str, parts: int) -> None:
    """Writes the wanted vectors as an Arrow file of one batch a part of the step that reads them.

    Args:
      wanted: image_id, `vectors` (the name of a file) and the column `key`.
      key: of hex ids, by which that step is cut into parts.
      folder: where the files of vectors stand.
      path: of the file that is written.
      parts: of that step.
    """
    order, bounds = order_by_part(prefix64(wanted[key]), parts)
    wanted = wanted.take(pa.array(order))
    vectors_ND = read_vectors(wanted, folder)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors_ND.ravel()), vectors_ND.shape[1])
    write_arrow_parts(path, wanted.drop_columns(["vectors"]).append_column("embedding", column), bounds)


def read_vectors(wanted: pa.Table, folder: str) -> np.ndarray:
    """Returns the vector of each row, float16 of shape (N, D); every file is read once."""
    files = wanted["vectors"].unique()
    file = pc.index_in(wanted["vectors"], files).to_numpy()
    by_file = np.argsort(file, kind="stable")
    bounds = np.searchsorted(file[by_file], np.arange(len(files) + 1))
    vectors_ND: np.ndarray | None = None
    for name, start, stop in zip(files.to_pylist(), bounds, bounds[1:], strict=False):
        rows = by_file[start:stop]
        embedded = read_parquet(os.path.join(folder, name))
        found_ND = vectors_of(embedded["embedding"])
        if vectors_ND is None:
            vectors_ND = np.empty((wanted.num_rows, found_ND.shape[1]), np.float16)
        vectors_ND[rows] = found_ND[pc.index_in(wanted["image_id"].take(pa.array(rows)), embedded["image_id"]).to_numpy()]
    assert vectors_ND is not None
    return vectors_ND
