"""Stage pair: references to episodes, episodes to candidates, candidates to pairs.

Seven steps in parts, each by the key that its decision needs:

    canonical   images by pHash          which picture stands for its copies
    resolve     links by image URL       which captured image a reference means
    appear      references by image      on how many pages and hosts; where its vector stands
    fetch       vectors by their file    copies them, ordered by the part of the page that wants them
    episodes    references by page       which images a page offers; sampled candidates and their similarity
    pairs       candidates by pair       a pair found on several pages is kept once; which image is the condition

What is heavy never goes through a shuffle, as with image bytes: `fetch` leaves vectors, and `episodes` leaves candidates, in files with one
range a part of the next step, which reads its range of each.
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from pagepairs.config import PairConfig
from pagepairs.manifest import Manifest
from pagepairs.records import SCHEMA_VERSION
from pipeline.jobs import Journal, count_parts, part_name, run_parts, run_tasks
from pipeline.pair_episodes import Episodes, SpreadByPage
from pipeline.pair_job import PairJob
from pipeline.pair_ledger import Pairs
from pipeline.pair_members import Appear, Fetch, spread_found
from pipeline.pair_references import Aliases, Canonical, Resolve, SpreadLinks, spread_aliases, spread_images
from pipeline.vectors import spread_by_file

_PHASES = ("canonical", "aliases", "resolve", "appear", "fetch", "episodes", "pairs")


def pair_up(job: PairJob, options: PipelineOptions) -> dict[str, Journal]:
    """Runs the shuffles; returns the journal of each."""
    journals = {phase: Journal(os.path.join(job.work, "done", phase)) for phase in _PHASES}
    run_parts("canonical", job.dataset("images", "image"), spread_images, Canonical(job), job.parts, journals["canonical"], options)
    run_parts("aliases", job.dataset("aliases", "alias"), spread_aliases, Aliases(job), 1, journals["aliases"], options)
    links = job.dataset("links", "link") + job.phase("canonical", "capture") + job.dataset("drops/scan", "dropped")
    run_parts("resolve", links, SpreadLinks(job), Resolve(job), job.parts, journals["resolve"], options)
    found = job.phase("resolve", "reference") + job.dataset(f"embeddings/{job.encoder_folder}", "vector")
    run_parts("appear", found, spread_found, Appear(job), job.parts, journals["appear"], options)
    run_parts("fetch", job.phase("wanted", "wanted"), spread_by_file, Fetch(job), job.parts, journals["fetch"], options)
    pages = job.phase("resolve", "unresolved") + job.phase("appear", "reference") + job.dataset("pages", "closed")
    run_parts("episodes", pages, SpreadByPage(job), Episodes(job), job.parts, journals["episodes"], options)
    run_tasks("pairs", {part_name(part, job.parts): part for part in range(job.parts)}, Pairs(job), journals["pairs"], options)
    return journals


def parts_for(images: Manifest, links: Manifest) -> int:
    """Returns the number of parts that all shuffles of the stage use."""
    return count_parts(max(images.rows, links.rows))


def stage_digest(config: PairConfig, *, low: float, high: float, size_px: int, inputs: Mapping[str, Manifest]) -> dict[str, Any]:
    """Returns what the stage's output depends on: its settings, the size that shard asks for, and the bytes of its inputs."""
    settings = dataclasses.asdict(config) | {"low": low, "high": high, "size_px": size_px}
    del settings["band"]  # a path; what the file says is low and high
    return {"schema": SCHEMA_VERSION, "settings": settings, "inputs": {name: manifest.content for name, manifest in sorted(inputs.items())}}
