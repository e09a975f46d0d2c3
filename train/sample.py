"""`pagepairs sample`: images drawn for conditions of one's own, as PNGs and grids, with the record from which each can be drawn again."""

import dataclasses
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from pagepairs.files import read_json, write_bytes
from pagepairs.images import encode_image
from train.condition_grid import draw_grid
from train.image_files import Dropped, InputError, Picture, find_images, read_images, read_shard_images, shard_files
from train.sample_files import Generator, Wanted, keep_record, make_samples, read_samples, sample_path, wanted_samples

SCHEMA_VERSION = 1
_ROWS = 16


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """What is drawn, from which model, for which conditions."""

    checkpoint: str = ""
    """Run of `pagepairs train` (its newest checkpoint), or one folder of its checkpoints/."""
    images: str = ""
    """Conditions: a folder of images, one image, or a folder of pair shards."""
    output: str = ""
    """Folder for samples/, grid-*.png and samples.json; the same command again goes on from what is there."""
    guidance: float = 0.5
    """Weight w of classifier-free guidance; 0 is plain conditional."""
    num_samples: int = 8
    """Samples of each condition."""
    num_conditions: int = 64
    """Conditions that are used, the first in order of name; 0 uses all."""
    only: str = ""
    """Draws just the sample of this id again."""
    steps: int = 256
    """Sampling steps."""
    interpolation: float = 0.2
    """Between the lower (0) and the upper (1) variance of a sampling step."""
    seed: int = 0
    """Changes every sample."""
    condition_encoder: str = ""
    """Encoder of the conditions; empty takes what the checkpoint names, and any other is refused."""
    condition_weights: str = ""
    """Its weights, where they have moved since training."""
    batch_size: int = 16
    """Images drawn at a time on a GPU; a CPU draws one a core, each by itself, so that its pixels never depend on the others."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the networks run."""

    def __post_init__(self) -> None:
        def require(good: bool, name: str, remedy: str) -> None:
            if not good:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}: {remedy}")

        require(0 <= self.guidance < 1e3, "guidance", "give 0 or more")
        require(self.num_samples >= 1, "num_samples", "give at least 1")
        require(self.num_conditions >= 0, "num_conditions", "give 0 (all) or a number of conditions")
        require(self.steps >= 1, "steps", "give at least 1")
        require(0 <= self.interpolation <= 1, "interpolation", "give 0 (lower variance) to 1 (upper variance)")
        require(0 <= self.seed < 2**63, "seed", "give a number from 0 to 2**63 - 1")
        require(self.batch_size >= 1, "batch_size", "give at least 1")

    def check(self) -> None:
        """Raises ValueError for a flag that every use needs."""
        for name, what in (("checkpoint", "a run of `pagepairs train`"), ("output", "the folder to write to")):
            if not getattr(self, name):
                raise ValueError(f"--{name} is missing: name {what}")


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What was made, and what a user should know of it."""

    paths: Sequence[str]
    """Of the grids, or of the one sample of --only."""
    notes: Sequence[str]


def draw_samples(config: SampleConfig, load: Callable[[SampleConfig], Generator]) -> Drawn:
    """Makes the samples, their record and the grids.

    Args:
      config: the settings.
      load: returns the model of --checkpoint, ready to run.

    Raises:
      ValueError: for conditions that cannot be used, or an --output with other samples; before any sample is made.
    """
    config.check()
    shards = shard_files(config.images)
    files = () if shards else find_images(config.images, flag="--images")  # before the model, which takes longer
    generator, dropped = load(config), Dropped()
    size_px = generator.condition_px
    pictures = (
        read_shard_images(shards, side="condition", size_px=size_px, dropped=dropped)
        if shards
        else read_images(files, size_px=size_px, dropped=dropped, small_ok=True)
    )
    conditions = list(islice(pictures, config.num_conditions or None))
    if not conditions:
        raise InputError(f"--images {config.images}: no image can be read: {dropped}")
    wanted = [_find(config, conditions)] if config.only else wanted_samples(conditions, samples=config.num_samples, seed=config.seed)
    _keep(config, generator, wanted, dropped)
    folder = os.path.join(config.output, "samples")
    make_samples(generator, wanted, guidance=config.guidance, folder=folder)
    notes = [f"not usable: {dropped}"] if dropped.counts else []
    if next(pictures, None) is not None:
        notes.append(f"only the first {len(conditions)} conditions were used; --num-conditions 0 takes all")
    paths = [sample_path(folder, config.only)] if config.only else _draw_grids(config, wanted, generator.image_px, folder)
    return Drawn(paths=paths, notes=notes)


def _find(config: SampleConfig, conditions: Sequence[Picture]) -> Wanted:
    """Returns the sample of --only, which names its condition and its seed."""
    prefix, _, seed = config.only.partition("-")
    if not re.fullmatch("[0-9a-f]{16}-[0-9a-f]{16}", config.only):
        raise ValueError(f"--only {config.only}: no id of a sample; samples.json lists them, and every PNG is named by its own")
    for condition in conditions:
        if condition.image_id.startswith(prefix):
            return Wanted(sample_id=config.only, seed=int(seed, 16), index=0, condition=condition)
    raise ValueError(
        f"--only {config.only}: none of {len(conditions)} conditions has an id that begins with {prefix}; give its image to --images"
    )


def _keep(config: SampleConfig, generator: Generator, wanted: Sequence[Wanted], dropped: Dropped) -> None:
    """Writes samples.json; samples that are in the folder already stay in it."""
    path = os.path.join(config.output, "samples.json")
    settings = {name: value for name, value in dataclasses.asdict(config).items() if name not in ("output", "only", "batch_size", "device")}
    made = {one.sample_id: one.as_json() | {"file": f"samples/{one.sample_id}.png"} for one in wanted}
    before = {entry["id"]: entry for entry in read_json(path)["samples"]} if os.path.exists(path) else {}
    record = {
        "schema_version": SCHEMA_VERSION,
        "model": dict(generator.digest),
        "guidance": config.guidance,
        "settings": settings,
        "samples": list((made | before).values()),
        "dropped": dropped.as_json(),
    }
    keep_record(path, record, decides={"model": "another model or other sampling settings", "guidance": "another --guidance"})


def _draw_grids(config: SampleConfig, wanted: Sequence[Wanted], side_px: int, folder: str) -> list[str]:
    """Draws _ROWS conditions a grid."""
    columns, paths = config.num_samples, []
    for number, start in enumerate(range(0, len(wanted), _ROWS * columns)):
        page = wanted[start : start + _ROWS * columns]
        images = list(read_samples(folder, page))
        rows = [images[at : at + columns] for at in range(0, len(images), columns)]
        grid_HW3 = draw_grid([one.condition.rgb_HW3 for one in page[::columns]], rows, side_px=side_px)
        paths.append(os.path.join(config.output, f"grid-{number:03d}.png"))
        write_bytes(paths[-1], encode_image(grid_HW3, "png", 0))
    return paths
