"""Stage shard against a bare loop of the same library calls on one core, with one thread and two, and its peak RSS.

    python benchmarks/shard.py

Both read the images of the same pairs by reference, decode, resize, crop, encode and write the same Parquet shard; the bare loop checks
no sha256, no limits and no errors. Each measurement runs in a process of its own, in turn with the others; one thread is confined to one
core, because reading has a thread besides.
"""

import argparse
import hashlib
import io
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg
from fastwarc.warc import ArchiveIterator
from inputs import PER_PAGE, photo_crawl
from PIL import Image
from processes import conditions, in_turn, measured, median, pin, ratio

from pagepairs.config import ScanConfig, ShardConfig
from pagepairs.keys import pair_id
from pagepairs.records import PAIRS, SHARDS, embeddings_schema
from pagepairs.shards import shard_name, write_shard
from pipeline.progress import Meter
from pipeline.shard import EncodedImages, ShardJob, fill_batches, make_images, references_of
from pipeline.sources import ImageRecord, find_units, read_unit

SIDES = ("bare", "1 thread", "2 threads")
SIZE_PX, QUALITY = 256, 95


def pairs_of(crawl: str) -> pa.Table:
    """Returns neighbours on a page as pairs: each image once as condition and once as target."""
    images = [record for record in read_unit(find_units((crawl,))[0]) if isinstance(record, ImageRecord)]
    pages = [images[start : start + PER_PAGE] for start in range(0, len(images), PER_PAGE)]
    rows = [_pair(a, b) for page in pages for a, b in zip(page, page[1:] + page[:1], strict=True)]
    return pa.Table.from_pylist(rows, schema=PAIRS).sort_by("pair_id")


def _pair(condition: ImageRecord, target: ImageRecord) -> dict[str, object]:
    row: dict[str, object] = {"page_url": "https://www.example.org/", "page_count": 1, "similarity": 0.5}
    ids = [hashlib.sha256(image.body).hexdigest() for image in (condition, target)]
    for side, image, image_id in zip(("condition", "target"), (condition, target), ids, strict=True):
        row |= {f"{side}_id": image_id, f"{side}_url": image.url}
        row |= {f"{side}_source": image.source, f"{side}_offset": image.offset, f"{side}_length": image.length}
    return row | {"pair_id": pair_id(*ids)}


def run_bare(pairs: pa.Table, crawl: str, output: str) -> None:
    """Writes the shard with the libraries alone."""
    made: dict[str, bytes] = {}
    with open(crawl, "rb") as file:
        for image_id, _, offset, length in references_of(pairs):
            file.seek(offset)
            record = next(iter(ArchiveIterator(io.BytesIO(file.read(length)))))
            rgb = simplejpeg.decode_jpeg(record.reader.read(), "RGB")
            scale = SIZE_PX / min(rgb.shape[:2])
            size = (round(rgb.shape[1] * scale), round(rgb.shape[0] * scale))
            image = Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
            left, top = (size[0] - SIZE_PX) // 2, (size[1] - SIZE_PX) // 2
            square = np.array(image.crop((left, top, left + SIZE_PX, top + SIZE_PX)))
            made[image_id] = simplejpeg.encode_jpeg(square, quality=QUALITY, colorspace="RGB", colorsubsampling="444")
    shard = _with_images(pairs, made)
    pq.write_table(shard, os.path.join(output, "shard.parquet"), row_group_size=256, compression="none", use_dictionary=False)


def run_ours(pairs: pa.Table, crawl: str, output: str, threads: int) -> None:
    """Writes the shard as the stage does."""
    job = ShardJob(
        folder=output,
        work=output,
        scan=ScanConfig(),
        shard=ShardConfig(size=SIZE_PX, quality=QUALITY),
        shards=1,
        parts=1,
        threads=threads,
        vectors=None,
        locate=lambda source: crawl,
        meter=Meter(""),
    )
    with EncodedImages(output) as images:
        for image_id, image in make_images(references_of(pairs), job):
            images.add(image_id, image)
        batches = fill_batches(pairs, images, SHARDS, embeddings_schema(0).empty_table())
        write_shard(os.path.join(output, shard_name(0, 1, "parquet")), SHARDS, batches)


def _with_images(pairs: pa.Table, made: Mapping[str, object]) -> pa.Table:
    for side in ("condition", "target"):
        images = [made[image_id] for image_id in pairs[f"{side}_id"].to_pylist()]
        pairs = pairs.append_column(f"{side}_image", pa.array(images, pa.binary()))
    return pairs.select(SHARDS.names)


def run_side(side: str, crawl: str) -> None:
    pairs = pairs_of(crawl)
    threads = 2 if side == "2 threads" else 1
    pin(threads)
    with tempfile.TemporaryDirectory() as output, measured():
        if side == "bare":
            run_bare(pairs, crawl, output)
        else:
            run_ours(pairs, crawl, output, threads)


def report(megapixels: float, images: int, repeats: int) -> None:
    """Prints one line."""
    with tempfile.TemporaryDirectory() as folder:
        crawl = Path(folder, "crawl.warc.gz")
        photo_crawl(crawl, images=images, megapixels=megapixels)
        runs = in_turn(__file__, SIDES, [str(crawl)], repeats)
    bare, one, two = (runs[side] for side in SIDES)
    rates = "".join(f"{images / median(side, 'cpu_s'):9.0f}" for side in (bare, one))
    ratios = "".join(f"{text:20}" for text in (ratio(bare, one, "cpu_s"), ratio(bare, one, "wall_s"), ratio(one, two, "wall_s")))
    peak, growth = max(run.peak_mib for run in one), max(run.peak_mib - run.before_mib for run in one)
    print(f"{megapixels:10}{images:8}{rates}  {ratios}{peak:9.0f}{growth:10.0f}", flush=True)


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("crawl", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--images", type=int, default=400, help="images, and pairs of them")
    parser.add_argument("--megapixels", type=float, nargs="+", default=[0.3, 1.6])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--side", help="measures one side and prints it as JSON")
    args = parser.parse_args()
    if args.side:
        run_side(args.side, args.crawl)
        return
    print(conditions(args.repeats))
    columns = "".join(f"{name:20}" for name in ("shard / bare, CPU", "shard / bare, wall", "2 threads / 1"))
    print(f"megapixels   pairs   bare/s  shard/s  {columns} peak MiB  of shard")
    for megapixels in args.megapixels:
        report(megapixels, args.images, args.repeats)


if __name__ == "__main__":
    main()
