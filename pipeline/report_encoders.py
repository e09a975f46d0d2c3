"""The report's part on encoders: what each embedded, and where two of them disagree."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import stats

from encoders import encoder_folder
from encoders.table import ENCODERS
from filters.calibration import inside, matching_cuts, overlap, rank_correlation
from pagepairs.files import read_parquet
from pagepairs.manifest import dataset_files, read_manifest
from pipeline.datasets import embedded_digests
from pipeline.report_charts import colours, gap, on_scale, similarity_domain, similarity_rows
from pipeline.report_json import stage_counts
from pipeline.report_summary import bin_of
from pipeline.scores import Scored, score_pairs

_SHOWN = 8
_GRID_BINS = 50
_GRID_PX = 360
_HEIGHT_PX = 200
_EFFORT = ("reused", "halved")


def describe_encoders(output: str, run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns a row for each encoder whose vectors are complete: its counts, and of the run how often it reused and halved."""
    notes = run.get("stages", {}).get("embed", {}).get("encoders", {})
    rows = []
    for folder in embedded_digests(output):
        manifest = read_manifest(os.path.join(output, "embeddings", folder))
        effort = {name: int(notes.get(folder, {}).get(name, 0)) for name in _EFFORT}
        rows.append({"encoder": folder, "digest": manifest.counters.get("encoder", {})} | stage_counts(manifest) | effort)
    return rows


def compare_encoders(output: str, config: Mapping[str, Any], similarity: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns how a second encoder sees the sampled pairs; None where there is no second one.

    The second is the next that the run names, else the next by name.

    Args:
      output: the run's folder.
      config: as config.json holds it.
      similarity: `encoder`, `low` and `high` of the pairs, as report.json holds them.
    """
    first, low, high = similarity["encoder"], similarity["low"], similarity["high"]
    specs = {encoder_folder(spec): spec for spec in config.get("embed", {}).get("encoder", first).split(",")}
    there = embedded_digests(output)
    others = [name for name in [*specs, *there] if name in there and name != first]
    if not others:
        return None
    second = others[0]
    scored = score_pairs(output, (first, second))
    a, b = scored.similarity
    if not len(a):
        return None
    own = ENCODERS[second].band if second in ENCODERS else None  # none of those that are read from a file has one
    kept = inside(a, low, high)
    cuts = matching_cuts(scored.chunks, low, high) if kept.any() else None
    return {
        "encoders": [first, second],
        "pairs": len(a),
        "found": scored.found,
        "counts": [np.bincount(bin_of(side), minlength=200).tolist() for side in (a, b)],
        "grid": _grid(a, b),
        "band": [low, high],
        "own_band": [own.low, own.high] if own else None,
        "matching_band": [cuts.low, cuts.high] if cuts else None,
        "jaccard": overlap(kept, inside(b, cuts.low, cuts.high)) if cuts else None,
        "rank_correlation": rank_correlation((a, b)),
        "disagreements": _disagreements(output, scored),
    }


def _grid(a: np.ndarray, b: np.ndarray) -> list[list[int]]:
    """Returns [bin of the first, bin of the second, pairs] for the bins of 0.04 that hold a pair."""
    x, y = (bin_of(side) * _GRID_BINS // 200 for side in (a, b))
    counts = np.bincount(x * _GRID_BINS + y, minlength=_GRID_BINS**2)
    return [[int(at // _GRID_BINS), int(at % _GRID_BINS), int(counts[at])] for at in counts.nonzero()[0]]


def _disagreements(output: str, scored: Scored) -> list[dict[str, Any]]:
    """Returns the pairs whose ranks are furthest apart, both ways: similarities of two encoders have two scales, ranks have one."""
    shares = [stats.rankdata(side) / len(side) for side in scored.similarity]
    difference = shares[0] - shares[1]
    order = np.argsort(-difference, kind="stable")
    picks = [("first", int(row)) for row in order[:_SHOWN] if difference[row] > 0]
    picks += [("second", int(row)) for row in order[::-1][:_SHOWN] if difference[row] < 0]
    keys = scored.rows.take(pa.array([row for _, row in picks], pa.int64())).to_pylist()
    urls = _urls(output, keys)
    found = []
    for (nearer, row), key in zip(picks, keys, strict=True):
        similarities = [float(side[row]) for side in scored.similarity]
        ranks = [float(share[row]) for share in shares]
        found.append(
            key | urls[key["page_key"], key["a_id"], key["b_id"]] | {"nearer": nearer, "similarities": similarities, "ranks": ranks}
        )
    return found


def _urls(output: str, keys: Sequence[Mapping[str, str]]) -> dict[tuple[str, str, str], dict[str, str]]:
    wanted = pa.array(sorted({key["a_id"] for key in keys}), pa.string())
    names = ["page_key", "a_id", "b_id", "page_url", "a_url", "b_url"]
    urls = {}
    for path in dataset_files(os.path.join(output, "candidates")):
        table = read_parquet(path, names)
        for row in table.filter(pc.is_in(table["a_id"], wanted)).to_pylist():
            urls[row["page_key"], row["a_id"], row["b_id"]] = {name: row[name] for name in names[3:]}
    return urls


def draw_encoders(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the charts of a comparison by the name of their place: a histogram for each encoder, and one of both."""
    bands = [comparison["band"], comparison["own_band"] or comparison["matching_band"]]
    charts: dict[str, Any] = {"encoders": _draw_grid(comparison, bands)}
    for number, (counts, band) in enumerate(zip(comparison["counts"], bands, strict=True)):
        low, high = band or (0.0, 0.0)
        first, last = similarity_domain(counts, low, high)
        rows = similarity_rows(counts, first, last)
        within = f"datum.from > {low} - 0.005 && datum.to < {high} + 0.005"
        colour = alt.condition(within, alt.value(alt.expr("keptColour")), alt.value(alt.expr("droppedColour")))
        bars = on_scale(rows, first, last).mark_rect(**gap()).encode(x2="to:Q", y2=alt.datum(0), color=colour)
        bars = bars.properties(width="container", height=_HEIGHT_PX)
        charts[f"encoder-{number}"] = bars.add_params(*colours(), alt.param(name="top", value=1.12 * max(1, *counts)))
    return charts


def _draw_grid(comparison: Mapping[str, Any], bands: Sequence[Sequence[float] | None]) -> Any:
    side = 2 / _GRID_BINS
    names = comparison["encoders"]
    rows = [
        {"x": round(x * side - 1, 2), "x2": round((x + 1) * side - 1, 2), "y": round(y * side - 1, 2), "y2": round((y + 1) * side - 1, 2)}
        | {"pairs": count}
        for x, y, count in comparison["grid"]
    ]

    def axis(name: str) -> dict[str, Any]:
        ends = [row[name] for row in rows] + [row[f"{name}2"] for row in rows]
        return {
            "title": names["xy".index(name)],
            "scale": alt.Scale(domain=[min(ends), max(ends)], nice=False),
            "axis": alt.Axis(format=".1f", grid=False, tickCount=6),
        }

    opacity = alt.Opacity(
        "pairs:Q", scale=alt.Scale(type="log", domain=[1, max(2, *(row["pairs"] for row in rows))], range=[0.3, 1]), legend=None
    )
    tooltip = [alt.Tooltip(field=name, title=title) for name, title in (("x", names[0]), ("y", names[1]), ("pairs", "pairs"))]
    squares = (
        alt.Chart({"values": rows})
        .mark_rect(color=alt.expr("keptColour"))
        .encode(x=alt.X("x:Q", **axis("x")), x2="x2:Q", y=alt.Y("y:Q", **axis("y")), y2="y2:Q", opacity=opacity, tooltip=tooltip)
    )
    layers = [squares]
    for name, band in zip("xy", bands, strict=True):
        if band:
            ends = alt.Chart({"values": [{name: end} for end in band]})
            layers.append(ends.mark_rule(strokeDash=[4, 4], color=alt.expr("inkColour"), clip=True).encode(**{name: f"{name}:Q"}))
    return alt.layer(*layers, width="container", height=_GRID_PX).add_params(*colours())
