"""imagededup's opinion on finished shards: its own hashing, its own search, its own network where weights are given.

It sees what a trainer sees, the images of the shards, beside the thumbnails that an index keeps of its items, cut as the shards are. None
of our hashes, vectors or indexes take part; only the texture gate is ours, because all flat images have one hash.
"""

import io
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from dedup.benchmark import Benchmark
from dedup.hashes import pdq256
from pagepairs.files import read_parquet
from pagepairs.images import centre_crop
from pagepairs.keys import text_key
from pagepairs.shards import read_shard

MAX_BITS, NEAR_BITS = 4, 10
"""Bits of its pHash up to which two images are one, or near: 1 and 483 of 1e9 pairs of crops of unrelated photos are."""
MIN_COSINE = 0.9
"""imagededup's own default for its network."""
_MIN_TEXTURE = 50
_CNN_IMAGES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """Pairs of a shard's image and an item that imagededup holds for alike, with what it was asked."""

    images: int
    items: int
    rows: list[dict[str, Any]]
    """image_id, benchmark, item, bits or cosine, found (False: near only)."""


def sample_images(files: Sequence[str], count: int, seed: int) -> dict[str, np.ndarray]:
    """Returns about `count` distinct images of the shards by id: shards in the order of a keyed hash, each from its beginning.

    Pairs stand in shards by the hash of their ids, so any shard is a random sample.
    """
    images: dict[str, np.ndarray] = {}
    for path in sorted(files, key=lambda file: text_key(f"{seed}/{os.path.basename(file)}")):
        for row in read_shard(path):
            for side in ("condition", "target"):
                if len(images) < count and row[f"{side}_id"] not in images:
                    images[row[f"{side}_id"]] = _pixels(row[f"{side}_image"])
        if len(images) >= count:
            break
    return images


def read_items(benchmarks: Sequence[Benchmark], *, crop: bool) -> dict[str, np.ndarray]:
    """Returns the thumbnails of all items by "number of the benchmark/item", cut to their middle squares where shards are."""
    items: dict[str, np.ndarray] = {}
    for number, benchmark in enumerate(benchmarks):
        names = read_parquet(os.path.join(benchmark.folder, "items.parquet"), ["item"])["item"].to_pylist()
        pictures = read_parquet(os.path.join(benchmark.folder, "thumbnails.parquet"))["thumbnail"].to_pylist()
        for name, picture in zip(names, pictures, strict=True):
            if picture is not None:
                rgb = _pixels(picture)
                items[f"{number}/{name}"] = centre_crop(rgb, min(rgb.shape[:2])) if crop else rgb
    return items


def ask_hashes(images: Mapping[str, np.ndarray], items: Mapping[str, np.ndarray], benchmarks: Sequence[Benchmark]) -> Opinion:
    """Returns what imagededup's PHash and its own brute-force search hold for alike."""
    with _hushed():
        from imagededup.handlers.search.brute_force_cython import BruteForceCython
        from imagededup.methods import PHash

        hasher = PHash(verbose=False)
        known, asked = ({name: hasher.encode_image(image_array=rgb) for name, rgb in _textured(side)} for side in (items, images))
        search = BruteForceCython(known, hasher.hamming_distance)
        found = [(image, *near) for image, code in asked.items() for near in search.search(query=code, tol=NEAR_BITS)]
    rows = [_row(image, str(name), benchmarks) | {"bits": int(bits), "found": int(bits) <= MAX_BITS} for image, name, bits in found]
    return Opinion(images=len(asked), items=len(known), rows=sorted(rows, key=lambda row: (row["bits"], row["image_id"], row["item"])))


def ask_network(
    images: Mapping[str, np.ndarray], items: Mapping[str, np.ndarray], benchmarks: Sequence[Benchmark], weights: str
) -> Opinion:
    """Returns what imagededup's CNN method holds for alike, with a local file of torchvision's mobilenet_v3_small.

    It compares everything with everything, so at most 10 000 images and items take part: all images, and items by a hash of their names.

    Raises:
      ValueError: if the file does not hold those weights.
    """
    with _hushed():
        from imagededup.methods import CNN
        from imagededup.utils.models import CustomModel, MobilenetV3

        encoder = CNN(verbose=False, model_config=CustomModel("mobilenet_v3_small", _network(weights), MobilenetV3.transform))
        some = sorted(items, key=text_key)[: max(0, _CNN_IMAGES - len(images))]
        vectors = {f"image/{name}": encoder.encode_image(image_array=rgb)[0] for name, rgb in images.items()}
        vectors |= {f"item/{name}": encoder.encode_image(image_array=items[name])[0] for name in some}
        found = encoder.find_duplicates(encoding_map=vectors, min_similarity_threshold=MIN_COSINE, scores=True, num_sim_workers=0)
    rows = [
        _row(image.removeprefix("image/"), str(name).removeprefix("item/"), benchmarks)
        | {"cosine": round(float(cosine), 4), "found": False}
        for image, near in found.items()
        for name, cosine in near
        if image.startswith("image/") and str(name).startswith("item/")
    ]
    return Opinion(images=len(images), items=len(some), rows=sorted(rows, key=lambda row: (-row["cosine"], row["image_id"], row["item"])))


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


def _textured(images: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    for name, rgb in images.items():
        if pdq256(rgb)[1] >= _MIN_TEXTURE:
            yield name, rgb


def _row(image_id: str, name: str, benchmarks: Sequence[Benchmark]) -> dict[str, Any]:
    number, _, item = name.partition("/")
    return {"image_id": image_id, "benchmark": benchmarks[int(number)].name, "item": item}


def _pixels(body: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(body)) as image:  # of our own making: a shard's image, an index's thumbnail
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
