"""Scores from feature arrays against prdc and torch-fidelity on the same arrays, and features against their networks alone.

    python benchmarks/metrics.py                                # 10 000 vectors of 768 numbers
    python benchmarks/metrics.py --images 50000 --only ours     # where the others would hold a matrix of 20 GB

Each measurement runs in a process of its own on one core, in turn with the others. prdc and torch-fidelity's full variant hold whole
distance matrices; torch-fidelity's `save_cpu_ram` variant holds blocks of them, and takes float32 here, as it does in its own use.
"""

import argparse
import contextlib
import os
import tempfile
from collections.abc import Callable

import numpy as np
from processes import conditions, in_turn, measured, median, pin, ratio

K = 3
INCEPTION_IMAGES = 32


def vectors(images: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns real and generated features, float32: clusters on a curved spectrum, the generated ones narrower and moved."""
    rng = np.random.Generator(np.random.Philox(key=1))
    scale = 1 / np.arange(1, width + 1) ** 0.5
    centres = 3 * rng.normal(size=(100, width)) * scale
    real, generated = (
        (centres[rng.integers(0, 100, images)] + spread * rng.normal(size=(images, width)) * scale).astype(np.float32)
        for spread in (1.0, 0.9)
    )
    return real, generated


def ours_neighbours(real: np.ndarray, generated: np.ndarray) -> tuple[float, float]:
    from train.metrics import balls

    return balls(real, k=K).share_inside(generated), balls(generated, k=K).share_inside(real)


def prdc_neighbours(real: np.ndarray, generated: np.ndarray) -> tuple[float, float]:
    from prdc import compute_prdc

    with contextlib.redirect_stdout(None):
        found = compute_prdc(real, generated, nearest_k=K)
    return found["precision"], found["recall"]


def fidelity_neighbours(real: np.ndarray, generated: np.ndarray) -> tuple[float, float]:
    import torch
    from torch_fidelity.metric_prc import calculate_precision_recall_part

    found: tuple[float, float] = calculate_precision_recall_part(torch.from_numpy(generated), torch.from_numpy(real), K, batch_size=1000)
    return found


def ours_frechet(real: np.ndarray, generated: np.ndarray) -> float:
    from train.metrics import frechet_distance, gaussian

    return frechet_distance(gaussian(real), gaussian(generated))


def fidelity_frechet(real: np.ndarray, generated: np.ndarray) -> float:
    import torch
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    statistics = [fid_features_to_statistics(torch.from_numpy(features.astype(np.float64))) for features in (real, generated)]
    return float(fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"])


SCORES: dict[str, dict[str, Callable[[np.ndarray, np.ndarray], object]]] = {
    "precision and recall": {"ours": ours_neighbours, "prdc": prdc_neighbours, "torch-fidelity": fidelity_neighbours},
    "Fréchet distance": {"ours": ours_frechet, "torch-fidelity": fidelity_frechet},
}


def pictures(count: int, side: int) -> list[np.ndarray]:
    rng = np.random.Generator(np.random.Philox(key=2))
    return [rng.integers(0, 256, (side, side, 3), np.uint8) for _ in range(count)]


def builtin_features(ours: bool) -> None:
    """Features of 512 images by `builtin`, which has no weights: what the streaming around a network costs."""
    from encoders import load_encoder
    from train.features import encoder_space, extract

    images, encoder, space = pictures(512, 64), load_encoder("builtin"), encoder_space("builtin", weights="", device="cpu")
    with measured():
        if ours:
            extract([space], iter(images))
        else:
            for start in range(0, len(images), 32):
                encoder.embed(np.stack([encoder.preprocess(image) for image in images[start : start + 32]]))


def inception_features(ours: bool, weights: str) -> None:
    """Features of Inception with random weights, ours through `extract`, else the network of torch-fidelity alone."""
    import torch
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    from train.features import extract
    from train.inception import load_inception

    torch.set_num_threads(1)
    images = pictures(INCEPTION_IMAGES, 256)
    space = load_inception(weights, device="cpu", stand_in=True)
    network = FeatureExtractorInceptionV3("bare", ["2048"], feature_extractor_weights_path=weights)
    with measured():
        if ours:
            extract([space], iter(images))
        else:
            with torch.no_grad():
                for start in range(0, len(images), 32):
                    network(torch.from_numpy(np.stack(images[start : start + 32])).permute(0, 3, 1, 2))


def save_random_inception(path: str) -> None:
    """Saves seeded random weights of the network's own shapes: its real ones change no time."""
    import torch
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Unloaded(FeatureExtractorInceptionV3):  # type: ignore[misc]
        def load_state_dict(self, *args: object, **kwargs: object) -> None: ...

    torch.manual_seed(0)
    torch.save({}, path)
    torch.save(Unloaded("random", ["2048"], feature_extractor_weights_path=path).state_dict(), path)


def run_side(side: str, images: int, width: int, weights: str) -> None:
    pin(1)
    name, _, who = side.partition(": ")
    if name == "builtin":
        builtin_features(who == "ours")
    elif name == "Inception":
        inception_features(who == "ours", weights)
    else:
        function = SCORES[name][who]
        function(*vectors(200, 16))  # imports
        real, generated = vectors(images, width)
        with measured():
            function(real, generated)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=["ours", "scores", "features"], default=None)
    parser.add_argument("--weights", default="")
    parser.add_argument("--side")
    given = parser.parse_args()
    if given.side:
        run_side(given.side, given.images, given.width, given.weights)
        return
    print(conditions(given.repeats))
    arguments = ["--images", str(given.images), "--width", str(given.width)]
    for name, functions in SCORES.items() if given.only != "features" else ():
        who = ["ours"] if given.only == "ours" else list(functions)
        runs = in_turn(__file__, [f"{name}: {one}" for one in who], arguments, given.repeats)
        for side, results in runs.items():
            mine = runs[f"{name}: ours"]
            print(
                f"{side}, 2 x {given.images:,} x {given.width}: {median(results, 'wall_s'):.2f} s, CPU {median(results, 'cpu_s'):.2f} s, "
                f"peak {median(results, 'peak_mib'):,.0f} MiB ({median(results, 'before_mib'):,.0f} before); "
                f"CPU time / ours {ratio(results, mine, 'cpu_s')}"
            )
    if given.only not in ("ours", "scores"):
        with tempfile.TemporaryDirectory() as folder:
            weights = os.path.join(folder, "random.pth")
            save_random_inception(weights)
            for name, count in (("builtin", 512), ("Inception", INCEPTION_IMAGES)):
                runs = in_turn(__file__, [f"{name}: bare", f"{name}: ours"], ["--weights", weights], given.repeats)
                bare, ours = runs.values()
                print(
                    f"{name} features: {count / median(ours, 'cpu_s'):,.1f} images/s of a core, bare {count / median(bare, 'cpu_s'):,.1f}; "
                    f"rate / bare {ratio(bare, ours, 'cpu_s')}"
                )


if __name__ == "__main__":
    main()
