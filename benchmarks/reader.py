"""Pairs a second of the trainer's reader, for each format, with and without decoding, against pyarrow, the webdataset package and tf.data.

    python benchmarks/reader.py                # --pairs, --size and --repeats change what is measured

All on one core and in the page cache, each side in a process of its own, in turn. Without decoding, ours hands out the encoded images in
the run's order (row groups shuffled, rows shuffled in windows), theirs in the files' order. With decoding, both images are pixels; ours
are also cut to the network's size, the condition is preprocessed for an encoder (builtin), and noise is drawn: what the loop needs.
"""

import argparse
import io
import itertools
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from processes import conditions, in_turn, measured, median, pin, ratio

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "train"))

from made_pairs import make_shards

from pagepairs.images import encode_jpeg
from pagepairs.manifest import dataset_files
from train.keyed import generator

FORMATS = {"parquet": "pyarrow", "webdataset": "webdataset", "tfrecord": "tf.data"}


def picture(number: int, size: int) -> bytes:
    """A JPEG of about the length that photos of this size have."""
    rng = np.random.Generator(np.random.Philox(key=number))
    smooth = rng.uniform(0, 255, (16, 16, 3)).repeat(size // 16, 0).repeat(size // 16, 1)
    return encode_jpeg(np.clip(smooth + rng.normal(0, 6, (size, size, 1)), 0, 255).astype(np.uint8), 95)


def write(folder: str, pairs: int, size: int) -> None:
    images = [picture(number, size) for number in range(16)]

    def change(row: dict[str, object], i: int) -> None:
        row |= {"condition_image": images[i % 16], "target_image": images[(i + 1) % 16]}

    for form in FORMATS:
        make_shards(Path(folder) / form, pairs, form, size=8, change=change)


def ours(folder: str, decode: bool, size: int) -> Iterator[Any]:
    from train.groups import open_shards

    groups = open_shards(folder, "pairs")
    if not decode:
        from train.order import Order

        order = Order(groups.sizes, window_groups=16, seed=0)
        window = order.window(0)
        while window.epoch == 0:
            rows = {group: groups.read(group) for group in window.groups}
            for group, row in zip(window.group_N.tolist(), window.row_N.tolist(), strict=True):
                yield rows[group][row](generator(0, "sample", 0))
            window = order.window(window.end)
        return
    from encoders import load_encoder
    from train.condition import Conditioner
    from train.reader import Reader, ReaderConfig

    conditioner = Conditioner(load_encoder("builtin"), "cross_attention")
    conditioner.in_threads = False  # as encoders of torch: preprocessed here, encoded beside the network
    config = ReaderConfig(
        image_px=size, micro_batch=16, seed=0, same_image=False, condition_dropout=0.1, augment="none", window_groups=16, threads=1
    )
    reader = Reader(groups, conditioner, config)
    for batch in reader.batches(iter(range(reader.rows // 16))):
        yield from batch.keys


def theirs(form: str, folder: str, decode: bool) -> Iterator[Any]:
    paths = dataset_files(folder)
    if form == "parquet":
        import pyarrow.parquet as pq
        from PIL import Image

        for path in paths:
            with pq.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group, columns=["pair_id", "condition_image", "target_image"], use_threads=False)
                    for key, *bodies in zip(*(column.to_pylist() for column in table.columns), strict=True):
                        yield key, [np.asarray(Image.open(io.BytesIO(body)).convert("RGB")) for body in bodies] if decode else bodies
    elif form == "webdataset":
        import webdataset

        dataset = webdataset.WebDataset(paths, shardshuffle=False)
        yield from dataset.decode("rgb8") if decode else dataset
    else:
        from train.tfdata import pairs

        yield from pairs(folder, decode=decode).as_numpy_iterator()


def run_side(side: str, folder: str, size: int) -> None:
    who, what, form = side.split()
    pin(1)
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    path, decode = os.path.join(folder, form), what == "decode"

    def rows() -> Iterator[Any]:
        return ours(path, decode, size) if who == "ours" else theirs(form, path, decode)

    for _ in itertools.islice(rows(), 64):  # imports and the first reads
        pass
    with measured():
        for _ in rows():
            pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--pairs", type=int, default=4096)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--side", help="measures one side and prints it as JSON")
    args = parser.parse_args()
    if args.side:
        run_side(args.side, args.folder, args.size)
        return
    with tempfile.TemporaryDirectory() as folder:
        write(folder, args.pairs, args.size)
        sides = [f"{who} {what} {form}" for what in ("bytes", "decode") for form in FORMATS for who in ("ours", "theirs")]
        runs = in_turn(__file__, sides, [folder, "--size", str(args.size)], args.repeats)
    print(conditions(args.repeats), f"; {args.pairs} pairs of {args.size} px; pairs/s")
    for what, form in itertools.product(("bytes", "decode"), FORMATS):
        mine, other = (runs[f"{who} {what} {form}"] for who in ("ours", "theirs"))
        rates = "".join(f"{args.pairs / median(side, 'wall_s'):10.0f}" for side in (mine, other))
        print(f"{what:8}{form:12}{FORMATS[form]:12}{rates}  wall {ratio(other, mine, 'wall_s'):20} CPU {ratio(other, mine, 'cpu_s')}")


if __name__ == "__main__":
    main()
