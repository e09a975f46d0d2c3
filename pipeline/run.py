"""The five stages, one after the other: what each depends on, what it left behind, what is kept and what is done again."""

import dataclasses
import hashlib
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from encoders import encoder_folder
from filters.block_list import BlockList
from pagepairs.config import Config, ScanConfig
from pagepairs.files import read_json, remove_temporaries, write_json
from pagepairs.manifest import Manifest, dataset_files, digest_of, find_manifest, read_manifest
from pagepairs.records import SCHEMA_VERSION
from pipeline.bands import check_calibration, deciding_encoder, find_band
from pipeline.card import most_common_hosts, write_card
from pipeline.datasets import complete_dataset, is_complete, publish_dataset, work_folder
from pipeline.jobs import Journal, Outcome, count_parts, merge_outcomes, part_name, pipeline_options, run_tasks
from pipeline.pair import pair_up, parts_for, stage_digest
from pipeline.pair_job import PairJob
from pipeline.progress import watch
from pipeline.report_compare import check_compare
from pipeline.scan import DATASETS, ScanTask, ScanUnits, cut_units, task_name
from pipeline.shard import ShardJob, count_shards, vector_files, write_shards
from pipeline.sources import ScanUnit, SourceMap, find_units

STAGES = ("scan", "embed", "pair", "shard", "report")
_VERSIONS = ("apache-beam", "torch", "torchvision", "pyarrow", "numpy", "pillow")
_OWN_FOLDERS = (
    "images",
    "pages",
    "links",
    "aliases",
    "units",
    "spill",
    "embeddings",
    "episodes",
    "candidates",
    "pairs",
    "shards",
    "report",
    "drops",
)


class InputError(ValueError):
    """The crawl, or what earlier stages left, cannot be used."""


class NothingFound(ValueError):
    """The run is complete and holds no pair."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One invocation: its settings, its output folder, its runner."""

    config: Config
    output: str
    options: PipelineOptions
    locate: Callable[[str], str]
    say: Callable[[str], None]

    @property
    def threads(self) -> int:
        """Decode threads of each process."""
        return self.config.run.threads or max(1, (os.cpu_count() or 1) // self.config.run.workers)

    def path(self, *names: str) -> str:
        """Path below the output folder."""
        return os.path.join(self.output, *names)

    def work(self, *names: str) -> str:
        """Path below the folder for what is not a dataset."""
        return work_folder(self.output, *names)


def run_stages(config: Config, stages: tuple[str, ...], say: Callable[[str], None]) -> None:
    """Runs the stages in order; a stage that is complete under the same settings and inputs is kept.

    Raises:
      ValueError: for a setting that cannot be used, before the first record is read.
      InputError: if the crawl or an earlier stage's output is missing or unusable.
      NothingFound: if there is no pair at the end.
      OSError: if the output cannot be written.
    """
    output = os.path.abspath(config.run.output)
    options = pipeline_options(config.beam_args, config.run.workers)
    find_band(config)
    _check_block_list(config.scan.block_list)
    if config.report.compare:
        check_compare(config.report.compare)
    units = [] if stages == ("pair",) else _find_input(config, cut="scan" in stages)
    described = {}
    if "embed" in stages:
        # Beam's inference module imports torch, which the other stages do without.
        from pipeline.embed_stage import describe_encoders

        described = describe_encoders(config.embed, options, config.run.workers)
        folder = encoder_folder(deciding_encoder(config))
        check_calibration(config, folder, described[folder].digest)
    run = Run(config=config, output=output, options=options, locate=SourceMap(units, output), say=say)
    os.makedirs(output, exist_ok=True)
    _check_scan_settings(run)
    remove_temporaries(output)
    shutil.rmtree(run.work("progress"), ignore_errors=True)
    write_json(run.path("config.json"), as_json(config))
    functions: Mapping[str, Callable[[Run], None]] = {
        "scan": lambda run: _scan(run, units),
        "embed": lambda run: _embed(run, described),
        "pair": _pair,
        "shard": _shard,
        "report": _report,
    }
    for stage in stages:
        functions[stage](run)
    if "shard" in stages and read_manifest(run.path("shards")).rows == 0:
        if read_manifest(run.path("images")).counters["in"] == 0:
            raise NothingFound("the crawl holds no image: is it the right --input, and does it hold responses?")
        raise NothingFound(f"no pair was found; {run.path('report', 'report.html')} says what became of every image and reference")


def _check_block_list(path: str) -> None:
    """Reads the block list once before the first record, so that a wrong line is no worker's error."""
    try:
        if path:
            BlockList.read(path)
    except OSError as error:
        raise ValueError(f"--block-list {path}: {error.strerror}") from error


def _find_input(config: Config, *, cut: bool) -> list[ScanUnit]:
    try:
        return find_units(config.scan.input, config.scan, cut=cut)
    except ValueError as error:
        raise InputError(error) from error


def as_json(config: Config) -> dict[str, Any]:
    """Returns the configuration as config.json holds it; what only this invocation needs (--rebuild, --dry-run, --compare) is not in it."""
    value = dataclasses.asdict(config)
    del value["report"]
    for name in ("rebuild", "dry_run"):
        del value["run"][name]
    return value


def _scan_settings(scan: ScanConfig) -> dict[str, Any]:
    """What decides the rows of a unit; not which units there are, how many images a quick look takes, nor where they are decoded."""
    value = dataclasses.asdict(scan)
    del value["input"], value["limit"], value["isolate"]
    if scan.block_list:
        with open(scan.block_list, "rb") as file:
            value["block_list"] = hashlib.sha256(file.read()).hexdigest()
    return value | {"schema": SCHEMA_VERSION}


def _check_scan_settings(run: Run) -> None:
    """Refuses an output folder that was scanned with other settings, unless --rebuild clears it."""
    path, settings = run.work("scan.json"), _scan_settings(run.config.scan)
    if os.path.exists(path):
        before = read_json(path)
        changed = [f"{name} was {before.get(name)!r}, is {value!r}" for name, value in settings.items() if before.get(name) != value]
        if changed and not run.config.run.rebuild:
            raise ValueError(
                f"{run.output} was scanned with other settings ({'; '.join(changed)}): give --rebuild to throw it away, or another --output"
            )
        if changed:
            run.say("scan: other settings and --rebuild: throwing away what was there")
            for name in (*_OWN_FOLDERS, ".work"):
                shutil.rmtree(run.path(name), ignore_errors=True)
    elif any(os.path.exists(run.path(name)) for name in _OWN_FOLDERS):
        raise ValueError(f"{run.output} holds folders that pagepairs would write, but no record of a run: give another --output")
    write_json(path, settings)


@contextmanager
def _timed(run: Run, stage: str) -> Iterator[dict[str, Any]]:
    """Notes versions, runner, time and records of a stage in run.json, and what the stage adds to its earlier notes there."""
    started = time.monotonic()
    path = run.path("run.json")
    value = read_json(path) if os.path.exists(path) else {"stages": {}}
    notes = value["stages"].get(stage, {})
    yield notes
    value = read_json(path) if os.path.exists(path) else value
    value["versions"] = {"pagepairs": version("pagepairs"), "python": platform.python_version()} | {
        name: version(name) for name in _VERSIONS
    }
    value["runner"] = run.options.get_all_options()["runner"]
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


def _input_manifest(run: Run, name: str, stage: str) -> Manifest:
    manifest = find_manifest(run.path(name))
    if manifest is None:
        raise InputError(f"{run.path(name)} is not complete: run `pagepairs {stage} --output {run.config.run.output}` first")
    return manifest


def _scan(run: Run, units: list[ScanUnit]) -> None:
    journal = Journal(run.work("scan"))
    tasks = {task_name(task): task for task in (ScanTask(unit=unit) for unit in units)}
    digest = digest_of([_scan_settings(run.config.scan), sorted(tasks), run.config.scan.limit])
    if is_complete(run.path("images"), digest) and is_complete(run.path("units"), digest):
        run.say(f"scan: kept, {read_manifest(run.path('images')).rows:,} images")
        return
    with _timed(run, "scan"):
        total = sum(unit.stop - unit.start for unit in units)
        with watch(run.work("progress"), "scan", total, "B") as meter:
            work = ScanUnits(config=run.config.scan, output=run.output, threads=run.threads, meter=meter)
            if run.config.scan.limit:
                tasks = _scan_first(run, units, work, journal)
            else:
                journal.forget_others(tasks)
                done = run_tasks("scan", tasks, work, journal, run.options)
                if done < len(tasks):
                    run.say(f"scan: {len(tasks) - done} of {len(tasks)} units were scanned before and are kept")
        outcome = merge_outcomes(journal.read(name) for name in tasks)
        images = None
        for dataset in DATASETS:
            counters = outcome.counters or {"in": 0, "kept": 0, "dropped": {}, "errors": 0}
            manifest = complete_dataset(
                run.path(dataset), dataset, digest, outcome.files.get(dataset, []), counters if dataset == "images" else {}
            )
            images = manifest if dataset == "images" else images
        assert images is not None
        work_path = run.work(f"units-{images.content[:16]}")
        _forget_others(run, "units-", work_path)
        files = cut_units(run.output, work_path, images, run.options)
        complete_dataset(run.path("units"), "units", digest, files, {})
        shutil.rmtree(work_path)
    run.say(f"scan: {images.counters['in']:,} images read, {images.counters['kept']:,} kept")


def _scan_first(run: Run, units: list[ScanUnit], work: ScanUnits, journal: Journal) -> dict[str, ScanTask]:
    """Scans unit after unit until --limit images were seen; returns the tasks that this took."""
    tasks: dict[str, ScanTask] = {}
    left = run.config.scan.limit
    for unit in units:
        task = ScanTask(unit=unit, first=left)
        tasks[task_name(task)] = task
        if not journal.has(task_name(task)):
            journal.forget_others(tasks)
        run_tasks("scan", {task_name(task): task}, work, journal, run.options)
        left -= journal.read(task_name(task)).counters["in"]
        if left <= 0:
            break
    journal.forget_others(tasks)
    return tasks


def _embed(run: Run, described: Mapping[str, Any]) -> None:
    from pipeline.embed_stage import EmbedStage, embed_missing, find_missing

    units = _input_manifest(run, "units", "scan")
    stage = EmbedStage(
        output=run.output,
        scan=run.config.scan,
        embed=run.config.embed,
        options=run.options,
        threads=run.threads,
        locate=run.locate,
        say=run.say,
    )
    missing = find_missing(stage, units, described)
    if missing:
        with _timed(run, "embed") as notes:
            notes["encoders"] = notes.get("encoders", {}) | embed_missing(stage, units, described, missing)


def _pair(run: Run) -> None:
    folder = encoder_folder(deciding_encoder(run.config))
    names = ("images", "pages", "links", "aliases", "drops/scan")
    inputs = {name: _input_manifest(run, name, "scan") for name in names} | {
        "embeddings": _input_manifest(run, f"embeddings/{folder}", "embed")
    }
    check_calibration(run.config, folder, inputs["embeddings"].counters["encoder"])
    low, high, source = find_band(run.config)
    size_px = run.config.shard.size
    digest = digest_of(
        stage_digest(run.config.pair, low=low, high=high, size_px=size_px, inputs=inputs)
        | {"encoder": inputs["embeddings"].counters["encoder"]}
    )
    datasets = ("episodes", "drops/pair", "candidates", "pairs")
    if all(is_complete(run.path(name), digest) for name in datasets):
        run.say(f"pair: kept, {read_manifest(run.path('pairs')).rows:,} pairs")
        return
    _say_rebuild(run, "pair", "pairs")
    work = run.work(f"pair-{digest[:16]}")
    _forget_others(run, "pair-", work)
    with _timed(run, "pair"):
        parts = parts_for(inputs["images"], inputs["links"])
        with watch(run.work("progress"), "pair", 6 * parts, "part") as meter:
            job = PairJob(
                output=run.output,
                work=work,
                config=run.config.pair,
                encoder_folder=folder,
                low=low,
                high=high,
                size_px=size_px,
                parts=parts,
                meter=meter,
            )
            journals = pair_up(job, run.options)
        pages, pairs = (
            merge_outcomes(journals[phase].read(part_name(part, parts)) for part in range(parts)) for phase in ("episodes", "pairs")
        )
        histogram = {"low": -1.0, "high": 1.0, "counts": pairs.counters.pop("histogram")}
        found = {"encoder": folder, "band": {"low": low, "high": high, "source": source}, "histogram": histogram}
        found["settings"] = {name: value for name, value in dataclasses.asdict(run.config.pair).items() if name != "band"}
        counters = {"episodes": pages.counters, "candidates": pairs.counters | found}
        _publish(run, work, digest, [pages, pairs], datasets, counters)
    run.say(
        f"pair: {pages.counters['episodes']:,} episodes, {pairs.counters['in']:,} candidates, "
        f"{pairs.counters['pairs']:,} pairs between {low} and {high}"
    )


def _shard(run: Run) -> None:
    pairs, candidates = _input_manifest(run, "pairs", "pair"), _input_manifest(run, "candidates", "pair")
    config = run.config.shard
    vectors = _input_manifest(run, f"embeddings/{candidates.counters['encoder']}", "embed") if "embeddings" in config.columns else None
    settings = dataclasses.asdict(config) | {"columns": sorted(set(config.columns))}
    digest = digest_of([SCHEMA_VERSION, settings, pairs.content, vectors.content if vectors else ""])
    datasets = ("shards", "drops/shard")
    if all(is_complete(run.path(name), digest) for name in datasets):
        run.say(f"shard: kept, {len(read_manifest(run.path('shards')).files):,} shards")
    else:
        _say_rebuild(run, "shard", "shards")
        with _timed(run, "shard"):
            _make_shards(run, digest, pairs, vectors)
    write_card(run.output, run.config)


def _make_shards(run: Run, digest: str, pairs: Manifest, vectors: Manifest | None) -> None:
    config, work = run.config.shard, run.work(f"shard-{digest[:16]}")
    _forget_others(run, "shard-", work)
    shards = count_shards(pairs.rows, config.pairs_per_shard)
    with watch(run.work("progress"), "shard", 2 * pairs.rows, "img") as meter:
        job = ShardJob(
            folder=os.path.join(work, "final"),
            work=work,
            scan=run.config.scan,
            shard=config,
            shards=shards,
            parts=count_parts(2 * pairs.rows),
            threads=run.threads,
            vectors=None if vectors is None else vector_files(run.path(vectors.dataset)),
            locate=run.locate,
            meter=meter,
        )
        journal = write_shards(dataset_files(run.path("pairs")), job, run.options)
    outcomes = [journal.read(part_name(part, shards)) for part in range(shards)]
    hosts = most_common_hosts(outcome.counters.pop("hosts") for outcome in outcomes)
    outcome = merge_outcomes(outcomes)
    counters = {"shards": outcome.counters | {"format": config.format, "hosts": hosts}}
    _publish(run, work, digest, [outcome], ("shards", "drops/shard"), counters)
    run.say(f"shard: {outcome.counters['kept']:,} pairs in {shards:,} shards of {config.size} px")


def _say_rebuild(run: Run, stage: str, dataset: str) -> None:
    if find_manifest(run.path(dataset)) is not None:
        run.say(f"{stage}: other settings or inputs than before: building it again, then replacing it")


def _forget_others(run: Run, prefix: str, work: str) -> None:
    """Deletes what an unfinished run with other settings left; its journal could never be used again."""
    for entry in os.scandir(run.work()):
        if entry.is_dir() and entry.name.startswith(prefix) and entry.path != work:
            shutil.rmtree(entry.path)


def _publish(
    run: Run, work: str, digest: str, outcomes: list[Outcome], datasets: tuple[str, ...], counters: Mapping[str, dict[str, Any]]
) -> None:
    """Completes the datasets that a stage built aside, moves them to their places and clears the rest."""
    files = {name: infos for outcome in outcomes for name, infos in outcome.files.items()}
    for name in datasets:
        aside = os.path.join(work, "final", name)
        if os.path.isdir(aside):
            complete_dataset(aside, name, digest, files[name], dict(counters.get(name, {})))
            publish_dataset(aside, run.path(name), work)
    shutil.rmtree(work)


def _report(run: Run) -> None:
    from pipeline.report import write_report

    with _timed(run, "report"):
        path = write_report(run.output, locate=run.locate, pipeline_options=run.options, compare=run.config.report.compare)
    run.say(f"report: {path}")


def plan(config: Config, stages: tuple[str, ...]) -> dict[str, Any]:
    """Returns what a run would do: files and bytes to read, parts, folders."""
    units = _find_input(config, cut=True)
    low, high, source = find_band(config)
    sources = sorted({unit.source for unit in units})
    return {
        "stages": list(stages),
        "output": os.path.abspath(config.run.output),
        "files": len(sources),
        "first files": sources[:5],
        "units": len(units),
        "bytes": sum(unit.stop - unit.start for unit in units),
        "encoder": config.embed.encoder,
        "band": {"low": low, "high": high, "source": source},
    }
