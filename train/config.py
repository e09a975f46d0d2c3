"""The settings of training: what the command line takes, and what it becomes together with its preset."""

import dataclasses
import difflib
from dataclasses import dataclass
from typing import Any, Literal

from train.network import Conditioning
from train.presets import PRESETS, Preset

Switch = Literal["on", "off"]
FREE = frozenset(
    {"data", "output", "total_images", "device", "threads", "log_images", "checkpoint_images", "keep_checkpoints", "grid_images"}
    | {"grid_steps", "images_per_s", "peak_tflops", "dry_run", "encoder_weights", "compile", "parallel"}
)
"""Settings that a run may change when it goes on: none of them says what is learned from which sample."""


def _require(good: bool, name: str, value: object, remedy: str) -> None:
    if not good:
        raise ValueError(f"--{name.replace('_', '-')} {value}: {remedy}")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What is trained, on what, and how; None takes the preset's value."""

    data: str = ""
    """Folder of pair shards (parquet, webdataset or tfrecord); with --mode label a folder of class folders of images."""
    output: str = ""
    """Folder of the run; the same command again goes on from its newest checkpoint."""
    preset: str = "tiny"
    """tiny, small, semantica-256, semantica-256-l or semantica-512."""
    mode: Literal["pairs", "label", "reconstruction"] = "pairs"
    """Whose image is the condition: the other one of the pair, another one of the class, or the target itself."""
    conditioning: Conditioning = "cross_attention"
    """Tokens by cross-attention, or the global vector through the time embedding."""
    encoder: str = "dinov2-base"
    """Encoder of the condition, by the names that pagepairs run --encoder takes."""
    encoder_weights: str = ""
    """Folder or file of local weights of the encoder; empty downloads them from the hub."""
    seed: int = 0
    """Changes every random choice."""
    total_images: int | None = None
    """Images to train on."""
    batch: int | None = None
    """Images of an optimizer step, over all processes."""
    micro_batch: int | None = None
    """Images of a forward pass."""
    lr: float | None = None
    """Learning rate after the warm-up."""
    warmup_steps: int | None = None
    """Steps over which the learning rate rises."""
    ema: float | None = None
    """Decay of the averaged weights a step."""
    dropout: float | None = None
    """Dropout in the middle of the network."""
    precision: Literal["float32", "bf16"] | None = None
    """Arithmetic inside the network."""
    compile: Switch | None = None
    """Compiles the network."""
    channels_last: Switch | None = None
    """Keeps images with their channels last in memory."""
    checkpoint_levels: tuple[int, ...] | None = None
    """Levels of the network whose activations are computed twice rather than kept."""
    parallel: Literal["ddp", "fsdp2"] | None = None
    """How several processes share the work."""
    condition_dropout: float = 0.1
    """Share of images that see the null condition, for guidance."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    augment: Literal["none", "flip", "crop-flip"] = "none"
    """Mirrors images, or cuts them out of the enlarged image too; both images alike where the condition is the target."""
    window_groups: int = 16
    """Row groups that are shuffled together and held in memory."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the network runs."""
    threads: int = 0
    """Threads that read and decode; 0 takes one a core, four at most."""
    log_images: int = 0
    """Images between two lines of the log; 0 writes one a step."""
    checkpoint_images: int = 0
    """Images between two checkpoints; 0 takes a twentieth of the run, the last is always written."""
    keep_checkpoints: int = 3
    """Newest checkpoints that stay."""
    grid_images: int = 0
    """Images between two sample grids; 0 takes a fifth of the run."""
    grid_steps: int = 64
    """Sampling steps of the grids."""
    images_per_s: float = 0.0
    """Rate at which --dry-run counts hours."""
    peak_tflops: float = 0.0
    """Peak of the device, for model FLOP utilisation; 0 knows some cards, and shows none for others."""
    dry_run: bool = False
    """Prints parameters, FLOP, memory, steps and hours, and exits; needs no data."""

    def __post_init__(self) -> None:
        near = difflib.get_close_matches(self.preset, PRESETS, n=1, cutoff=0.0)[0]
        _require(self.preset in PRESETS, "preset", self.preset, f"no such preset, the nearest is {near}; there are {', '.join(PRESETS)}")
        _require(0 <= self.seed < 2**63, "seed", self.seed, "give a number from 0 to 2**63 - 1")
        for name in ("total_images", "batch", "micro_batch", "keep_checkpoints", "window_groups", "grid_steps"):
            value = getattr(self, name)
            _require(value is None or value >= 1, name, value, "give at least 1")
        for name in ("lr", "clip"):
            value = getattr(self, name)
            _require(value is None or value > 0, name, value, "give a positive number")
        for name in ("warmup_steps", "threads", "log_images", "checkpoint_images", "grid_images", "images_per_s", "peak_tflops"):
            value = getattr(self, name)
            _require(value is None or value >= 0, name, value, "give 0 or more")
        for name in ("ema", "dropout", "condition_dropout"):
            value = getattr(self, name)
            _require(value is None or 0 <= value < 1, name, value, "give a number from 0 to below 1")


_OF_NETWORK = ("dropout", "checkpoint_levels")
_OF_PRESET = ("total_images", "batch", "micro_batch", "lr", "warmup_steps", "ema", "precision", "compile", "channels_last", "parallel")


def resolve(config: TrainConfig) -> Preset:
    """Returns the preset with the settings that were given in place of its own.

    Raises:
      ValueError: if the sizes of batches do not fit together.
    """
    preset = PRESETS[config.preset]()
    given = {name: getattr(config, name) for name in _OF_NETWORK if getattr(config, name) is not None}
    network = dataclasses.replace(preset.network, **given)
    given = {name: getattr(config, name) for name in _OF_PRESET if getattr(config, name) is not None}
    given |= {name: given[name] == "on" for name in ("compile", "channels_last") if name in given}
    if "batch" in given and "micro_batch" not in given:
        given["micro_batch"] = min(preset.micro_batch, given["batch"])
    preset = dataclasses.replace(preset, network=network, **given)
    remedy = f"must be a multiple of --micro-batch {preset.micro_batch}"
    _require(preset.batch % preset.micro_batch == 0, "batch", preset.batch, remedy)
    levels = len(network.channels)
    _require(
        all(0 <= level < levels for level in network.checkpoint_levels),
        "checkpoint_levels",
        network.checkpoint_levels,
        f"levels are 0 to {levels - 1}",
    )
    return preset


def identity(config: TrainConfig) -> dict[str, Any]:
    """Returns the settings that decide what is learned from which sample, resolved, as JSON holds them."""
    value = dataclasses.asdict(config) | dataclasses.asdict(resolve(config))
    value = {name: entry for name, entry in value.items() if name not in FREE | set(_OF_NETWORK) | {"name"}}
    value["network"].pop("checkpoint_levels")
    plain: dict[str, Any] = as_json(value)
    return plain


def as_json(value: Any) -> Any:
    """Returns the value with lists for tuples, as it comes back from a file."""
    if isinstance(value, dict):
        return {key: as_json(entry) for key, entry in value.items()}
    return [as_json(entry) for entry in value] if isinstance(value, tuple | list) else value
