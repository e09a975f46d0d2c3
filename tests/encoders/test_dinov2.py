"""What test_families.py does not say of DINOv2, on small random checkpoints of the true architecture."""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers import BitImageProcessor, Dinov2Model

from encoders import dinov2, embed_all, load_encoder, transformers_folder, weights
from encoders.dinov2 import Shape, load_shape
from encoders.table import Settings
from encoders.torch_encoder import TorchEncoder

_TINY = Shape(width=48, layers=2, heads=3)


def _checkpoint(folder: Path, shape: Shape) -> Path:
    torch.manual_seed(5)
    config = shape.config()
    config.initializer_range = 0.2  # so that a random network tells images apart
    with transformers_folder._quiet():
        Dinov2Model(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small random checkpoint, as transformers saves it."""
    return _checkpoint(tmp_path_factory.mktemp("dinov2") / "tiny", _TINY)


@pytest.fixture(scope="module")
def encoder(checkpoint: Path) -> TorchEncoder:
    """The encoder on it."""
    return load_shape("dinov2-tiny", _TINY, Settings(weights=str(checkpoint), device="cpu"))


def _processor() -> BitImageProcessor:
    """What the published checkpoints name in preprocessor_config.json."""
    return BitImageProcessor(
        do_resize=True,
        size={"shortest_edge": 256},
        resample=Image.Resampling.BICUBIC,
        do_center_crop=True,
        crop_size={"height": 224, "width": 224},
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )


def test_interface(encoder: TorchEncoder, checkpoint: Path, pictures: list[np.ndarray]) -> None:
    assert (encoder.name, encoder.width, encoder.input_size) == ("dinov2-tiny", 48, 224)
    assert encoder.digest == {
        "name": "dinov2-tiny",
        "weights": hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest(),
        "preprocessing": "shortest-256-crop-224-v1",
        "library": f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}",
        "engine": "torch",
        "dtype": "float32",
        "input_size": "224",
    }
    images = [encoder.preprocess(rgb) for rgb in pictures[:3]]
    assert {(image.shape, image.dtype) for image in images} == {((224, 224, 3), np.dtype(np.uint8))}
    vector_ND, tokens_BNC = embed_all(encoder, images, batch_size=2), encoder.tokens(np.stack(images))
    assert (vector_ND.shape, vector_ND.dtype, tokens_BNC.shape, tokens_BNC.dtype) == ((3, 48), np.float32, (3, 257, 48), np.float32)
    np.testing.assert_allclose(np.linalg.norm(vector_ND, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(vector_ND, tokens_BNC[:, 0] / np.linalg.norm(tokens_BNC[:, 0], axis=1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(256, 256), (301, 200), (200, 601), (1000, 1001), (17, 40)])
def test_crop_of_odd_sizes(encoder: TorchEncoder, height: int, width: int) -> None:
    rgb = np.random.Generator(np.random.Philox(key=height)).integers(0, 256, (height, width, 3), np.uint8)
    theirs_3HW = _processor()(Image.fromarray(rgb), return_tensors="np", do_normalize=False, do_rescale=False)["pixel_values"][0]
    np.testing.assert_array_equal(encoder.preprocess(rgb), np.moveaxis(theirs_3HW, 0, -1))


def test_small_model_loads_by_name_and_others_are_refused(tmp_path: Path, pictures: list[np.ndarray]) -> None:
    folder = _checkpoint(tmp_path / "small", dinov2.SHAPES["dinov2-small"])
    encoder = load_encoder("dinov2-small", weights=str(folder), device="cpu")
    assert (encoder.name, encoder.width) == ("dinov2-small", 384)
    assert encoder.embed(encoder.preprocess(pictures[0])[None]).shape == (1, 384)
    with pytest.raises(ValueError, match="does not fit --encoder dinov2-base") as error:
        load_encoder("dinov2-base", weights=str(folder), device="cpu")
    assert (
        "embeddings.cls_token is [1, 1, 384] there and [1, 1, 768] in dinov2-base; "
        "embeddings.mask_token is [1, 384] there and [1, 768] in dinov2-base (" in str(error.value)
    )


def test_too_many_and_too_few_layers_are_refused(checkpoint: Path) -> None:
    bias = (
        r"encoder\.layer\.{}\.attention\.k_proj\.bias is {}; encoder\.layer\.{}\.attention\.k_proj\.weight is {} \(18 differences in all\)"
    )
    with pytest.raises(ValueError, match=bias.format(1, "left over", 1, "left over")):
        load_shape("dinov2-tiny", Shape(width=48, layers=1, heads=3), Settings(weights=str(checkpoint), device="cpu"))
    with pytest.raises(ValueError, match=bias.format(2, "missing", 2, "missing")):
        load_shape("dinov2-tiny", Shape(width=48, layers=3, heads=3), Settings(weights=str(checkpoint), device="cpu"))


class _Harmful:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_pickles_run_nothing(encoder: TorchEncoder, checkpoint: Path, tmp_path: Path, pictures: list[np.ndarray]) -> None:
    harmful = tmp_path / "harmful"
    harmful.mkdir()
    torch.save({"layernorm.weight": _Harmful(tmp_path / "ran")}, harmful / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin is broken or holds more than tensors \(UnpicklingError\); fetch it again"):
        load_shape("dinov2-tiny", _TINY, Settings(weights=str(harmful), device="cpu"))
    assert not (tmp_path / "ran").exists()
    harmless = tmp_path / "harmless"
    harmless.mkdir()
    shutil.copy(checkpoint / "config.json", harmless)
    torch.save(Dinov2Model.from_pretrained(checkpoint).state_dict(), harmless / "pytorch_model.bin")
    images = np.stack([encoder.preprocess(rgb) for rgb in pictures[:2]])
    again = load_shape("dinov2-tiny", _TINY, Settings(weights=str(harmless), device="cpu"))
    np.testing.assert_array_equal(again.embed(images), encoder.embed(images))


def test_broken_and_absent_weights_are_named(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"there is no model\.safetensors or model\.safetensors\.index\.json or pytorch_model\.bin in that folder"
    ):
        load_encoder("dinov2-base", weights=str(tmp_path), device="cpu")
    whole = (checkpoint / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"model\.safetensors is broken"):
        load_shape("dinov2-tiny", _TINY, Settings(weights=str(tmp_path), device="cpu"))


def test_without_network_and_weights_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> str:
        raise OSError("no network")

    monkeypatch.setattr(weights, "snapshot_download", unreachable)
    with pytest.raises(ValueError, match="nor could they be downloaded") as error:
        load_encoder("dinov2-base")
    assert str(error.value) == (
        "--encoder dinov2-base: the weights are neither on this machine nor could they be downloaded; run "
        "'hf download facebook/dinov2-base --local-dir dinov2-base' where there is a network and give "
        "--encoder-weights dinov2-base, or use --encoder builtin, which needs none"
    )


def test_cuda_is_never_replaced_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="--device cuda: torch finds no GPU here"):
        load_encoder("dinov2-base", device="cuda")
