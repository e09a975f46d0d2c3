"""SigLIP and SigLIP 2 through open_clip, whose image tower is timm's.

They have no CLS token. Vector: the output of the attention pool, which is what the contrastive loss of these models saw. Tokens: the
patches row by row after the final LayerNorm, which the pool attends to; there is no CLS token among them.

timm runs these towers with the exact GELU (the SO400M of patch 16 apart), transformers with its tanh approximation.
"""

from collections.abc import Mapping
from typing import Any

import torch
from open_clip.timm_model import TimmModel

from encoders import torch_encoder, weights
from encoders.open_clip_tower import LIBRARY, check_config, fill, find_checkpoint, model_config
from encoders.preprocessing import RECIPES
from encoders.table import Settings, entry_of

_KEYS = ("image_size", "timm_model_name", "timm_pool", "timm_proj")


class AttentionPooled(torch.nn.Module):
    """Splits the tower's forward pass into its patches and its pooled vector."""

    def __init__(self, tower: TimmModel) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, pixels_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the pooled vector (B, D) and the patches (B, N, D)."""
        tokens_BND = self.tower.trunk.forward_features(pixels_BCHW)
        return self.tower.head(self.tower.trunk.forward_head(tokens_BND)), tokens_BND


def load(spec: str, settings: Settings) -> Any:
    """Loads a published model from the hub, or from a local checkpoint that holds the same."""
    return load_model(spec, config_of(spec), settings, patch=entry_of(spec).patch)


def config_of(spec: str) -> dict[str, Any]:
    """Returns what open_clip knows of the network."""
    return model_config(entry_of(spec).hub.removeprefix("timm/"), _KEYS)


def tower_of(model: Mapping[str, Any]) -> TimmModel:
    """Returns the network without its weights."""
    vision = model["vision_cfg"]
    return TimmModel(
        vision["timm_model_name"],
        embed_dim=model["embed_dim"],
        image_size=vision["image_size"],
        pool=vision["timm_pool"],
        proj=vision["timm_proj"],
    )


def load_model(name: str, model: Mapping[str, Any], settings: Settings, *, patch: int) -> Any:
    """Loads a network of any size of this architecture; `model` is open_clip's configuration of it."""
    vision = model["vision_cfg"]

    def build(size_px: int) -> torch_encoder.Built:
        recipe = RECIPES["siglip"]
        path = find_checkpoint(name, settings.weights)
        if settings.weights:  # what the hub holds is what the table was made from
            check_config(name, path, model, recipe)
        tower = tower_of(model)
        fill(name, tower, path)
        if size_px != vision["image_size"]:
            tower.set_input_size(size_px)
        body = AttentionPooled(tower)
        sha256 = weights.sha256_of([path])
        return torch_encoder.Built(body=body, width=model["embed_dim"], weights_sha256=sha256, library=LIBRARY, recipe=recipe)

    return torch_encoder.load(name, settings, build, input_size=vision["image_size"], patch=patch)
