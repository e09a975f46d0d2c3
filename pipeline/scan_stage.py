"""Stage scan as a run sees it: what was scanned before under which settings, and what is left to do."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

from pagepairs.config import ScanConfig
from pagepairs.files import find_json, read_bytes, write_json
from pagepairs.manifest import digest_of, read_manifest
from pagepairs.records import SCHEMA_VERSION
from pagepairs.stores import store_of
from pipeline.cuts import CUTS, cut_crawl
from pipeline.datasets import complete_dataset, is_complete
from pipeline.jobs import run_tasks
from pipeline.journal import Journal, merge_outcomes
from pipeline.progress import watch
from pipeline.scan import DATASETS, ScanTask, ScanUnits, cut_units, task_name
from pipeline.sources import CrawlFile, ScanUnit
from pipeline.stage import Run, forget_others, timed

LOCK = "lock"
"""In the folder for what is not a dataset; held while a run lasts."""
OWN_FOLDERS = (
    "images",
    "pages",
    "links",
    "aliases",
    "units",
    "spill",
    "embeddings",
    "matches",
    "copies",
    "episodes",
    "candidates",
    "pairs",
    "shards",
    "report",
    "drops",
)


def check_scan_settings(run: Run) -> None:
    """Refuses an output folder that was scanned with other settings, unless --rebuild clears it."""
    path, settings = run.work("scan.json"), _scan_settings(run.config.scan)
    before = find_json(path)
    if before is not None:
        changed = [f"{name} was {before.get(name)!r}, is {value!r}" for name, value in settings.items() if before.get(name) != value]
        if changed and not run.config.run.rebuild:
            raise ValueError(
                f"{run.output} was scanned with other settings ({'; '.join(changed)}): give --rebuild to throw it away, or another --output"
            )
        if changed:
            run.say("scan: other settings and --rebuild: throwing away what was there")
            for name in OWN_FOLDERS:
                store_of(run.output).remove_tree(run.path(name))
            forget_others(run, "", run.work(LOCK), run.work(CUTS))
    elif any(store_of(run.output).files(run.path(name)) for name in OWN_FOLDERS):
        raise ValueError(f"{run.output} holds folders that pagepairs would write, but no record of a run: give another --output")
    write_json(path, settings)


def _scan_settings(scan: ScanConfig) -> dict[str, Any]:
    """What decides the rows of a unit; not which units there are, how many images a quick look takes, nor where they are decoded."""
    value = dataclasses.asdict(scan)
    del value["input"], value["limit"], value["isolate"]
    if scan.block_list:
        value["block_list"] = hashlib.sha256(read_bytes(scan.block_list)).hexdigest()
    return value | {"schema": SCHEMA_VERSION}


def run_scan(run: Run, crawl: Sequence[CrawlFile]) -> None:
    """Scans the units that are new or changed."""
    units = cut_crawl(run, crawl)
    journal = Journal(run.work("scan"))
    tasks = {task_name(task): task for task in (ScanTask(unit=unit) for unit in units)}
    digest = digest_of([_scan_settings(run.config.scan), sorted(tasks), run.config.scan.limit])
    if is_complete(run.path("images"), digest) and is_complete(run.path("units"), digest):
        run.say(f"scan: kept, {read_manifest(run.path('images')).rows:,} images")
        return
    with timed(run, "scan"):
        total = sum(unit.stop - unit.start for unit in units)
        with watch(run.progress, "scan", total, "B") as meter:
            work = ScanUnits(config=run.config.scan, output=run.output, threads=run.threads, meter=meter)
            if run.config.scan.limit:
                tasks = _scan_first(run, units, work, journal)
            else:
                journal.forget_others(tasks)
                done = run_tasks("scan", tasks, work, journal, run.options)
                if done < len(tasks):
                    run.say(f"scan: {len(tasks) - done} of {len(tasks)} units were scanned before and are kept")
        outcome = merge_outcomes(journal.read_all(tasks))
        run.check_lock()
        images = None
        for dataset in DATASETS:
            counters = outcome.counters or {"in": 0, "kept": 0, "dropped": {}, "errors": 0}
            manifest = complete_dataset(
                run.path(dataset), dataset, digest, outcome.files.get(dataset, []), counters if dataset == "images" else {}
            )
            images = manifest if dataset == "images" else images
        assert images is not None
        work_path = run.work(f"units-{images.content[:16]}")
        forget_others(run, "units-", work_path)
        files = cut_units(run.output, work_path, images, run.options)
        complete_dataset(run.path("units"), "units", digest, files, {})
        store_of(work_path).remove_tree(work_path)
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
