"""The charts of the report as Vega-Lite specifications; colours and type come from the page when it draws them."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np

from pipeline.report_scale import bins_of

_HEIGHT_PX = 170
_HISTOGRAM_HEIGHT_PX = 260
_BIN_WIDTH = 0.01


def draw_charts(report: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the specification of each chart, by the name of its place in the page; a chart without data is left out."""
    pages, images = report["pages"], report["images"]
    charts = {
        "similarity": _draw_similarity(by_hundredth(report["bands"]), report["similarity"]),
        "compare": _draw_compare(report["compare"]) if "compare" in report else None,
        "images-per-page": _draw_whole_numbers(pages["images_per_page"], "images", "pages"),
        "pairs-per-page": _draw_whole_numbers(pages["pairs_per_page"], "kept pairs", "pages"),
        "sizes": _draw_sizes(images["sizes"]),
    }
    return {name: chart.to_dict() for name, chart in charts.items() if chart is not None}


def similarity_domain(counts: Sequence[int], low: float, high: float) -> tuple[int, int]:
    """Returns the first and last bin edge worth showing: all candidates and the band, with some air, in whole tenths."""
    used = [i for i, count in enumerate(counts) if count]
    first, last = min([*used, round(100 + 100 * low)]), max([*used, round(100 + 100 * high)])
    return max(0, (first - 4) // 10 * 10), min(len(counts), -(-(last + 5) // 10) * 10)


def by_hundredth(bands: Mapping[str, Any]) -> list[int]:
    """Returns the pairs of each hundredth of [-1, 1], each pair once, from their counts by slot."""
    hundredth = bins_of(np.arange(len(bands["pairs"])), bands["edges"])
    return [int(count) for count in np.bincount(hundredth, bands["pairs"], 200)]


def _draw_similarity(counts: Sequence[int], similarity: Mapping[str, Any]) -> alt.Chart | None:
    if not any(counts):
        return None
    first, last = similarity_domain(counts, similarity["low"], similarity["high"])
    inside = f"datum.from > low - {_BIN_WIDTH / 2} && datum.to < high + {_BIN_WIDTH / 2}"
    colour = alt.condition(inside, alt.value(alt.expr("keptColour")), alt.value(alt.expr("droppedColour")))
    chart: alt.Chart = (
        on_scale(similarity_rows(counts, first, last), first, last)
        .mark_rect(**gap())
        .encode(x2="to:Q", y2=alt.datum(0), color=colour)
        .properties(width="container", height=_HISTOGRAM_HEIGHT_PX, padding=0)
        .add_params(*(alt.param(name=name, value=similarity[name]) for name in ("low", "high")), *colours())
        .add_params(alt.param(name="top", value=1.12 * max(counts)))
    )
    return chart


def _draw_compare(compare: Mapping[str, Any]) -> Any:
    counts, ends = compare["counts"], [end for band in compare["bands"] for end in band]
    both = [a + b for a, b in zip(*counts, strict=True)]
    if not any(both):
        return None
    first, last = similarity_domain(both, min(ends), max(ends))
    this, other = (similarity_rows(side, first, last) for side in counts)
    bars = on_scale(this, first, last).mark_rect(**gap(), color=alt.expr("keptColour"), opacity=0.75)
    bars = bars.encode(x2="to:Q", y2=alt.datum(0))
    stairs = [*other, {"from": _edge(last), "to": _edge(last), "pairs": 0}]
    steps = on_scale(stairs, first, last, name="other").mark_line(interpolate="step-after", color=alt.expr("inkColour"), strokeWidth=1.75)
    band = alt.Chart({"values": [{"end": end} for end in compare["bands"][1]]}).encode(x="end:Q")
    rules = band.mark_rule(strokeDash=[4, 4], color=alt.expr("inkColour"))
    top = 1.12 * max(max(side) for side in counts)
    chart = alt.layer(bars, steps, rules, width="container", height=_HISTOGRAM_HEIGHT_PX)
    return chart.add_params(*colours(), alt.param(name="top", value=top))


def similarity_rows(counts: Sequence[int], first: int, last: int) -> list[dict[str, float]]:
    """Returns a bar for each hundredth from edge `first` to edge `last`."""
    return [{"from": _edge(i), "to": _edge(i + 1), "pairs": counts[i]} for i in range(first, last)]


def on_scale(rows: list[dict[str, float]], first: int, last: int, name: str = "bins") -> alt.Chart:
    """A chart of pairs along similarity. Labels stand inside the plot, above their lines: it has the place of the page's sliders."""
    x_axis = alt.Axis(format=".1f", grid=False, tickCount=10, labelFlush=True, labelOverlap="greedy", labelSeparation=8)
    x = alt.X("from:Q", title=None, scale=alt.Scale(domain=[_edge(first), _edge(last)], nice=False), axis=x_axis)
    labels = alt.Axis(labelAlign="left", labelBaseline="bottom", labelPadding=-2, format=",d", tickCount=4, tickMinStep=1)
    labels["labelExpr"] = "datum.value > 0.92 * top ? '' : datum.label"  # a label at the upper end would push the plot down
    labels["domain"] = labels["ticks"] = False
    y = alt.Y("pairs:Q", title=None, axis=labels, scale=alt.Scale(domainMin=0, domainMax=alt.expr("top"), nice=False))
    chart = alt.Chart({"name": name, "values": rows})
    return chart.encode(x=x, y=y)


def gap() -> dict[str, Any]:
    """A pixel between bars where there is room for it."""
    return {"xOffset": alt.expr("width > 600 ? 0.5 : 0"), "x2Offset": alt.expr("width > 600 ? -0.5 : 0")}


def colours() -> list[alt.Parameter]:
    """The colours that the page sets: kept, dropped, ink."""
    return [
        alt.param(name=name, value=value) for name, value in (("keptColour", "teal"), ("droppedColour", "silver"), ("inkColour", "black"))
    ]


def _edge(bin_edge: int) -> float:
    return round(bin_edge / 100 - 1, 2)


def _draw_whole_numbers(counts: Mapping[str, int], what: str, of: str) -> alt.Chart | None:
    if not counts:
        return None
    rows = [{"from": int(value) - 0.5, "to": int(value) + 0.5, what: int(value), of: count} for value, count in counts.items()]
    axis = alt.Axis(format="d", tickMinStep=1, grid=False)
    return _draw_bars(rows, alt.X("from:Q", title=f"{what} a page", axis=axis, scale=alt.Scale(nice=False, zero=False)), of, [what, of])


def _draw_sizes(sizes: Sequence[Mapping[str, int]]) -> alt.Chart | None:
    if not sizes:
        return None
    rows = [
        {"from": size["first_px"], "to": size["last_px"] + 1, "shortest side": f"{size['first_px']} to {size['last_px']} px"}
        | {"images": size["images"]}
        for size in sizes
    ]
    axis = alt.Axis(values=[2**power for power in range(4, 17)], format="d", grid=False)
    x = alt.X("from:Q", title="shortest side, pixels", axis=axis, scale=alt.Scale(type="log", base=2, nice=False))
    return _draw_bars(rows, x, "images", ["shortest side", "images"])


def _draw_bars(rows: list[dict[str, Any]], x: alt.X, y: str, tooltip: list[str]) -> alt.Chart:
    y_axis = alt.Axis(tickCount=3, format=",d", tickMinStep=1, domain=False, ticks=False)
    tooltips = [alt.Tooltip(field=name, title=name) for name in tooltip]
    chart: alt.Chart = (
        alt.Chart({"values": rows}, width="container", height=_HEIGHT_PX)
        .mark_rect(xOffset=0.5, x2Offset=-0.5)
        .encode(x=x, x2="to:Q", y=alt.Y(f"{y}:Q", title=y, axis=y_axis), y2=alt.datum(0), tooltip=tooltips)
    )
    return chart
