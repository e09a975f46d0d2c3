"""Small random checkpoints of every family's true architecture, as its library writes them, and that library's own way to use them."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer
from transformers import (
    BitImageProcessor,
    Dinov2Model,
    Dinov2WithRegistersModel,
    DINOv3ViTImageProcessor,
    DINOv3ViTModel,
    ViTImageProcessor,
    ViTMAEForPreTraining,
    ViTMAEModel,
)

from encoders import clip, dinov2, dinov3, mae, siglip, transformers_folder
from encoders.table import Settings

Load = Callable[[Settings], Any]
Own = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
SIGLIP: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 224, "timm_model_name": "vit_small_siglip_for_tests", "timm_pool": "map", "timm_proj": "none"},
}
CLIP: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 224, "layers": 2, "width": 128, "patch_size": 32},
    "quick_gelu": True,
}
_TEXT = {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Small:
    """A checkpoint on disk."""

    name: str
    folder: Path
    load: Load
    """The encoder on it, through our code."""
    own: Own
    """The library's own processor and network: normalised pixels (3, S, S) and the vector, of any length, of one image."""
    patch: int
    tokens: int
    """At 224 pixels."""
    cls_token: bool = True
    """Whether the first token is the vector."""


@register_model
def vit_small_siglip_for_tests(pretrained: bool = False, num_classes: int = 0, global_pool: str = "map", **_: Any) -> VisionTransformer:
    """A SigLIP of two layers, built as timm builds the published ones."""
    assert not pretrained
    assert global_pool == "map"
    size = {"img_size": 224, "patch_size": 16, "embed_dim": 64, "depth": 2, "num_heads": 2}
    return VisionTransformer(**size, class_token=False, global_pool="map", num_classes=num_classes)


def roughen(network: torch.nn.Module) -> None:
    """Makes all weights large enough, and different enough, that each counts in the output."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weights in sorted(network.named_parameters()):
            noise = torch.randn(weights.shape, generator=generator)
            is_scale = weights.ndim == 1 and (name.endswith(("weight", "lambda1", "gamma")))
            weights.copy_(1 + 0.2 * noise if is_scale else 0.1 * noise)


def dinov2_small(folder: Path, shape: dinov2.Shape, name: str = "dinov2-small-for-tests") -> Small:
    kind = Dinov2WithRegistersModel if shape.registers else Dinov2Model
    processor = BitImageProcessor(
        do_resize=True,
        size={"shortest_edge": 256},
        resample=Image.Resampling.BICUBIC,
        do_center_crop=True,
        crop_size={"height": 224, "width": 224},
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        **IMAGENET,
    )
    network = _saved(kind(shape.config()), folder)
    return Small(
        name=name,
        folder=folder,
        load=lambda settings: dinov2.load_shape(name, shape, settings),
        own=_own_of_transformers(processor, lambda pixels: network(pixels).pooler_output),
        patch=14,
        tokens=257,
    )


def dinov3_small(folder: Path, shape: dinov3.Shape, name: str = "dinov3-small-for-tests") -> Small:
    network = _saved(DINOv3ViTModel(shape.config()), folder)
    return Small(
        name=name,
        folder=folder,
        load=lambda settings: dinov3.load_shape(name, shape, settings),
        own=_own_of_transformers(DINOv3ViTImageProcessor(), lambda pixels: network(pixels).pooler_output),
        patch=16,
        tokens=197,
    )


def mae_small(folder: Path, shape: mae.Shape, name: str = "mae-small-for-tests") -> Small:
    """A checkpoint with its decoder, as published."""
    config = shape.config()
    config.decoder_hidden_size, config.decoder_num_hidden_layers, config.decoder_num_attention_heads = 32, 1, 2
    config.decoder_intermediate_size, config.mask_ratio = 64, 0.75
    _saved(ViTMAEForPreTraining(config), folder)
    with transformers_folder._quiet():
        network = ViTMAEModel.from_pretrained(folder, mask_ratio=0.0).eval()
    order = torch.arange(196.0)[None]
    processor = ViTImageProcessor(resample=Image.Resampling.BILINEAR, size={"height": 224, "width": 224}, **IMAGENET)
    return Small(
        name=name,
        folder=folder,
        load=lambda settings: mae.load_shape(name, shape, settings),
        own=_own_of_transformers(processor, lambda pixels: network(pixels, noise=order).last_hidden_state[:, 0]),
        patch=16,
        tokens=197,
    )


def siglip_small(folder: Path, name: str = "siglip-small-for-tests") -> Small:
    network, transform = _saved_open_clip(SIGLIP | {"custom_text": True}, folder, siglip.RECIPES["siglip"])
    return Small(
        name=name,
        folder=folder,
        load=lambda settings: siglip.load_model(name, SIGLIP, settings, patch=16),
        own=_own_of_open_clip(network, transform),
        patch=16,
        tokens=196,
        cls_token=False,
    )


def clip_small(folder: Path, name: str = "clip-small-for-tests") -> Small:
    network, transform = _saved_open_clip(CLIP, folder, clip.RECIPES["clip"])
    return Small(
        name=name,
        folder=folder,
        load=lambda settings: clip.load_model(name, CLIP, settings),
        own=_own_of_open_clip(network, transform),
        patch=32,
        tokens=49,
        cls_token=False,
    )


_GATED = dinov3.Shape(width=64, inner=128, layers=2, heads=2, gated=True, bias=False)
FAMILIES: dict[str, Callable[[Path], Small]] = {
    "dinov2": lambda folder: dinov2_small(folder, dinov2.Shape(width=48, layers=2, heads=3)),
    "dinov2-reg": lambda folder: dinov2_small(folder, dinov2.Shape(width=48, layers=2, heads=3, registers=4)),
    "dinov2-giant": lambda folder: dinov2_small(folder, dinov2.Shape(width=48, layers=2, heads=3, swiglu=True), "dinov2-giant"),
    "dinov3": lambda folder: dinov3_small(folder, dinov3.Shape(width=64, inner=128, layers=2, heads=2)),
    "dinov3-gated": lambda folder: dinov3_small(folder, _GATED, "dinov3-gated"),
    "siglip": siglip_small,
    "clip": clip_small,
    "mae": lambda folder: mae_small(folder, mae.Shape(width=48, layers=2, heads=3)),
}


def _saved(network: Any, folder: Path) -> Any:
    """Writes the network as transformers does, with weights that matter, and returns it."""
    roughen(network)
    with transformers_folder._quiet():
        network.save_pretrained(folder)
    return network.eval()


def _saved_open_clip(model: dict[str, Any], folder: Path, recipe: Any) -> tuple[Any, Any]:
    """Writes a folder as open_clip publishes it; returns the network and the transform that open_clip reads from that folder."""
    folder.mkdir(parents=True, exist_ok=True)
    preprocess = {"mean": recipe.channels.mean, "std": recipe.channels.deviation, "interpolation": recipe.interpolation}
    config = {"model_cfg": model | {"text_cfg": _TEXT}, "preprocess_cfg": preprocess | {"resize_mode": recipe.fit}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    network = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    roughen(network)
    save_file(network.state_dict(), folder / "open_clip_model.safetensors")
    network, transform = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    return network.eval(), transform


def _own_of_transformers(processor: Any, run: Callable[[torch.Tensor], torch.Tensor]) -> Own:
    def own(rgb_HW3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pixels_1CHW = processor(Image.fromarray(rgb_HW3), return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            return pixels_1CHW[0].numpy(), run(pixels_1CHW)[0].numpy()

    return own


def _own_of_open_clip(network: Any, transform: Any) -> Own:
    def own(rgb_HW3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pixels_1CHW = transform(Image.fromarray(rgb_HW3))[None]
        with torch.inference_mode():
            return pixels_1CHW[0].numpy(), network.encode_image(pixels_1CHW)[0].numpy()

    return own
