"""`pagepairs evaluate`: the K-shot protocol on a checkpoint, or two folders of images; leaves evaluation.json, manifest.json and samples.

real images ─ features ──────────────────────────────────┐
conditions ─ samples at each guidance ─ PNGs ─ features ─ scores ─ evaluation.json
(or: a folder of generated images) ────────── features ─┘
"""

import dataclasses
import hashlib
import os
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from typing import Any

import numpy as np

from pagepairs import __version__
from pagepairs.files import write_json
from train.evaluate_config import EvaluateConfig
from train.features import FeatureSpace, encoder_space, extract
from train.image_files import Dropped, ImageFile, InputError, Picture, find_images, header_size, read_images
from train.kshot import Split, by_class, check_classes, split_classes, split_folders
from train.metrics import copier_warning
from train.progress import show_progress
from train.sample_files import Generator, Wanted, keep_record, make_samples, read_samples, wanted_samples
from train.scores import cosines, floor_warning, score_space
from train.training_images import Copy, TrainingImages, compare_with_training, find_training

SCHEMA_VERSION = 1
_PACKAGES = ("numpy", "pillow", "torch", "torch-fidelity", "transformers")

LoadGenerator = Callable[[EvaluateConfig], Generator]
LoadSpaces = Callable[[EvaluateConfig], Sequence[FeatureSpace]]


@dataclass(kw_only=True, eq=False)
class Sets:
    """What was read and made, ready to be scored."""

    real: Sequence[np.ndarray]
    """Features of all real images in each space."""
    generated: Sequence[dict[str, np.ndarray]]
    """Features of each generated set by its name, in each space."""
    split: Split
    pixels: Callable[[str], Iterator[np.ndarray]]
    """The images of a generated set, in the order of its features."""
    facts: dict[str, Any]
    """What evaluation.json says of them: protocol, sets, warnings, ..."""
    dropped: Dropped
    wanted: Sequence[Wanted] = ()


@dataclass(kw_only=True, eq=False)
class Scored:
    """An evaluation and the pictures that its page shows."""

    evaluation: dict[str, Any]
    pixels: Callable[[str], Iterator[np.ndarray]]
    """All images of a set."""
    samples: str
    """Folder of the sets that a model made."""
    wanted: Sequence[Wanted] = ()
    copies: Sequence[Copy] = ()

    def read(self, name: str, wanted: Sequence[Wanted]) -> Iterator[np.ndarray]:
        """Yields some samples of a set."""
        return read_samples(os.path.join(self.samples, name), wanted)


def load_spaces(config: EvaluateConfig) -> list[FeatureSpace]:
    """Returns the encoder's space, and Inception's where its weights are given.

    Raises:
      ValueError: for weights that are missing or do not fit.
    """
    inception = []
    if config.inception_weights:  # first: a missing file is found before an encoder is downloaded
        from train.inception import load_inception

        inception = [load_inception(config.inception_weights, device=config.device)]
    return [encoder_space(config.encoder, weights=config.encoder_weights, device=config.device), *inception]


def evaluate(config: EvaluateConfig, *, load_generator: LoadGenerator, load_spaces: LoadSpaces = load_spaces) -> Scored:
    """Scores a checkpoint or a folder, and writes evaluation.json.

    Args:
      config: the settings.
      load_generator: returns the model of --checkpoint, ready to run.
      load_spaces: returns the feature spaces; the first, an encoder's of unit vectors, also gives the cosines.

    Raises:
      ValueError: for what cannot be scored: before any sample is made, and, where files need not be decoded for it, before any work.
    """
    config.check()
    training = find_training(config.training) if config.training else None
    sets = (_model_sets if config.checkpoint else _folder_sets)(config, load_generator, load_spaces)
    return _score(config, sets, training)


def _model_sets(config: EvaluateConfig, load_generator: LoadGenerator, load_spaces: LoadSpaces) -> "tuple[Sequence[FeatureSpace], Sets]":
    samples, needed = config.samples_per_condition, config.shots * config.samples_per_condition
    classes, copier = _checked_classes(config)
    generator, spaces = load_generator(config), load_spaces(config)
    reader = _ClassReader(classes, needed=needed, config=config, generator=generator)
    real = extract(spaces, show_progress(reader.images(), sum(min(len(files), 2 * needed) for files in classes.values()), "real images"))
    split = split_classes(reader.counts, shots=config.shots, samples=samples)
    wanted = wanted_samples(reader.conditions, samples=samples, seed=config.seed)
    sets = {f"w{weight:g}": weight for weight in config.guidance}
    _keep_manifest(config, generator, reader, split, wanted, tuple(sets))

    def pixels(name: str) -> Iterator[np.ndarray]:
        return read_samples(os.path.join(config.output, "samples", name), wanted)

    features = {}
    for name, weight in sets.items():
        make_samples(generator, wanted, guidance=weight, folder=os.path.join(config.output, "samples", name))
        features[name] = extract(spaces, pixels(name))
    generated = [{name: found[place] for name, found in features.items()} for place in range(len(spaces))]
    protocol = {
        "name": "k-shot",
        "classes": len(classes),
        "real_images": len(split.real),
        "conditions": len(split.conditions),
        "samples_per_condition": samples,
        "neighbours": config.neighbours,
        "size_px": generator.image_px,
    }
    facts = {
        "protocol": protocol,
        "sets": {name: {"guidance": weight} for name, weight in sets.items()},
        "model": dict(generator.digest),
        "cosines": {"encoder": dict(spaces[0].digest), "rows": cosines(generated[0], real[0][split.conditions], samples=samples)},
        "warnings": [copier] if copier else [],
    }
    return spaces, Sets(real=real, generated=generated, split=split, pixels=pixels, facts=facts, dropped=reader.dropped, wanted=wanted)


def _checked_classes(config: EvaluateConfig) -> tuple[dict[str, list[ImageFile]], str]:
    """Returns the classes of --images, and what is to be said where recall cannot tell a copier and that was asked for."""
    classes = by_class(find_images(config.images, flag="--images"), seed=config.seed)
    check_classes(classes, folder=config.images, needed=config.shots * config.samples_per_condition)
    copier = copier_warning(real=config.samples_per_condition, conditions=1, k=config.neighbours)
    if copier and not config.copiers_pass:
        raise ValueError(f"--samples-per-condition {config.samples_per_condition}: {copier}, or say --copiers-pass")
    return classes, copier


class _ClassReader:
    """Reads the real images class by class: up to 2R readable ones of each, R for the scores and R for the floor."""

    def __init__(self, classes: dict[str, list[ImageFile]], *, needed: int, config: EvaluateConfig, generator: Generator) -> None:
        self._classes, self._needed, self._config, self._generator = classes, needed, config, generator
        self.dropped, self.counts, self.conditions = Dropped(), list[int](), list[Picture]()
        self.entries: list[dict[str, str]] = []

    def images(self) -> Iterator[np.ndarray]:
        """Yields their pixels; what was read is known when it ends."""
        for name, files in self._classes.items():
            pictures, rest = list[Picture](), iter(files)
            while more := list(islice(rest, 2 * self._needed - len(pictures))):  # a file that cannot be read is replaced by the next
                pictures += read_images(more, size_px=self._generator.image_px, dropped=self.dropped)
            if len(pictures) < self._needed:
                raise InputError(
                    f"--images {self._config.images}: class {name!r} has {len(pictures)} usable images where shots x samples-per-condition "
                    f"= {self._needed} are needed ({self.dropped}); lower --samples-per-condition or leave the class out"
                )
            self.counts.append(len(pictures))
            first = {picture.name for picture in pictures[: self._config.shots]}
            again = [file for file in files if file.name in first]  # as large as the encoder saw them in training
            self.conditions += read_images(again, size_px=self._generator.condition_px, dropped=self.dropped, small_ok=True)
            self.entries += [{"name": picture.name, "image_id": picture.image_id} for picture in pictures]
            yield from (picture.rgb_HW3 for picture in pictures)


def _keep_manifest(
    config: EvaluateConfig, generator: Generator, reader: _ClassReader, split: Split, wanted: Sequence[Wanted], sets: Sequence[str]
) -> None:
    record = {
        "schema_version": SCHEMA_VERSION,
        "model": dict(generator.digest),
        "real": [reader.entries[row] for row in split.real],
        "floor": [[reader.entries[row] for row in rows] for rows in (split.floor_a, split.floor_b)],
        "samples": [one.as_json() | {"files": [f"samples/{name}/{one.sample_id}.png" for name in sets]} for one in wanted],
    }
    keep_record(os.path.join(config.output, "manifest.json"), record, decides={"model": "another model or other sampling settings"})


def _folder_sets(config: EvaluateConfig, _: LoadGenerator, load_spaces: LoadSpaces) -> "tuple[Sequence[FeatureSpace], Sets]":
    folders = {"generated": config.generated, "real": config.real}
    files = {name: _shuffled(find_images(path, flag=f"--{name}"), config.seed) for name, path in folders.items()}
    size_px = config.size or _common_size(files["generated"], config.generated)
    dropped, spaces = Dropped(), load_spaces(config)

    def pixels(name: str, dropped: Dropped) -> Iterator[np.ndarray]:
        return (picture.rgb_HW3 for picture in read_images(files[name], size_px=size_px, dropped=dropped))

    features = {name: extract(spaces, show_progress(pixels(name, dropped), len(files[name]), name)) for name in folders}
    generated, real = (len(features[name][0]) for name in folders)
    count = min(generated, real)
    if count <= config.neighbours:
        raise InputError(
            f"--generated {config.generated}: of {generated} generated and {real} real images more than --neighbours {config.neighbours} "
            f"each are needed; give more images" + (f" (not usable: {dropped})" if dropped.counts else "")
        )
    said = f"{generated} generated and {real} real images: {count} of each are compared, chosen by a hash of their names"
    facts = {
        "protocol": {"name": "folders", "real_images": count, "neighbours": config.neighbours, "size_px": size_px},
        "sets": {"generated": {}},
        "warnings": [said] if generated != real else [],
    }
    return spaces, Sets(
        real=features["real"],
        generated=[{"generated": found[:count]} for found in features["generated"]],
        split=split_folders(real, generated),
        pixels=lambda name: islice(pixels(name, Dropped()), count),
        facts=facts,
        dropped=dropped,
    )


def _shuffled(files: Iterable[ImageFile], seed: int) -> list[ImageFile]:
    return sorted(files, key=lambda file: hashlib.blake2b(f"{seed} {file.name}".encode("utf-8", "surrogateescape")).digest())


def _common_size(files: Sequence[ImageFile], folder: str) -> int:
    """Returns the side of the generated images, which are squares of one size; headers are enough to know."""
    first = None
    for file in files:
        size = header_size(file)
        if size is None:  # counted when it is decoded
            continue
        first = first or size
        if size != first or size[0] != size[1]:
            raise InputError(
                f"--generated {folder}: {file.name} has {size[0]} x {size[1]} pixels, and not all images are squares of one size; "
                f"give --size, the side in pixels to crop all images to"
            )
    if first is None:
        raise InputError(f"--generated {folder}: none of {len(files)} images can be read")
    return first[0]


def _score(
    config: EvaluateConfig, read: tuple[Sequence[FeatureSpace], Sets], training: tuple[tuple[str, ...], tuple[ImageFile, ...]] | None
) -> Scored:
    spaces, sets = read
    k = config.neighbours
    found = [
        score_space(space, real, sets.split, generated, k=k)
        for space, real, generated in zip(spaces, sets.real, sets.generated, strict=True)
    ]
    warnings = [*sets.facts["warnings"], floor_warning(sets.split, k=k)]
    evaluation = {
        "schema_version": SCHEMA_VERSION,
        **sets.facts,
        "spaces": found,
        "dropped": sets.dropped.as_json(),
        "warnings": [warning for warning in warnings if warning],
        "settings": dataclasses.asdict(config),
        "versions": {"pagepairs": __version__, "python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
    }
    copies: list[Copy] = []
    if training is not None:
        evaluation["memorisation"], copies = compare_with_training(
            spaces[0],
            TrainingImages(shards=training[0], files=training[1], size_px=sets.facts["protocol"]["size_px"]),
            generated=sets.generated[0],
            real_ND=sets.real[0][sets.split.real],
            pixels=sets.pixels,
        )
    write_json(os.path.join(config.output, "evaluation.json"), evaluation)
    samples = os.path.join(config.output, "samples")
    return Scored(evaluation=evaluation, pixels=sets.pixels, samples=samples, wanted=sets.wanted, copies=copies)
