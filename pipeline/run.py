"""The five stages, one after the other, and the plan of what they would do."""

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

from dedup.benchmark import check_bytes, read_benchmarks
from encoders import encoder_folder
from filters.block_list import BlockList
from pagepairs.config import Config
from pagepairs.files import remove_temporaries, write_json
from pagepairs.locks import lock_output
from pagepairs.manifest import read_manifest
from pagepairs.stores import absolute, is_remote
from pipeline.bands import check_calibration, deciding_encoder, find_band, find_copies_encoder
from pipeline.cuts import CUTS, known_units
from pipeline.datasets import embedded_digests, work_folder
from pipeline.pair_matches import check_encoders
from pipeline.pair_stage import run_pair
from pipeline.report_compare import check_compare
from pipeline.runner_checks import check_reach
from pipeline.runners import describe, pipeline_options
from pipeline.scan_stage import LOCK, check_scan_settings, run_scan
from pipeline.shard_stage import run_shard
from pipeline.sources import CrawlFile, SourceMap, frames, list_crawl
from pipeline.stage import InputError, Run, timed

STAGES = ("scan", "embed", "pair", "shard", "report")


class NothingFound(ValueError):
    """The run is complete and holds no pair."""


def run_stages(config: Config, stages: tuple[str, ...], say: Callable[[str], None]) -> None:
    """Runs the stages in order; a stage that is complete under the same settings and inputs is kept.

    Raises:
      ValueError: for a setting that cannot be used, before the first record is read.
      InputError: if the crawl or an earlier stage's output is missing or unusable.
      NothingFound: if there is no pair at the end.
      OSError: if the output cannot be written.
    """
    output = absolute(config.run.output)
    options = pipeline_options(config.beam_args, config.run.workers)
    check_reach(options.get_all_options(), config, stages)
    if "pair" in stages:
        find_band(config)
        find_copies_encoder(config)
    _check_block_list(config.scan.block_list)
    if config.report.compare:
        check_compare(config.report.compare)
    files = [] if stages == ("pair",) else _find_input(config, look="scan" in stages)
    described = {}
    if "embed" in stages:
        # Beam's inference module imports torch, which the other stages do without.
        from pipeline.embed_stage import describe_encoders

        described = describe_encoders(config.embed, options, config.run.workers)
        folder = encoder_folder(deciding_encoder(config))
        check_calibration(config, folder, described[folder].digest)
    if "pair" in stages:
        embedding = {name: encoder.digest for name, encoder in described.items()}
        benchmarks = read_benchmarks(config.pair.benchmark)
        check_bytes(benchmarks)
        check_encoders(benchmarks, embedded_digests(output) | embedding, config.run.output)
    locate = SourceMap([unit for file in files for unit in file.units()], output)
    with lock_output(work_folder(output, LOCK)) as check_lock, _progress_folder(output) as progress:
        run = Run(config=config, output=output, options=options, locate=locate, say=say, progress=progress, check_lock=check_lock)
        check_scan_settings(run)
        remove_temporaries(output)
        write_json(run.path("config.json"), as_json(config))
        functions: Mapping[str, Callable[[Run], None]] = {
            "scan": lambda run: run_scan(run, files),
            "embed": lambda run: _embed(run, described),
            "pair": run_pair,
            "shard": run_shard,
            "report": _report,
        }
        for stage in stages:
            check_lock()
            functions[stage](run)
    if "shard" in stages and read_manifest(run.path("shards")).rows == 0:
        if read_manifest(run.path("images")).counters["in"] == 0:
            raise NothingFound("the crawl holds no image: is it the right --input, and does it hold responses?")
        raise NothingFound(f"no pair was found; {run.path('report', 'report.html')} says what became of every image and reference")


@contextmanager
def _progress_folder(output: str) -> Iterator[str]:
    """Yields an empty folder of this machine: below the output, where a killed run's is found and cleared, unless that is elsewhere."""
    if is_remote(output):
        with TemporaryDirectory(prefix="pagepairs-") as folder:
            yield folder
        return
    folder = work_folder(output, "progress")
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    yield folder


def _check_block_list(path: str) -> None:
    """Reads the block list once before the first record, so that a wrong line is no worker's error."""
    try:
        if path:
            BlockList.read(path)
    except OSError as error:
        raise ValueError(f"--block-list {path}: {error.strerror}") from error


def _find_input(config: Config, *, look: bool) -> list[CrawlFile]:
    try:
        return list_crawl(config.scan.input, config.scan, look=look)
    except ValueError as error:
        raise InputError(error) from error


def as_json(config: Config) -> dict[str, Any]:
    """Returns the configuration as config.json holds it; what only this invocation needs (--rebuild, --dry-run, --compare) is not in it."""
    value = dataclasses.asdict(config)
    del value["report"]
    for name in ("rebuild", "dry_run"):
        del value["run"][name]
    return value


def _embed(run: Run, described: Mapping[str, Any]) -> None:
    from pipeline.embed_stage import run_embed

    run_embed(run, described)


def _report(run: Run) -> None:
    from pipeline.report import write_report

    with timed(run, "report"):
        path = write_report(run.output, locate=run.locate, pipeline_options=run.options, compare=run.config.report.compare)
    run.say(f"report: {path}")


def plan(config: Config, stages: tuple[str, ...]) -> dict[str, Any]:
    """Returns what a run would do: files and bytes to read, parts, folders, the options of its jobs; no file is read whole for that."""
    options = pipeline_options(config.beam_args, config.run.workers)
    check_reach(options.get_all_options(), config, stages)
    output = absolute(config.run.output)
    units, uncut = known_units(_find_input(config, look=True), work_folder(output, CUTS))
    low, high, source = find_band(config)
    sources = sorted({unit.source for unit in units})
    shown = {
        "stages": list(stages),
        "output": output,
        "files": len(sources),
        "first files": sources[:5],
        "units": len(units),
        "bytes": sum(unit.stop - unit.start for unit in units),
        "encoder": config.embed.encoder,
        "band": {"low": low, "high": high, "source": source},
        "jobs": describe(options),
    }
    if uncut:
        shown["to be cut"] = {
            "files": len(uncut),
            "bytes": sum(file.bytes for file in uncut),
            "why": f"longer than {frames.CUT_BYTES:,} bytes: each is read once by a job and cut, so there will be more units than these",
        }
    return shown
