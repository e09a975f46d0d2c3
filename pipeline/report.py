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
from pipeline.jobs import count_parts
from pipeline.report_page import render
from pipeline.report_summary import (
    BINS,
    Pairs,
    Summary,
    count_hosts,
    merge,
    shorten,
    side_range,
    spread_pages,
    summarise_file,
    summarise_pages,
)
from pipeline.report_thumbnails import Thumbnail, read_alts, read_thumbnails, wanted_images, wanted_pages

STAGES = ("scan", "embed", "pair", "candidates", "shard")
_DROP_STAGES = ("scan", "embed", "pair", "shard")
_HOSTS = 15
_NEARLY_ALL = 0.95


def write_report(output: str, *, locate: Callable[[str], str], pipeline_options: PipelineOptions) -> str:
    """Writes report/report.json and report/report.html of a run and returns the path of the page.

    Args:
      output: the run's folder, with scan, embed, pair and shard complete.
      locate: turns a reference's source into the path of a file that can be opened.

    Raises:
      ValueError: if a dataset is missing.
    """
    manifests = _stage_manifests(output)
    limits = _decode_limits(read_json(os.path.join(output, "config.json")))
    page = os.path.join(output, "report", "report.html")
    with beam.Pipeline(options=pipeline_options) as pipeline:
        pages = _summarise_pages(pipeline, _files(output, ["candidates"]), count_parts(manifests["candidates"].rows))
        files = pipeline | "Files" >> beam.Create(_files(output, ["images", "episodes", "candidates", *(f"drops/{s}" for s in _DROP_STAGES)]))
        summaries = files | "Balance" >> beam.Reshuffle() | "Summarise" >> beam.MapTuple(summarise_file)
        summary = (summaries, pages) | beam.Flatten() | "Merge" >> beam.CombineGlobally(merge_all)
        wanted = beam.pvalue.AsSingleton(summary)
        thumbnails = (
            pipeline
            | "Units" >> beam.Create(_files(output, ["units"]))
            | "BalanceUnits" >> beam.Reshuffle()
            | "Thumbnails" >> beam.FlatMapTuple(_thumbnails_of, wanted=wanted, locate=locate, limits=limits)
        )
        episodes = pipeline | "Episodes" >> beam.Create(_files(output, ["episodes"]))
        alts = episodes | "Alts" >> beam.FlatMapTuple(_alts_of, wanted=wanted)
        hosts = _top_hosts(pipeline, _files(output, ["images", "episodes"]))
        sides = {"hosts": beam.pvalue.AsDict(hosts), "thumbnails": beam.pvalue.AsDict(thumbnails), "alts": beam.pvalue.AsDict(alts)}
        _ = summary | "Write" >> beam.Map(_write, output=output, manifests=manifests, page=page, **sides)
    return page


def _stage_manifests(output: str) -> dict[str, Manifest]:
    candidates = read_manifest(os.path.join(output, "candidates"))
    folders = {"scan": "images", "embed": f"embeddings/{candidates.counters['encoder']}", "pair": "episodes", "shard": "shards"}
    manifests = {stage: read_manifest(os.path.join(output, folder)) for stage, folder in folders.items()} | {"candidates": candidates}
    return {stage: manifests[stage] for stage in STAGES}


def _decode_limits(config: Mapping[str, Any]) -> dict[str, Any]:
    scan = config["scan"]
    return {"max_bytes": scan["max_bytes"], "max_pixels": scan["max_pixels"], "timeout_s": scan["decode_timeout_s"], "animations": scan["animations"]}


def _files(output: str, datasets: Iterable[str]) -> list[tuple[str, str]]:
    return [(dataset.split("/")[0], path) for dataset in datasets for path in dataset_files(os.path.join(output, dataset))]


def merge_all(summaries: Iterable[Summary]) -> Summary:
    """Merges any number of summaries; none gives the empty one."""
    return functools.reduce(merge, summaries, Summary())


def _summarise_pages(pipeline: beam.Pipeline, files: list[tuple[str, str]], parts: int) -> beam.PCollection:
    return (
        pipeline
        | "PageFiles" >> beam.Create(files)
        | "SpreadPages" >> beam.FlatMapTuple(_spread_pages, parts=parts)
        | "GroupPages" >> beam.GroupByKey()
        | "SummarisePages" >> beam.MapTuple(_summarise_part)
    )


def _spread_pages(_: str, path: str, *, parts: int) -> Iterable[tuple[int, Pairs]]:
    return spread_pages(path, parts)


def _summarise_part(_: int, pieces: Iterable[Pairs]) -> Summary:
    return summarise_pages(pieces)


def _top_hosts(pipeline: beam.Pipeline, files: list[tuple[str, str]]) -> beam.PCollection:
    return (
        pipeline
        | "HostFiles" >> beam.Create(files)
        | "CountHosts" >> beam.FlatMapTuple(count_hosts)
        | "SumHosts" >> beam.CombinePerKey(sum)
        | "ByKind" >> beam.MapTuple(lambda key, count: (key[0], (count, key[1])))
        | "TopHosts" >> beam.combiners.Top.PerKey(_HOSTS, key=_most_then_name, reverse=True)
    )


def _most_then_name(item: tuple[int, str]) -> tuple[int, str]:
    return -item[0], item[1]


def _thumbnails_of(_: str, path: str, *, wanted: Summary, locate: Callable[[str], str], limits: Mapping[str, Any]) -> Iterable[tuple[str, Thumbnail]]:
    return read_thumbnails(path, wanted_images(wanted.samples), locate=locate, limits=limits)


def _alts_of(_: str, path: str, *, wanted: Summary) -> Iterable[tuple[str, str]]:
    return read_alts(path, wanted_pages(wanted.samples))


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
    report = build_report(summary, manifests, hosts=hosts, alts=alts, config=read_json(os.path.join(output, "config.json")), run=_read_run(output))
    write_json(os.path.join(os.path.dirname(page), "report.json"), report)
    write_bytes(page, render(report, thumbnails).encode())


def _read_run(output: str) -> dict[str, Any]:
    path = os.path.join(output, "run.json")
    return read_json(path) if os.path.exists(path) else {}


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
    drops = _drops(summary)
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
        "drops": drops,
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
                found.append(f"{stage}: {reason} drops {count:,} of {counts['in']:,} records ({count / counts['in']:.1%}): is its setting right for this crawl?")
    if not stages["scan"]["in"]:
        found.append("The input holds no image.")
    return found + _ledger_warnings(stages, summary)


def _ledger_warnings(stages: Mapping[str, Mapping[str, Any]], summary: Summary) -> list[str]:
    ledger = _ledger(summary)
    counted = {("drop", stage, reason): count for stage, counts in stages.items() for reason, count in counts["dropped"].items() if count}
    written = {key: count for key, count in ledger.items() if key[0] == "drop"}
    keys = sorted(counted.keys() | written.keys())
    return [
        f"{stage}: the counters say that {reason} dropped {counted.get((kind, stage, reason), 0):,} records, the ledger holds {written.get((kind, stage, reason), 0):,}."
        for kind, stage, reason in keys
        if counted.get((kind, stage, reason), 0) != written.get((kind, stage, reason), 0)
    ]


def _ledger(summary: Summary) -> dict[tuple[str, str, str], int]:
    rows = {tuple(group.split("/", 2)): count for group, count in summary.counts.get("ledger", Counter()).items()}
    candidates = {("drop", "candidates", reason): count for reason, count in summary.counts.get("candidate_reason", Counter()).items() if reason}
    return {(kind, stage, reason): count for (kind, stage, reason), count in (rows | candidates).items()}


def _similarity(candidates: Manifest, kept: int) -> dict[str, Any]:
    histogram, band = candidates.counters["histogram"], candidates.counters["band"]
    counts = histogram["counts"]
    edges = [round(histogram["low"] + (histogram["high"] - histogram["low"]) * i / len(counts), 6) for i in range(len(counts) + 1)]
    return {"encoder": candidates.counters["encoder"], "edges": edges, "counts": counts, "kept": kept, **{name: band[name] for name in ("low", "high", "source")}}


def _bands(summary: Summary) -> dict[str, Any]:
    """What any band on bin edges would keep: pairs by bin, and pages as a sum over gaps (see Summary.page_gaps)."""
    pairs = summary.counts.get("similarity_once", Counter())
    rows, columns = summary.page_gaps.nonzero()
    gaps = [[int(i), int(j), int(summary.page_gaps[i, j])] for i, j in zip(rows, columns, strict=True)]
    return {"pairs": [pairs[i] for i in range(BINS)], "pages": summary.counts.get("pairs_per_page", Counter()).total(), "page_gaps": gaps}


def _examples(summary: Summary, alts: Mapping[str, str]) -> list[dict[str, Any]]:
    groups = sorted((int(group[4:]), rows) for group, rows in summary.samples.items() if group.startswith("bin/"))
    rows = sorted((row for _, samples in groups for _, row in samples), key=lambda row: (row["similarity"], row["a_id"], row["b_id"]))
    names = ("page_url", "a_id", "b_id", "a_url", "b_url", "similarity", "reason")
    return [
        {name: row[name] for name in names} | {f"{side}_alt": shorten(alts.get(f"{row['page_key']}/{row[f'{side}_id']}", "")) for side in "ab"}
        for row in rows
    ]


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
        rows.append({"stage": stage, "reason": reason, "error": kind == "error", "count": count, "examples": examples})
    return rows


def _times(stages: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    return {
        stage: {"seconds": times["seconds"], "records": times["records"], "records_per_s": times["records"] / times["seconds"] if times["seconds"] else 0.0}
        for stage, times in stages.items()
    }
