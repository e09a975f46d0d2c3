"""imagededup's opinion on finished shards: its own hashing, its own search, its own network where weights are given.

It sees what a trainer sees, the images of the shards, beside the thumbnails that an index keeps of its items, cut as the shards are. None
of our hashes, vectors or indexes take part; only the texture gate is ours, because all flat images have one hash.
"""

import io
import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from dedup.benchmark import Benchmark
from dedup.hashes import pdq256
from pagepairs.images import centre_crop
from pagepairs.keys import mix, prefix64, text_key
from pagepairs.shards import read_shard
from pipeline.match_passes import folder_of
from pipeline.pair_matches import read_thumbnails_of

MAX_BITS, NEAR_BITS = 4, 10
"""Bits of its pHash up to which two images are one, or near: 1 and 483 of 1e9 pairs of crops of unrelated photos are."""
MIN_COSINE = 0.9
"""imagededup's own default for its network."""
_MIN_TEXTURE = 50
HASHED_ITEMS = 100_000
"""Items that imagededup hashes: a minute of a core, and 40 s of its search for 1 000 images. More are sampled."""
_CNN_IMAGES = 10_000
_BATCH = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """Pairs of a shard's image and an item that imagededup holds for alike, with what it was asked."""

    images: int
    items: int
    of_items: int
    """All that the indexes hold; `items` may leave out flat ones, hashes without a picture, and those beyond a sample."""
    rows: list[dict[str, Any]]
    """image_id, benchmark, item, bits or cosine, found (False: near only)."""


def sample_images(files: Sequence[str], count: int, seed: int) -> dict[str, bytes]:
    """Returns about `count` distinct images of the shards by id, encoded: shards in the order of a keyed hash, each from its beginning.

    Pairs stand in shards by the hash of their ids, so any shard is a random sample.
    """
    images: dict[str, bytes] = {}
    for path in sorted(files, key=lambda file: text_key(f"{seed}/{os.path.basename(file)}")):
        for row in read_shard(path):
            for side in ("condition", "target"):
                if len(images) < count and row[f"{side}_id"] not in images:
                    images[row[f"{side}_id"]] = row[f"{side}_image"]
        if len(images) >= count:
            break
    return images


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """Items of the benchmarks that have a thumbnail: all of them, or a sample by a keyed hash of their ids."""

    benchmarks: Sequence[Benchmark]
    rows: Sequence[np.ndarray]
    """Of each benchmark, ascending."""
    crop: bool
    """Whether the shards hold middle squares."""

    def count(self) -> int:
        """Returns the number of items."""
        return sum(len(rows) for rows in self.rows)

    def batches(self) -> Iterator[dict[str, np.ndarray]]:
        """Yields the pixels of a few items at a time by "number of the benchmark/item"; no more of them are ever decoded at once."""
        for number, (benchmark, rows) in enumerate(zip(self.benchmarks, self.rows, strict=True)):
            names = _item_columns(benchmark, ["item"])["item"].take(pa.array(rows)).to_pylist() if len(rows) else []
            for start in range(0, len(rows), _BATCH):
                part = slice(start, start + _BATCH)
                pictures = read_thumbnails_of(benchmark, rows[part])
                found = zip(names[part], pictures, strict=True)
                yield {f"{number}/{name}": self._square(decode(body)) for name, body in found if body is not None}

    def _square(self, rgb: np.ndarray) -> np.ndarray:
        return centre_crop(rgb, min(rgb.shape[:2])) if self.crop else rgb


def choose_items(benchmarks: Sequence[Benchmark], *, count: int, seed: int, crop: bool) -> Items:
    """Returns at most `count` items: those with the lowest keyed hashes."""
    keys, rows = [], []
    for number, benchmark in enumerate(benchmarks):
        table = _item_columns(benchmark, ["item_id", "texture"])
        rows.append(np.flatnonzero(pc.is_valid(table["texture"]).to_numpy(zero_copy_only=False)))  # a list of hashes has no pictures
        keys.append(mix(prefix64(table["item_id"])[rows[-1]], number, seed))
    every = np.concatenate(keys)
    if len(every) > count:
        limit = np.partition(every, count)[count]
        rows = [own[key < limit] for own, key in zip(rows, keys, strict=True)]
    return Items(benchmarks=benchmarks, rows=rows, crop=crop)


def ask_hashes(images: Mapping[str, bytes], benchmarks: Sequence[Benchmark], *, seed: int, crop: bool) -> Opinion:
    """Returns what imagededup's PHash and its own brute-force search hold for alike.

    Its search makes lists of all it knows for every query (0.4 µs an item), so it is given a batch of items at a time, and 100 000 at most.
    """
    items = choose_items(benchmarks, count=HASHED_ITEMS, seed=seed, crop=crop)
    with _hushed():
        from imagededup.handlers.search.brute_force_cython import BruteForceCython
        from imagededup.methods import PHash

        hasher = PHash(verbose=False)
        asked = {name: hasher.encode_image(image_array=rgb) for name, rgb in _textured((name, decode(images[name])) for name in images)}
        known, found = 0, []
        for batch in items.batches():
            codes = {name: hasher.encode_image(image_array=rgb) for name, rgb in _textured(batch.items())}
            known += len(codes)
            search = BruteForceCython(codes, hasher.hamming_distance)
            found += [(image, *near) for image, code in asked.items() for near in search.search(query=code, tol=NEAR_BITS)]
    rows = [_row(image, str(name), benchmarks) | {"bits": int(bits), "found": int(bits) <= MAX_BITS} for image, name, bits in found]
    rows.sort(key=lambda row: (row["bits"], row["image_id"], row["item"]))
    return Opinion(images=len(asked), items=known, of_items=_all_items(benchmarks), rows=rows)


def ask_network(images: Mapping[str, bytes], benchmarks: Sequence[Benchmark], weights: str, *, seed: int, crop: bool) -> Opinion:
    """Returns what imagededup's CNN method holds for alike, with a local file of torchvision's mobilenet_v3_small.

    It compares everything with everything, so at most 10 000 images and items take part: all images, and items by a keyed hash.

    Raises:
      ValueError: if the file does not hold those weights.
    """
    items = choose_items(benchmarks, count=max(0, _CNN_IMAGES - len(images)), seed=seed, crop=crop)
    with _hushed():
        from imagededup.methods import CNN
        from imagededup.utils.models import CustomModel, MobilenetV3

        encoder = CNN(verbose=False, model_config=CustomModel("mobilenet_v3_small", _network(weights), MobilenetV3.transform))
        vectors = {f"image/{name}": encoder.encode_image(image_array=decode(body))[0] for name, body in images.items()}
        for batch in items.batches():
            vectors |= {f"item/{name}": encoder.encode_image(image_array=rgb)[0] for name, rgb in batch.items()}
        found = encoder.find_duplicates(encoding_map=vectors, min_similarity_threshold=MIN_COSINE, scores=True, num_sim_workers=0)
    rows = [
        _row(image.removeprefix("image/"), str(name).removeprefix("item/"), benchmarks)
        | {"cosine": round(float(cosine), 4), "found": False}
        for image, near in found.items()
        for name, cosine in near
        if image.startswith("image/") and str(name).startswith("item/")
    ]
    rows.sort(key=lambda row: (-row["cosine"], row["image_id"], row["item"]))
    return Opinion(images=len(images), items=items.count(), of_items=_all_items(benchmarks), rows=rows)


def _all_items(benchmarks: Sequence[Benchmark]) -> int:
    return sum(benchmark.items for benchmark in benchmarks)


def _item_columns(benchmark: Benchmark, columns: list[str]) -> pa.Table:
    return pq.read_table(os.path.join(folder_of(benchmark.folder, benchmark.content), "items.parquet"), columns=columns)


def _network(weights: str) -> Any:
    import torch
    from torchvision.models import mobilenet_v3_small

    network = mobilenet_v3_small(weights=None)
    try:
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    except Exception as error:  # a broken file raises whatever the unpickler stumbles over
        raise ValueError(
            f"--cnn-weights {weights}: not a state_dict of torchvision's mobilenet_v3_small ({type(error).__name__})"
        ) from error
    network.eval().requires_grad_(False)
    return torch.nn.Sequential(network.features, network.avgpool, torch.nn.Flatten())


def _textured(images: Iterable[tuple[str, np.ndarray]]) -> Iterator[tuple[str, np.ndarray]]:
    for name, rgb in images:
        if pdq256(rgb)[1] >= _MIN_TEXTURE:
            yield name, rgb


def _row(image_id: str, name: str, benchmarks: Sequence[Benchmark]) -> dict[str, Any]:
    number, _, item = name.partition("/")
    return {"image_id": image_id, "benchmark": benchmarks[int(number)].name, "item": item}


def decode(body: bytes) -> np.ndarray:
    """Returns the pixels of an image of our own making: a shard's image, an index's thumbnail."""
    with Image.open(io.BytesIO(body)) as image:
        return np.array(image.convert("RGB"))


@contextmanager
def _hushed() -> Iterator[None]:
    """Keeps imagededup's warnings and its own log handlers, which write at every level, off the screen."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.INFO)
        try:
            yield
        finally:
            logging.disable(before)
