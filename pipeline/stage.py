"""What the stages share: the run that they belong to, what they find of earlier runs, and how their datasets are put in place."""

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from encoders import encoder_folder
from pagepairs.config import Config
from pagepairs.files import find_json, write_json
from pagepairs.manifest import Manifest, find_manifest, read_manifest
from pagepairs.stores import store_of
from pipeline.bands import deciding_encoder
from pipeline.datasets import complete_dataset, is_complete, publish_dataset, work_folder
from pipeline.journal import Outcome
from pipeline.runners import default_threads

_VERSIONS = ("apache-beam", "torch", "torchvision", "pyarrow", "numpy", "pillow")


class InputError(ValueError):
    """The crawl, or what earlier stages left, cannot be used."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One invocation: its settings, its output folder, its runner."""

    config: Config
    output: str
    options: PipelineOptions
    locate: Callable[[str], str]
    say: Callable[[str], None]
    progress: str
    """Folder of this machine where its processes keep their counts."""
    check_lock: Callable[[], None]
    """Raises OutputLocked if another run has taken the output folder; to be called before datasets get their final names."""

    @property
    def threads(self) -> int:
        """Decode threads of each process."""
        return self.config.run.threads or default_threads(self.options, self.config.run.workers)

    def path(self, *names: str) -> str:
        """Path below the output folder."""
        return os.path.join(self.output, *names)

    def work(self, *names: str) -> str:
        """Path below the folder for what is not a dataset."""
        return work_folder(self.output, *names)


@contextmanager
def timed(run: Run, stage: str) -> Iterator[dict[str, Any]]:
    """Notes versions, runner, time and records of a stage in run.json, and what the stage adds to its earlier notes there."""
    started = time.monotonic()
    path = run.path("run.json")
    value = find_json(path) or {"stages": {}}
    notes = value["stages"].get(stage, {})
    yield notes
    value = find_json(path) or value
    value["versions"] = {"pagepairs": version("pagepairs"), "python": platform.python_version()} | {
        name: version(name) for name in _VERSIONS
    }
    value["runner"] = run.options.view_as(StandardOptions).runner
    value["output"] = run.output
    value["stages"][stage] = notes | {
        "seconds": round(time.monotonic() - started, 3),
        "records": _records(run, stage),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    write_json(path, value)


def _records(run: Run, stage: str) -> int:
    deciding = encoder_folder(deciding_encoder(run.config))
    folders = {"scan": "images", "embed": f"embeddings/{deciding}", "pair": "episodes", "shard": "shards"}
    if stage not in folders:
        return 0
    return int(read_manifest(run.path(folders[stage])).counters["in"])


def input_manifest(run: Run, name: str, stage: str) -> Manifest:
    """Returns the manifest of a dataset that `stage` writes.

    Raises:
      InputError: if it is not complete.
    """
    manifest = find_manifest(run.path(name))
    if manifest is None:
        raise InputError(f"{run.path(name)} is not complete: run `pagepairs {stage} --output {run.config.run.output}` first")
    return manifest


def say_rebuild(run: Run, stage: str, dataset: str, digest: str) -> None:
    """Says that what stands there is replaced, unless it is of this digest: then only a part of the stage was left to do."""
    manifest = find_manifest(run.path(dataset))
    if manifest is not None and manifest.digest != digest:
        run.say(f"{stage}: other settings or inputs than before: building it again, then replacing it")


def forget_others(run: Run, prefix: str, *keep: str) -> None:
    """Deletes what an unfinished run with other settings left; its journal could never be used again."""
    store, root = store_of(run.output), run.work()
    names = {path[len(root) + 1 :].split("/")[0] for path in store.files(root)}
    for path in (run.work(name) for name in sorted(names) if name.startswith(prefix)):
        if path not in keep:
            store.remove_tree(path)
            store.remove(path)


def publish(
    run: Run, work: str, digest: str, outcomes: list[Outcome], datasets: tuple[str, ...], counters: Mapping[str, dict[str, Any]]
) -> None:
    """Completes the datasets that a stage built aside, moves them to their places and clears the rest."""
    run.check_lock()
    files = {name: infos for outcome in outcomes for name, infos in outcome.files.items()}
    for name in datasets:
        aside = os.path.join(work, "final", name)
        if not is_complete(run.path(name), digest):
            complete_dataset(aside, name, digest, files[name], dict(counters.get(name, {})))
            publish_dataset(aside, run.path(name), work)
    store_of(work).remove_tree(work)
