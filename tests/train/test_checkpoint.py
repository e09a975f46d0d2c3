"""Checkpoints are whole or absent, and bring back what was saved."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from pagepairs.files import read_json, write_json
from train.checkpoint import check_encoder, checkpoints_of, find_checkpoint, load_model, model_state, prune, read_state, read_tensors, save
from train.diffusion import Schedule
from train.network import NetworkConfig, build

CONFIG = NetworkConfig(image_px=16, channels=(8, 16), blocks=(1, 1), transformer_from=1, embedding=16, head_width=8, checkpoint_levels=(1,))
DIGEST = {"name": "builtin", "weights": "", "preprocessing": "box-64-v1", "library": "numpy"}


def state() -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    torch.manual_seed(1)
    network = build(CONFIG, conditioning="cross_attention", condition_width=12)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter))
    model = model_state(network, Schedule(image_px=16), preset="tiny", encoder="builtin", encoder_digest=DIGEST, encoder_weights="")
    return network.state_dict(), {"model": model, "settings": {"mode": "pairs"}}


def write(run: Path, images_seen: int) -> str:
    weights, rest = state()
    return save(str(run), images_seen, {"ema": weights, "weights": {"x": torch.zeros(2)}}, rest)


def test_load_model_brings_back_the_averaged_weights(tmp_path: Path) -> None:
    write(tmp_path, 64)
    folder = write(tmp_path, 128)
    for path in (str(tmp_path), folder):
        trained = load_model(path, "cpu")
        weights, _ = state()
        assert trained.network.state_dict().keys() == weights.keys()
        assert all(torch.equal(value, weights[name]) for name, value in trained.network.state_dict().items())
        assert (trained.network.config, trained.schedule) == (CONFIG, Schedule(image_px=16))
        assert (trained.preset, trained.encoder, trained.encoder_digest) == ("tiny", "builtin", DIGEST)
        assert (trained.images_seen, trained.folder, trained.settings) == (128, folder, {"mode": "pairs"})
        assert not trained.network.training


def test_only_complete_checkpoints_count(tmp_path: Path) -> None:
    folder = write(tmp_path, 64)
    half = tmp_path / "checkpoints" / "images-000000000128"
    half.mkdir()
    torn = tmp_path / "checkpoints" / ".tmp-abc"
    torn.mkdir()
    assert checkpoints_of(str(tmp_path)) == [folder]
    assert find_checkpoint(str(tmp_path)) == folder
    prune(str(tmp_path), 1)
    assert not torn.exists()
    assert checkpoints_of(str(tmp_path)) == [folder]


def test_the_newest_stay(tmp_path: Path) -> None:
    folders = [write(tmp_path, images) for images in (32, 64, 96)]
    prune(str(tmp_path), 2)
    assert checkpoints_of(str(tmp_path)) == folders[1:]


def test_a_checkpoint_takes_the_place_of_one_of_the_same_name(tmp_path: Path) -> None:
    first = write(tmp_path, 64)
    os.unlink(os.path.join(first, "ema.safetensors"))
    assert write(tmp_path, 64) == first
    assert sorted(os.listdir(first)) == ["ema.safetensors", "state.json", "weights.safetensors"]
    assert torch.equal(read_tensors(first, "weights")["x"], torch.zeros(2))


def test_no_checkpoint_and_another_version_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no complete checkpoint there; give the --output of `pagepairs train`"):
        load_model(str(tmp_path), "cpu")
    path = os.path.join(write(tmp_path, 64), "state.json")
    write_json(path, read_json(path) | {"format_version": 99})
    with pytest.raises(ValueError, match="has checkpoint version 99, this pagepairs reads 1"):
        read_state(os.path.dirname(path))


def test_another_encoder_is_refused(tmp_path: Path) -> None:
    check_encoder(DIGEST, dict(DIGEST))
    with pytest.raises(
        ValueError, match=r"--encoder dinov2-base: the checkpoint was trained with another one \(name 'builtin', now 'dinov2-base'\)"
    ):
        check_encoder(DIGEST, DIGEST | {"name": "dinov2-base"})
    write(tmp_path, 64)
    with pytest.raises(ValueError, match="weights '', now 'abc'"):
        load_model(str(tmp_path), "cpu").check_encoder(DIGEST | {"weights": "abc"})
