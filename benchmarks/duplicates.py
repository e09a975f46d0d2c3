"""Finding near copies: time, peak RSS and what is found of planted groups; the search against imagededup's own; growth.

    python benchmarks/duplicates.py --hashes 50000 1000000 10000000
    python benchmarks/duplicates.py --peer 10000

Each size runs in a process of its own, through the steps of stage pair (canonical, near, stars) on files as scan leaves them. Bits of the
hashes are 1 with probability 0.61, so that bands collide twice as often as those of uniform bits: as often as those of real photos did.
One image in twenty is a copy: 0 to 3 bits of the pHash and up to 24 of PDQ away from an image with more pixels.
"""

import argparse
import glob
import json
import logging
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from processes import resident_mib

from dedup.near import BANDS, near_in_buckets
from pagepairs.config import PairConfig
from pagepairs.files import read_arrow, write_parquet
from pagepairs.manifest import Manifest, write_manifest
from pagepairs.records import IMAGES

PER_FILE, COPY_EVERY, ONES = 20_000, 20, 0.61


def some_hashes(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns `count` pHashes, uint64, and PDQ hashes, uint8 of shape (count, 32); every twentieth is a near copy of the one before."""
    phash = np.packbits(rng.random((count, 64), np.float32) < ONES, axis=1).view(">u8").astype(np.uint64).ravel()
    pdq = rng.integers(0, 256, (count, 32), dtype=np.uint8)
    copies = np.arange(COPY_EVERY - 1, count, COPY_EVERY)
    phash[copies], pdq[copies] = phash[copies - 1], pdq[copies - 1]
    for turn in range(3):
        phash[copies] ^= (np.uint64(1) << rng.integers(0, 64, len(copies), dtype=np.uint64)) * (rng.integers(0, 4, len(copies)) > turn)
        pdq[copies, rng.integers(0, 32, len(copies))] ^= rng.integers(0, 256, len(copies), dtype=np.uint8)
    return phash, pdq


def make_images(folder: str, count: int) -> None:
    """Writes images/ with `count` images, each captured once; ids say their number."""
    infos = []
    for start in range(0, count, PER_FILE):
        size = min(PER_FILE, count - start)
        rng = np.random.default_rng(start)
        phash, pdq = some_hashes(rng, size)
        number = np.arange(start, start + size)
        is_copy = np.arange(size) % COPY_EVERY == COPY_EVERY - 1
        key = rng.bytes(12 * size).hex()
        ids = [f"{key[24 * i : 24 * i + 24]}{n:040x}" for i, n in enumerate(number)]
        same = {"image_url": "", "url_key": "0" * 32, "source": "a.warc.gz", "format": "jpeg", "digest_key": "", "reason": ""}
        numbers = {"offset": number * 30_000, "length": 30_000, "bytes": 30_000, "height": 480, "texture": 100, "time": 0}
        columns = {
            "image_id": ids,
            "phash": phash,
            "pdq": pa.array(list(map(bytes, pdq)), pa.binary(32)),
            "width": np.where(is_copy, 480, 640),
        }
        columns |= {name: [value] * size for name, value in same.items()}
        columns |= {name: np.broadcast_to(value, size) for name, value in numbers.items()}
        arrays = [c if isinstance(c := columns[field.name], pa.Array) else pa.array(c, field.type) for field in IMAGES]
        infos.append(write_parquet(os.path.join(folder, "images", f"{start:09d}.parquet"), pa.table(arrays, schema=IMAGES)))
    write_manifest(os.path.join(folder, "images"), Manifest(dataset="images", digest="", files=tuple(infos), counters={}))


def run_steps(folder: str) -> None:
    """Runs the steps, compares what they found with what was planted and prints it all as JSON."""
    from pipeline.jobs import count_parts, run_parts
    from pipeline.journal import Journal
    from pipeline.pair import write_matches
    from pipeline.pair_duplicates import find_stars
    from pipeline.pair_job import PairJob
    from pipeline.pair_references import Canonical, SpreadImages
    from pipeline.progress import Meter
    from pipeline.runners import pipeline_options

    logging.disable(logging.WARNING)
    rows = sum(pq.read_metadata(path).num_rows for path in glob.glob(os.path.join(folder, "images", "*.parquet")))
    work = os.path.join(folder, "work")
    facts = {"encoder_folder": "", "low": 0.3, "high": 0.9, "size_px": 256, "parts": count_parts(rows), "meter": Meter("")}
    job = PairJob(output=folder, work=work, config=PairConfig(), **facts)
    journals = {phase: Journal(os.path.join(work, "done", phase)) for phase in ("canonical", "near", "labels", "stars")}
    options = pipeline_options([], 1)
    write_matches(job, options)
    laps = [time.perf_counter()]
    run_parts("canonical", job.dataset("images", "image"), SpreadImages(job), Canonical(job), job.parts, journals["canonical"], options)
    laps.append(time.perf_counter())
    find_stars(job, journals, options)
    laps.append(time.perf_counter())
    usage = resource.getrusage(resource.RUSAGE_SELF)
    found = {"canonical_s": laps[1] - laps[0], "near_and_stars_s": laps[2] - laps[1], "cpu_s": usage.ru_utime + usage.ru_stime}
    print(json.dumps(found | {"peak_rss_gib": resident_mib("VmHWM") / 1024} | _compare(job)))


def _compare(job) -> dict[str, int]:
    """Counts the planted copies that were found, with the right image standing for them, and images that were mapped for no reason."""
    wrong = planted = right = 0
    for part in range(job.parts):
        captures, stars = read_arrow(job.path("canonical", part)), job.read_range("stars", part)
        for image, canonical in zip(captures["image_id"].to_pylist(), captures["canonical_id"].to_pylist(), strict=True):
            if image != canonical:
                right, wrong = (right + 1, wrong) if _is_copy_of(image, canonical) else (right, wrong + 1)
        planted += sum(int(image[24:], 16) % PER_FILE % COPY_EVERY == COPY_EVERY - 1 for image in captures["image_id"].to_pylist())
        for row in [] if stars is None else stars.to_pylist():
            right, wrong = (right + 1, wrong) if _is_copy_of(row["canonical_id"], row["stands_id"]) else (right, wrong + 1)
    return {"planted": planted, "found": right, "wrong": wrong}


def _is_copy_of(image: str, canonical: str) -> bool:
    number, other = int(image[24:], 16), int(canonical[24:], 16)
    return number == other + 1 and number % PER_FILE % COPY_EVERY == COPY_EVERY - 1


def measure_steps(count: int) -> None:
    """Prints a row for one size."""
    with tempfile.TemporaryDirectory() as folder:
        make_images(folder, count)
        done = subprocess.run([sys.executable, __file__, "--folder", folder], check=True, capture_output=True, text=True)
    r = json.loads(done.stdout.splitlines()[-1])
    times = f"{r['canonical_s']:11.1f} {r['near_and_stars_s']:13.1f} {r['cpu_s']:7.1f} {r['peak_rss_gib']:9.2f}"
    print(f"{count:11,} {times} {r['planted']:9,} {r['found']:9,} {r['wrong']:6,}", flush=True)


def measure_peer(count: int, repeats: int) -> None:
    """Searches the same hashes with near_in_buckets and with imagededup's default search, in turn, at its radius of 6 bits."""
    from imagededup.methods import PHash

    phash, pdq = some_hashes(np.random.default_rng(0), count)
    names = {f"{number}": f"{value:016x}" for number, value in enumerate(phash.tolist())}
    band = np.repeat(np.arange(BANDS, dtype=np.uint8), count)
    hasher = PHash(verbose=False)
    ratios = []
    for _ in range(repeats):
        started = _processor_s()
        left, _ = near_in_buckets(band, np.tile(phash, BANDS), np.tile(pdq, (BANDS, 1)))
        middle = _processor_s()
        duplicates = hasher.find_duplicates(encoding_map=names, max_distance_threshold=6, num_dist_workers=1)
        ours, theirs = middle - started, _processor_s() - middle
        ratios.append(theirs / ours)
        pairs = sum(map(len, duplicates.values())) // 2
        times = f"ours {ours:.3f} s ({len(left):,} pairs), imagededup {theirs:.1f} s ({pairs:,} pairs)"
        print(f"{count:,} hashes: {times}: {theirs / ours:.0f} times")
    print(f"median {np.median(ratios):.0f} (goal 50), processor time with that of child processes")


def _processor_s() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> None:
    """Prints a table of sizes, then the comparison with imagededup."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hashes", type=int, nargs="*", default=[50_000, 1_000_000, 10_000_000])
    parser.add_argument("--peer", type=int, default=10_000, help="hashes to search with imagededup too; 0 leaves it out")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.folder:
        run_steps(args.folder)
        return
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    if args.hashes:
        print("     images canonical s near, stars s   cpu s  peak GiB   planted     found  wrong")
    for count in args.hashes:
        measure_steps(count)
    if args.peer:
        measure_peer(args.peer, args.repeats)


if __name__ == "__main__":
    main()
