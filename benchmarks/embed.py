"""Stage embed against its network alone on the same images, and against clip-retrieval on the same tar.

    python benchmarks/embed.py [--encoder dinov2-small|clip-b32|siglip-base|tflite:PATH|builtin] [--engine openvino]
    python benchmarks/embed.py --encoder clip-b32 --peer PYTHON

Networks have random weights of their true shapes, which take the same time. The crawl is tars of generated JPEGs of 0.3 megapixels,
scanned beforehand. Sides, each in processes of its own, in turn; loading is not counted:

    network     the network on batches that lie ready
    inference   the same batches through Beam's RunInference, 16 a call: what Beam adds
    stage       `embed` of the scanned crawl: read, check, decode, preprocess, network, write
    peer        clip_inference of clip-retrieval over the same tars, in the interpreter that --peer names, which must have it; the model is
                open_clip's own of the same shape, handed to it in place of its downloader
"""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from decode import generated
from processes import conditions, in_turn, measured, median, ratio

MEGAPIXELS = 0.3
_CALL = 16
_OPEN_CLIP = {"clip-b32": "ViT-B-32", "clip-b16": "ViT-B-16", "clip-l14": "ViT-L-14", "siglip-base": "ViT-B-16-SigLIP"}
_PEER = """
import sys, functools, warnings
warnings.simplefilter("ignore")
sys.path.append({here!r})
from processes import measured
import importlib, open_clip, torch
mapper, worker = (importlib.import_module(f"clip_retrieval.clip_inference.{{name}}") for name in ("mapper", "worker"))
torch.set_num_threads({cores})
@functools.cache
def load():
    model, _, preprocess = open_clip.create_model_and_transforms({model!r})
    return model.eval(), preprocess, open_clip.get_tokenizer({model!r})
mapper.load_clip = worker.load_clip = lambda **settings: load()
model, preprocess, _ = load()
with torch.no_grad():
    model.encode_image(torch.zeros({batch}, 3, 224, 224))
with measured():
    worker.worker([0], {tars!r}, {folder!r}, 1, input_format="webdataset", batch_size={batch}, num_prepro_workers={cores},
                  enable_text=False, enable_image=True, enable_metadata=False, clip_model="x", use_jit=False)
"""


def write_tars(folder: Path, images: int, tars: int) -> None:
    """Writes webdataset tars of JPEGs and the pages they stand on: one a core, as clip-retrieval's readers each take a tar."""
    for part in range(tars):
        write_tar(folder / f"images-{part}.tar", list(enumerate(generated(MEGAPIXELS, images)))[part::tars])


def write_tar(path: Path, bodies: Sequence[tuple[int, bytes]]) -> None:
    with tarfile.open(path, "w") as tar:
        for number, body in bodies:
            address = {"page_url": f"https://example.org/{number // 8}", "url": f"https://example.org/{number}.jpg"}
            for ending, data in (("jpg", body), ("json", json.dumps(address).encode())):
                info = tarfile.TarInfo(f"{number:06d}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def write_weights(encoder: str, folder: Path) -> str:
    """Writes random weights of an encoder's shape as its library does, and returns where; "" for one that brings its own."""
    if encoder.startswith("dinov2"):
        from transformers import Dinov2Config, Dinov2Model

        width, layers = {"small": (384, 12), "base": (768, 12), "large": (1024, 24)}[encoder.removeprefix("dinov2-")]
        config = Dinov2Config(hidden_size=width, num_hidden_layers=layers, num_attention_heads=width // 64, image_size=518, patch_size=14)
        Dinov2Model(config).save_pretrained(folder / "weights")
        return str(folder / "weights")
    if encoder in _OPEN_CLIP:
        import open_clip
        import torch

        torch.save(open_clip.create_model(_OPEN_CLIP[encoder]).state_dict(), folder / "weights.pt")
        return str(folder / "weights.pt")
    return ""


def flags_of(args: argparse.Namespace) -> list[str]:
    folder = Path(args.folder)
    flags = ["--input", str(folder / "images-*.tar"), "--output", str(folder / "out"), "--min-side-px", "64", "--min-texture", "0"]
    flags += ["--encoder", args.encoder, "--batch-size", str(args.batch), "--low", "0.3", "--high", "0.9", "--engine", args.engine]
    weights = next((folder / name for name in ("weights", "weights.pt") if (folder / name).exists()), None)
    return flags + (["--encoder-weights", str(weights)] if weights else [])


def config_of(args: argparse.Namespace) -> Any:
    from pipeline.commands import parse

    return parse("run", flags_of(args))


def ready_batches(args: argparse.Namespace, config: Any, described: Any) -> list[np.ndarray]:
    """Reads, decodes and preprocesses all images beforehand."""
    from pipeline.look import pixels

    images = []
    for path in sorted(Path(args.folder).glob("images-*.tar")):
        with tarfile.open(path) as tar:
            files = [tar.extractfile(member) for member in tar if member.name.endswith("jpg")]
            images += [described.preprocess(pixels(file.read(), config.scan).rgb) for file in files if file]
    return [np.stack(images[start : start + args.batch]) for start in range(0, len(images), args.batch)]


def run_side(args: argparse.Namespace) -> None:
    """Does one side's work, with the network loaded and warm, and prints what it took."""
    if args.side == "peer":
        values = {"here": str(Path(__file__).parent), "cores": args.cores, "model": _OPEN_CLIP[args.encoder], "batch": args.batch}
        values |= {
            "tars": [str(path) for path in sorted(Path(args.folder).glob("images-*.tar"))],
            "folder": tempfile.mkdtemp(dir=args.folder),
        }
        os.execv(args.peer, [args.peer, "-c", _PEER.format(**values)])
    from pipeline.models import load_models

    config = config_of(args)
    models = load_models(config.embed)
    batches = ready_batches(args, config, models.describe()[0])
    models.embed(0, batches[0])
    if args.side == "network":
        with measured():
            for batch in batches:
                models.embed(0, batch)
    elif args.side == "inference":
        infer(batches, models)
    else:
        from pipeline.run import run_stages

        del batches
        for name in ("embeddings", "drops", ".work"):
            for path in Path(config.run.output, name).glob("*embed-*" if name != "embeddings" else "*"):
                shutil.rmtree(path)
        with measured():
            run_stages(config, ("embed",), lambda line: print(line, file=sys.stderr))


def infer(batches: Sequence[np.ndarray], models: Any) -> None:
    """Sends batches through RunInference, some a call, as the stage sends units."""
    import apache_beam as beam
    import processes
    from apache_beam.ml.inference.base import ModelHandler, RunInference

    from pipeline.runners import pipeline_options

    processes.HELD[:] = [models, batches]

    class Handler(ModelHandler):  # type: ignore[misc,type-arg]
        def __init__(self) -> None:
            super().__init__(min_batch_size=1, max_batch_size=1)

        def load_model(self) -> Any:
            return processes.HELD[0]

        def run_inference(self, batch: Sequence[int], model: Any, inference_args: Any = None) -> list[list[np.ndarray]]:
            return [[model.embed(0, images) for images in processes.HELD[1][start : start + _CALL]] for start in batch]

        def get_num_bytes(self, batch: Sequence[int]) -> int:
            return len(batch)

    calls = range(0, len(batches), _CALL)
    with measured(), beam.Pipeline(options=pipeline_options((), 1)) as pipeline:
        _ = pipeline | beam.Create(calls) | beam.Reshuffle() | RunInference(Handler())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="dinov2-small")
    parser.add_argument("--engine", default="torch")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peer", default="")
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--folder", default="", help=argparse.SUPPRESS)
    parser.add_argument("--side", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        run_side(args)
        return
    with tempfile.TemporaryDirectory() as folder:
        args.folder = folder
        write_tars(Path(folder), args.images, args.cores)
        write_weights(args.encoder, Path(folder))
        command = [sys.executable, "-m", "pagepairs.cli", "scan", *flags_of(args)[:8]]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        sides = ["network", "inference", "stage", *(["peer"] if args.peer else [])]
        own = [f"--{name}={getattr(args, name)}" for name in ("encoder", "engine", "images", "batch", "cores", "folder", "peer")]
        runs = in_turn(__file__, sides, own, args.repeats)
    print(conditions(args.repeats))
    print(f"{args.encoder}, {args.engine}, batches of {args.batch}, {args.images} JPEGs of {MEGAPIXELS} megapixels")
    for side in sides:
        found = runs[side]
        rate, cpu_ms = args.images / median(found, "wall_s"), 1000 * median(found, "cpu_s") / args.images
        line = f"{side:<10}{rate:8.1f} images/s {cpu_ms:8.1f} ms of processor an image, peak {median(found, 'peak_mib'):6.0f} MiB"
        speed, cost = ratio(runs["network"], found, "wall_s"), ratio(runs["network"], found, "cpu_s")
        print(f"{line}; of the network's speed {speed}, by processor time {cost}")
    if args.peer:
        print(f"stage against peer: {ratio(runs['peer'], runs['stage'], 'wall_s')}, by processor time ", end="")
        print(ratio(runs["peer"], runs["stage"], "cpu_s"))


if __name__ == "__main__":
    main()
