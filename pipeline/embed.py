"""Stage embed: units to vectors, through Beam's RunInference; one example is one unit, so batches never depend on bundles."""

import functools
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.ml.inference.base import ModelHandler, RunInference
from apache_beam.options.pipeline_options import PipelineOptions

from pagepairs.config import EmbedConfig
from pagepairs.files import write_parquet
from pagepairs.records import DROPS, embeddings_schema, rows_to_table
from pipeline.embed_unit import Embedded, EmbedJob, embed_unit
from pipeline.jobs import name_elements
from pipeline.journal import Outcome
from pipeline.models import Models, check_worker, load_models
from pipeline.runners import CheckedDoFn, is_local, open_job

Task = tuple[str, tuple[int, ...]]
"""A file of units/, and which of the job's encoders it still needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """What one pass over a unit gave."""

    task: Task
    embedded: list[Embedded]
    """Of the encoders that had not finished the unit before."""
    seconds: float


class UnitHandler(ModelHandler[Task, Pass, Models]):  # type: ignore[misc]
    """Runs encoders over units."""

    def __init__(self, job: EmbedJob) -> None:
        super().__init__(min_batch_size=1, max_batch_size=1)
        self._job = job

    def load_model(self) -> Models:
        """Loads the encoders, once a process, or once a machine where they are shared."""
        models = load_models(self._job.embed)
        check_worker(models, [target.digest for target in self._job.targets])
        return models

    def share_model_across_processes(self) -> bool:
        """Whether all workers of a machine ask one copy."""
        return self._job.embed.share_model

    def run_inference(self, batch: Sequence[Task], model: Models, inference_args: dict[str, Any] | None = None) -> Iterable[Pass]:
        """Returns the vectors of each unit; what a bundle that a cluster tries again had finished is not embedded again."""
        return [self._pass(task, model) for task in batch]

    def _pass(self, task: Task, model: Models) -> Pass:
        (path, targets), started = task, time.monotonic()
        todo = [target for target in targets if not self._job.targets[target].journal.has(unit_name(path))]
        embedded = embed_unit(path, todo, model, self._job) if todo else []
        return Pass(task=task, embedded=embedded, seconds=time.monotonic() - started)

    def get_num_bytes(self, batch: Sequence[Task]) -> int:
        """Length of the paths: the default would pickle the batch to find out."""
        return sum(len(path) for path, _ in batch)

    def get_metrics_namespace(self) -> str:
        """Namespace of Beam's own inference metrics."""
        return "embed"


class _WriteVectors(CheckedDoFn):
    """Writes the vectors and drops of a unit, then notes it in each encoder's journal."""

    def __init__(self, job: EmbedJob) -> None:
        super().__init__()
        self._job = job

    def process(self, element: Pass) -> Iterator[None]:
        path, targets = element.task
        found = {embedded.target: embedded for embedded in element.embedded}
        for number in targets:
            target = self._job.targets[number]
            write = functools.partial(self._write, found.get(number))
            target.journal.once(target.counters, unit_name(path), write, busy_s=element.seconds)
        yield from ()

    def _write(self, embedded: Embedded | None) -> Outcome:
        assert embedded is not None, "its journal held the unit, and does no more"
        return write_vectors(embedded, self._job)


def write_vectors(embedded: Embedded, job: EmbedJob) -> Outcome:
    """Writes embeddings/<encoder>/<unit> and drops/embed-<encoder>/<unit>."""
    vectors_ND = embedded.vectors_ND
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors_ND.ravel()), vectors_ND.shape[1])
    table = pa.table([pa.array(embedded.image_ids, pa.string()), column], schema=embeddings_schema(vectors_ND.shape[1]))
    vectors, drops = datasets_of(job.targets[embedded.target].folder)
    files = {
        vectors: [write_parquet(os.path.join(job.output, vectors, embedded.unit), table, compression="none")],
        drops: [write_parquet(os.path.join(job.output, drops, embedded.unit), rows_to_table(embedded.drops, DROPS))],
    }
    kept, dropped = len(embedded.image_ids), dict(Counter(row["reason"] for row in embedded.drops))
    counters = {"in": kept + len(embedded.drops), "kept": kept, "dropped": dropped, "errors": 0}
    return Outcome(files=files, counters=counters | embedded.effort)


def unit_name(path: str) -> str:
    """Returns the name of a unit, as its journal entry carries it."""
    return os.path.basename(path).removesuffix(".parquet")


def datasets_of(folder: str) -> tuple[str, str]:
    """Returns the datasets of an encoder: its vectors and its drops."""
    return f"embeddings/{folder}", f"drops/embed-{folder}"


@dataclass
class Embed(beam.PTransform):  # type: ignore[misc]
    """Embeds and writes units; alone of all steps it asks for GPUs."""

    job: EmbedJob
    local: bool

    def expand(self, tasks: beam.PCollection) -> beam.PCollection:
        """Returns nothing of use; everything is in files."""
        infer = RunInference(UnitHandler(self.job)).with_resource_hints(**resource_hints(self.job.embed, local=self.local))
        return tasks | "RunInference" >> infer | "Write" >> beam.ParDo(_WriteVectors(self.job))


def resource_hints(config: EmbedConfig, *, local: bool) -> dict[str, str]:
    """Returns what a cluster gives to the workers that embed; nothing where everything runs on this machine."""
    if local or not config.gpu_type:
        return {}
    driver = f";{config.gpu_driver}" if config.gpu_driver else ""
    return {"accelerator": f"type:{config.gpu_type};count:{config.gpu_count}{driver}", "min_ram": f"{config.gpu_ram_gb}GB"}


def embed_units(paths: Sequence[str], job: EmbedJob, options: PipelineOptions) -> list[int]:
    """Embeds every unit with the encoders whose journal does not hold it; returns how many units that were, by encoder."""
    tasks: list[Task] = []
    finished = [target.journal.finished() for target in job.targets]
    for path in sorted(paths):
        missing = tuple(number for number, names in enumerate(finished) if unit_name(path) not in names)
        if missing:
            tasks.append((path, missing))
    if tasks:
        with open_job("embed", options, tasks=len(tasks)) as pipeline:
            units = name_elements(pipeline, "embed/Units", tasks, job.targets[0].journal.folder)
            units | "embed" >> Embed(job, local=is_local(options))
    return [sum(number in missing for _, missing in tasks) for number in range(len(job.targets))]
