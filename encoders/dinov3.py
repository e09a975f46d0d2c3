"""DINOv3 through transformers: the CLS token after the final LayerNorm. The weights are gated: their licence must be accepted first.

Tokens: the CLS token, then the patches row by row, after the final LayerNorm; registers are left out. Positions are rotary, so no table
is resampled for other input sizes.
"""

from dataclasses import dataclass
from typing import Any

from transformers import DINOv3ViTConfig, DINOv3ViTModel

from encoders import torch_encoder
from encoders.dinov2 import ClsFirst
from encoders.preprocessing import RECIPES
from encoders.table import Settings, entry_of
from encoders.transformers_folder import LIBRARY, load_folder

REGISTERS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What tells the published models apart."""

    width: int
    inner: int
    """Width of the feed-forward part."""
    layers: int
    heads: int
    gated: bool = False
    bias: bool = True
    """Whether queries and values have biases."""

    def config(self) -> DINOv3ViTConfig:
        """Returns the configuration of the network, patches of 16 pixels, 4 registers."""
        return DINOv3ViTConfig(
            hidden_size=self.width,
            intermediate_size=self.inner,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            hidden_act="silu" if self.gated else "gelu",
            use_gated_mlp=self.gated,
            query_bias=self.bias,
            value_bias=self.bias,
            num_register_tokens=REGISTERS,
        )


SHAPES = {
    "dinov3-small": Shape(width=384, inner=1536, layers=12, heads=6),
    "dinov3-small-plus": Shape(width=384, inner=1536, layers=12, heads=6, gated=True),
    "dinov3-base": Shape(width=768, inner=3072, layers=12, heads=12),
    "dinov3-large": Shape(width=1024, inner=4096, layers=24, heads=16),
    "dinov3-huge-plus": Shape(width=1280, inner=5120, layers=32, heads=20, gated=True),
    "dinov3-7b": Shape(width=4096, inner=8192, layers=40, heads=32, gated=True, bias=False),
}


def load(spec: str, settings: Settings) -> Any:
    """Loads a published model from the hub, or from a folder that holds the same."""
    return load_shape(spec, SHAPES[spec], settings, input_size=entry_of(spec).input_size)


def load_shape(name: str, shape: Shape, settings: Settings, *, input_size: int = 224) -> Any:
    """Loads a network of any size of this architecture."""

    def build(_: int) -> torch_encoder.Built:
        model, sha256 = load_folder(name, DINOv3ViTModel, shape.config(), settings.weights)
        body = ClsFirst(model, registers=REGISTERS)
        return torch_encoder.Built(body=body, width=shape.width, weights_sha256=sha256, library=LIBRARY, recipe=RECIPES["dinov3"])

    return torch_encoder.load(name, settings, build, input_size=input_size, patch=16)
