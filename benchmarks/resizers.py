"""Every decoder and resizer considered, from a body to the pixels DINOv2 takes, with the error that each leaves in similarities.

    python benchmarks/decode.py --encoders            # JPEGs and PNGs of 0.3, 1 and 4 megapixels
    python benchmarks/decode.py --encoders FOLDER     # the JPEGs below a folder as they are

The reference is what the models' own processors do: Pillow decodes and resizes (bicubic, antialiased). Error: the absolute difference
of the cosine of two images, over all pairs, by a pretrained MobileNet v2 where it is at hand and by a DINOv2 small of random weights.
"""

import importlib.util
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import simplejpeg
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg, decode_png
from torchvision.transforms.v2 import functional

from encoders import Encoder, embed_all, load_encoder
from encoders.preprocessing import RECIPES, prepare
from pagepairs.images import decode

Way = Callable[[bytes], np.ndarray]
NETWORK = Path(__file__).resolve().parents[2] / "shared/data/encoder_mobilenet/tf2_mobilenet_v2_1.0_224_ptq.tflite"
LIMITS = {"max_bytes": 2**31, "max_pixels": 2**31, "timeout_s": 600.0}
BAND = (0.3, 0.9)


def _target(height: int, width: int) -> tuple[int, int]:
    shortest = min(height, width)
    return height * 256 // shortest, width * 256 // shortest


def _crop(rgb: np.ndarray) -> np.ndarray:
    top, left = (rgb.shape[0] - 224) // 2, (rgb.shape[1] - 224) // 2
    return np.ascontiguousarray(rgb[top : top + 224, left : left + 224])


def by_pillow(rgb: np.ndarray | Image.Image, gap: float | None = None) -> np.ndarray:
    image = rgb if isinstance(rgb, Image.Image) else Image.fromarray(rgb)
    height, width = _target(image.height, image.width)
    return _crop(np.asarray(image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=gap)))


def by_torch(rgb: np.ndarray, *, mode: str = "bicubic", antialias: bool = True, real: bool = False) -> np.ndarray:
    image = torch.from_numpy(np.array(rgb) if not rgb.flags.writeable else rgb).permute(2, 0, 1)
    image = image.float() if real else image
    size, how = list(_target(*rgb.shape[:2])), functional.InterpolationMode(mode)
    small = functional.resize(image, size, interpolation=how, antialias=antialias)
    return _crop(small.round().clamp(0, 255).byte().permute(1, 2, 0).numpy())


def by_opencv(rgb: np.ndarray, how: str) -> np.ndarray:
    import cv2

    height, width = _target(*rgb.shape[:2])
    return _crop(cv2.resize(rgb, (width, height), interpolation=getattr(cv2, how)))


def pillow_full(body: bytes) -> Image.Image:
    return Image.open(io.BytesIO(body)).convert("RGB")


def pillow_draft(body: bytes) -> Image.Image:
    """Reduced on load to at least 512 pixels."""
    image = Image.open(io.BytesIO(body))
    image.draft("RGB", (512, 512))
    return image.convert("RGB")


def ours(body: bytes, at_least_px: int = 0) -> np.ndarray:
    options = {"at_least_px": at_least_px} if at_least_px else {}
    return prepare(decode(body, **LIMITS, **options).rgb, RECIPES["dinov2"], 224)


def by_torchvision(body: bytes) -> np.ndarray:
    read = decode_jpeg if body.startswith(b"\xff\xd8") else decode_png
    rgb = read(torch.frombuffer(bytearray(body), dtype=torch.uint8), mode=ImageReadMode.RGB)
    return by_torch(rgb.permute(1, 2, 0).contiguous().numpy())


def plain_jpeg(body: bytes) -> np.ndarray:
    return simplejpeg.decode_jpeg(body, "RGB")


def plain_png(body: bytes) -> np.ndarray:
    return np.array(pillow_full(body))


def paths_for(kind: str) -> dict[str, Way]:
    """Returns the paths of a format; the first is the reference, the second ours."""
    plain, name = (plain_jpeg, "simplejpeg") if kind == "JPEG" else (plain_png, "Pillow")
    paths: dict[str, Way] = {
        "Pillow + Pillow bicubic (reference)": lambda body: by_pillow(pillow_full(body)),
        "ours: decode() + prepare()": ours,
        f"{name} + Pillow bicubic": lambda body: by_pillow(plain(body)),
        f"{name} + Pillow, reducing_gap 2": lambda body: by_pillow(plain(body), 2.0),
        f"{name} + torch uint8 bicubic": lambda body: by_torch(plain(body)),
        f"{name} + torch float bicubic": lambda body: by_torch(plain(body), real=True),
        f"{name} + torch uint8 bilinear": lambda body: by_torch(plain(body), mode="bilinear"),
        f"{name} + torch bicubic, no antialias": lambda body: by_torch(plain(body), antialias=False),
        "torchvision + torch uint8 bicubic": by_torchvision,
    }
    if importlib.util.find_spec("cv2"):  # not a dependency: measured where it is installed
        paths |= {
            f"{name} + OpenCV area": lambda body: by_opencv(plain(body), "INTER_AREA"),
            f"{name} + OpenCV cubic, no antialias": lambda body: by_opencv(plain(body), "INTER_CUBIC"),
        }
    if kind == "JPEG":
        paths |= {
            "Pillow draft to 512 + Pillow bicubic": lambda body: by_pillow(pillow_draft(body)),
            "shrink on load to 512 + torch uint8": lambda body: ours(body, 512),
            "shrink on load to 256 + torch uint8": lambda body: ours(body, 256),
        }
    return paths


def random_dinov2() -> Encoder:
    """DINOv2 small of random weights, large enough that images differ."""
    from transformers import Dinov2Model
    from transformers.utils import logging

    from encoders.dinov2 import SHAPES

    logging.disable_progress_bar()
    torch.manual_seed(0)
    config = SHAPES["dinov2-small"].config()
    config.initializer_range = 0.1
    with tempfile.TemporaryDirectory() as folder:
        Dinov2Model(config).save_pretrained(folder)
        return load_encoder("dinov2-small", weights=folder, device="cpu")


def encoders(names: list[str]) -> dict[str, Encoder]:
    found: dict[str, Encoder] = {}
    if "mobilenet" in names and NETWORK.exists():
        found["MobileNet v2"] = load_encoder(f"tflite:{NETWORK}", threads=1)
    if "dinov2" in names:
        found["random DINOv2 small"] = random_dinov2()
    return found


def similarities(encoder: Encoder, images: list[np.ndarray]) -> np.ndarray:
    """Returns the cosines of all pairs, as the pipeline takes them from float16 vectors."""
    vector_ND = embed_all(encoder, images, batch_size=8).astype(np.float16).astype(np.float64)
    return (vector_ND @ vector_ND.T)[np.triu_indices(len(images), 1)]


def error(found: np.ndarray, expected: np.ndarray) -> str:
    """Returns median and 99th percentile of the error, and the pairs that it moves across the band."""
    difference = np.abs(found - expected)
    crossed = sum(int(((found >= cut) != (expected >= cut)).sum()) for cut in BAND)
    return f"{np.percentile(difference, 50):.4f} {np.percentile(difference, 99):.4f} {crossed:>3}/{len(found)}"


def report(title: str, kind: str, bodies: list[bytes], repeats: int, judges: dict[str, Encoder]) -> None:
    """Prints one table: images a second of a core, and the errors."""
    torch.set_num_threads(1)
    paths = paths_for(kind)
    seconds: dict[str, list[float]] = {name: [] for name in paths}
    for path in paths.values():
        path(bodies[0])
    for _ in range(repeats):
        for name, path in paths.items():  # in turn, so that a busy moment hits all
            started = time.process_time()
            for body in bodies:
                path(body)
            seconds[name].append((time.process_time() - started) / len(bodies))
    heads = "".join(f"  {judge + ': p50, p99, crossed':>34}" for judge in judges)
    print(f"\n{title}\n{'':38}{'a core s':>9}{'spread':>8}{heads}")
    expected: dict[str, np.ndarray] = {}
    for name, path in paths.items():
        images = [path(body) for body in bodies]
        notes = []
        for judge, encoder in judges.items():
            found = similarities(encoder, images)
            notes.append(error(found, expected.setdefault(judge, found)))
        median = statistics.median(seconds[name])
        spread = (max(seconds[name]) - min(seconds[name])) / median
        print(f"{name:38}{1 / median:9.0f}{spread:8.0%}" + "".join(f"  {note:>34}" for note in notes), flush=True)


def resized(body: bytes, megapixels: float, kind: str) -> bytes:
    """Returns a photo at another size and in another format."""
    image = pillow_full(body)
    scale = (megapixels * 1e6 / (image.width * image.height)) ** 0.5
    size = (round(image.width * scale), round(image.height * scale))
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.LANCZOS).save(
        buffer, kind.lower(), **({"quality": 85} if kind == "JPEG" else {"compress_level": 6})
    )
    return buffer.getvalue()
