"""Shard formats against the formats' own writers and readers, on the same pairs, with one core.

    python benchmarks/formats.py

Writing: webdataset's ShardWriter, TensorFlow's TFRecordWriter (with tf.train.Example) and pyarrow's ParquetWriter get the same encoded
images; ours also takes the sha256 that the manifest holds, theirs does not; "theirs + sha256" takes it of the file that they wrote.
Reading: webdataset's WebDataset, tf.data's TFRecordDataset with parse_single_example and pyarrow read the same shard, as does our
read_shard(). All files lie in memory (/dev/shm, where there is one), because a disk's cache takes from 25 to 200 ms of processor time for
the same 125 MB, and none is written over another. Each measurement runs in a process of its own, in turn with the others; a pass before it
warms up what it measures.
"""

import argparse
import hashlib
import itertools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from processes import conditions, in_turn, measured, median, pin, ratio

from pagepairs.images import encode_jpeg
from pagepairs.keys import pair_id
from pagepairs.records import SHARDS
from pagepairs.shards import BATCH_ROWS, FORMATS, read_shard, shard_name, write_shard

SIZE_PX, QUALITY, IMAGES = 256, 95, 64
THEIRS = {"parquet": "pyarrow", "webdataset": "webdataset", "tfrecord": "tensorflow"}


def make_pairs(count: int) -> pa.Table:
    """Returns pairs of pictures by seed, of about the size that photos of 256 px have."""
    rng = np.random.Generator(np.random.Philox(key=7))
    smooth = rng.uniform(0, 255, (IMAGES, 16, 16, 3)).repeat(SIZE_PX // 16, 1).repeat(SIZE_PX // 16, 2)
    pictures = np.clip(smooth + rng.normal(0, 6, (IMAGES, SIZE_PX, SIZE_PX, 1)), 0, 255).astype(np.uint8)
    bodies = [encode_jpeg(picture, QUALITY) for picture in pictures]
    ids = [f"{i:064x}" for i in range(count + 1)]
    url = "https://www.example.org/a-folder/of-some-length/{}/picture.jpg"
    rows = [
        {
            "pair_id": pair_id(a, b),
            "page_url": url.format("page"),
            "condition_id": a,
            "target_id": b,
            "condition_url": url.format(i),
            "target_url": url.format(i + 1),
            "similarity": 0.1 + i / count / 2,
            "condition_image": bodies[i % IMAGES],
            "target_image": bodies[(i + 1) % IMAGES],
        }
        for i, (a, b) in enumerate(itertools.pairwise(ids))
    ]
    return pa.Table.from_pylist(rows, schema=SHARDS).sort_by("pair_id")


def batches_of(pairs: pa.Table) -> Iterator[pa.Table]:
    return (pairs.slice(start, BATCH_ROWS) for start in range(0, pairs.num_rows, BATCH_ROWS))


def write_ours(pairs: pa.Table, folder: str, form: str) -> None:
    write_shard(os.path.join(folder, shard_name(0, 1, form)), SHARDS, batches_of(pairs))


def write_parquet(pairs: pa.Table, folder: str) -> None:
    with pq.ParquetWriter(os.path.join(folder, "theirs.parquet"), SHARDS, compression="none", use_dictionary=False) as writer:
        for batch in batches_of(pairs):
            writer.write_table(batch)


def write_webdataset(pairs: pa.Table, folder: str) -> None:
    import webdataset

    with webdataset.ShardWriter(os.path.join(folder, "theirs-%05d.tar"), maxcount=10**9, maxsize=10**12, verbose=0) as writer:
        for batch in batches_of(pairs):
            for row in batch.to_pylist():
                images = {f"{side}.jpg": row.pop(f"{side}_image") for side in ("condition", "target")}
                writer.write({"__key__": row["pair_id"], **images, "json": row})


def write_tfrecord(pairs: pa.Table, folder: str) -> None:
    import tensorflow as tf

    with tf.io.TFRecordWriter(os.path.join(folder, "theirs.tfrecord")) as writer:
        for batch in batches_of(pairs):
            for row in batch.to_pylist():
                features = {"similarity": tf.train.Feature(float_list=tf.train.FloatList(value=[row.pop("similarity")]))}
                for name, value in row.items():
                    data = value.encode() if isinstance(value, str) else value
                    features[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[data]))
                writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())


def read_parquet(path: str) -> Iterator[Any]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=BATCH_ROWS):
            yield from batch.to_pylist()


def read_webdataset(path: str) -> Iterator[Any]:
    import webdataset

    yield from webdataset.WebDataset(path, shardshuffle=False).decode()


def read_tfrecord(path: str) -> Iterator[Any]:
    import tensorflow as tf

    columns = {name: tf.io.FixedLenFeature([], tf.float32 if name == "similarity" else tf.string) for name in SHARDS.names}
    records = tf.data.TFRecordDataset(path).map(lambda record: tf.io.parse_single_example(record, columns))
    yield from records.as_numpy_iterator()


WRITERS: Mapping[str, Callable[[pa.Table, str], None]] = {
    "parquet": write_parquet,
    "webdataset": write_webdataset,
    "tfrecord": write_tfrecord,
}
READERS: Mapping[str, Callable[[str], Iterator[Any]]] = {"parquet": read_parquet, "webdataset": read_webdataset, "tfrecord": read_tfrecord}


def run_side(side: str, folder: str, shards: int) -> None:
    """Measures `shards` passes over one shard; side is ours, theirs or hashed, write or read, and the format."""
    who, what, form = side.split()
    pin(1)
    pairs = pq.read_table(os.path.join(folder, shard_name(0, 1, "parquet")))
    path = os.path.join(folder, shard_name(0, 1, form))
    with tempfile.TemporaryDirectory(dir=folder) as written:

        def once() -> None:
            output = tempfile.mkdtemp(dir=written)
            if what == "write":
                write_ours(pairs, output, form) if who == "ours" else WRITERS[form](pairs, output)
                if who == "hashed":
                    [name] = os.listdir(output)
                    with open(os.path.join(output, name), "rb") as file:
                        hashlib.file_digest(file, "sha256")
            else:
                rows = sum(1 for _ in (read_shard(path) if who == "ours" else READERS[form](path)))
                assert rows == pairs.num_rows

        once()
        with measured():
            for _ in range(shards):
                once()


def report(count: int, shards: int, repeats: int) -> None:
    """Prints a line for each format and direction."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        pairs = make_pairs(count)
        for form in FORMATS:
            write_ours(pairs, folder, form)
        sizes = {form: Path(folder, shard_name(0, 1, form)).stat().st_size for form in FORMATS}
        sides = [f"{who} {what} {form}" for what in ("write", "read") for form in FORMATS for who in ("ours", "theirs", "hashed")]
        sides = [side for side in sides if not side.startswith("hashed read")]
        runs = in_turn(__file__, sides, [folder, "--shards", str(shards)], repeats)
    for what in ("write", "read"):
        for form in FORMATS:
            ours, theirs = (runs[f"{who} {what} {form}"] for who in ("ours", "theirs"))
            rates = [shards / median(side, "wall_s") for side in (ours, theirs)]
            megabytes = [rate * sizes[form] / 1e6 for rate in rates]
            head = f"{what:6}{form:12}{THEIRS[form]:12}{sizes[form] / 1e6:9.1f}"
            figures = "".join(f"{value:9.2f}" for value in rates) + "".join(f"{value:9.0f}" for value in megabytes)
            peak = max(run.peak_mib - run.before_mib for run in ours)
            both = [f"{ratio(theirs, ours, name):20}" for name in ("wall_s", "cpu_s")]
            both += [f"{ratio(runs[f'hashed {what} {form}'], ours, 'cpu_s') if what == 'write' else '':20}"]
            print(f"{head}{figures}  {''.join(both)}{peak:8.0f}", flush=True)


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--pairs", type=int, default=2048, help="pairs of a shard")
    parser.add_argument("--shards", type=int, default=2, help="shards a measurement")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--side", help="measures one side and prints it as JSON")
    args = parser.parse_args()
    if args.side:
        os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
        run_side(args.side, args.folder, args.shards)
        return
    print(conditions(args.repeats), f"; shards of {args.pairs} pairs")
    ratios = "".join(f"{name:20}" for name in ("ours / theirs, wall", "ours / theirs, CPU", "theirs + sha256, CPU"))
    print(f"      format      theirs             MB   ours/s theirs/s     MB/s     MB/s  {ratios}grows MiB")
    sys.stdout.flush()
    report(args.pairs, args.shards, args.repeats)


if __name__ == "__main__":
    main()
