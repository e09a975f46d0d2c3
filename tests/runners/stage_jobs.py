"""Every stage's jobs, built from what a finished run left, without running the one before: for runners that only take them down."""

from collections.abc import Callable
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pagepairs.config import EmbedConfig, PairConfig, ScanConfig, ShardConfig
from pagepairs.manifest import dataset_files, read_manifest
from pipeline.embed import embed_units
from pipeline.embed_unit import EmbedJob, Target
from pipeline.jobs import part_name, run_tasks
from pipeline.journal import Journal, Outcome
from pipeline.pair import pair_up
from pipeline.pair_job import PairJob
from pipeline.progress import Meter
from pipeline.report import write_report
from pipeline.scan import ScanTask, ScanUnits, cut_units, task_name
from pipeline.shard import ShardJob, write_shards
from pipeline.sources import SourceMap, find_units

IMAGE = "registry.example/pagepairs-worker:1"


def dataflow_flags(temp: str) -> list[str]:
    """Flags of a job on Dataflow."""
    return ["--runner=DataflowRunner", f"--temp_location={temp}", "--project=proj-x", "--region=europe-west4"]


def parts_steps(label: str) -> list[str]:
    return sorted(f"{label}/{name}" for name in ("Files", "Spread", "Parts", "Flatten", "Group", "Reduce"))


def tasks_steps(label: str) -> list[str]:
    return sorted(f"{label}/{name}" for name in ("Tasks", "Work"))


EMBED = ["embed", "embed/Units"]
PAIR = [
    *(parts_steps("canonical"), parts_steps("aliases"), tasks_steps("near")),
    *(parts_steps("canonical"), parts_steps("aliases"), tasks_steps("stars"), tasks_steps("copies")),
    *(parts_steps(name) for name in ("resolve", "sets", "appear", "fetch", "pages")),
    *(tasks_steps(name) for name in ("mirrors", "episodes", "pairs")),
]


def build_scan(site: Path, site_run: Path, work: str, options: PipelineOptions) -> None:
    config = ScanConfig(input=(str(site),))
    scan = ScanUnits(config=config, output=work, threads=1, meter=Meter(work))
    tasks = {task_name(task): task for task in (ScanTask(unit=unit) for unit in find_units(config.input, config))}
    run_tasks("scan", tasks, scan, Journal(f"{work}/scan"), options)
    with pytest.raises(FileNotFoundError):  # what the jobs would have left is read next
        cut_units(str(site_run), f"{work}/units", read_manifest(str(site_run / "images")), options)


def build_embed(site: Path, site_run: Path, work: str, options: PipelineOptions) -> None:
    scan = ScanConfig(input=(str(site),))
    target = Target(folder="builtin", digest={}, journal=Journal(f"{work}/embed"))
    job = EmbedJob(
        output=work,
        scan=scan,
        embed=EmbedConfig(encoder="builtin", gpu_type="nvidia-l4"),
        targets=(target,),
        threads=1,
        locate=SourceMap(find_units(scan.input, scan), str(site_run)),
        meter=Meter(work),
    )
    embed_units(dataset_files(str(site_run / "units")), job, options)


def build_pair(site: Path, site_run: Path, work: str, options: PipelineOptions) -> None:
    bounds = {"low": 0.3, "high": 0.9, "size_px": 256, "parts": 1}
    job = PairJob(output=str(site_run), work=work, config=PairConfig(), encoder_folder="builtin", meter=Meter(work), **bounds)
    with pytest.raises(FileNotFoundError):  # the driver reads how many near pairs there are
        pair_up(job, options)
    Journal(f"{work}/done/near").write(part_name(0, 1), Outcome(counters={"edges": 0}))
    pair_up(job, options)


def build_shard(site: Path, site_run: Path, work: str, options: PipelineOptions) -> None:
    scan = ScanConfig(input=(str(site),))
    locate = SourceMap(find_units(scan.input, scan), str(site_run))
    counts = {"shards": 2, "parts": 1, "threads": 1}
    job = ShardJob(folder=work, work=work, scan=scan, shard=ShardConfig(), vectors=None, locate=locate, meter=Meter(work), **counts)
    write_shards(dataset_files(str(site_run / "pairs")), job, options)


def build_report(site: Path, site_run: Path, work: str, options: PipelineOptions) -> None:
    scan = ScanConfig(input=(str(site),))
    write_report(str(site_run), locate=SourceMap(find_units(scan.input, scan), str(site_run)), pipeline_options=options)


STAGES: dict[str, tuple[Callable[..., None], list[list[str]]]] = {
    "scan": (build_scan, [tasks_steps("scan"), parts_steps("distinct"), parts_steps("cut")]),
    "embed": (build_embed, [EMBED]),
    "pair": (build_pair, PAIR),
    "shard": (build_shard, [parts_steps("shard")]),
    "report": (build_report, []),
}
