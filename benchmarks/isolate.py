"""What `--isolate` costs an image: decoding in a child process against decoding in the thread that asks for it.

    python benchmarks/isolate.py                                   # generated JPEGs of 0.1 and 1.6 megapixels
    python benchmarks/isolate.py ../shared/data/howtocook.warc.gz  # the JPEGs of a real crawl instead

`look` is what scan does with an image, `pixels` what embed and shard do; both are called from one thread, so that only one process works
at a time. Each measurement runs in a process of its own, in turn with the others; a child's start is not counted with the images.
"""

import argparse
import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from fastwarc.warc import ArchiveIterator, WarcRecordType
from inputs import jpeg_crawl, photo_crawl
from processes import Measured, conditions, in_turn, median, pin, ratio, resident_mib

from pagepairs.config import ScanConfig
from pipeline.isolate import end_children, isolated
from pipeline.look import look, pixels

FUNCTIONS = {"look": look, "pixels": pixels}
SIDES = [f"{name}{apart}" for name in FUNCTIONS for apart in ("", ", isolated")]


def run_side(side: str, path: str) -> None:
    """Measures one function over the JPEGs of a crawl."""
    pin(1)
    name, _, apart = side.partition(", ")
    function, config = FUNCTIONS[name], ScanConfig(isolate=bool(apart))
    with open(path, "rb") as file:
        bodies = [record.reader.read() for record in ArchiveIterator(file, record_types=WarcRecordType.response)]
    bodies = [body for body in bodies if body.startswith(b"\xff\xd8\xff")]
    function(bodies[0], config)
    started, started_cpu = time.perf_counter(), _cpu_s(config)
    for body in bodies:
        function(body, config)
    wall_s, cpu_s = time.perf_counter() - started, _cpu_s(config) - started_cpu
    print(json.dumps(asdict(Measured(wall_s=wall_s, cpu_s=cpu_s, before_mib=0, peak_mib=resident_mib("VmHWM")))))


def _cpu_s(config: ScanConfig) -> float:
    """Returns the processor time of this process and of its child."""
    return time.process_time() + (isolated(time.process_time, timeout_s=9.0) if config.isolate else 0)


def child_start_s() -> float:
    """Returns the time until a first child has answered, less that of a second call."""
    times = []
    for _ in range(2):
        started = time.perf_counter()
        try:
            look(b"no image", ScanConfig(isolate=True))
        except ValueError:
            times.append(time.perf_counter() - started)
    end_children()
    return times[0] - times[1]


def report(title: str, path: Path, images: int, repeats: int) -> None:
    """Prints one line a function."""
    runs = in_turn(__file__, SIDES, [str(path)], repeats)
    for name in FUNCTIONS:
        here, apart = runs[name], runs[f"{name}, isolated"]
        rates = "".join(f"{images / median(side, 'cpu_s'):9.0f}" for side in (here, apart))
        more = "".join(f"{(median(apart, of) - median(here, of)) / images * 1000:9.2f}" for of in ("cpu_s", "wall_s"))
        print(f"{title:28}{name:8}{rates}{more}  {ratio(here, apart, 'cpu_s'):20}{ratio(here, apart, 'wall_s')}", flush=True)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("warc", nargs="?", help="a crawl to measure instead of the generated ones")
    parser.add_argument("--images", type=int, default=200, help="images of a generated crawl")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--side", help="measures one side and prints it as JSON")
    args = parser.parse_args()
    if args.side:
        run_side(args.side, args.warc)
        return
    print(f"{conditions(args.repeats)}; a child starts in {child_start_s():.2f} s")
    print(f"{'':36}images/s of a core  ms more an image")
    print(f"{'':36}   here    apart      CPU     wall  apart / here, CPU   apart / here, wall")
    with tempfile.TemporaryDirectory() as folder:
        crawl = Path(folder, "crawl.warc.gz")
        if args.warc:
            report(Path(args.warc).name, crawl, jpeg_crawl(crawl, args.warc), args.repeats)
            return
        for megapixels in (0.1, 1.6):
            photo_crawl(crawl, images=args.images, megapixels=megapixels)
            report(f"{megapixels} megapixels", crawl, args.images, args.repeats)


if __name__ == "__main__":
    main()
