"""Vectors of an earlier run: found by image id, so that an image is embedded once whatever run it is in."""

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pagepairs.files import atomic, read_parquet
from pagepairs.keys import prefix64
from pagepairs.manifest import dataset_files, find_manifest
from pagepairs.records import vectors_of
from pagepairs.stores import local_copy
from pipeline.models import Described, difference

_KEYS, _PLACES = "keys.npy", "places.npy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """The vectors of one encoder in an earlier run, with where each stands: 16 bytes an image in a file that all workers map."""

    folder: str
    """embeddings/<encoder> of the earlier run."""
    index: str
    """Folder of the sorted keys and of the places that belong to them."""

    def find(self, image_ids: Sequence[str]) -> dict[str, np.ndarray]:
        """Returns the vectors, float16 (D,), of those images that the earlier run embedded."""
        keys, places = (np.load(local_copy(os.path.join(self.index, name)), mmap_mode="r") for name in (_KEYS, _PLACES))
        wanted_keys = prefix64(pa.array(image_ids, pa.string()))
        first, last = (np.searchsorted(keys, wanted_keys, side) for side in ("left", "right"))
        wanted: dict[int, list[tuple[str, int]]] = {}
        for image_id, start, stop in zip(image_ids, first, last, strict=True):
            for file, row in places[start:stop]:
                wanted.setdefault(int(file), []).append((image_id, int(row)))
        found: dict[str, np.ndarray] = {}
        for file, asked in sorted(wanted.items()):
            ids, vectors_ND = _read(_paths(self.folder)[file])
            found |= {image_id: vectors_ND[row] for image_id, row in asked if ids[row].as_py() == image_id}
        return found


@functools.lru_cache(maxsize=4)
def _paths(folder: str) -> list[str]:
    return dataset_files(folder)


@functools.lru_cache(maxsize=32)
def _read(path: str) -> tuple[pa.ChunkedArray, np.ndarray]:
    table = read_parquet(path)
    return table["image_id"], vectors_of(table["embedding"])


def find_earlier(output: str, folder: str, encoder: Described, index: str) -> Earlier | None:
    """Indexes the vectors of an earlier run; None where it has none of this encoder.

    Args:
      output: of the earlier run.
      folder: the encoder's name under embeddings/.
      encoder: as it is loaded now.
      index: folder of the index that is written.

    Raises:
      ValueError: if the earlier vectors are of the same name and yet another encoder.
    """
    path = os.path.join(output, "embeddings", folder)
    manifest = find_manifest(path)
    if manifest is None:
        return None
    changed = difference(manifest.counters["encoder"], encoder.digest)
    if changed:
        raise ValueError(
            f"--embeddings-from {output} holds vectors of another {folder} ({changed}): "
            "vectors of two encoders must not be mixed; leave the flag out, or embed as that run did"
        )
    keys, places = [np.empty(0, np.uint64)], [np.empty((0, 2), np.uint32)]
    for number, file in enumerate(dataset_files(path)):
        keys.append(prefix64(read_parquet(file, ["image_id"])["image_id"]))
        rows = np.arange(len(keys[-1]), dtype=np.uint32)
        places.append(np.stack([np.full_like(rows, number), rows], axis=1))
    key = np.concatenate(keys)
    order = np.argsort(key, kind="stable")
    for name, array in ((_KEYS, key), (_PLACES, np.concatenate(places))):
        with atomic(os.path.join(index, name)) as stream:
            np.save(stream, array[order])
    return Earlier(folder=path, index=index)


def gather_vectors(folder: str, image_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Reads the vectors of some images; every file of the dataset is read once, one at a time.

    Args:
      folder: embeddings/<encoder>.
      image_ids: sorted, of dtype S64, shape (N,).

    Returns:
      float16 (N, D), and bool (N,), whether the image has a vector; the rows of others are zero.
    """
    vectors_ND, found = np.zeros((len(image_ids), 0), np.float16), np.zeros(len(image_ids), bool)
    for path in dataset_files(folder):
        table = read_parquet(path)
        ids = np.array(table["image_id"].to_pylist(), "S64")
        at = np.minimum(np.searchsorted(image_ids, ids), max(0, len(image_ids) - 1))
        here = image_ids[at] == ids if len(image_ids) else np.zeros(len(ids), bool)
        if not vectors_ND.shape[1]:
            vectors_ND = np.zeros((len(image_ids), table.schema.field("embedding").type.list_size), np.float16)
        vectors_ND[at[here]] = vectors_of(table["embedding"])[here]
        found[at[here]] = True
    return vectors_ND, found
