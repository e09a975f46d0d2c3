r"""The whole job, `pagepairs run`: images a second, the share of each stage, and the peak RSS of all its processes.

    python benchmarks/run.py
    python benchmarks/run.py --input ../shared/data/howtocook.warc.gz \
        --encoder tflite:../shared/data/encoder_mobilenet/tf2_mobilenet_v2_1.0_224_ptq.tflite --low 0.3 --high 0.9

Without flags it takes howtocook and its network where they lie in ../shared/data, else the crawl of examples/make_crawl.py. Memory that
processes share counts once for each of them, so the peak is an upper bound.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from processes import conditions

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
INTERVAL_S = 0.05
STAGES = ("scan", "embed", "pair", "shard", "report")


@dataclass(frozen=True, kw_only=True)
class Finished:
    """One whole run."""

    wall_s: float
    stages_s: dict[str, float]
    images: int
    pairs: int
    peak_gib: float


def default_flags(folder: Path) -> list[str]:
    """Returns the flags for the real crawl and a real network where both are there, else for a crawl made in `folder`."""
    crawl, networks = DATA / "howtocook.warc.gz", sorted((DATA / "encoder_mobilenet").glob("*.tflite"))
    if crawl.exists() and networks:
        return ["--input", str(crawl), "--encoder", f"tflite:{networks[0]}", "--low", "0.3", "--high", "0.9"]
    subprocess.run([sys.executable, ROOT / "examples" / "make_crawl.py", "--output", folder, "--pages", "60"], check=True)
    return ["--input", str(folder / "crawl.warc.gz"), "--encoder", "builtin"]


def run_once(flags: list[str]) -> Finished:
    """Runs everything into a fresh folder."""
    with tempfile.TemporaryDirectory() as folder:
        output, log = Path(folder, "out"), Path(folder, "log")
        started = time.perf_counter()
        with log.open("wb") as errors:
            process = psutil.Popen([sys.executable, "-m", "pagepairs.cli", "run", "--output", str(output), *flags], stderr=errors)
        peak_gib = 0.0
        while process.poll() is None:
            peak_gib = max(peak_gib, _resident_gib(process))
            time.sleep(INTERVAL_S)
        wall_s = time.perf_counter() - started
        if process.returncode:
            raise SystemExit(f"pagepairs run {' '.join(flags)} ended with {process.returncode}:\n{log.read_text(encoding='utf-8')}")
        stages = json.loads((output / "run.json").read_text(encoding="utf-8"))["stages"]
        pairs = json.loads((output / "shards" / "manifest.json").read_text(encoding="utf-8"))["counters"]["kept"]
    stages_s = {stage: float(stages[stage]["seconds"]) for stage in STAGES}
    return Finished(wall_s=wall_s, stages_s=stages_s, images=stages["scan"]["records"], pairs=pairs, peak_gib=peak_gib)


def _resident_gib(process: psutil.Process) -> float:
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):  # it ends while we look
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += one.memory_info().rss
    return total / 2**30


def main() -> None:
    """Prints a table of medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog="Other flags are those of `pagepairs run`."
    )
    parser.add_argument("--repeats", type=int, default=5)
    args, flags = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        flags = flags or default_flags(Path(folder))
        print(conditions(args.repeats))
        print(f"pagepairs run {' '.join(flags)}", flush=True)
        runs = [run_once(flags) for _ in range(args.repeats)]
    walls = [run.wall_s for run in runs]
    start_s = statistics.median(run.wall_s - sum(run.stages_s.values()) for run in runs)
    wall_s = statistics.median(walls)
    images = runs[0].images
    print(f"{images} images, {runs[0].pairs} pairs, {wall_s:.1f} s ({min(walls):.1f}-{max(walls):.1f}), {images / wall_s:.1f} images/s")
    for stage in STAGES:
        seconds = statistics.median(run.stages_s[stage] for run in runs)
        print(f"  {stage:<8}{seconds:6.1f} s {seconds / wall_s:5.0%} {images / seconds:8.1f} images/s")
    print(f"  start   {start_s:6.1f} s {start_s / wall_s:5.0%}")
    print(f"peak RSS of all processes {max(run.peak_gib for run in runs):.2f} GiB")


if __name__ == "__main__":
    main()
