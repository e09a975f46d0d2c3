"""That the network learns: it overfits a few pairs, follows its condition, and its loss falls on real shards. Minutes: marked slow."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bars import CLASSES, bar, kind_of, make_bars
from made_pairs import make_shards

from encoders import load_encoder
from train import presets
from train.checkpoint import load_model
from train.condition import Conditioner
from train.config import TrainConfig
from train.groups import open_shards
from train.loop import train
from train.network import NetworkConfig
from train.presets import Preset
from train.reader import Reader, ReaderConfig
from train.sampler import denoiser, keyed_noise, sample, to_uint8

MINUTE = Preset(
    name="tiny",
    # 64 pixels as patches: at 32 and below the schedule spends too little on noise that hides a shape (docs/log.md).
    network=NetworkConfig(
        image_px=64, patch_px=4, channels=(32, 64), blocks=(2, 3), transformer_from=1, embedding=128, head_width=16, dropout=0.0
    ),
    batch=16, micro_batch=16, total_images=25_600, lr=2e-3, warmup_steps=50,
    ema=0.99, precision="float32", compile=False, channels_last=False,
)  # fmt: skip


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()]


def settings(data: Path, output: Path, **changes: Any) -> TrainConfig:
    return TrainConfig(data=str(data), output=str(output), **{"encoder": "builtin", "grid_images": 10**9, "threads": 1} | changes)


def matches(run: Path, guidance: float, per_class: int = 8) -> tuple[float, float]:
    """Share of samples of the class of their condition, and of the class of another, shuffled one."""
    trained, conditioner = load_model(str(run), "cpu"), Conditioner(load_encoder("builtin"), "cross_attention")
    kinds = np.arange(CLASSES * per_class) % CLASSES
    images = [bar(kind, 10**6 + place, 64) for place, kind in enumerate(kinds)]
    conditions = torch.from_numpy(np.stack([conditioner.of_image(conditioner.encoder.preprocess(image)) for image in images]))
    noise = keyed_noise(range(len(kinds)), (3, 64, 64))
    x = sample(denoiser(trained.network, conditions), noise, schedule=trained.schedule, steps=32, guidance=guidance)
    found = np.array([kind_of(image) for image in to_uint8(x)])
    others = np.random.Generator(np.random.Philox(key=1)).permutation(kinds)
    return float((found == kinds).mean()), float((found == others).mean())


def test_the_classes_can_be_told_apart() -> None:
    assert [kind_of(bar(place % CLASSES, place, 64)) for place in range(160)] == [place % CLASSES for place in range(160)]


@pytest.mark.slow
def test_samples_follow_their_condition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(presets.PRESETS, "tiny", lambda: MINUTE)  # type: ignore[arg-type]
    train(settings(make_bars(tmp_path / "shards", 512), tmp_path / "run"), str)
    matching, shuffled = matches(tmp_path / "run", guidance=0.5)
    assert matching > 0.8
    assert shuffled < 0.3


@pytest.mark.slow
def test_tiny_overfits_eight_pairs(tmp_path: Path) -> None:
    shards = make_shards(tmp_path / "shards", 8)
    train(settings(shards, tmp_path / "run", total_images=12_800, batch=8, condition_dropout=0.0), str)
    found = losses(tmp_path / "run")
    assert np.mean(found[:5]) > 0.3
    assert np.mean(found[-20:]) < 0.03
    # Each condition brings back its own target.
    trained, conditioner = load_model(str(tmp_path / "run"), "cpu"), Conditioner(load_encoder("builtin"), "cross_attention")
    reading = ReaderConfig(
        image_px=32, micro_batch=8, seed=0, same_image=False, condition_dropout=0.0, augment="none", window_groups=1, threads=1
    )
    batch = next(Reader(open_shards(str(shards), "pairs"), conditioner, reading).batches(iter([0])))
    noise = keyed_noise(range(8), (3, 32, 32))
    x = to_uint8(sample(denoiser(trained.network, batch.condition_BS), noise, schedule=trained.schedule, steps=32)).astype(np.float64)
    distance = ((x[:, None] - batch.target_BHW3.numpy()[None]) ** 2).mean((2, 3, 4))
    assert distance.argmin(1).tolist() == list(range(8))
    assert np.sqrt(distance.diagonal()).max() < 25


@pytest.mark.slow
def test_the_loss_falls_on_shards_of_a_real_crawl(shared_data: Path, tmp_path: Path) -> None:
    from pagepairs.cli import main

    crawl = str(shared_data / "howtocook.warc.gz")
    assert main(["run", "--input", crawl, "--output", str(tmp_path / "out"), "--encoder", "builtin", "--size", "64"]) == 0
    flags = ["--total-images", "4800", "--encoder", "builtin", "--grid-images", "1000000000"]
    assert main(["train", "--data", str(tmp_path / "out" / "shards"), "--preset", "tiny", "--output", str(tmp_path / "run"), *flags]) == 0
    found = losses(tmp_path / "run")
    assert np.mean(found[:5]) > 0.3
    assert np.mean(found[-20:]) < 0.2
