"""The network: the U-ViT of simple diffusion, conditioned on an image encoder's tokens (cross-attention) or its global vector (FiLM).

B = batch, C = channels, H, W = pixels, N = places or tokens, D = width of a vector. Levels run from the finest to the middle; each halves
the side. Sizes follow Multistep Consistency Models (arXiv 2403.06807, appendix A), whose parameter counts the tests compare with.
Where the papers are silent, these choices are ours: the order in a transformer block (self-attention, cross-attention, MLP), RMS norm
without scale on conditions, one skip a block.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F  # noqa: N812 (as everywhere)
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Conditioning = Literal["cross_attention", "film"]
Layer = TypeVar("Layer", bound=nn.Module)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """The shape of a network."""

    image_px: int
    """Side of the images."""
    patch_px: int = 1
    """Side of the patches that become one place of the finest level."""
    channels: tuple[int, ...]
    """Of each level, the middle last."""
    blocks: tuple[int, ...]
    """Of each level on the way down, and again on the way up; of the middle once."""
    transformer_from: int
    """The first level of transformer blocks; those before it are ResNet blocks."""
    embedding: int = 1024
    """Width of the time embedding."""
    head_width: int = 128
    """Width of an attention head; the paper's 4 heads are a quarter of the channels."""
    dropout: float = 0.1
    """In the middle."""
    checkpoint_levels: tuple[int, ...] = ()
    """Levels whose activations are computed again in the backward pass rather than kept."""


def build(config: NetworkConfig, *, conditioning: Conditioning, condition_width: int, classes: int = 0) -> "Network":
    """Returns a network with initial weights; under `torch.device("meta")` it takes no memory.

    Args:
      config: its shape.
      conditioning: cross_attention takes tokens, film the global vector.
      condition_width: of a token or of the vector; 0 builds an unconditional network.
      classes: size of a class embedding, which only the published label-conditional models have.

    Raises:
      ValueError: if the side of the image cannot be halved as often as there are levels.
    """
    step = config.patch_px * 2 ** (len(config.channels) - 1)
    if config.image_px % step or len(config.channels) != len(config.blocks):
        raise ValueError(f"{config.image_px} pixels with {len(config.channels)} levels: the side must be a multiple of {step}")
    return Network(config, conditioning, condition_width, classes)


class Network(nn.Module):
    """From noised images, λ and a condition to v."""

    def __init__(self, config: NetworkConfig, conditioning: Conditioning, condition_width: int, classes: int) -> None:
        super().__init__()
        self.config, self.conditioning, self.condition_width = config, conditioning, condition_width
        channels, middle = config.channels, len(config.channels) - 1
        pixels = 3 * config.patch_px**2
        token_width = condition_width if conditioning == "cross_attention" else 0
        self.embed = TimeEmbedding(channels[0], config.embedding)
        self.classes = nn.Embedding(classes, config.embedding) if classes else None
        self.null = nn.Parameter(torch.zeros(condition_width)) if condition_width else None
        self.to_embedding = nn.Linear(condition_width, config.embedding) if condition_width and conditioning == "film" else None
        self.stem = nn.Conv2d(pixels, channels[0], 1)
        self.down = nn.ModuleList(self._level(level) for level in range(middle))
        self.narrow = nn.ModuleList(nn.Conv2d(channels[level], channels[level + 1], 1) for level in range(middle))
        side = config.image_px // config.patch_px // 2**middle
        self.position = nn.Parameter(torch.randn(channels[-1], side, side) * 0.01)
        self.middle = self._level(middle, token_width=token_width, dropout=config.dropout)
        self.widen = nn.ModuleList(nn.Conv2d(channels[level + 1], channels[level], 1) for level in range(middle))
        self.up = nn.ModuleList(self._level(level, skips=True) for level in range(middle))
        self.out_norm = GroupNorm(channels[0])
        self.out = _zero(nn.Conv2d(channels[0], pixels, 3, padding=1))

    def _level(self, level: int, *, token_width: int = 0, dropout: float = 0.0, skips: bool = False) -> nn.ModuleList:
        config, kind = self.config, ResnetBlock if level < self.config.transformer_from else TransformerBlock
        width = config.channels[level]
        blocks = (kind(width, config, token_width=token_width, dropout=dropout) for _ in range(config.blocks[level]))
        return nn.ModuleList(WithSkip(width, block) if skips else block for block in blocks)

    def forward(
        self,
        z_BCHW: Tensor,
        log_snr_B: Tensor,
        condition_BS: Tensor | None = None,
        null_B: Tensor | None = None,
        class_B: Tensor | None = None,
    ) -> Tensor:
        """Returns v, (B, 3, H, W).

        Args:
          z_BCHW: noised images.
          log_snr_B: λ, float32.
          condition_BS: tokens (B, N, C) or vectors (B, D); None where the network is unconditional.
          null_B: True where the null condition takes the place of the given one; None takes all as given.
          class_B: labels, only for networks with a class embedding.
        """
        embedding_BD = self.embed(log_snr_B)
        if self.classes is not None and class_B is not None:
            embedding_BD = embedding_BD + self.classes(class_B)
        tokens_BNC = None
        if condition_BS is not None and self.null is not None:
            condition_BS = self._condition(condition_BS, null_B)
            if self.to_embedding is not None:
                embedding_BD = embedding_BD + self.to_embedding(condition_BS)
            else:
                tokens_BNC = condition_BS
        embedding_BD = F.silu(embedding_BD)
        x = self.stem(F.pixel_unshuffle(z_BCHW, self.config.patch_px))
        skips = []
        for level in range(len(self.down)):
            for block in _blocks(self.down[level]):
                x = self._run(level, block, x, embedding_BD)
                skips.append(x)
            x = self.narrow[level](F.avg_pool2d(x, 2))
        x = x + self.position
        for block in self.middle:
            x = self._run(len(self.down), block, x, embedding_BD, tokens_BNC)
        for level in reversed(range(len(self.up))):
            x = F.interpolate(self.widen[level](x), scale_factor=2.0, mode="nearest")
            for block in _blocks(self.up[level]):
                x = self._run(level, block, x, embedding_BD, skips.pop())
        return F.pixel_shuffle(self.out(F.silu(self.out_norm(x))), self.config.patch_px)

    def all_blocks(self) -> Iterator[nn.Module]:
        """Yields the blocks of all levels, the unit of sharding and compiling."""
        for level in (*self.down, self.middle, *self.up):
            yield from _blocks(level)

    def _condition(self, condition_BS: Tensor, null_B: Tensor | None) -> Tensor:
        assert self.null is not None
        # Encoders' scales differ by orders of magnitude; a layer-normed DINOv2 token hardly changes.
        condition_BS = F.rms_norm(condition_BS.float(), (self.condition_width,))
        if null_B is None:
            return condition_BS
        return torch.where(null_B.view(-1, *[1] * (condition_BS.ndim - 1)), self.null, condition_BS)

    def _run(self, level: int, block: nn.Module, *args: Tensor | None) -> Tensor:
        if self.training and level in self.config.checkpoint_levels:
            again: Tensor = checkpoint(block, *args, use_reentrant=False)
            return again
        x: Tensor = block(*args)
        return x


class TimeEmbedding(nn.Module):
    """λ to an embedding: sinusoids of λ, whose range of ±10 spans 1000 units, through two dense layers. Beyond that range it goes on."""

    def __init__(self, base: int, width: int) -> None:
        super().__init__()
        self.base = base
        self.first, self.second = nn.Linear(base, width), nn.Linear(width, width)

    def forward(self, log_snr_B: Tensor) -> Tensor:
        """Returns (B, width)."""
        with torch.autocast(log_snr_B.device.type, enabled=False):  # bfloat16 has 8 bits for a phase of hundreds of radians
            half = self.base // 2
            frequency = torch.exp(torch.arange(half, device=log_snr_B.device, dtype=torch.float32) * (-math.log(10_000) / (half - 1)))
            phase = (log_snr_B.float()[:, None] + 10) / 20 * 1000 * frequency
            wave_BD = torch.cat([phase.sin(), phase.cos()], dim=1)
            embedded: Tensor = self.second(F.silu(self.first(wave_BD)))
        return embedded


class GroupNorm(nn.GroupNorm):
    """Over groups of at least 4 channels, 32 groups at most."""

    def __init__(self, channels: int) -> None:
        super().__init__(math.gcd(32, channels // 4), channels)


class Film(nn.Module):
    """Scales and shifts the hidden channels of a block by the embedding."""

    def __init__(self, embedding: int, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(embedding, 2 * width)

    def forward(self, embedding_BD: Tensor) -> tuple[Tensor, Tensor]:
        """Returns scale and shift, each (B, width)."""
        scale, shift = self.dense(embedding_BD).chunk(2, dim=1)
        return 1 + scale, shift


class ResnetBlock(nn.Module):
    """Two 3x3 convolutions, the embedding between them."""

    def __init__(self, width: int, config: NetworkConfig, *, token_width: int, dropout: float) -> None:
        super().__init__()
        assert not token_width, "cross-attention belongs to transformer blocks"
        self.norm, self.first = GroupNorm(width), nn.Conv2d(width, width, 3, padding=1)
        self.hidden_norm, self.film = GroupNorm(width), Film(config.embedding, width)
        self.dropout, self.second = nn.Dropout(dropout), _zero(nn.Conv2d(width, width, 3, padding=1))

    def forward(self, x_BCHW: Tensor, embedding_BD: Tensor) -> Tensor:
        """Returns x plus the block's change."""
        scale, shift = self.film(embedding_BD)
        hidden = self.hidden_norm(self.first(F.silu(self.norm(x_BCHW))))
        hidden = self.dropout(F.silu(hidden * scale[:, :, None, None] + shift[:, :, None, None]))
        changed: Tensor = x_BCHW + self.second(hidden)
        return changed


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention where there are tokens, and an MLP whose hidden layer the embedding scales and shifts."""

    def __init__(self, width: int, config: NetworkConfig, *, token_width: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(width), Attention(width, width, config.head_width)
        self.cross_norm = nn.LayerNorm(width) if token_width else None
        self.cross = Attention(width, token_width, config.head_width) if token_width else None
        self.mlp_norm, self.first = nn.LayerNorm(width), nn.Linear(width, 4 * width)
        self.film, self.dropout = Film(config.embedding, 4 * width), nn.Dropout(dropout)
        self.second = _zero(nn.Linear(4 * width, width))

    def forward(self, x_BCHW: Tensor, embedding_BD: Tensor, tokens_BNC: Tensor | None = None) -> Tensor:
        """Returns x plus the block's changes."""
        x_BND: Tensor = x_BCHW.flatten(2).transpose(1, 2)
        normed = self.norm(x_BND)
        x_BND = x_BND + self.attention(normed, normed)
        if self.cross is not None and self.cross_norm is not None and tokens_BNC is not None:
            x_BND = x_BND + self.cross(self.cross_norm(x_BND), tokens_BNC)
        scale, shift = self.film(embedding_BD)
        hidden = F.gelu(self.first(self.mlp_norm(x_BND))) * scale[:, None] + shift[:, None]
        x_BND = x_BND + self.second(self.dropout(hidden))
        return x_BND.transpose(1, 2).reshape(x_BCHW.shape)


class Attention(nn.Module):
    """Attention of places to themselves or to tokens, with normalised queries and keys."""

    def __init__(self, width: int, source_width: int, head_width: int) -> None:
        super().__init__()
        assert width % head_width == 0, "heads divide the channels"
        self.head_width = head_width
        self.query, self.key, self.value = nn.Linear(width, width), nn.Linear(source_width, width), nn.Linear(source_width, width)
        self.query_scale, self.key_scale = nn.Parameter(torch.ones(head_width)), nn.Parameter(torch.ones(head_width))
        self.out = _zero(nn.Linear(width, width))

    def forward(self, x_BND: Tensor, source_BMC: Tensor) -> Tensor:
        """Returns what each place gathers from the source, (B, N, D)."""
        query, key, value = (
            layer(of).unflatten(2, (-1, self.head_width)).transpose(1, 2)
            for layer, of in ((self.query, x_BND), (self.key, source_BMC), (self.value, source_BMC))
        )
        # RMS norm over a head. The scales are cast, not the features widened: fused attention wants one type.
        query, key = (
            F.rms_norm(of, (self.head_width,), eps=1e-6) * scale.to(of.dtype)
            for of, scale in ((query, self.query_scale), (key, self.key_scale))
        )
        gathered: Tensor = self.out(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
        return gathered


class WithSkip(nn.Module):
    """A block of the way up: it begins with the mean of x and the skip, each normalised."""

    def __init__(self, width: int, block: nn.Module) -> None:
        super().__init__()
        self.norm, self.skip_norm, self.block = GroupNorm(width), GroupNorm(width), block

    def forward(self, x_BCHW: Tensor, embedding_BD: Tensor, skip_BCHW: Tensor) -> Tensor:
        """Returns the block's output."""
        changed: Tensor = self.block((self.norm(x_BCHW) + self.skip_norm(skip_BCHW)) / math.sqrt(2), embedding_BD)
        return changed


def _blocks(level: nn.Module) -> nn.ModuleList:
    assert isinstance(level, nn.ModuleList)
    return level


def _zero(layer: Layer) -> Layer:
    """Sets the layer's weights to zero: a block begins as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
