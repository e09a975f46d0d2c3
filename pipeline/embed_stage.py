"""Stage embed as a run sees it: which encoders, what is kept of earlier runs, what is left behind."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from encoders import encoder_folder
from pagepairs.config import EmbedConfig, ScanConfig
from pagepairs.files import read_json, write_json
from pagepairs.manifest import Manifest, dataset_files, digest_of, read_manifest
from pipeline.datasets import complete_dataset, is_complete, work_folder
from pipeline.embed import datasets_of, embed_units
from pipeline.embed_unit import EmbedJob, Target
from pipeline.jobs import Journal, is_local, merge_outcomes
from pipeline.models import Described, check_names, difference, here_and_there, load_models
from pipeline.progress import watch
from pipeline.reuse import find_earlier


@dataclass(frozen=True, kw_only=True)
class EmbedStage:
    """What the stage takes from the run."""

    output: str
    scan: ScanConfig
    embed: EmbedConfig
    options: PipelineOptions
    threads: int
    locate: Callable[[str], str]
    say: Callable[[str], None]

    def path(self, *names: str) -> str:
        """Path below the output folder."""
        return os.path.join(self.output, *names)

    def work(self, *names: str) -> str:
        """Path below the folder for what is not a dataset."""
        return work_folder(self.output, *names)


def describe_encoders(config: EmbedConfig, options: PipelineOptions, workers: int) -> dict[str, Described]:
    """Loads the encoders and returns what is known of them, by folder, in their order.

    Raises:
      ValueError: for an encoder or a setting that cannot be used here.
    """
    check_names(config)
    here, _ = here_and_there(config, local=is_local(options))
    described = load_models(here).describe()
    if workers > 1 or not is_local(options):
        load_models.cache_clear()  # other processes embed: this one needs the memory no more
    return dict(zip(map(encoder_folder, config.encoders), described, strict=True))


def find_missing(stage: EmbedStage, units: Manifest, described: Mapping[str, Described]) -> list[str]:
    """Returns the encoders whose vectors are not complete, and says which are.

    Raises:
      ValueError: if vectors of another encoder of the same name are there.
    """
    missing = []
    for folder, encoder in described.items():
        _check_digest(stage, folder, encoder)
        if is_complete(stage.path("embeddings", folder), digest_of([encoder.digest, units.content])):
            rows = read_manifest(stage.path("embeddings", folder)).rows
            stage.say(f"embed: kept, {rows:,} vectors" + (f" of {folder}" if len(described) > 1 else ""))
        else:
            missing.append(folder)
    return missing


def embed_missing(
    stage: EmbedStage, units: Manifest, described: Mapping[str, Described], missing: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Embeds what the journals do not hold and completes the datasets of the encoders that miss; returns, for each, what it took."""
    earlier = _find_earlier(stage, described)
    targets = [_target(stage, folder, encoder, earlier.get(folder)) for folder, encoder in described.items()]
    _embed_units(stage, units, targets)
    return {target.folder: _complete(stage, units, target, named=len(targets) > 1) for target in targets if target.folder in missing}


def _check_digest(stage: EmbedStage, folder: str, encoder: Described) -> None:
    path = stage.work(f"encoder-{folder}.json")
    changed = difference(read_json(path), encoder.digest) if os.path.exists(path) else ""
    if changed:
        raise ValueError(
            f"{stage.path('embeddings', folder)} holds vectors of another {folder} ({changed}): vectors of two encoders must not be "
            f"mixed; delete that folder and {path}, or give another --output"
        )


def _find_earlier(stage: EmbedStage, described: Mapping[str, Described]) -> dict[str, Any]:
    """Indexes the vectors of --embeddings-from."""
    source = stage.embed.embeddings_from
    if not source or os.path.realpath(source) == os.path.realpath(stage.output):
        return {}
    found = {folder: find_earlier(source, folder, encoder, stage.work(f"earlier-{folder}")) for folder, encoder in described.items()}
    if not any(found.values()):
        raise ValueError(f"--embeddings-from {source} holds no complete vectors of {' or '.join(described)}: name the --output of a run")
    return found


def _target(stage: EmbedStage, folder: str, encoder: Described, earlier: Any) -> Target:
    write_json(stage.work(f"encoder-{folder}.json"), encoder.digest)
    journal = Journal(stage.work(f"embed-{digest_of(encoder.digest)[:16]}"))
    return Target(folder=folder, digest=encoder.digest, journal=journal, earlier=earlier)


def _embed_units(stage: EmbedStage, units: Manifest, targets: list[Target]) -> None:
    for target in targets:
        target.journal.forget_others(file.name.removesuffix(".parquet") for file in units.files)
    _, there = here_and_there(stage.embed, local=is_local(stage.options))
    with watch(stage.work("progress"), "embed", units.rows * len(targets), "img") as meter:
        job = EmbedJob(
            output=stage.output,
            scan=stage.scan,
            embed=there,
            targets=tuple(targets),
            threads=stage.threads,
            locate=stage.locate,
            meter=meter,
        )
        done = embed_units(dataset_files(stage.path("units")), job, stage.options)
    for target, count in zip(targets, done, strict=True):
        if count < len(units.files):
            name = f" by {target.folder}" if len(targets) > 1 else ""
            stage.say(f"embed: {len(units.files) - count} of {len(units.files)} units were embedded before{name} and are kept")


def _complete(stage: EmbedStage, units: Manifest, target: Target, *, named: bool) -> dict[str, float]:
    """Completes both datasets of an encoder; returns what it took. How it was done stands in run.json only: the bytes do not show it."""
    outcome = merge_outcomes(target.journal.read(file.name.removesuffix(".parquet")) for file in units.files)
    counters = outcome.counters or {"in": 0, "kept": 0, "dropped": {}, "errors": 0}
    effort = {name: counters.pop(name, 0) for name in ("reused", "halved", "waited_s", "embedded_s")}
    digest = digest_of([target.digest, units.content])
    vectors, drops = datasets_of(target.folder)
    complete_dataset(stage.path(drops), drops, digest, outcome.files.get(drops, []), {})
    complete_dataset(stage.path(vectors), vectors, digest, outcome.files.get(vectors, []), counters | {"encoder": target.digest})
    name = f", {target.folder}" if named else ""
    reused = f", {effort['reused']:,} of them copied from {stage.embed.embeddings_from}" if effort["reused"] else ""
    halved = f"; {effort['halved']:,} batches did not fit into memory and were halved: try a lower --batch-size" if effort["halved"] else ""
    stage.say(f"embed: {counters['in']:,} images, {counters['kept']:,} vectors{name}{reused}{halved}")
    return effort | {"images": counters["in"]}
