"""The report of made runs of 1 k, 100 k and 1 M candidates: time to build, size of the page, time from opening to the first drag.

    python benchmarks/report.py

A made run has what real ones have: pages of 2 to 40 images on many hosts, pairs on several pages, images of many sizes, and a distinct
JPEG behind every image, drawn from few photos with their own crop and colours, so that thumbnails weigh what they weigh. Every build runs
in a process of its own. The page is opened in a headless Chromium; "ready" is when all its charts stand, "drag" is a press, one move and
the number that follows from it.
"""

import argparse
import hashlib
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.special
from decode import generated
from PIL import Image
from processes import conditions, in_turn, measured

from filters.band import in_band
from pagepairs.files import write_json, write_parquet
from pagepairs.images import encode_jpeg
from pagepairs.keys import text_key
from pagepairs.manifest import Manifest, write_manifest
from pagepairs.records import CANDIDATES, DROPS, EPISODES, IMAGES, SHARDS, UNITS
from pipeline.report import write_report
from pipeline.runners import pipeline_options

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "report"))  # the driver that the tests use
from chromium import find_chromium, start_chromium

LOW, HIGH = 0.3, 0.9
PAIRS_A_PAGE = 10
MAX_IMAGES = 20_000


def make_run(folder: Path, candidates: int) -> None:
    """Writes what a run leaves behind, without its report."""
    rng = np.random.default_rng(candidates)
    images = min(candidates // 4 + 8, MAX_IMAGES)
    bodies = sorted(_bodies(folder / "crawl", images))
    ids = np.array([body[0] for body in bodies])
    sides = rng.choice([220, 300, 480, 640, 900, 1200], images)
    pages = max(2, candidates // PAIRS_A_PAGE)
    counts = np.clip(rng.geometric(0.15, pages) + 1, 2, 40)
    members = [_some(rng, images, int(count)) for count in counts]
    hosts = rng.zipf(1.4, pages) % 5_000
    urls = [f"https://host{host}.example/stories/{number}" for number, host in enumerate(hosts)]
    _write(folder, "episodes", _episodes(urls, members, ids, sides), {"in": int(counts.sum()), "kept": int(counts.sum())})
    rows = _candidates(rng, urls, members, ids, candidates)
    reasons = dict(zip(*np.unique(rows["reason"].to_numpy(zero_copy_only=False), return_counts=True), strict=True))
    kept = int(reasons.pop("", 0))
    histogram = np.histogram(rows["similarity"].to_numpy(), 200, (-1, 1))[0]
    ledger = {"in": len(rows), "kept": kept, "dropped": {name: int(n) for name, n in reasons.items()}, "encoder": "builtin"}
    ledger |= {"histogram": {"low": -1.0, "high": 1.0, "counts": histogram.tolist()}, "band": {"low": LOW, "high": HIGH, "source": "made"}}
    _write(folder, "candidates", rows, ledger)
    _write_images(folder, ids, sides, bodies)
    _write(folder, "shards", SHARDS.empty_table(), {"in": kept, "kept": kept})
    for stage in ("scan", "embed", "pair", "shard"):
        _write(folder, f"drops/{stage}", DROPS.empty_table(), {})
    scan = {"input": [str(folder / "crawl")]}
    write_json(str(folder / "config.json"), {"scan": scan, "embed": {"encoder": "builtin"}, "run": {"output": str(folder)}})


def _some(rng: np.random.Generator, images: int, count: int) -> np.ndarray:
    found = np.unique(rng.integers(0, images, 2 * count + 6))
    return rng.permutation(found)[:count]


def _bodies(crawl: Path, count: int) -> Iterator[tuple[str, str, int]]:
    """Writes distinct JPEGs of 256 px and yields id, name and length of each."""
    crawl.mkdir(parents=True)
    rng = np.random.default_rng(1)
    photos = [Image.fromarray(_decoded(body)) for body in generated(0.3, 24)]
    for number in range(count):
        photo = photos[number % len(photos)]
        left, top = rng.integers(0, photo.width // 3), rng.integers(0, photo.height // 3)
        rgb = np.asarray(photo.crop((left, top, left + photo.width // 2, top + photo.height // 2)).resize((256, 256)))
        body = encode_jpeg(np.ascontiguousarray(np.roll(rgb, int(rng.integers(3)), 2) ^ np.uint8(number % 8 + 8 * (number % 3))), 85)
        (crawl / f"{number}.jpg").write_bytes(body)
        yield hashlib.sha256(body).hexdigest(), f"{number}.jpg", len(body)


def _decoded(body: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(body)).convert("RGB"))


def _episodes(urls: list[str], members: list[np.ndarray], ids: np.ndarray, sides: np.ndarray) -> pa.Table:
    flat = np.concatenate(members)
    names = pa.array(ids).take(pa.array(flat))
    columns = [names, names, pa.array(np.arange(len(flat)), pa.int32()), pa.array([f"photo {i} of a story" for i in flat])]
    columns += [pa.array(sides[flat], pa.int32()), pa.array(sides[flat] + 40, pa.int32())]
    kind = EPISODES.field("images").type
    struct = pa.StructArray.from_arrays(columns, fields=list(kind.value_type))
    offsets = np.append(0, np.cumsum([len(page) for page in members]))
    images = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), struct, type=kind)
    return pa.table([pa.array(urls), pa.array([text_key(url) for url in urls]), images], schema=EPISODES)


def _candidates(rng: np.random.Generator, urls: list[str], members: list[np.ndarray], ids: np.ndarray, count: int) -> pa.Table:
    """Pairs of images of a page; a pair that another page has already is on_another_page."""
    page = np.sort(rng.integers(0, len(urls), int(count * 2.5)))
    size = np.array([len(images) for images in members])
    starts, flat = np.append(0, np.cumsum(size)), np.concatenate(members)
    a, b = (flat[starts[page] + (rng.random(len(page)) * size[page]).astype(np.int64)] for _ in "ab")
    rows = np.unique(np.stack([page, np.minimum(a, b), np.maximum(a, b)], 1)[a != b], axis=0)
    rows = rows[np.sort(rng.permutation(len(rows))[:count])]
    seed = rows[:, 1].astype(np.uint64) * np.uint64(2654435761) + rows[:, 2].astype(np.uint64) * np.uint64(40503)
    spread = (seed % np.uint64(100_003)).astype(np.float64) / 100_003
    similarity = np.clip(0.5 + 0.3 * scipy.special.ndtri(0.0005 + 0.999 * spread), -1, 1).astype(np.float32)
    keys = np.array([text_key(url) for url in urls])
    order = np.lexsort((np.argsort(np.argsort(keys))[rows[:, 0]], rows[:, 2], rows[:, 1]))
    again = np.zeros(len(rows), bool)
    again[order[1:]] = (rows[order[1:], 1:] == rows[order[:-1], 1:]).all(1)
    reason = in_band(similarity, LOW, HIGH)
    reason = np.where((reason == "") & again, "on_another_page", reason)
    page, a, b = (pa.array(rows[:, column]) for column in range(3))
    names = [pa.array(ids).take(a), pa.array(ids).take(b)]  # ids are sorted
    columns = [pa.array(urls).take(page), pa.array(keys).take(page), *names, *names, pa.array(similarity), pa.array(reason)]
    return pa.table(columns, schema=CANDIDATES)


def _write_images(folder: Path, ids: np.ndarray, sides: np.ndarray, bodies: list[tuple[str, str, int]]) -> None:
    source = pa.array([name for _, name, _ in bodies])
    length = pa.array([length for _, _, length in bodies], pa.int64())
    found = {"image_id": pa.array(ids), "source": source, "offset": pa.array([0] * len(ids), pa.int64()), "length": length}
    found |= {"width": pa.array(sides, pa.int32()), "height": pa.array(sides + 40, pa.int32())}
    _write(folder, "units", pa.table({name: found[name] for name in UNITS.names}, schema=UNITS), {})
    text = pa.array([""] * len(ids))
    found |= {"image_url": pa.array([f"https://host.example/{name}.jpg" for name in ids]), "url_key": found["image_id"], "reason": text}
    columns = [found.get(field.name, pa.nulls(len(ids), field.type)) for field in IMAGES]
    columns[IMAGES.get_field_index("format")] = pa.array(["jpeg"] * len(ids))
    counters = {"in": len(ids), "kept": len(ids)}
    _write(folder, "images", pa.table(columns, schema=IMAGES), counters)
    _write(folder, "embeddings/builtin", _vectors(ids), counters)


def _vectors(ids: np.ndarray) -> pa.Table:
    """A stand-in for vectors, which the report does not read."""
    return pa.table({"image_id": pa.array(ids)})


def _write(folder: Path, name: str, table: pa.Table, counters: dict[str, Any]) -> None:
    """Writes a dataset; rows of a pair stay in one file."""
    parts = max(1, table.num_rows // 125_000)
    owner = np.zeros(table.num_rows, np.int64)
    if parts > 1 and "a_id" in table.column_names:
        owner = np.array([int(name[:4], 16) % parts for name in table["a_id"].to_pylist()])
    elif parts > 1:
        owner = np.arange(table.num_rows) * parts // table.num_rows
    files = [write_parquet(str(folder / name / f"part-{i:05d}.parquet"), table.filter(pa.array(owner == i))) for i in range(parts)]
    counters = {"dropped": {}, "errors": 0, **counters} if counters else {}
    write_manifest(str(folder / name), Manifest(dataset=name, digest="0" * 64, files=tuple(files), counters=counters))


def build(folder: str) -> None:
    """Builds the report and prints what that took."""
    with measured():
        write_report(folder, locate=lambda source: str(Path(folder, "crawl", source)), pipeline_options=pipeline_options((), 1))


def drag(page: Path, repeats: int) -> tuple[list[float], list[float], list[float]]:
    """Returns seconds from opening to ready, from opening to the first number after a drag, and of one more move of the mouse."""
    browser = find_chromium()
    ready, first, move = [], [], []
    for _ in range(repeats if browser else 0):
        with tempfile.TemporaryDirectory() as profile, start_chromium(str(browser), Path(profile)) as tab:
            started = time.perf_counter()
            tab.open(page)
            ready.append(time.perf_counter() - started)
            box = tab.box("#low")
            low, high = (int(tab.run(f"document.getElementById('low').{name}")) for name in ("min", "max"))
            value = int(tab.run("document.getElementById('low').value"))
            x, y = box["x"] + 12 + (box["width"] - 24) * (value - low) / (high - low), box["y"] + 130
            before = tab.text("#pairs-value")
            tab.mouse("mouseMoved", x, y)
            tab.mouse("mousePressed", x, y, held=True)
            tab.mouse("mouseMoved", x + 60, y, held=True)
            tab.wait(f"document.querySelector('#pairs-value').innerText !== {json.dumps(before)}")
            first.append(time.perf_counter() - started)
            again = time.perf_counter()
            tab.mouse("mouseMoved", x + 90, y, held=True)
            tab.text("#pairs-value")
            move.append(time.perf_counter() - again)
            tab.mouse("mouseReleased", x + 90, y)
    return ready, first, move


def report(candidates: int, repeats: int) -> None:
    """Prints one line."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "run")
        make_run(folder, candidates)
        runs = in_turn(__file__, ("build",), [str(folder)], repeats)["build"]
        page = folder / "report" / "report.html"
        ready, first, move = drag(page, repeats)
        size = page.stat().st_size / 1e6
    walls, peak = [run.wall_s for run in runs], max(run.peak_mib for run in runs)
    line = f"{candidates:10,}  {_spread(walls, 's')}  {peak:8.0f}  {size:7.2f}"
    print(f"{line}  {_spread(ready, 's')}  {_spread(first, 's')}  {_spread([1000 * s for s in move], 'ms')}", flush=True)


def _spread(values: list[float], unit: str) -> str:
    text = f"{statistics.median(values):.3g} ({min(values):.3g}-{max(values):.3g}) {unit}" if values else "no browser"
    return f"{text:22}"


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--candidates", type=int, nargs="+", default=[1_000, 100_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        build(args.folder)
        return
    print(conditions(args.repeats))
    print(f"candidates  {'build':24}peak MiB  page MB  " + "".join(f"{name:24}" for name in ("ready", "first drag", "a move")))
    for candidates in args.candidates:
        report(candidates, args.repeats)


if __name__ == "__main__":
    main()
