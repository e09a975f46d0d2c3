"""Benchmark images in a real crawl, end to end: planted ones go with their copies, all others stay, and an audit proves it."""

import hashlib
import io
import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from made_crawls import Response, encode, page, write_warc
from outputs import assert_conserved, assert_sound, counters, data_hashes, drop_reasons, rows
from PIL import Image, ImageOps

BAND = ("--low", 0.2, "--high", 0.95)


def _crop(image: Image.Image) -> Image.Image:
    left, top = image.width // 10, image.height // 10
    return image.crop((left, top, image.width - left, image.height - top))


def _jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


PLANTS: dict[str, Callable[[bytes, Image.Image], bytes]] = {
    "original": lambda body, image: body,
    "resized": lambda body, image: encode(image.resize((image.width * 3 // 5, image.height * 3 // 5), Image.Resampling.LANCZOS)),
    "jpeg-30": lambda body, image: _jpeg(image, 30),
    "grey": lambda body, image: encode(image.convert("L")),
    "cropped": lambda body, image: encode(_crop(image)),
    "flipped": lambda body, image: encode(ImageOps.mirror(image)),
}
ALWAYS = ("original", "resized", "jpeg-30", "grey")


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A run over the crawl with planted images, and which image is what."""

    output: Path
    index: Path
    kinds: dict[str, str]  # image_id -> how it was planted
    crawl: list[Path]
    encoder: str


def photos(shared_data: Path) -> list[Path]:
    found = sorted((shared_data / "bench_dreambooth" / "dataset").rglob("*.jpg"))
    assert len(found) == 55
    return found


def write_plants(shared_data: Path, path: Path) -> dict[str, str]:
    """Writes pages that show a benchmark photo, changed in six ways, beside a photo of nothing in particular; returns the ids."""
    records, kinds = [], {}
    for number, photo in enumerate(photos(shared_data)):
        body = photo.read_bytes()
        with Image.open(io.BytesIO(body)) as opened:
            image = opened.convert("RGB")
        urls = []
        for kind, change in PLANTS.items():
            planted = change(body, image)
            url = f"https://planted.example/{number}/{kind}.jpg"
            kinds[hashlib.sha256(planted).hexdigest()] = kind
            records.append(Response(url=url, body=planted))
            urls.append(url)
        records.append(page(f"https://planted.example/{number}/", urls))
    write_warc(path, records)
    return kinds


@pytest.fixture(scope="module")
def network(shared_data: Path) -> str:
    [path] = (shared_data / "encoder_mobilenet").glob("*.tflite")
    return f"tflite:{path}"


@pytest.fixture(scope="module")
def index(shared_data: Path, network: str, tmp_path_factory: pytest.TempPathFactory, pagepairs) -> Path:
    output = tmp_path_factory.mktemp("indexes") / "dreambooth"
    images = shared_data / "bench_dreambooth" / "dataset"
    done = pagepairs("benchmark", "build", "--name", "dreambooth", "--images", images, "--encoder", network, "--output", output, "--sample", 12)
    assert done.code == 0, done.err
    return output


@pytest.fixture(scope="module")
def planted(shared_data: Path, network: str, index: Path, tmp_path_factory: pytest.TempPathFactory, pagepairs) -> Planted:
    folder = tmp_path_factory.mktemp("planted")
    kinds = write_plants(shared_data, folder / "planted.warc.gz")
    crawl = [shared_data / "howtocook.warc.gz", folder / "planted.warc.gz"]
    run = ["run", "--input", *crawl, "--output", folder / "out", "--encoder", network, *BAND]
    done = pagepairs(*run, "--benchmark", index)
    assert done.code == 0, done.err
    return Planted(output=folder / "out", index=index, kinds=kinds, crawl=crawl, encoder=network)


def test_planted(planted: Planted) -> None:
    matches = rows(planted.output, "matches")
    found = defaultdict(lambda: defaultdict(int))
    for row in matches:
        found[planted.kinds.get(row["image_id"], "crawl")][row["signal"]] += 1
    print({k: dict(v) for k, v in found.items()})
    print([(r["image_url"], r["item"], r["similarity"], r["phash_distance"], r["pdq_distance"]) for r in matches if r["signal"] == ""][:20])
    print(drop_reasons(planted.output, "pair"), counters(planted.output, "matches"))
    assert 0
