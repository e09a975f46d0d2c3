"""Stage scan against a bare loop of the same library calls on one core, its growth with threads and workers, and its peak RSS.

    python benchmarks/scan.py                                   # generated JPEGs of 1, 1.6 and 2 megapixels
    python benchmarks/scan.py ../shared/data/howtocook.warc.gz  # the JPEGs of a real crawl instead

The bare loop reads the same WARC with fastwarc and calls the same decoder, resize, hashes and sha256 on each image; it keeps nothing and
writes nothing. Each measurement runs in a process of its own, in turn with the others. One thread is confined to one core, because
reading the archive has a thread besides. "bare x 2" is two bare loops at once, one a core: what this machine gives two of anything.
"""

import argparse
import logging
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from decode import bare as bare_look
from fastwarc.warc import ArchiveIterator, WarcRecordType
from inputs import jpeg_crawl, photo_crawl
from processes import conditions, in_turn, measured, median, pin, ratio

from pagepairs.config import ScanConfig
from pipeline.jobs import run_tasks
from pipeline.journal import Journal
from pipeline.progress import Meter
from pipeline.runners import pipeline_options
from pipeline.scan import ScanTask, ScanUnits, task_name
from pipeline.sources import find_units

SIDES = ("bare", "bare x 2", "1 thread", "2 threads")


def bare_scan(path: str) -> int:
    """Returns how many JPEGs the archive holds, all looked at."""
    images = 0
    with open(path, "rb") as file:
        for record in ArchiveIterator(file, record_types=WarcRecordType.response):
            if record.http_content_type == "image/jpeg":
                bare_look(record.reader.read())
                images += 1
    return images


def run_bare(path: str, processes: int) -> None:
    """Runs the bare loop, or several of them at once, each on a core of its own."""
    if processes == 1:
        pin(1)
        bare_scan(path)
        with measured():
            bare_scan(path)
        return
    cores = sorted(os.sched_getaffinity(0))
    children = [multiprocessing.Process(target=_bare_on, args=(path, cores[number])) for number in range(processes)]
    with measured():
        for child in children:
            child.start()
        for child in children:
            child.join()


def _bare_on(path: str, core: int) -> None:
    os.sched_setaffinity(0, {core})
    bare_scan(path)


def run_threads(path: str, threads: int, *, warm: bool = True) -> None:
    """Runs the stage's unit function, with as many cores as threads; twice where `warm`, and measures the second time."""
    pin(threads)
    with tempfile.TemporaryDirectory() as output:
        scan = ScanUnits(config=ScanConfig(), output=output, threads=threads, meter=Meter(""))
        task = ScanTask(unit=find_units((path,))[0])
        if warm:
            scan(task)
        with measured():
            scan(task)


def run_workers(folder: str, workers: int) -> None:
    """Runs the stage's units through the local runner, with one thread a worker and as many cores as workers."""
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    pin(workers)
    with tempfile.TemporaryDirectory() as output:
        scan = ScanUnits(config=ScanConfig(), output=output, threads=1, meter=Meter(""))
        tasks = {task_name(task): task for task in (ScanTask(unit=unit) for unit in find_units((folder,)))}
        with measured():
            run_tasks("scan", tasks, scan, Journal(os.path.join(output, "done")), pipeline_options([], workers))


def run_side(side: str, path: str) -> None:
    sides: dict[str, tuple[Callable[[str, int], None], int]] = {
        "bare": (run_bare, 1),
        "bare x 2": (run_bare, 2),
        "1 thread": (run_threads, 1),
        "1 thread, cold": (partial(run_threads, warm=False), 1),
        "2 threads": (run_threads, 2),
        "1 worker": (run_workers, 1),
        "2 workers": (run_workers, 2),
    }
    run, number = sides[side]
    run(path, number)


def report_threads(title: str, path: Path, repeats: int) -> None:
    """Prints one line an input."""
    images = bare_scan(str(path))
    runs = in_turn(__file__, SIDES, [str(path)], repeats)
    bare, one, two = runs["bare"], runs["1 thread"], runs["2 threads"]
    doubled = [replace(run, wall_s=run.wall_s / 2) for run in runs["bare x 2"]]
    rates = "".join(f"{images / median(side, 'cpu_s'):9.0f}" for side in (bare, one))
    ratios = [ratio(bare, one, "cpu_s"), ratio(bare, one, "wall_s"), ratio(one, two, "wall_s"), ratio(bare, doubled, "wall_s")]
    print(f"{title:28}{images:6}{rates}  " + "".join(f"{text:20}" for text in ratios), flush=True)


def report_memory(small: Path, large: Path) -> None:
    for path in (small, large):
        (run,) = in_turn(__file__, ["1 thread, cold"], [str(path)], 1)["1 thread, cold"]
        print(f"{path.name}: peak RSS {run.peak_mib:.0f} MiB, {run.peak_mib - run.before_mib:.0f} of them for the scan")


def report_workers(units: int, crawl: Path, images: int, repeats: int) -> None:
    """Prints how two workers compare with one on copies of the crawl, with and without the start, which a crawl of one image shows."""
    with tempfile.TemporaryDirectory() as folder:
        full, start = Path(folder, "full"), Path(folder, "start")
        full.mkdir()
        start.mkdir()
        for number in range(units):
            shutil.copyfile(crawl, full / f"{number}.warc.gz")
        photo_crawl(start / "small.warc.gz", images=1, megapixels=0.1)
        runs, starts = (in_turn(__file__, ("1 worker", "2 workers"), [str(path)], repeats) for path in (full, start))
    whole = ratio(runs["1 worker"], runs["2 workers"], "wall_s")
    print(f"\n{units} units of {images} images, one thread a worker: 2 workers / 1 worker {whole}")
    walls = {side: median(runs[side], "wall_s") for side in runs}
    begins = {side: median(starts[side], "wall_s") for side in starts}
    print("".join(f"  {side}: {walls[side]:.1f} s, {begins[side]:.1f} of them to start\n" for side in runs), end="")
    work = [walls[side] - begins[side] for side in ("1 worker", "2 workers")]
    print(f"  without the start: {work[0] / work[1]:.2f}")


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("warc", nargs="?", help="a crawl to measure instead of the generated ones")
    parser.add_argument("--images", type=int, default=300, help="images of a generated crawl")
    parser.add_argument("--units", type=int, default=8, help="units that the workers share")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--side", help="measures one side and prints it as JSON")
    args = parser.parse_args()
    if args.side:
        run_side(args.side, args.warc)
        return
    print(conditions(args.repeats))
    columns = ("scan / bare, CPU", "scan / bare, wall", "2 threads / 1", "bare x 2 / bare")
    print(f"{'':28}images   bare/s   scan/s  " + "".join(f"{name:20}" for name in columns))
    with tempfile.TemporaryDirectory() as folder:
        if args.warc:
            crawl = Path(folder, "crawl.warc.gz")
            images = jpeg_crawl(crawl, args.warc)
            report_threads(f"{Path(args.warc).name}, {crawl.stat().st_size / images / 1000:.0f} kB", crawl, args.repeats)
            return
        for megapixels in (1.0, 1.6, 2.0):
            crawl = Path(folder, f"{megapixels}.warc.gz")
            photo_crawl(crawl, images=args.images, megapixels=megapixels)
            size = crawl.stat().st_size / args.images / 1000
            report_threads(f"{megapixels} megapixels, {size:.0f} kB", crawl, args.repeats)
        sizes = [Path(folder, f"{images} images of 0.1 megapixels.warc.gz") for images in (args.images, 10 * args.images)]
        for path, images in zip(sizes, (args.images, 10 * args.images), strict=True):
            photo_crawl(path, images=images, megapixels=0.1)
        report_memory(*sizes)
        report_workers(args.units, Path(folder, "1.6.warc.gz"), args.images, args.repeats)


if __name__ == "__main__":
    main()
