"""Keeping benchmark images out: queries a second and core, decision recall, memory of processes that share an index.

    python benchmarks/contamination.py                        # 100 000 and 1 000 000 vectors of 768 dimensions
    python benchmarks/contamination.py --vectors 100000 --repeats 5

Vectors are synthetic: items around themes, queries planted at cosines of 0.35 to 1 to an item. Everything runs on one core (one thread,
processor time); 1 000 000 vectors take 6 GB of disk and 4 GB of memory, and flat takes up to a minute of processor time a run there:
--repeats 1 will do. OPENBLAS_CORETYPE=SkylakeX doubles flat's speed where the processor has AVX-512, and kills the process where it has
not.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from processes import conditions, pin

WIDTH, THEMES, QUERIES, CUT = 768, 2_000, 2_048, 0.6
COMPARED, ENOUGH_S = 512, 15
"""Queries whose matches are looked for, and processor seconds after which no more are timed than these."""
CRAWL = 400_000_000
ENCODER_PER_S = 2.0
"""Images a second of a core that DINOv2 base embeds (benchmarks/embed.py, float32)."""
KINDS = ("flat", "pq", "ivf")


def make_vectors(folder: Path, count: int) -> None:
    """Writes vectors.npy and queries.npy, float16 of unit length."""
    rng = np.random.default_rng(0)
    themes = rng.standard_normal((THEMES, WIDTH), np.float32)
    vectors = np.lib.format.open_memmap(folder / "vectors.npy", mode="w+", dtype=np.float16, shape=(count, WIDTH))
    for start in range(0, count, 50_000):
        size = min(50_000, count - start)
        rows = 0.6 * themes[rng.integers(0, THEMES, size)] + rng.standard_normal((size, WIDTH), np.float32)
        vectors[start : start + size] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    base = vectors[np.sort(rng.integers(0, count, QUERIES))].astype(np.float32)
    noise = rng.standard_normal(base.shape, np.float32)
    noise -= (noise * base).sum(1, keepdims=True) * base
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    cosine = rng.uniform(0.35, 1.0, (QUERIES, 1)).astype(np.float32)
    np.save(folder / "queries.npy", (cosine * base + np.sqrt(1 - cosine**2) * noise).astype(np.float16))
    vectors.flush()


def build(folder: Path, kind: str) -> None:
    """Builds the index in place and prints its processor time."""
    from dedup.benchmark_vectors import build_index, choose_search

    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    search = choose_search(len(vectors), kind=kind, candidates=0, nprobe=0)
    started = time.process_time()
    build_index(vectors, search, str(folder / "vectors.faiss"))
    print(json.dumps({"build_s": time.process_time() - started, "bytes": (folder / "vectors.faiss").stat().st_size}))


def find_all(folder: Path) -> None:
    """Writes exact.npy: the similarity of each of the first queries to its nearest item, found without an index."""
    from dedup.benchmark_vectors import nearest_by_all

    queries = np.load(folder / "queries.npy")[:COMPARED]
    np.save(folder / "exact.npy", nearest_by_all(np.load(folder / "vectors.npy", mmap_mode="r"), queries)[1])
    print("{}")


def measure(folder: Path, kind: str, batch: int) -> None:
    """Prints queries a second of processor time and the share of matches at the cut that the search finds."""
    from dedup.benchmark_vectors import choose_search, nearest_items, open_vectors

    count = len(np.load(folder / "vectors.npy", mmap_mode="r"))
    opened = open_vectors(str(folder), choose_search(count, kind=kind, candidates=0, nprobe=0))
    queries = np.load(folder / "queries.npy")
    nearest_items(opened, queries[:batch])  # warm: pages mapped, buffers made
    started, found = time.process_time(), []
    for start in range(0, len(queries), batch):
        found.append(nearest_items(opened, queries[start : start + batch])[1])
        if start + batch >= COMPARED and time.process_time() - started > ENOUGH_S:
            break
    seconds, similarity = time.process_time() - started, np.concatenate(found)
    exact = np.load(folder / "exact.npy")
    matches = exact >= np.float32(CUT)
    recall = float((similarity[: len(exact)][matches] >= np.float32(CUT)).mean())
    print(json.dumps({"queries_per_s": len(similarity) / seconds, "recall": recall, "matches": int(matches.sum())}))


def hold(folder: Path, kind: str) -> None:
    """Searches once, says so, and holds the index until its input ends."""
    from dedup.benchmark_vectors import choose_search, nearest_items, open_vectors

    count = len(np.load(folder / "vectors.npy", mmap_mode="r"))
    before = _pss_mib()
    opened = open_vectors(str(folder), choose_search(count, kind=kind, candidates=0, nprobe=0))
    nearest_items(opened, np.load(folder / "queries.npy")[:256])
    print("ready", flush=True)
    for _ in sys.stdin:
        print(json.dumps({"before_mib": before, "pss_mib": _pss_mib()}), flush=True)


def _pss_mib() -> float:
    found = re.search(r"^Pss:\s+(\d+) kB", Path("/proc/self/smaps_rollup").read_text(encoding="ascii"), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def shared_memory(folder: Path, kind: str, processes: int) -> list[dict]:
    """Returns what each of several processes on one index holds, shared pages divided among them, after all of them searched."""
    running = [
        subprocess.Popen(_command("hold", folder, kind), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    for process in running:
        assert process.stdout.readline() == "ready\n"
    answers = []
    for process in running:
        process.stdin.write("now\n")
        process.stdin.flush()
        answers.append(json.loads(process.stdout.readline()))
    for process in running:
        process.stdin.close()
        process.wait()
    return answers


def _command(side: str, folder: Path, kind: str, batch: int = 512) -> list[str]:
    return [sys.executable, __file__, "--side", side, "--folder", str(folder), "--kind", kind, "--batch", str(batch)]


def _run(side: str, folder: Path, kind: str, batch: int = 512) -> dict:
    return json.loads(subprocess.run(_command(side, folder, kind, batch), check=True, stdout=subprocess.PIPE, text=True).stdout)


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--side", choices=["exact", "build", "measure", "hold"])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--kind", choices=KINDS)
    parser.add_argument("--batch", type=int, default=512)
    args = parser.parse_args()
    if args.side:
        os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
        pin(1)
        sides = {"exact": lambda folder, _: find_all(folder), "build": build, "hold": hold}
        sides.get(args.side, lambda folder, kind: measure(folder, kind, args.batch))(args.folder, args.kind)
        return
    print(conditions(args.repeats))
    print("  vectors  kind  build s      MB  batch  queries/s of a core  recall at 0.6  core-h for 400 M  PSS MiB of 1 process, of 2")
    for count in args.vectors:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_vectors(folder, count)
            _run("exact", folder, "flat")
            for kind in args.kinds:
                built = _run("build", folder, kind)
                for batch in (32, 512):
                    runs = [_run("measure", folder, kind, batch) for _ in range(args.repeats)]
                    rates = [run["queries_per_s"] for run in runs]
                    line = f"{count:9,}  {kind:<4}  {built['build_s']:7.1f}  {built['bytes'] / 1e6:6,.0f}  {batch:5}"
                    line += f"  {statistics.median(rates):8,.0f} ({min(rates):,.0f}-{max(rates):,.0f})"
                    line += f"  {runs[0]['recall']:13.4f}  {CRAWL / statistics.median(rates) / 3600:16,.0f}"
                    if batch == 512:
                        memory = [shared_memory(folder, kind, processes) for processes in (1, 2)]
                        one, two = ([f"{row['pss_mib'] - row['before_mib']:,.0f}" for row in rows] for rows in memory)
                        line += f"  {one[0]:>19}  {' and '.join(two):>17}"
                    print(line, flush=True)
    print(f"the encoder, {ENCODER_PER_S} images/s of a core: {CRAWL / ENCODER_PER_S / 3600:,.0f} core-h for 400 M")


if __name__ == "__main__":
    main()
