"""Peak RSS of a whole local run at several sizes of a crawl of small JPEGs: how memory grows with the number of images.

python benchmarks/memory.py --images 10000 50000 200000
"""

import argparse
import io
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from inputs import write_crawl
from PIL import Image
from processes import conditions
from run import run_once

SIDE_PX = 96
FLAGS = ["--encoder", "builtin", "--min-side-px", "64", "--size", "64", "--min-texture", "0"]


def small_jpegs(count: int) -> Iterator[bytes]:
    """Yields JPEGs of 3 kB that differ in every part."""
    for seed in range(count):
        coarse = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(coarse).resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC).save(buffer, "jpeg", quality=85)
        yield buffer.getvalue()


def main() -> None:
    """Prints a row a size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 50_000, 200_000])
    args = parser.parse_args()
    print(conditions(1))
    print("images   pairs    seconds  images/s  peak RSS of all processes, GiB", flush=True)
    for images in args.images:
        with tempfile.TemporaryDirectory() as folder:
            crawl = Path(folder, "crawl.warc.gz")
            write_crawl(crawl, small_jpegs(images), images)
            started = time.perf_counter()
            found = run_once(["--input", str(crawl), *FLAGS])
            seconds = time.perf_counter() - started
        print(f"{images:<9}{found.pairs:<9}{seconds:<9.0f}{images / seconds:<10.0f}{found.peak_gib:.2f}", flush=True)


if __name__ == "__main__":
    main()
