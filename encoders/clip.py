"""OpenAI's CLIP through open_clip: the CLS token after the final LayerNorm, projected to the space shared with text.

Tokens: the patches row by row after the final LayerNorm, not projected: wider than the vector. These networks were trained with a quick
approximation of GELU; one that is built without it loads the same weights and gives other vectors.
"""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from open_clip.model import QuickGELU, resize_pos_embed
from open_clip.transformer import VisionTransformer

from encoders import torch_encoder, weights
from encoders.open_clip_tower import LIBRARY, check_config, fill, find_checkpoint, model_config
from encoders.preprocessing import RECIPES
from encoders.table import Settings

_MODELS = {"clip-b32": "ViT-B-32", "clip-b16": "ViT-B-16", "clip-l14": "ViT-L-14"}
_KEYS = ("image_size", "layers", "width", "patch_size")
_HEAD_WIDTH = 64


def load(spec: str, settings: Settings) -> Any:
    """Loads a published model from the hub, or from a local checkpoint that holds the same."""
    return load_model(spec, config_of(spec), settings)


def config_of(spec: str) -> dict[str, Any]:
    """Returns what open_clip knows of the network, and the activation of OpenAI's weights."""
    return model_config(_MODELS[spec], _KEYS) | {"quick_gelu": True}


def load_model(name: str, model: Mapping[str, Any], settings: Settings) -> Any:
    """Loads a network of any size of this architecture; `model` is open_clip's configuration of it."""
    vision = model["vision_cfg"]

    def build(size_px: int) -> torch_encoder.Built:
        recipe = RECIPES["clip"]
        path = find_checkpoint(name, settings.weights)
        if settings.weights:  # what the hub holds is what the table was made from
            check_config(name, path, model, recipe)
        tower = tower_of(model)
        fill(name, tower, path)
        if size_px != vision["image_size"]:
            tower = _resized(tower, model, size_px)
        return torch_encoder.Built(
            body=tower,
            width=model["embed_dim"],
            weights_sha256=weights.sha256_of([path]),
            library=LIBRARY,
            recipe=recipe,
            bfloat16="weights",
        )

    return torch_encoder.load(name, settings, build, input_size=vision["image_size"], patch=vision["patch_size"])


def tower_of(model: Mapping[str, Any], image_size: int = 0) -> VisionTransformer:
    """Returns the network without its weights, for another input size than its own on request."""
    vision = model["vision_cfg"]
    return VisionTransformer(
        image_size=image_size or vision["image_size"],
        patch_size=vision["patch_size"],
        width=vision["width"],
        layers=vision["layers"],
        heads=vision["width"] // _HEAD_WIDTH,
        mlp_ratio=4.0,
        output_dim=model["embed_dim"],
        act_layer=QuickGELU if model["quick_gelu"] else torch.nn.GELU,
        output_tokens=True,
    )


def _resized(tower: VisionTransformer, model: Mapping[str, Any], size_px: int) -> VisionTransformer:
    """Returns the tower for another input size, its position embedding resampled by open_clip: bicubic, antialiased."""
    resized = tower_of(model, size_px)
    state = {f"visual.{key}": tensor for key, tensor in tower.state_dict().items()}
    resize_pos_embed(state, SimpleNamespace(visual=resized))
    resized.load_state_dict({key.removeprefix("visual."): tensor for key, tensor in state.items()})
    return resized
