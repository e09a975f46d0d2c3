"""Stage pair: references to episodes, episodes to candidates, candidates to pairs.

First `matches` (pipeline/pair_matches.py) finds the images that stand in a benchmark, and `aliases` closes chains of redirects. Then
steps in parts, each by the key that its decision needs:

    canonical   images by pHash          which picture stands for those of the same hash
    alike       images by pivot          with --copy-cosine: which of these are near by their vectors (see pipeline/pair_alike.py)
    near        images by band           which of these are near copies (see pipeline/pair_duplicates.py)
    stars       near pairs               which picture stands for its near copies; what goes with a picture that must go
    copies      images by pHash          the map of copies
    resolve     links by image URL       which captured image a reference means
    sets        references by page       what a page shows, so that one page under many addresses counts once
    appear      references by image      on how many pages and hosts; where its vector stands
    fetch       vectors by their file    copies them, ordered by the part of the page that wants them
    pages       references by page       which images a page offers
    mirrors     pages by their images    pages with the same images are one
    episodes    pages                    sampled candidates and their similarity
    pairs       candidates by pair       a pair found on several pages is kept once; which image is the condition

What is heavy never goes through a shuffle, as with image bytes: `canonical` leaves hashes by band, `fetch` vectors and `episodes`
candidates in files with one range a part of the step that reads them, which reads its range of each.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from dedup.benchmark import Benchmark
from pagepairs.config import PairConfig
from pagepairs.files import describe_file, read_json, read_parquet, write_json, write_parquet
from pagepairs.manifest import Manifest
from pagepairs.records import MATCHES, SCHEMA_VERSION
from pagepairs.stores import exists
from pipeline.jobs import count_parts, run_parts, run_tasks
from pipeline.journal import Journal, Outcome, part_name
from pipeline.match_passes import MatchJob
from pipeline.pair_alike import find_alike
from pipeline.pair_copies import Copies
from pipeline.pair_duplicates import find_stars
from pipeline.pair_episodes import Episodes
from pipeline.pair_job import PairJob
from pipeline.pair_ledger import Pairs
from pipeline.pair_matches import Compared, count_matches, find_matches
from pipeline.pair_members import Appear, Fetch, spread_found
from pipeline.pair_pages import Mirrors, Pages, Sets, SpreadByPage, spread_resolved
from pipeline.pair_references import Aliases, Canonical, Resolve, SpreadImages, SpreadLinks, spread_aliases
from pipeline.vectors import spread_by_file

_PHASES = (
    *("canonical", "pivots", "members", "probe", "alike", "near", "labels", "stars", "copies"),
    *("aliases", "resolve", "sets", "appear", "fetch", "pages", "mirrors", "episodes", "pairs"),
)


def pair_up(job: PairJob, options: PipelineOptions) -> dict[str, Journal]:
    """Runs the shuffles; returns the journal of each."""
    journals = {phase: Journal(os.path.join(job.work, "done", phase)) for phase in _PHASES}
    write_matches(job, options)
    run_parts("canonical", job.dataset("images", "image"), SpreadImages(job), Canonical(job), job.parts, journals["canonical"], options)
    run_parts("aliases", job.dataset("aliases", "alias"), spread_aliases, Aliases(job), 1, journals["aliases"], options)
    if job.config.copy_cosine is not None:
        find_alike(job, journals, options)
    find_stars(job, journals, options)
    parts = {part_name(part, job.parts): part for part in range(job.parts)}
    run_tasks("copies", parts, Copies(job), journals["copies"], options)
    links = job.dataset("links", "link") + job.phase("captures", "capture") + job.dataset("drops/scan", "dropped")
    run_parts("resolve", links, SpreadLinks(job), Resolve(job), job.parts, journals["resolve"], options)
    run_parts("sets", job.phase("resolve", "reference"), spread_resolved, Sets(job), job.parts, journals["sets"], options)
    found = job.phase("sets", "reference") + job.phase("images", "image") + job.dataset(f"embeddings/{job.encoder_folder}", "vector")
    run_parts("appear", found, spread_found, Appear(job), job.parts, journals["appear"], options)
    run_parts("fetch", job.phase("wanted", "wanted"), spread_by_file, Fetch(job), job.parts, journals["fetch"], options)
    pages = job.phase("resolve", "unresolved") + job.phase("appear", "reference") + job.dataset("pages", "closed")
    run_parts("pages", pages, SpreadByPage(job), Pages(job), job.parts, journals["pages"], options)
    run_tasks("mirrors", parts, Mirrors(job), journals["mirrors"], options)
    run_tasks("episodes", parts, Episodes(job), journals["episodes"], options)
    run_tasks("pairs", parts, Pairs(job), journals["pairs"], options)
    return journals


def write_matches(job: PairJob, options: PipelineOptions) -> None:
    """Writes the file of matches/ and what was compared, unless it is there; it is empty without a benchmark."""
    if exists(job.matches):  # of an earlier attempt
        return
    table = MATCHES.empty_table()
    if job.benchmarks:
        table, compared = find_matches(MatchJob(output=job.output, work=job.work, benchmarks=job.benchmarks), options)
        write_json(_compared_path(job), dataclasses.asdict(compared))
    write_parquet(job.matches, table)


def _compared_path(job: PairJob) -> str:
    return os.path.join(job.work, "matches", "compared.json")


def match_outcome(job: PairJob, images: int) -> Outcome:
    """Returns the file of matches/ with its counts, given the number of distinct images."""
    if not job.benchmarks:
        return Outcome(files={"matches": [describe_file(job.matches)]}, counters={"images": images, "matched": 0, "benchmarks": []})
    compared = Compared(**read_json(_compared_path(job)))
    counters = count_matches(read_parquet(job.matches), job.benchmarks, images=images, compared=compared)
    return Outcome(files={"matches": [describe_file(job.matches)]}, counters=counters)


def parts_for(images: Manifest, links: Manifest) -> int:
    """Returns the number of parts that all shuffles of the stage use."""
    return count_parts(max(images.rows, links.rows))


def shown_settings(config: PairConfig, benchmarks: Sequence[Benchmark]) -> dict[str, Any]:
    """Returns the settings of the stage; benchmarks are named by what they hold, not by where they stand."""
    settings = dataclasses.asdict(config)
    del settings["band"]  # a path; what the file says is low and high
    return settings | {"benchmark": [[benchmark.name, benchmark.content] for benchmark in benchmarks]}


def stage_digest(
    config: PairConfig, *, low: float, high: float, size_px: int, benchmarks: Sequence[Benchmark] = (), inputs: Mapping[str, Manifest]
) -> dict[str, Any]:
    """Returns what the stage's output depends on: its settings, the size that shard asks for, and the bytes of its inputs."""
    settings = shown_settings(config, benchmarks) | {"low": low, "high": high, "size_px": size_px}
    return {"schema": SCHEMA_VERSION, "settings": settings, "inputs": {name: manifest.content for name, manifest in sorted(inputs.items())}}
