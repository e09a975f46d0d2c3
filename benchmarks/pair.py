"""Stage pair against DuckDB doing the same join on the same Parquet files: time, peak RSS and growth.

    python benchmarks/pair.py --images 100000 300000 1000000

Each measurement runs in a process of its own. Both sides join links to images by URL, images to 768-wide vectors by id, group by page,
compute the cosine of all 28 pairs of the 8 images of a page and write those in the band; DuckDB gets the threads of the machine, as we do.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np
import pyarrow as pa
from processes import resident_mib

from pagepairs.config import PairConfig
from pagepairs.files import write_parquet
from pagepairs.keys import text_key
from pagepairs.manifest import Manifest, read_manifest, write_manifest
from pagepairs.records import ALIASES, DROPS, IMAGES, LINKS, PAGES, embeddings_schema

WIDTH, PER_PAGE, PER_FILE, PER_UNIT = 768, 8, 20_000, 1_000
LOW, HIGH = 0.3, 0.9


def make_datasets(folder: str, images: int) -> None:
    """Writes images/, links/, aliases/, drops/scan/ and embeddings/synthetic/ for `images` images, 8 a page."""
    files: dict[str, list] = {name: [] for name in ("images", "pages", "links", "aliases", "drops/scan", "embeddings/synthetic")}
    for start in range(0, images, PER_FILE):
        count = min(PER_FILE, images - start)
        rng = np.random.default_rng(start)
        ids = [bytes(row).hex() for row in rng.integers(0, 256, (count, 32), dtype=np.uint8)]
        number = np.arange(start, start + count)
        page = number // PER_PAGE
        urls = [f"https://images{n % 97}.example.org/photo/{n:09d}.jpg" for n in number]
        keys = [text_key(url) for url in urls]
        name = f"{start:09d}.parquet"
        columns = {
            "image_id": ids,
            "image_url": urls,
            "url_key": keys,
            "source": ["crawl.warc.gz"] * count,
            "offset": number * 30_000,
            "length": np.full(count, 30_000),
            "bytes": np.full(count, 30_000),
            "width": np.full(count, 640),
            "height": np.full(count, 480),
            "format": ["jpeg"] * count,
            "phash": rng.integers(0, 2**64, count, dtype=np.uint64),
            "pdq": [b"\0" * 32] * count,
            "texture": np.full(count, 100),
            "time": np.zeros(count, np.int64),
            "digest_key": [""] * count,
            "reason": [""] * count,
        }
        files["images"].append(_write(folder, "images", name, columns, IMAGES))
        columns = {
            "page_url": [f"https://site{p % 997}.example.com/article/{p}.html" for p in page],
            "capture": page,
            "page_time": np.zeros(count, np.int64),
            "image_url": urls,
            "url_key": keys,
            "position": number % PER_PAGE,
            "alt": [""] * count,
            "via": ["img"] * count,
            "reason": [""] * count,
        }
        files["links"].append(_write(folder, "links", name, columns, LINKS))
        theme = np.repeat(rng.standard_normal((-(-count // PER_PAGE), WIDTH), np.float32), PER_PAGE, axis=0)[:count]
        vectors = theme + rng.uniform(0.3, 2.0, (count, 1)).astype(np.float32) * rng.standard_normal((count, WIDTH), np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        embedding = pa.FixedSizeListArray.from_arrays(pa.array(vectors.astype(np.float16).ravel()), WIDTH)
        for unit in range(0, count, PER_UNIT):
            columns = {"image_id": pa.array(ids[unit : unit + PER_UNIT]), "embedding": embedding[unit : unit + PER_UNIT]}
            unit_name = f"{start + unit:09d}.parquet"
            files["embeddings/synthetic"].append(_write(folder, "embeddings/synthetic", unit_name, columns, embeddings_schema(WIDTH)))
    files["pages"].append(_write(folder, "pages", "0.parquet", {name: [] for name in PAGES.names}, PAGES))
    files["aliases"].append(_write(folder, "aliases", "0.parquet", {name: [] for name in ALIASES.names}, ALIASES))
    files["drops/scan"].append(_write(folder, "drops/scan", "0.parquet", {name: [] for name in DROPS.names}, DROPS))
    for dataset, infos in files.items():
        write_manifest(os.path.join(folder, dataset), Manifest(dataset=dataset, digest="", files=tuple(infos), counters={}))


def _write(folder: str, dataset: str, name: str, columns: dict, schema: pa.Schema):
    table = pa.table({f.name: c if isinstance(c := columns[f.name], pa.Array) else pa.array(c, f.type) for f in schema}, schema=schema)
    return write_parquet(os.path.join(folder, dataset, name), table, compression="none" if dataset.startswith("embeddings") else "zstd")


def run_ours(folder: str) -> int:
    """Runs the stage's shuffles and returns the number of kept pairs."""
    from pipeline.journal import merge_outcomes, part_name
    from pipeline.pair import pair_up, parts_for
    from pipeline.pair_job import PairJob
    from pipeline.progress import Meter
    from pipeline.runners import pipeline_options

    parts = parts_for(read_manifest(os.path.join(folder, "images")), read_manifest(os.path.join(folder, "links")))
    config = PairConfig(pairs_per_episode=28)
    job = PairJob(
        output=folder,
        work=os.path.join(folder, "work"),
        config=config,
        encoder_folder="synthetic",
        low=LOW,
        high=HIGH,
        size_px=256,
        parts=parts,
        meter=Meter(""),
    )
    started = time.perf_counter()
    journals = pair_up(job, pipeline_options([], 1))
    outcome = merge_outcomes(journals["pairs"].read(part_name(part, parts)) for part in range(parts))
    return _report(started, outcome.counters["kept"])


def run_duckdb(folder: str) -> int:
    """Runs the same join in DuckDB and writes the kept pairs as Parquet."""
    import duckdb

    query = f"""
        COPY (WITH members AS (
            SELECT l.page_url, i.image_id, i.image_url, i.source, i."offset", i.length, e.embedding::FLOAT[{WIDTH}] AS v
            FROM read_parquet('{folder}/links/*.parquet') l
            JOIN read_parquet('{folder}/images/*.parquet') i USING (url_key)
            JOIN read_parquet('{folder}/embeddings/synthetic/*.parquet') e USING (image_id)),
        candidates AS (
            SELECT a.page_url, a.image_id AS a_id, b.image_id AS b_id, a.image_url AS a_url, b.image_url AS b_url,
                   a.source AS a_source, a."offset" AS a_offset, a.length AS a_length,
                   b.source AS b_source, b."offset" AS b_offset, b.length AS b_length,
                   array_inner_product(a.v, b.v) AS similarity
            FROM members a JOIN members b ON a.page_url = b.page_url AND a.image_id < b.image_id)
        SELECT * FROM candidates WHERE similarity BETWEEN {LOW} AND {HIGH}) TO '{folder}/duckdb.parquet' (FORMAT parquet)"""
    started = time.perf_counter()
    with duckdb.connect(config={"temp_directory": f"{folder}/duckdb.tmp"}) as connection:
        connection.execute(query)
        kept = connection.execute(f"SELECT count(*) FROM read_parquet('{folder}/duckdb.parquet')").fetchone()[0]
    return _report(started, kept)


def _report(started: float, kept: int) -> int:
    seconds = time.perf_counter() - started
    peak = resident_mib("VmHWM") / 1024
    print(json.dumps({"seconds": seconds, "peak_rss_gib": peak, "kept": kept}))
    return kept


def _measure(side: str, folder: str) -> dict:
    shutil.rmtree(os.path.join(folder, "work"), ignore_errors=True)
    command = [sys.executable, __file__, "--side", side, "--folder", folder]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def main() -> None:
    """Prints a table of medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[100_000, 300_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--side", choices=["ours", "duckdb"])
    parser.add_argument("--folder")
    args = parser.parse_args()
    if args.side:
        (run_ours if args.side == "ours" else run_duckdb)(args.folder)
        return
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"{machine}; medians of {args.repeats}, in turn")
    print("   images    ours s  duckdb s  ratio (duckdb/ours)  ours GiB  duckdb GiB      kept")
    for images in args.images:
        with tempfile.TemporaryDirectory() as folder:
            make_datasets(folder, images)
            runs = [(_measure("ours", folder), _measure("duckdb", folder)) for _ in range(args.repeats)]
            ours, duck = ([run[side] for run in runs] for side in (0, 1))
            ratio = np.median([b["seconds"] / a["seconds"] for a, b in runs])
            medians = [np.median([run["seconds"] for run in side]) for side in (ours, duck)]
            peaks = [max(run["peak_rss_gib"] for run in side) for side in (ours, duck)]
            times = f"{images:9,} {medians[0]:9.1f} {medians[1]:9.1f} {ratio:20.2f}"
            print(f"{times} {peaks[0]:9.2f} {peaks[1]:11.2f} {ours[0]['kept']:9,} / {duck[0]['kept']:,}", flush=True)


if __name__ == "__main__":
    main()
