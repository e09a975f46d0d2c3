"""Class folders of drawn shapes, and a tiny network with random weights saved as the trainer saves it."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image, ImageDraw
from threadpoolctl import threadpool_limits
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from encoders import load_encoder
from pagepairs.images import encode_image
from pagepairs.keys import pair_id
from pagepairs.manifest import Manifest, write_manifest
from pagepairs.records import SHARDS
from pagepairs.shards import shard_name, write_shard
from train.checkpoint import model_state, save
from train.diffusion import Schedule
from train.network import NetworkConfig, build

CLASSES = {"discs": (200, 60, 40), "squares": (40, 90, 200), "stripes": (230, 200, 60)}
NETWORK = NetworkConfig(image_px=16, channels=(8, 16), blocks=(1, 1), transformer_from=1, embedding=16, head_width=8, dropout=0.0)


def draw_shape(name: str, number: int, side: int = 48) -> Image.Image:
    """One image of a class; every number gives another place, size and shade."""
    rng = np.random.Generator(np.random.Philox(key=[number, sorted(CLASSES).index(name)]))
    image = Image.new("RGB", (side + number % 3 * 4, side), tuple(rng.integers(0, 90, 3).tolist()))
    colour = tuple(int(part * rng.uniform(0.6, 1)) for part in CLASSES[name])
    left, top, size = rng.integers(2, 20), rng.integers(2, 20), rng.integers(12, 28)
    box, draw = (left, top, left + size, top + size), ImageDraw.Draw(image)
    if name == "discs":
        draw.ellipse(box, fill=colour)
    elif name == "squares":
        draw.rectangle(box, fill=colour)
    else:
        for row in range(0, side, max(4, int(size) // 3)):
            draw.line((0, row, side * 2, row + int(left)), fill=colour, width=2)
    return image


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Small networks and matrices wait for their threads longer than they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def draw_classes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """A function that writes a new folder of class folders with so many images each."""

    def write(images: int) -> Path:
        folder = tmp_path_factory.mktemp("classes")
        for name in CLASSES:
            (folder / name).mkdir()
            for number in range(images):
                draw_shape(name, number).save(folder / name / f"{number:03d}.png")
        return folder

    return write


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pair shards of two images of a class, 4 of each class."""
    rows = []
    for name in CLASSES:
        bodies = [encode_image(np.asarray(draw_shape(name, 3 * number)), "png", 0) for number in range(5)]
        ids = [hashlib.sha256(body).hexdigest() for body in bodies]
        rows += [(pair_id(ids[n], ids[n + 1]), ids[n], ids[n + 1], bodies[n], bodies[n + 1]) for n in range(4)]
    columns = zip(*sorted(rows), strict=True)
    names = ("pair_id", "condition_id", "target_id", "condition_image", "target_image")
    texts = {name: [name] * len(rows) for name in ("page_url", "condition_url", "target_url")}
    similarity = {"similarity": pa.array([0.5] * len(rows), pa.float32())}
    table = pa.table({name: list(column) for name, column in zip(names, columns, strict=True)} | texts | similarity)
    folder = tmp_path_factory.mktemp("out") / "shards"
    info = write_shard(str(folder / shard_name(0, 1, "parquet")), SHARDS, [table])
    write_manifest(str(folder), Manifest(dataset="shards", digest="0", files=(info,), counters={}))
    return folder


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose network of 16 pixels was never trained; its random weights hang on the condition."""
    torch.manual_seed(3)
    encoder = load_encoder("builtin")
    network = build(NETWORK, conditioning="cross_attention", condition_width=12)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model = model_state(network, Schedule(image_px=16), preset="tiny", encoder="builtin", encoder_digest=encoder.digest, encoder_weights="")
    folder = tmp_path_factory.mktemp("run")
    save(str(folder), 64, {"ema": network.state_dict()}, {"model": model, "settings": {"precision": "float32"}})
    return folder


class _Unloaded(FeatureExtractorInceptionV3):
    """The library's network without its download."""

    def load_state_dict(self, *args: object, **kwargs: object) -> None:
        """Keeps the random weights."""


@pytest.fixture(scope="session")
def random_inception(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Inception network with seeded random weights, as the real file holds them."""
    torch.manual_seed(5)
    empty = tmp_path_factory.mktemp("inception") / "empty.pth"
    torch.save({}, empty)
    network = _Unloaded("random", ["2048"], feature_extractor_weights_path=str(empty))
    path = empty.with_name("weights-inception-2015-12-05-6726825d.pth")
    torch.save(network.state_dict(), path)
    return path
