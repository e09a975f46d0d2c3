"""What report.json holds: the stages' own counters, and what was counted in the datasets."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pagepairs.manifest import Manifest
from pagepairs.records import SCHEMA_VERSION
from pipeline.report_cells import HOSTS, REASONS, SIZE_CHOICES, Cells
from pipeline.report_scale import count_slots
from pipeline.report_summary import Summary, side_range
from pipeline.report_text import shorten

STAGES = ("scan", "embed", "pair", "candidates", "shard")
_NEARLY_ALL = 0.95
_EXAMPLE = ("page_url", "a_id", "b_id", "a_url", "b_url", "similarity", "reason", "host", "page", "size", "images")

Members = Mapping[str, tuple[str, int, int]]
"""Alt text, width and height by "page_key/image_id"."""


def build_report(
    summary: Summary,
    cells: Cells,
    manifests: Mapping[str, Manifest],
    *,
    edges: Sequence[float],
    hosts: Mapping[str, list[tuple[int, str]]],
    rows: Sequence[Mapping[str, Any]],
    members: Members,
    config: Mapping[str, Any],
    run: Mapping[str, Any],
) -> dict[str, Any]:
    """Returns what report.json holds; numbers of stages are the manifests', all others were counted in the datasets."""
    stages = {stage: stage_counts(manifest) for stage, manifest in manifests.items()}
    return {
        "schema_version": SCHEMA_VERSION,
        "stages": stages,
        "warnings": find_warnings(stages, summary),
        "similarity": similarity_of(manifests["candidates"]),
        "bands": _bands(cells, edges),
        "examples": _examples(cells, rows, members),
        "pages": {
            "episodes": summary.counts.get("images_per_page", Counter()).total(),
            "images_per_page": _sorted(summary.counts.get("images_per_page", Counter())),
            "pairs_per_page": _sorted(cells.kept_per_page),
            "pairs_not_sampled": manifests["pair"].counters.get("not_sampled", 0),
        },
        "duplicates": manifests["pair"].counters.get("duplicates", {}),
        "appearances": manifests["pair"].counters.get("appearances", {}),
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


def similarity_of(candidates: Manifest) -> dict[str, Any]:
    """Returns the histogram of all sampled candidates, as stage pair counted it, with encoder and band."""
    histogram, band = candidates.counters["histogram"], candidates.counters["band"]
    counts = histogram["counts"]
    width = (histogram["high"] - histogram["low"]) / len(counts)
    edges = [round(histogram["low"] + width * i, 6) for i in range(len(counts) + 1)]
    kept = candidates.counters["kept"]
    return {"encoder": candidates.counters["encoder"], "edges": edges, "counts": counts, "kept": kept, **band}


def _bands(cells: Cells, edges: Sequence[float]) -> dict[str, Any]:
    """What any band between two edges would keep: pairs by slot, and pages as a sum over gaps (see pipeline/report_scale.py)."""
    slots = count_slots(edges)
    pairs = np.bincount(cells.once.pairs.keys % slots, cells.once.pairs.counts, slots).astype(np.int64)
    rows = pairs + np.bincount(cells.again.pairs.keys % slots, cells.again.pairs.counts, slots).astype(np.int64)
    of_all = cells.once.gaps.keys // slots**2 % len(SIZE_CHOICES) == 0
    gaps = np.bincount(cells.once.gaps.keys[of_all] % slots**2, cells.once.gaps.counts[of_all], slots**2).astype(np.int64)
    found = [[int(gap // slots), int(gap % slots), int(gaps[gap])] for gap in gaps.nonzero()[0]]
    named = {"edges": list(edges), "pairs": pairs.tolist(), "rows": rows.tolist()}
    return named | {"pages": cells.kept_per_page.total(), "page_gaps": found}


def _examples(cells: Cells, rows: Sequence[Mapping[str, Any]], members: Members) -> list[dict[str, Any]]:
    """Sampled candidates, least alike first; `places` are their ranks in the groups that chose them, lowest first."""
    places: dict[int, list[str]] = {}
    for name, picks in sorted(cells.picks.items()):
        for place, (_, pick) in enumerate(picks):
            places.setdefault(pick.row, []).append(f"{place} {_group_name(name)}")
    found = {row["row"]: row for row in rows}
    ordered = sorted(found.values(), key=lambda row: (row["similarity"], row["a_id"], row["b_id"], row["page_key"]))
    return [{name: row[name] for name in _EXAMPLE} | {"places": places[row["row"]]} | members_of(row, members) for row in ordered]


def _group_name(name: str) -> str:
    kind, _, number = name.partition("/")
    return REASONS[int(number)] if kind == "reason" else kind


def members_of(row: Mapping[str, Any], members: Members) -> dict[str, Any]:
    """Returns alt text and size of both images of a pair."""
    found: dict[str, Any] = {}
    for side in "ab":
        alt, width, height = members.get(f"{row['page_key']}/{row[f'{side}_id']}", ("", 0, 0))
        found |= {f"{side}_alt": shorten(alt), f"{side}_size": [width, height]}
    return found


def top_hosts(hosts: Mapping[str, list[tuple[int, str]]]) -> list[str]:
    """Returns the hosts with a filter of their own: those whose pages have most candidates."""
    return [host for _, host in hosts.get("candidates", [])][:HOSTS]


def _sorted(counts: Mapping[int, int]) -> dict[str, int]:
    return {str(value): count for value, count in sorted(counts.items())}


def _sizes(summary: Summary) -> list[dict[str, int]]:
    steps = summary.counts.get("side", Counter())
    ranges = [(side_range(step), steps[step]) for step in range(min(steps), max(steps) + 1)] if steps else []
    return [{"first_px": first, "last_px": last, "images": count} for (first, last), count in ranges]


def _drops(summary: Summary) -> list[dict[str, Any]]:
    rows = []
    for (kind, stage, reason), count in sorted(_ledger(summary).items(), key=lambda item: (-item[1], item[0])):
        samples = summary.samples.get(f"{kind}/{stage}/{reason}", [])
        examples = [{name: row[name] for name in ("page_url", "image_url", "detail", "picture")} for _, row in samples]
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
