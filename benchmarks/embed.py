"""Images a second of preprocessing and embedding together, against the bare network on batches that lie ready.

    python benchmarks/embed.py [--encoder builtin|dinov2-small|tflite:PATH] [--images 64] [--threads 2]

Preprocessing runs in threads while the network works on the batch before, as in the embed stage. dinov2-* run with random weights:
they take the same time. Images are random, 1.6 megapixels, decoded beforehand.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from encoders import Encoder, load_encoder

BATCH = 16
REPEATS = 5


def load(spec: str, threads: int) -> Encoder:
    if not spec.startswith("dinov2"):
        return load_encoder(spec, threads=threads)
    import torch
    from transformers import Dinov2Model

    from encoders.dinov2 import SHAPES

    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        Dinov2Model(SHAPES[spec].config()).save_pretrained(folder)
        return load_encoder(spec, weights=folder)


def make_images(count: int) -> list[np.ndarray]:
    rng = np.random.Generator(np.random.Philox(key=0))
    few = [rng.integers(0, 256, (1104, 1456, 3), np.uint8) for _ in range(8)]
    return [few[number % 8] for number in range(count)]


def batches(encoder: Encoder, images: list[np.ndarray], pool: ThreadPoolExecutor) -> Iterator[np.ndarray]:
    """Yields preprocessed batches; the next one is in the making while the caller uses one."""
    waiting = [[pool.submit(encoder.preprocess, rgb) for rgb in images[:BATCH]]]
    for start in range(BATCH, len(images) + BATCH, BATCH):
        waiting.append([pool.submit(encoder.preprocess, rgb) for rgb in images[start : start + BATCH]])
        yield np.stack([future.result() for future in waiting.pop(0)])


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="dinov2-small")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    encoder = load(arguments.encoder, arguments.threads)
    images = make_images(arguments.images // BATCH * BATCH)
    with ThreadPoolExecutor(arguments.threads) as pool:
        ready = list(batches(encoder, images, pool))  # also warms the threads up
        encoder.embed(ready[0])
        works: dict[str, Callable[[], object]] = {
            "bare network": lambda: [encoder.embed(batch) for batch in ready],
            "preprocess alone": lambda: list(batches(encoder, images, pool)),
            "both": lambda: [encoder.embed(batch) for batch in batches(encoder, images, pool)],
        }
        # Taken in turns, so that a busy moment of the machine meets them all.
        rounds = [{name: len(images) / seconds(work) for name, work in works.items()} for _ in range(REPEATS)]
    print(f"{encoder.name}: {len(images)} images, {arguments.threads} threads; images/s, median of {REPEATS} (min, max)")
    for name in works:
        rates = [rates[name] for rates in rounds]
        print(f"{name:>17}: {statistics.median(rates):7.1f} ({min(rates):.1f}, {max(rates):.1f})")
    ratio = statistics.median(rates["both"] / rates["bare network"] for rates in rounds)
    print(f"{'both / bare':>17}: {ratio:7.2f}")


if __name__ == "__main__":
    main()
