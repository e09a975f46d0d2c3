"""Named models with the settings that they are trained with; each says what was and was not trained so far."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from train.network import NetworkConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A network and how it is trained."""

    name: str
    network: NetworkConfig
    batch: int
    """Images of an optimizer step."""
    micro_batch: int
    """Images of a forward pass: what fits into the memory of one device, and the unit that processes share."""
    total_images: int
    """Images to train on."""
    lr: float = 2e-4
    warmup_steps: int = 10_000
    ema: float = 0.9999
    """Decay of the averaged weights a step."""
    precision: Literal["float32", "bf16"] = "bf16"
    """Of the arithmetic inside the network; weights, z, target and loss are float32."""
    compile: bool = True
    channels_last: bool = True
    parallel: Literal["ddp", "fsdp2"] = "ddp"
    """How several processes share the work: each holds all weights, or a part of them."""


def tiny() -> Preset:
    """A toy of 32 pixels that a laptop trains in minutes.

    Command: pagepairs train --data OUT/shards --preset tiny --output RUN
    Parameters: 1.6 M (builtin) to 2.6 M (1280-wide tokens). Per training image: 1.2 to 2.2 GFLOP. Memory: 0.05 GiB of state, 0.2 GiB
    of activations. Trained: on a CPU, on 8 pairs, on 281 pairs of a real crawl, and (16 pixels) on synthetic sets; see docs/log.md.
    """
    network = NetworkConfig(
        image_px=32, channels=(32, 64, 128), blocks=(2, 2, 3), transformer_from=2, embedding=128, head_width=32, dropout=0.0
    )
    return Preset(
        name="tiny", network=network, batch=32, micro_batch=16, total_images=64_000, lr=1e-3, warmup_steps=100, ema=0.99,
        precision="float32", compile=False, channels_last=False,
    )  # fmt: skip


def small() -> Preset:
    """64 pixels, for one GPU and a first real set.

    Command: pagepairs train --data OUT/shards --preset small --output RUN
    Parameters: 51.4 M (DINOv2-B tokens). Per training image: 134 GFLOP. Memory: 1.0 GiB of state, 19 GiB of activations for a
    micro-batch of 128. Trained: no; built, counted, and its parts tested.
    """
    network = NetworkConfig(image_px=64, channels=(128, 256, 512), blocks=(3, 3, 6), transformer_from=2, embedding=512, head_width=64)
    return Preset(name="small", network=network, batch=256, micro_batch=128, total_images=256 * 100_000, warmup_steps=1_000, ema=0.999)


def semantica_256() -> Preset:
    """The paper's model of 256 pixels.

    Command: torchrun --nproc-per-node 8 -m train --data OUT/shards --preset semantica-256 --encoder dinov2-base --output RUN
    Parameters: 458.6 M. Per training image: 1.63 TFLOP. Memory a GPU: 8.5 GiB of state, 52 GiB of activations for a micro-batch of 32.
    Trained: no; built and counted on the meta device, and its parts tested. 300 000 steps are 1 004 EFLOP, about 1 180 H200-hours at
    30 % of the peak.
    """
    network = NetworkConfig(image_px=256, channels=(128, 128, 256, 512, 1024), blocks=(3, 3, 3, 3, 16), transformer_from=3)
    return Preset(name="semantica-256", network=network, batch=2048, micro_batch=32, total_images=2048 * 300_000)


def semantica_256_l() -> Preset:
    """The large model of 256 pixels: all channels of semantica-256 doubled.

    Command: torchrun --nproc-per-node 8 -m train --data OUT/shards --preset semantica-256-l --encoder dinov2-large --output RUN
    Parameters: 1.46 B. Per training image: 6.34 TFLOP. Memory a GPU: 27 GiB of state; activations of the two finest levels are computed
    twice. Trained: no; built and counted on the meta device.
    """
    base = semantica_256()
    channels = tuple(2 * width for width in base.network.channels)
    network = dataclasses.replace(base.network, channels=channels, checkpoint_levels=(0, 1))
    return dataclasses.replace(base, name="semantica-256-l", network=network)


def semantica_512() -> Preset:
    """The paper's model of 512 pixels, on patches of 2x2.

    Command: torchrun --nproc-per-node 8 -m train --data OUT/shards --preset semantica-512 --encoder dinov2-large --output RUN
    Parameters: 3.89 B. Per training image: 10.6 TFLOP. Memory: 72 GiB of state, shared by the processes, and the activations of a block.
    Trained: no; built and counted on the meta device; FSDP2 was run with two gloo processes on a small network.
    """
    network = NetworkConfig(
        image_px=512, patch_px=2, channels=(128, 256, 1024, 2048, 4096), blocks=(2, 3, 3, 3, 12), transformer_from=3,
        checkpoint_levels=(0, 1, 2, 3, 4),
    )  # fmt: skip
    return Preset(name="semantica-512", network=network, batch=2048, micro_batch=8, total_images=2048 * 300_000, parallel="fsdp2")


PRESETS: Mapping[str, Callable[[], Preset]] = {
    "tiny": tiny,
    "small": small,
    "semantica-256": semantica_256,
    "semantica-256-l": semantica_256_l,
    "semantica-512": semantica_512,
}
