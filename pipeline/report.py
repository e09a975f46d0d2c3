"""The report: two passes over a run's datasets, then report.json and one HTML page that opens without a network."""

import functools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.options.pipeline_options import PipelineOptions

from pagepairs.files import find_json, read_json, write_bytes, write_json
from pagepairs.manifest import dataset_files
from pagepairs.stores import store_of
from pipeline.commands import config_from_json
from pipeline.datasets import work_folder
from pipeline.jobs import count_parts, name_elements
from pipeline.report_benchmark import decontamination, match_pictures, read_matches, wanted_thumbnails
from pipeline.report_cells import HOSTS, Cells, Pick, find_picks, merge_cells, spread_candidates, spread_members, summarise_part
from pipeline.report_compare import compare_runs, count_changes, spread_verdicts, stage_manifests
from pipeline.report_encoders import compare_encoders, describe_encoders
from pipeline.report_filters import pack_cells
from pipeline.report_json import build_report, members_of, similarity_of, stage_counts, top_hosts
from pipeline.report_page import render, shown_settings
from pipeline.report_scale import scale_edges
from pipeline.report_summary import BINS, Summary, count_hosts, merge, summarise_file
from pipeline.report_thumbnails import (
    Thumbnail,
    decode_limits,
    drop_references,
    find_dropped,
    read_dropped,
    read_members,
    read_thumbnails,
)
from pipeline.runners import open_job

Name = Callable[[str, list[Any]], beam.PCollection]
"""(label, elements) -> the elements as a collection of the job; a long list goes through a file."""


def write_report(output: str, *, locate: Callable[[str], str], pipeline_options: PipelineOptions, compare: str = "") -> str:
    """Writes report/report.json and report/report.html of a run and returns the path of the page.

    Args:
      output: the run's folder, with scan, embed, pair and shard complete.
      locate: turns a reference's source into the path of a file that can be opened.
      pipeline_options: of the runner.
      compare: folder of another complete run to show beside this one; "" for none.

    Raises:
      ValueError: if a dataset is missing.
    """
    manifests = stage_manifests(output)
    band = manifests["candidates"].counters["band"]
    edges = scale_edges(band["low"], band["high"])
    limits = decode_limits(config_from_json(read_json(os.path.join(output, "config.json"))).scan)
    page = os.path.join(output, "report", "report.html")
    comparison = compare_encoders(output, read_json(os.path.join(output, "config.json")), similarity_of(manifests["candidates"]))
    disagreements = comparison["disagreements"] if comparison else []
    drops = [f"drops/{name}" for name in ("scan", f"embed-{manifests['candidates'].counters['encoder']}", "pair", "shard")]
    work = work_folder(output, "report")
    parts = count_parts(manifests["candidates"].rows)
    with open_job("report", pipeline_options, tasks=parts) as pipeline:
        name = functools.partial(_name, pipeline, work)
        files = name("Files", _files(output, "images", "episodes", "candidates", *drops))
        hosts = beam.pvalue.AsDict(_top_hosts(files))
        summary = _summarise(files, "Summarise")
        cells = _count_cells(name, output, hosts, edges, parts)
        picked = beam.pvalue.AsSingleton(cells)
        candidates = name("Candidates", _paths(output, "candidates"))
        rows = candidates | "FindPicks" >> beam.FlatMap(_find_picks, picked).with_output_types(dict[str, Any])
        # An empty Create has elements of no type, and a cluster would write the rows of the Flatten as such.
        extra = pipeline | "Disagreements" >> beam.Create(disagreements).with_output_types(dict[str, Any])
        shown = beam.pvalue.AsList((rows, extra) | "Shown" >> beam.Flatten())
        units = name("Units", _paths(output, "units"))
        thumbnails = units | "Thumbnails" >> beam.FlatMap(read_thumbnails, shown, locate=locate, limits=limits)
        dropped = _read_dropped(name, output, summary, locate=locate, limits=limits)
        members = name("Episodes", _paths(output, "episodes")) | "Members" >> beam.FlatMap(read_members, shown)
        matches = read_matches(output)
        sides = {
            "cells": picked,
            "hosts": hosts,
            "rows": beam.pvalue.AsList(rows),
            "thumbnails": beam.pvalue.AsDict((thumbnails, dropped) | "Pictures" >> beam.Flatten()),
            "members": beam.pvalue.AsDict(members),
        }
        if matches:
            pictures = units | "MatchThumbnails" >> beam.FlatMap(
                read_thumbnails, wanted_thumbnails(matches[1]), locate=locate, limits=limits
            )
            sides["matched"] = beam.pvalue.AsDict(pictures)
        if compare:
            sides |= _compare(name, output, compare)
        # Manifests and matches grow with the run and are read again: what is named here becomes part of the job's description.
        settings: dict[str, Any] = {"output": output, "compare": compare, "page": page, "edges": edges, "comparison": comparison}
        _ = summary | "Write" >> beam.Map(_write, **settings, **sides, folder=os.getcwd())
    store_of(work).remove_tree(work)
    return page


def _name(pipeline: beam.Pipeline, work: str, label: str, elements: list[Any]) -> beam.PCollection:
    return name_elements(pipeline, label, elements, work)


def _paths(output: str, dataset: str) -> list[str]:
    return dataset_files(os.path.join(output, dataset))


def _files(output: str, *datasets: str) -> list[tuple[str, str]]:
    return [(dataset.split("/")[0], path) for dataset in datasets for path in _paths(output, dataset)]


def _summarise(files: beam.PCollection, label: str) -> beam.PCollection:
    summaries = files | label >> beam.MapTuple(summarise_file)
    return summaries | f"Merge{label}" >> beam.CombineGlobally(merge_all)


def merge_all(summaries: Iterable[Summary]) -> Summary:
    """Merges any number of summaries; none gives the empty one."""
    return functools.reduce(merge, summaries, Summary())


def _top_hosts(files: beam.PCollection) -> beam.PCollection:
    return (
        files
        | "CountHosts" >> beam.FlatMapTuple(count_hosts)
        | "SumHosts" >> beam.CombinePerKey(sum)
        | "ByDataset" >> beam.MapTuple(_by_dataset)
        | "TopHosts" >> beam.combiners.Top.PerKey(HOSTS, key=_most_then_name)
    )


def _by_dataset(key: tuple[str, str], count: int) -> tuple[str, tuple[int, str]]:
    dataset, host = key
    return dataset, (count, host)


def _most_then_name(item: tuple[int, str]) -> tuple[int, list[int]]:
    count, host = item
    return count, [-ord(character) for character in host]


def _count_cells(name: Name, output: str, hosts: Any, edges: list[float], parts: int) -> beam.PCollection:
    rows = name("PairFiles", _paths(output, "candidates")) | "SpreadPairs" >> beam.FlatMap(spread_candidates, parts, edges)
    members = name("PageFiles", _paths(output, "episodes")) | "SpreadMembers" >> beam.FlatMap(_spread_members, hosts, parts)
    joined = {"rows": rows, "members": members} | "ByPage" >> beam.CoGroupByKey()
    return joined | "CountCells" >> beam.Map(_count_part, edges=edges) | "MergeCells" >> beam.CombineGlobally(_merge_all_cells)


def _spread_members(path: str, hosts: Mapping[str, list[tuple[int, str]]], parts: int) -> Iterable[tuple[int, np.ndarray]]:
    return spread_members(path, parts, top_hosts(hosts))


def _count_part(part: tuple[int, Mapping[str, Iterable[np.ndarray]]], edges: list[float]) -> Cells:
    return summarise_part(part[1], edges)


def _merge_all_cells(cells: Iterable[Cells]) -> Cells:
    return functools.reduce(merge_cells, cells, Cells())


def _find_picks(path: str, cells: Cells) -> Iterable[dict[str, Any]]:
    wanted: dict[int, Pick] = {pick.row: pick for picks in cells.picks.values() for _, pick in picks}
    return find_picks(path, wanted)


def _read_dropped(
    name: Name, output: str, summary: beam.PCollection, *, locate: Callable[[str], str], limits: Mapping[str, Any]
) -> beam.PCollection:
    """Pictures of the dropped images that the page shows: by their own reference, or by that of the image that has their URL."""
    found = beam.pvalue.AsSingleton(summary)
    images = name("ImageFiles", _paths(output, "images")) | "FindDropped" >> beam.FlatMap(find_dropped, found)
    own = summary | "DropReferences" >> beam.FlatMap(drop_references)
    references = (images, own) | "DroppedReferences" >> beam.Flatten() | "LowestReference" >> beam.CombinePerKey(min)
    return references | "DroppedPictures" >> beam.Map(read_dropped, locate=locate, limits=limits)


def _compare(name: Name, output: str, compare: str) -> dict[str, Any]:
    parts = count_parts(sum(stage_manifests(folder)["candidates"].rows for folder in (output, compare)))
    files = [(run, path) for run, folder in enumerate((output, compare)) for path in _paths(folder, "candidates")]
    changes = (
        name("BothFiles", files)
        | "SpreadVerdicts" >> beam.FlatMap(spread_verdicts, parts)
        | "ByPair" >> beam.GroupByKey()
        | "Verdicts" >> beam.Values()
        | "CountChanges" >> beam.Map(count_changes)
        | "SumChanges" >> beam.CombineGlobally(_sum_changes)
    )
    other = _summarise(name("OtherFiles", _files(compare, "candidates")), "SummariseOther")
    return {"changes": beam.pvalue.AsSingleton(changes), "other": beam.pvalue.AsSingleton(other)}


def _sum_changes(changes: Iterable[np.ndarray]) -> np.ndarray:
    return functools.reduce(np.add, changes, np.zeros((4, 4), np.int64))


def _write(
    summary: Summary,
    *,
    output: str,
    compare: str,
    page: str,
    folder: str,
    edges: Sequence[float],
    comparison: dict[str, Any] | None,
    cells: Cells,
    hosts: Mapping[str, list[tuple[int, str]]],
    rows: Sequence[Mapping[str, Any]],
    thumbnails: Mapping[str, Thumbnail],
    members: Mapping[str, tuple[str, int, int]],
    matched: Mapping[str, Thumbnail] | None = None,
    changes: np.ndarray | None = None,
    other: Summary | None = None,
) -> None:
    config, run, matches = read_json(os.path.join(output, "config.json")), _read_run(output), read_matches(output)
    manifests = stage_manifests(output)
    report = build_report(summary, cells, manifests, edges=edges, hosts=hosts, rows=rows, members=members, config=config, run=run)
    report["encoders"] = describe_encoders(output, run)
    if comparison:
        found = [row | members_of(row, members) for row in comparison["disagreements"]]
        report["encoder_comparison"] = comparison | {"disagreements": found}
    if changes is not None and other is not None:
        report["compare"] = _compared(report | {"output": output}, compare, (summary, other), changes)
    pictures = {}
    if matches:
        report["decontamination"], pictures = decontamination(*matches), match_pictures(matches[1], matched or {})
    write_json(os.path.join(os.path.dirname(page), "report.json"), report)
    packed = pack_cells(cells, top_hosts(hosts), edges)
    write_bytes(page, render(report, packed, thumbnails, output=output, folder=folder, match_pictures=pictures).encode())


def _compared(report: Mapping[str, Any], compare: str, summaries: tuple[Summary, Summary], changes: np.ndarray) -> dict[str, Any]:
    manifests = stage_manifests(compare)
    stages = {stage: stage_counts(manifest) for stage, manifest in manifests.items()}
    other = {"output": compare, "stages": stages, "similarity": similarity_of(manifests["candidates"])}
    settings = [dict(shown_settings(value)) for value in (report["configuration"], read_json(os.path.join(compare, "config.json")))]
    once = [[summary.counts.get("similarity_once", Counter())[i] for i in range(BINS)] for summary in summaries]
    return compare_runs((report, other), (settings[0], settings[1]), (once[0], once[1]), changes)


def _read_run(output: str) -> dict[str, Any]:
    path = os.path.join(output, "run.json")
    value: dict[str, Any] = find_json(path) or {}
    return value
