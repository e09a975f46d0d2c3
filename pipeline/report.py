"""The report: one pass over a run's datasets, then report.json and one HTML page that opens without a network."""

import functools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from pagepairs.files import read_json, write_bytes, write_json
from pagepairs.manifest import Manifest, dataset_files, read_manifest
from pagepairs.records import SCHEMA_VERSION
from pipeline.commands import config_from_json
from pipeline.jobs import count_parts
from pipeline.report_page import render
from pipeline.report_summary import (
    BINS,
    Pairs,
    Summary,
    count_hosts,
    merge,
    side_range,
    spread_pages,
    summarise_file,
    summarise_pages,
)
from pipeline.report_text import shorten
from pipeline.report_thumbnails import Thumbnail, decode_limits, read_alts, read_thumbnails, wanted_images, wanted_pages

STAGES = ("scan", "embed", "pair", "candidates", "shard")
_DROP_STAGES = ("scan", "embed", "pair", "shard")
_HOSTS = 15
_NEARLY_ALL = 0.95


def write_report(output: str, *, locate: Callable[[str], str], pipeline_options: PipelineOptions) -> str:
    """Writes report/report.json and report/report.html of a run and returns the path of the page.

    Args:
      output: the run's folder, with scan, embed, pair and shard complete.
      locate: turns a reference's source into the path of a file that can be opened.
      pipeline_options: of the runner.

    Raises:
      ValueError: if a dataset is missing.
    """
    manifests = _stage_manifests(output)
    limits = decode_limits(config_from_json(read_json(os.path.join(output, "config.json"))).scan)
    page = os.path.join(output, "report", "report.html")
    drops = [f"drops/{stage}" for stage in _DROP_STAGES]
    with beam.Pipeline(options=pipeline_options) as pipeline:
        files = pipeline | "Files" >> beam.Create(_files(output, "images", "episodes", "candidates", *drops))
        summaries = files | "Balance" >> beam.Reshuffle() | "Summarise" >> beam.MapTuple(summarise_file)
        pages = _summarise_pages(pipeline, _paths(output, "candidates"), count_parts(manifests["candidates"].rows))
        summary = (summaries, pages) | "Flatten" >> beam.Flatten() | "Merge" >> beam.CombineGlobally(merge_all)
        found = beam.pvalue.AsSingleton(summary)
        units = pipeline | "Units" >> beam.Create(_paths(output, "units")) | "BalanceUnits" >> beam.Reshuffle()
        thumbnails = units | "Thumbnails" >> beam.FlatMap(_thumbnails_of, found, locate=locate, limits=limits)
        alts = pipeline | "Episodes" >> beam.Create(_paths(output, "episodes")) | "Alts" >> beam.FlatMap(_alts_of, found)
        sides = {"hosts": _top_hosts(files), "thumbnails": thumbnails, "alts": alts}
        sides = {name: beam.pvalue.AsDict(values) for name, values in sides.items()}
        _ = summary | "Write" >> beam.Map(_write, output=output, manifests=manifests, page=page, **sides)
    return page


def _stage_manifests(output: str) -> dict[str, Manifest]:
    candidates = read_manifest(os.path.join(output, "candidates"))
    embeddings = f"embeddings/{candidates.counters['encoder']}"
    folders = {"scan": "images", "embed": embeddings, "pair": "episodes", "candidates": "candidates", "shard": "shards"}
    return {stage: read_manifest(os.path.join(output, folder)) for stage, folder in folders.items()}


def _paths(output: str, dataset: str) -> list[str]:
    return dataset_files(os.path.join(output, dataset))


def _files(output: str, *datasets: str) -> list[tuple[str, str]]:
    return [(dataset.split("/")[0], path) for dataset in datasets for path in _paths(output, dataset)]


def merge_all(summaries: Iterable[Summary]) -> Summary:
    """Merges any number of summaries; none gives the empty one."""
    return functools.reduce(merge, summaries, Summary())


def _summarise_pages(pipeline: beam.Pipeline, paths: list[str], parts: int) -> beam.PCollection:
    return (
        pipeline
        | "PairFiles" >> beam.Create(paths)
        | "SpreadPages" >> beam.FlatMap(spread_pages, parts)
        | "GroupPages" >> beam.GroupByKey()
        | "SummarisePages" >> beam.MapTuple(_summarise_part)
    )


def _summarise_part(_: int, pieces: Iterable[Pairs]) -> Summary:
    return summarise_pages(pieces)


def _top_hosts(files: beam.PCollection) -> beam.PCollection:
    return (
        files
        | "CountHosts" >> beam.FlatMapTuple(count_hosts)
        | "SumHosts" >> beam.CombinePerKey(sum)
        | "ByDataset" >> beam.MapTuple(_by_dataset)
        | "TopHosts" >> beam.combiners.Top.PerKey(_HOSTS, key=_most_then_name)
    )


def _by_dataset(key: tuple[str, str], count: int) -> tuple[str, tuple[int, str]]:
    dataset, host = key
    return dataset, (count, host)


def _most_then_name(item: tuple[int, str]) -> tuple[int, list[int]]:
    count, host = item
    return count, [-ord(character) for character in host]


def _thumbnails_of(path: str, found: Summary, locate: Callable[[str], str], limits: Mapping[str, Any]) -> Iterable[tuple[str, Thumbnail]]:
    return read_thumbnails(path, wanted_images(found.samples), locate, limits)


def _alts_of(path: str, found: Summary) -> Iterable[tuple[str, str]]:
    return read_alts(path, wanted_pages(found.samples))


def _write(
    summary: Summary,
    *,
    output: str,
    manifests: Mapping[str, Manifest],
    page: str,
    hosts: Mapping[str, list[tuple[int, str]]],
    thumbnails: Mapping[str, Thumbnail],
    alts: Mapping[str, str],
) -> None:
    config, run = read_json(os.path.join(output, "config.json")), _read_run(output)
    report = build_report(summary, manifests, hosts=hosts, alts=alts, config=config, run=run)
    write_json(os.path.join(os.path.dirname(page), "report.json"), report)
    write_bytes(page, render(report, thumbnails).encode())


def _read_run(output: str) -> dict[str, Any]:
    path = os.path.join(output, "run.json")
    value: dict[str, Any] = read_json(path) if os.path.exists(path) else {}
    return value


def build_report(
    summary: Summary,
    manifests: Mapping[str, Manifest],
    *,
    hosts: Mapping[str, list[tuple[int, str]]],
    alts: Mapping[str, str],
    config: Mapping[str, Any],
    run: Mapping[str, Any],
) -> dict[str, Any]:
    """Returns what report.json holds; numbers of stages are the manifests', all others were counted in the datasets."""
    stages = {stage: stage_counts(manifest) for stage, manifest in manifests.items()}
    return {
        "schema_version": SCHEMA_VERSION,
        "stages": stages,
        "warnings": find_warnings(stages, summary),
        "similarity": _similarity(manifests["candidates"], stages["candidates"]["kept"]),
        "bands": _bands(summary),
        "examples": _examples(summary, alts),
        "pages": {
            "episodes": summary.counts.get("images_per_page", Counter()).total(),
            "images_per_page": _sorted(summary, "images_per_page"),
            "pairs_per_page": _sorted(summary, "pairs_per_page"),
            "pairs_not_sampled": manifests["pair"].counters.get("not_sampled", 0),
        },
        "images": {"formats": dict(summary.counts.get("format", Counter()).most_common()), "sizes": _sizes(summary)},
        "hosts": {kind: [{"host": host, "count": count} for count, host in hosts.get(kind, [])] for kind in ("images", "episodes")},
        "drops": _drops(summary),
        "times": _times(run.get("stages", {})),
        "configuration": config,
        "run": {name: value for name, value in run.items() if name != "stages"},
    }


def stage_counts(manifest: Manifest) -> dict[str, Any]:
    """Returns a stage's part of the funnel: in = kept + sum of dropped + errors."""
    counters = manifest.counters
    dropped = dict(sorted(counters["dropped"].items(), key=lambda item: (-item[1], item[0])))
    return {"in": counters["in"], "kept": counters["kept"], "dropped": dropped, "errors": counters["errors"]}


def find_warnings(stages: Mapping[str, Mapping[str, Any]], summary: Summary) -> list[str]:
    """Returns sentences on what a user should look at before using the pairs."""
    found = []
    for stage, counts in stages.items():
        if counts["in"] != counts["kept"] + sum(counts["dropped"].values()) + counts["errors"]:
            found.append(f"{stage}: {counts['in']:,} records came in, but kept, dropped and errors add up to another number.")
        if counts["in"] and not counts["kept"]:
            found.append(f"{stage} keeps nothing of {counts['in']:,} records.")
        for reason, count in counts["dropped"].items():
            if count > _NEARLY_ALL * counts["in"]:
                share = f"{count:,} of {counts['in']:,} records ({count / counts['in']:.1%})"
                found.append(f"{stage}: {reason} drops {share}: is its setting right for this crawl?")
    if not stages["scan"]["in"]:
        found.append("The input holds no image.")
    return found + _ledger_warnings(stages, summary)


def _ledger_warnings(stages: Mapping[str, Mapping[str, Any]], summary: Summary) -> list[str]:
    written = {key: count for key, count in _ledger(summary).items() if key[0] == "drop"}
    counted = {("drop", stage, reason): count for stage, counts in stages.items() for reason, count in counts["dropped"].items()}
    found = []
    for key in sorted(counted.keys() | written.keys()):
        _, stage, reason = key
        counter, rows = counted.get(key, 0), written.get(key, 0)
        if counter != rows:
            found.append(f"{stage}: the counters say that {reason} dropped {counter:,} records, the ledger holds {rows:,}.")
    return found


def _ledger(summary: Summary) -> dict[tuple[str, str, str], int]:
    """Rows of drops/ and of candidates/ by (drop or error, stage, reason)."""
    ledger: dict[tuple[str, str, str], int] = {}
    for group, count in summary.counts.get("ledger", Counter()).items():
        kind, stage, reason = group.split("/", 2)
        ledger[kind, stage, reason] = count
    for reason, count in summary.counts.get("candidate_reason", Counter()).items():
        if reason:
            ledger["drop", "candidates", reason] = count
    return ledger


def _similarity(candidates: Manifest, kept: int) -> dict[str, Any]:
    histogram, band = candidates.counters["histogram"], candidates.counters["band"]
    counts = histogram["counts"]
    width = (histogram["high"] - histogram["low"]) / len(counts)
    edges = [round(histogram["low"] + width * i, 6) for i in range(len(counts) + 1)]
    return {"encoder": candidates.counters["encoder"], "edges": edges, "counts": counts, "kept": kept, **band}


def _bands(summary: Summary) -> dict[str, Any]:
    """What any band on bin edges would keep: pairs by bin, and pages as a sum over gaps (see Summary.page_gaps)."""
    pairs = summary.counts.get("similarity_once", Counter())
    rows, columns = summary.page_gaps.nonzero()
    gaps = [[int(i), int(j), int(summary.page_gaps[i, j])] for i, j in zip(rows, columns, strict=True)]
    return {"pairs": [pairs[i] for i in range(BINS)], "pages": summary.counts.get("pairs_per_page", Counter()).total(), "page_gaps": gaps}


def _examples(summary: Summary, alts: Mapping[str, str]) -> list[dict[str, Any]]:
    rows = [row for group, samples in summary.samples.items() if group.startswith("bin/") for _, row in samples]
    rows.sort(key=lambda row: (row["similarity"], row["a_id"], row["b_id"]))
    names = ("page_url", "a_id", "b_id", "a_url", "b_url", "similarity", "reason")
    return [{name: row[name] for name in names} | _alts(row, alts) for row in rows]


def _alts(row: Mapping[str, Any], alts: Mapping[str, str]) -> dict[str, str]:
    return {f"{side}_alt": shorten(alts.get(f"{row['page_key']}/{row[f'{side}_id']}", "")) for side in "ab"}


def _sorted(summary: Summary, name: str) -> dict[str, int]:
    return {str(value): count for value, count in sorted(summary.counts.get(name, Counter()).items())}


def _sizes(summary: Summary) -> list[dict[str, int]]:
    steps = summary.counts.get("side", Counter())
    ranges = [(side_range(step), steps[step]) for step in range(min(steps), max(steps) + 1)] if steps else []
    return [{"first_px": first, "last_px": last, "images": count} for (first, last), count in ranges]


def _drops(summary: Summary) -> list[dict[str, Any]]:
    rows = []
    for (kind, stage, reason), count in sorted(_ledger(summary).items(), key=lambda item: (-item[1], item[0])):
        samples = summary.samples.get(f"{kind}/{stage}/{reason}", [])
        examples = [{name: row[name] for name in ("page_url", "image_url", "detail")} for _, row in samples]
        details = summary.counts.get("image_dropped", Counter()) if reason == "image_dropped" else {}
        row = {"stage": stage, "reason": reason, "error": kind == "error", "count": count}
        rows.append(row | {"details": dict(sorted(details.items(), key=lambda item: (-item[1], item[0]))), "examples": examples})
    return rows


def _times(stages: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    times = {}
    for stage in STAGES:
        if stage in stages:
            seconds, records = stages[stage]["seconds"], stages[stage]["records"]
            times[stage] = {"seconds": seconds, "records": records, "records_per_s": records / seconds if seconds else 0.0}
    return times
