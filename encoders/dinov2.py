"""DINOv2, with and without registers, through transformers: the CLS token after the final LayerNorm.

Tokens: the CLS token, then the patches row by row, after the final LayerNorm; registers are left out.

Libraries resample the position grid from 518 pixels to the input's size in different ways: transformers without antialiasing for the
models without registers and with it for those with, timm always with it. Never compare vectors of two libraries.
"""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from encoders import torch_encoder
from encoders.preprocessing import RECIPES
from encoders.table import Settings, entry_of
from encoders.transformers_folder import LIBRARY, load_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What tells the published models apart."""

    width: int
    layers: int
    heads: int
    swiglu: bool = False
    """Whether the feed-forward part is gated."""
    registers: int = 0

    def config(self) -> Any:
        """Returns the configuration of the network, patches of 14 pixels, trained at 518."""
        registers: dict[str, Any] = {"num_register_tokens": self.registers} if self.registers else {}
        kind: Any = Dinov2WithRegistersConfig if self.registers else Dinov2Config
        return kind(
            hidden_size=self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            use_swiglu_ffn=self.swiglu,
            image_size=518,
            patch_size=14,
            **registers,
        )


SHAPES = {
    f"dinov2-{size}{suffix}": Shape(width=width, layers=layers, heads=heads, swiglu=size == "giant", registers=registers)
    for suffix, registers in (("", 0), ("-reg", 4))
    for size, width, layers, heads in (("small", 384, 12, 6), ("base", 768, 12, 12), ("large", 1024, 24, 16), ("giant", 1536, 40, 24))
}


class ClsFirst(torch.nn.Module):
    """Splits what a vision transformer of transformers returns into the CLS token and the tokens."""

    def __init__(self, model: Any, *, registers: int) -> None:
        super().__init__()
        self.model, self.registers = model, registers

    def forward(self, pixels_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the CLS token (B, D), and it with the patches (B, 1 + N, D)."""
        tokens_BND = self.model(pixel_values=pixels_BCHW).last_hidden_state
        if self.registers:
            tokens_BND = torch.cat([tokens_BND[:, :1], tokens_BND[:, 1 + self.registers :]], dim=1)
        return tokens_BND[:, 0], tokens_BND


def place_patches(model: Any, size_px: int) -> None:
    """Replaces the position embeddings by those for images of this size, resampled once by the model's own code, not in every pass."""
    patches, width = (size_px // model.config.patch_size) ** 2, model.config.hidden_size
    with torch.no_grad():
        placed = model.embeddings.interpolate_pos_encoding(torch.empty((1, 1 + patches, width)), size_px, size_px)
    model.embeddings.position_embeddings = torch.nn.Parameter(placed.clone())


def load(spec: str, settings: Settings) -> Any:
    """Loads a published model from the hub, or from a folder that holds the same."""
    return load_shape(spec, SHAPES[spec], settings, input_size=entry_of(spec).input_size)


def load_shape(name: str, shape: Shape, settings: Settings, *, input_size: int = 224) -> Any:
    """Loads a network of any size of this architecture."""

    def build(size_px: int) -> torch_encoder.Built:
        kind = Dinov2WithRegistersModel if shape.registers else Dinov2Model
        model, sha256 = load_folder(name, kind, shape.config(), settings.weights)
        place_patches(model, size_px)
        body = ClsFirst(model, registers=shape.registers)
        return torch_encoder.Built(body=body, width=shape.width, weights_sha256=sha256, library=LIBRARY, recipe=RECIPES["dinov2"])

    return torch_encoder.load(name, settings, build, input_size=input_size, patch=14)
