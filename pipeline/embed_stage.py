"""Stage embed as a run sees it: which encoders, what is kept of earlier runs, what is left behind."""

from collections.abc import Mapping, Sequence
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from encoders import encoder_folder
from pagepairs.config import EmbedConfig
from pagepairs.files import find_json, write_json
from pagepairs.manifest import Manifest, dataset_files, digest_of, read_manifest
from pagepairs.stores import absolute
from pipeline.bands import deciding_encoder
from pipeline.datasets import complete_dataset, is_complete
from pipeline.embed import datasets_of, embed_units
from pipeline.embed_unit import EmbedJob, Target
from pipeline.journal import Journal, merge_outcomes
from pipeline.models import Described, check_names, difference, here_and_there, load_models
from pipeline.progress import watch
from pipeline.reuse import find_earlier
from pipeline.runners import is_local
from pipeline.stage import Run, input_manifest, timed


def describe_encoders(config: EmbedConfig, options: PipelineOptions, workers: int) -> dict[str, Described]:
    """Loads the encoders and returns what is known of them, by folder, in their order.

    Raises:
      ValueError: for an encoder or a setting that cannot be used here.
    """
    check_names(config)
    here, _ = here_and_there(config, options)
    described = load_models(here).describe()
    if workers > 1 or not is_local(options):
        load_models.cache_clear()  # other processes embed: this one needs the memory no more
    return dict(zip(map(encoder_folder, config.encoders), described, strict=True))


def run_embed(run: Run, described: Mapping[str, Described]) -> None:
    """Embeds what earlier runs left to do.

    Args:
      described: of `describe_encoders`.

    Raises:
      InputError: if stage scan is not complete.
      ValueError: see `find_missing`.
    """
    units = input_manifest(run, "units", "scan")
    missing = find_missing(run, units, described)
    if missing:
        with timed(run, "embed") as notes:
            notes["encoders"] = notes.get("encoders", {}) | embed_missing(run, units, described, missing)


def find_missing(run: Run, units: Manifest, described: Mapping[str, Described]) -> list[str]:
    """Returns the encoders whose vectors are not complete, and says which are.

    Raises:
      ValueError: if vectors of another encoder of the same name are there.
    """
    missing = []
    for folder, encoder in described.items():
        _check_digest(run, folder, encoder)
        if is_complete(run.path("embeddings", folder), digest_of([encoder.digest, units.content])):
            rows = read_manifest(run.path("embeddings", folder)).rows
            run.say(f"embed: kept, {rows:,} vectors" + (f" of {folder}" if len(described) > 1 else ""))
        else:
            missing.append(folder)
    return missing


def embed_missing(run: Run, units: Manifest, described: Mapping[str, Described], missing: Sequence[str]) -> dict[str, dict[str, float]]:
    """Embeds what the journals do not hold and completes the datasets of the encoders that miss; returns, for each, what it took."""
    earlier = _find_earlier(run, described)
    targets = [_target(run, folder, encoder, earlier.get(folder)) for folder, encoder in described.items()]
    _embed_units(run, units, targets)
    run.check_lock()
    return {target.folder: _complete(run, units, target, named=len(targets) > 1) for target in targets if target.folder in missing}


def _check_digest(run: Run, folder: str, encoder: Described) -> None:
    path = run.work(f"encoder-{folder}.json")
    before = find_json(path)
    changed = difference(before, encoder.digest) if before is not None else ""
    if changed:
        raise ValueError(
            f"{run.path('embeddings', folder)} holds vectors of another {folder} ({changed}): vectors of two encoders must not be "
            f"mixed; delete that folder and {path}, or give another --output"
        )


def _find_earlier(run: Run, described: Mapping[str, Described]) -> dict[str, Any]:
    """Indexes the vectors of --embeddings-from."""
    source = run.config.embed.embeddings_from
    if not source or absolute(source) == absolute(run.output):
        return {}
    found = {folder: find_earlier(source, folder, encoder, run.work(f"earlier-{folder}")) for folder, encoder in described.items()}
    if not any(found.values()):
        raise ValueError(f"--embeddings-from {source} holds no complete vectors of {' or '.join(described)}: name the --output of a run")
    return found


def _target(run: Run, folder: str, encoder: Described, earlier: Any) -> Target:
    write_json(run.work(f"encoder-{folder}.json"), encoder.digest)
    journal = Journal(run.work(f"embed-{digest_of(encoder.digest)[:16]}"))
    decides = folder == encoder_folder(deciding_encoder(run.config))
    return Target(
        folder=folder, digest=encoder.digest, journal=journal, counters="embed" if decides else f"embed-{folder}", earlier=earlier
    )


def _embed_units(run: Run, units: Manifest, targets: list[Target]) -> None:
    for target in targets:
        target.journal.forget_others(file.name.removesuffix(".parquet") for file in units.files)
    _, there = here_and_there(run.config.embed, run.options)
    with watch(run.progress, "embed", units.rows * len(targets), "img") as meter:
        job = EmbedJob(
            output=run.output,
            scan=run.config.scan,
            embed=there,
            targets=tuple(targets),
            threads=run.threads,
            locate=run.locate,
            meter=meter,
        )
        done = embed_units(dataset_files(run.path("units")), job, run.options)
    for target, count in zip(targets, done, strict=True):
        if count < len(units.files):
            name = f" by {target.folder}" if len(targets) > 1 else ""
            run.say(f"embed: {len(units.files) - count} of {len(units.files)} units were embedded before{name} and are kept")


def _complete(run: Run, units: Manifest, target: Target, *, named: bool) -> dict[str, float]:
    """Completes both datasets of an encoder; returns what it took. How it was done stands in run.json only: the bytes do not show it."""
    outcome = merge_outcomes(target.journal.read_all(file.name.removesuffix(".parquet") for file in units.files))
    counters = outcome.counters or {"in": 0, "kept": 0, "dropped": {}, "errors": 0}
    effort = {name: counters.pop(name, 0) for name in ("reused", "halved", "waited_s", "embedded_s")}
    digest = digest_of([target.digest, units.content])
    vectors, drops = datasets_of(target.folder)
    complete_dataset(run.path(drops), drops, digest, outcome.files.get(drops, []), {})
    complete_dataset(run.path(vectors), vectors, digest, outcome.files.get(vectors, []), counters | {"encoder": target.digest})
    name = f", {target.folder}" if named else ""
    reused = f", {effort['reused']:,} of them copied from {run.config.embed.embeddings_from}" if effort["reused"] else ""
    halved = f"; {effort['halved']:,} batches did not fit into memory and were halved: try a lower --batch-size" if effort["halved"] else ""
    run.say(f"embed: {counters['in']:,} images, {counters['kept']:,} vectors{name}{reused}{halved}")
    return effort | {"images": counters["in"]}
