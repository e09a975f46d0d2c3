"""Images a second of every way from a JPEG body to what scan needs, with one and two threads.

    python benchmarks/decode.py                       # generated JPEGs of 0.3, 1, 1.6 and 4 megapixels
    python benchmarks/decode.py ../shared/data/...    # the JPEGs below a folder instead

    python benchmarks/decode.py --encoders [FOLDER]   # what encoders need instead: see resizers.py

Prints, for each kind of input, the median processor time of the repeats and their spread, the rate of two threads against one (best wall
times; it needs two idle cores), and how far the working image and its hash lie from those of the fully decoded, bicubically shrunk image.
Paths are measured in turn, so that a busy moment hits all of them.
"""

import argparse
import hashlib
import io
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pdqhash
import simplejpeg
from PIL import Image
from scipy.fft import dct

from dedup.hashes import pdq256, phash64
from pagepairs.config import ScanConfig
from pagepairs.images import centre_crop, decode, encode_jpeg, resize_shortest, working_image
from pipeline.look import look

CONFIG = ScanConfig(max_pixels=2**31)
LIMITS = {"max_bytes": 2**31, "max_pixels": 2**31, "timeout_s": 600.0}


def generated(megapixels: float, count: int) -> list[bytes]:
    """Returns JPEGs (quality 85, 4:2:0) of smooth colour, shapes and grain, about as heavy as photos of their size."""
    bodies = []
    for seed in range(count):
        rng = np.random.default_rng([seed, int(megapixels * 10)])
        width, height = round((megapixels * 1.5e6) ** 0.5), round((megapixels * 1e6 / 1.5) ** 0.5)
        image = Image.fromarray(rng.integers(0, 256, (9, 13, 3), dtype=np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
        for _ in range(40):
            left, top = int(rng.integers(width)), int(rng.integers(height))
            size = int(rng.integers(8, height // 4))
            image.paste(tuple(rng.integers(0, 256, 3).tolist()), (left, top, left + size, top + size // 2))
        grain = rng.normal(0, 6, (height // 2 + 1, width // 2 + 1, 1)).repeat(2, 0).repeat(2, 1)[:height, :width]
        array = np.clip(np.asarray(image, np.float32) + grain, 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, "jpeg", quality=85)
        bodies.append(buffer.getvalue())
    return bodies


def by_pillow(body: bytes) -> np.ndarray:
    """The plain way: full decode, bicubic."""
    image = Image.open(io.BytesIO(body)).convert("RGB")
    scale = 256 / min(image.size)
    if scale < 1:
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    return np.asarray(image)


def ours(body: bytes) -> np.ndarray:
    return working_image(decode(body, **LIMITS, at_least_px=512).rgb)


def ours_full(body: bytes) -> np.ndarray:
    return working_image(decode(body, **LIMITS).rgb)


def bare(body: bytes) -> tuple[object, ...]:
    """The same library calls as look(), without the door."""
    height, width, _, _ = simplejpeg.decode_jpeg_header(body)
    by = next((by for by in (8, 4, 2) if min(width, height) >= 512 * by), 1)
    rgb = simplejpeg.decode_jpeg(body, "RGB", min_height=-(-height // by), min_width=-(-width // by))
    height, width = rgb.shape[:2]
    scale = max(1.0, min(width, height) / 256)
    image = Image.fromarray(rgb).resize((round(width / scale), round(height / scale)), Image.Resampling.BICUBIC, reducing_gap=1.0)
    small = np.asarray(image.resize((32, 32), Image.Resampling.LANCZOS).convert("L"), np.float64)
    lowest = dct(dct(small, axis=0), axis=1)[:8, :8].ravel()
    grey = np.asarray(image.convert("L").resize((64, 64), Image.Resampling.HAMMING))
    return hashlib.sha256(body).hexdigest(), np.packbits(lowest >= np.median(lowest[1:])), pdqhash.compute(grey[:, :, None].repeat(3, 2))


def torchvision_path() -> Callable[[bytes], np.ndarray] | None:
    """The decoder of torchvision (deprecated) and torch's bicubic antialiased resize, where they are installed."""
    try:
        import torch
        from torchvision.io import ImageReadMode, decode_jpeg
    except ImportError:
        return None
    torch.set_num_threads(1)

    def path(body: bytes) -> np.ndarray:
        image_CHW = decode_jpeg(torch.frombuffer(bytearray(body), dtype=torch.uint8), mode=ImageReadMode.RGB)
        scale = 256 / min(image_CHW.shape[1:])
        if scale < 1:
            size = [round(side * scale) for side in image_CHW.shape[1:]]
            image_CHW = torch.nn.functional.interpolate(image_CHW[None], size, mode="bicubic", antialias=True)[0]
        return image_CHW.permute(1, 2, 0).contiguous().numpy()

    return path


def measure(paths: dict[str, Callable[[object], object]], items: list[object], repeats: int) -> dict[str, tuple[float, float, float]]:
    """Returns each path's median seconds of a core an item, their spread (of largest and smallest), and two threads' rate over one's."""
    cpu: dict[str, list[float]] = {name: [] for name in paths}
    once: dict[str, list[float]] = {name: [] for name in paths}
    twice: dict[str, list[float]] = {name: [] for name in paths}
    with ThreadPoolExecutor(2) as pool:
        for path in paths.values():
            path(items[0])
        for _ in range(repeats):
            for name, path in paths.items():
                started, started_cpu = time.perf_counter(), time.thread_time()
                for item in items:
                    path(item)
                cpu[name].append((time.thread_time() - started_cpu) / len(items))
                once[name].append((time.perf_counter() - started) / len(items))
                started = time.perf_counter()
                list(pool.map(lambda part, path=path: [path(item) for item in part], (items, items)))
                twice[name].append((time.perf_counter() - started) / len(items) / 2)
    result = {}
    for name in paths:
        median = statistics.median(cpu[name])
        # The best of each: a busy moment makes either look slow.
        result[name] = (median, (max(cpu[name]) - min(cpu[name])) / median, min(once[name]) / min(twice[name]))
    return result


def difference(path: Callable[[bytes], np.ndarray], bodies: list[bytes]) -> str:
    """Returns PSNR (median and lowest) and pHash bits (median and most) against the plain way."""
    psnr, bits = [], []
    for body in bodies:
        want, got = by_pillow(body), path(body)
        bits.append((phash64(want) ^ phash64(got)).bit_count())
        if want.shape == got.shape:
            error = float(np.square(want.astype(np.float64) - got).mean())
            psnr.append(99.0 if error < 1e-5 else 10 * np.log10(255**2 / error))
    near = f"{statistics.median(psnr):.0f} / {min(psnr):.0f}" if psnr else "-"
    return f"{near:>10}  {statistics.median(bits):3.0f} / {max(bits):<3}"


def report(title: str, paths: dict[str, Callable], items: list, repeats: int, compared: dict[str, Callable]) -> None:
    """Prints one table."""
    print(f"\n{title}\n{'':34}{'core ms':>8}{'a core s':>9}{'spread':>8}{'2 threads':>11}  PSNR dB med/min, pHash bits med/max")
    for name, (median, spread, ratio) in measure(paths, items, repeats).items():
        note = difference(compared[name], items) if name in compared else ""
        print(f"{name:34}{median * 1e3:8.2f}{1 / median:9.0f}{spread:8.0%}{ratio:10.2f}x  {note}")


def for_encoders(options: argparse.Namespace) -> None:
    """Measures and prints what encoders need: photos (those of the folder, or generated ones) at three sizes, as JPEG and PNG."""
    import resizers

    warnings.simplefilter("ignore", DeprecationWarning)
    judges = resizers.encoders(options.judges)
    if options.folder:
        bodies = jpegs_below(options.folder)
        resizers.report(f"{len(bodies)} JPEGs of {options.folder.name} as they are", "JPEG", bodies, options.repeats, judges)
        bodies = bodies[:: max(1, len(bodies) // options.count)][: options.count]
    for megapixels in (0.3, 1.0, 4.0):
        whole = bodies if options.folder else generated(megapixels, options.count)
        for kind in ("JPEG", "PNG"):
            inputs = [resizers.resized(body, megapixels, kind) for body in whole]
            title = f"{len(inputs)} {kind}s of {megapixels} megapixels, {statistics.mean(map(len, inputs)) / 1000:.0f} kB"
            resizers.report(title, kind, inputs, options.repeats, judges)


def jpegs_below(folder: Path) -> list[bytes]:
    """Returns the JPEGs below a folder."""
    bodies = [path.read_bytes() for path in sorted(folder.rglob("*.jp*g"))]
    return [body for body in bodies if body.startswith(b"\xff\xd8\xff")]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="measures the JPEGs below this folder")
    parser.add_argument("--count", type=int, default=16, help="images of each size")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--encoders", action="store_true", help="decoders and resizers for encoders, with the error in similarities")
    parser.add_argument("--judges", nargs="*", default=["mobilenet", "dinov2"], help="with --encoders: networks that the error is taken by")
    options = parser.parse_args()
    if options.encoders:
        for_encoders(options)
        return
    warnings.simplefilter("ignore", DeprecationWarning)  # torchvision's decoder says at each call that it will go
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    versions = f"Python {sys.version.split()[0]}, simplejpeg {simplejpeg.__version__}, Pillow {Image.__version__}"
    print(f"{versions}; {peak_mb:.0f} MB resident before torch")
    torchvision = torchvision_path()
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB after" if torchvision else "no torchvision here")

    working = {"working image": ours, "working image, never reduced": ours_full, "Pillow full + bicubic": by_pillow}
    if torchvision:
        working["torchvision + torch bicubic"] = torchvision
    whole = {"look()": lambda body: look(body, CONFIG), "the bare library calls": bare}
    if options.folder:
        bodies = jpegs_below(options.folder)
        inputs = {f"{len(bodies)} JPEGs of {options.folder.name}": bodies}
    else:
        inputs = {f"{size} megapixels": generated(size, options.count) for size in (0.3, 1.0, 1.6, 4.0)}
    for title, bodies in inputs.items():
        report(f"{title}, {statistics.mean(map(len, bodies)) / 1000:.0f} kB", {**whole, **working}, bodies, options.repeats, working)

    arrays = [working_image(decode(body, **LIMITS).rgb) for body in bodies]
    steps = {
        "pHash": phash64,
        "PDQ of 64 x 64": pdq256,
        "PDQ, the library on all pixels": pdqhash.compute,
        "crop 256, JPEG 95": lambda array: encode_jpeg(centre_crop(resize_shortest(array, 256, upscale=True), 256), 95),
    }
    report("of the working image", steps, arrays, options.repeats, {})


if __name__ == "__main__":
    main()
