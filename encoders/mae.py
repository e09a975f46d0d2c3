"""MAE's encoder through transformers: the CLS token after the final LayerNorm, of the whole image.

Tokens: the CLS token, then the patches row by row, after the final LayerNorm. The network masks 75 % of the patches at random unless it
is told not to, and shuffles the rest: two calls on one image would give vectors of cosine 0.5. Here nothing is masked and the order is
fixed.
"""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import ViTMAEConfig, ViTMAEModel

from encoders import torch_encoder
from encoders.dinov2 import place_patches
from encoders.preprocessing import RECIPES
from encoders.table import Settings, entry_of
from encoders.transformers_folder import LIBRARY, load_folder

PATCH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What tells the published models apart."""

    width: int
    layers: int
    heads: int

    def config(self) -> ViTMAEConfig:
        """Returns the configuration of the encoder, unmasked."""
        return ViTMAEConfig(
            hidden_size=self.width,
            intermediate_size=4 * self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            image_size=224,
            patch_size=PATCH,
            mask_ratio=0.0,
        )


SHAPES = {"mae-large": Shape(width=1024, layers=24, heads=16)}


class Unmasked(torch.nn.Module):
    """Calls the encoder with the patches in their own order."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the CLS token (B, D), and it with the patches (B, 1 + N, D)."""
        batch, _, height, width = pixels_BCHW.shape
        order_N = torch.arange((height // PATCH) * (width // PATCH), dtype=torch.float32, device=pixels_BCHW.device)
        noise_BN = order_N[None].expand(batch, -1)
        tokens_BND = self.model(pixel_values=pixels_BCHW, noise=noise_BN, interpolate_pos_encoding=True).last_hidden_state
        return tokens_BND[:, 0], tokens_BND


def load(spec: str, settings: Settings) -> Any:
    """Loads a published model from the hub, or from a folder that holds the same."""
    return load_shape(spec, SHAPES[spec], settings, input_size=entry_of(spec).input_size)


def load_shape(name: str, shape: Shape, settings: Settings, *, input_size: int = 224) -> Any:
    """Loads a network of any size of this architecture."""

    def build(size_px: int) -> torch_encoder.Built:
        # Published checkpoints hold the decoder too, which is for training.
        unused = ("decoder.",)
        model, sha256 = load_folder(name, ViTMAEModel, shape.config(), settings.weights, unused=unused)
        place_patches(model, size_px)
        return torch_encoder.Built(body=Unmasked(model), width=shape.width, weights_sha256=sha256, library=LIBRARY, recipe=RECIPES["mae"])

    return torch_encoder.load(name, settings, build, input_size=input_size, patch=PATCH)
