"""The plots of the evaluation page, as SVG for light and dark paper."""

import base64
import io
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Plot = Callable[[Axes, Mapping[str, Any], Mapping[str, Mapping[str, Any]], Mapping[str, str]], None]
THEMES = {
    "light": {"ink": "#1a1c1e", "dim": "#666b70", "line": "#d8d6cf", "mark": "#12756d", "real": "#8f4310", "paper": "#ffffff"},
    "dark": {"ink": "#e9e8e4", "dim": "#9a9ea2", "line": "#3a3e42", "mark": "#45b3a5", "real": "#f0b07a", "paper": "#1a1d1f"},
}
_CLOSE = 0.1
_STYLE = {
    "svg.fonttype": "path",  # a font that the reader lacks would move every label
    "svg.hashsalt": "pagepairs",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}
_COLOURS = {
    "text.color": "ink",
    "axes.labelcolor": "dim",
    "axes.edgecolor": "line",
    "grid.color": "line",
    "xtick.color": "dim",
    "ytick.color": "dim",
}  # fmt: skip


def draw_plots(space: Mapping[str, Any], sets: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """Returns the plots of one feature space, each by theme, as data URIs of SVGs.

    The first shows precision against recall; where there are several sets, the second shows their distance against guidance.

    Args:
      space: an entry of `spaces` in evaluation.json.
      sets: `sets` of evaluation.json; those that have a guidance are joined in its order.
    """
    plots = [_precision_recall, _distance] if len(space["rows"]) > 1 else [_precision_recall]
    return [{name: _draw(plot, space, sets, colours) for name, colours in THEMES.items()} for plot in plots]


def _draw(plot: Plot, space: Mapping[str, Any], sets: Mapping[str, Mapping[str, Any]], colours: Mapping[str, str]) -> str:
    style: Any = {**_STYLE, **{name: colours[colour] for name, colour in _COLOURS.items()}}
    with mpl.rc_context(style):
        figure = Figure(figsize=(4.8, 4.2), layout="constrained")
        plot(figure.subplots(), space, sets, colours)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def _precision_recall(axes: Axes, space: Mapping[str, Any], sets: Mapping[str, Mapping[str, Any]], colours: Mapping[str, str]) -> None:
    rows, floor = space["rows"], space["floor"]
    axes.plot([row["precision"] for row in rows.values()], [row["recall"] for row in rows.values()], "o-", color=colours["mark"], ms=6)
    for names in _together(rows):
        ends = [f"{sets[name]['guidance']:g}" if "guidance" in sets[name] else name for name in dict.fromkeys((names[0], names[-1]))]
        at = (rows[names[-1]]["precision"], rows[names[-1]]["recall"])
        axes.annotate("–".join(ends), at, xytext=(6, 6), textcoords="offset points")
    if floor is not None:
        axes.plot(floor["precision"], floor["recall"], "D", mfc="none", mec=colours["real"], mew=1.6, ms=7)
        at = (floor["precision"], floor["recall"])
        axes.annotate("real", at, xytext=(-9, -12), textcoords="offset points", color=colours["real"], ha="right")
    axes.set(
        xlim=(-0.03, 1.06),
        ylim=(-0.03, 1.06),
        xlabel="precision",
        ylabel="recall",
        title="Precision and recall" + (" by guidance w" if len(rows) > 1 else ""),
    )


def _together(rows: Mapping[str, Any]) -> list[list[str]]:
    """Returns runs of sets whose points lie so close that their labels would cover each other."""
    runs: list[list[str]] = []
    for name, row in rows.items():
        last = rows[runs[-1][0]] if runs else None
        if last and abs(last["precision"] - row["precision"]) < _CLOSE and abs(last["recall"] - row["recall"]) < _CLOSE:
            runs[-1].append(name)
        else:
            runs.append([name])
    return runs


def _distance(axes: Axes, space: Mapping[str, Any], sets: Mapping[str, Mapping[str, Any]], colours: Mapping[str, str]) -> None:
    rows, floor = space["rows"], space["floor"]
    axes.plot([sets[name]["guidance"] for name in rows], [row["frechet"] for row in rows.values()], "o-", color=colours["mark"], ms=6)
    if floor is not None:
        axes.axhline(floor["frechet"], color=colours["real"], ls=(0, (4, 3)))
        axes.annotate(
            f"real, {floor['images']:,} images", (1, floor["frechet"]), xycoords=("axes fraction", "data"), xytext=(0, 5),
            textcoords="offset points", color=colours["real"], ha="right",
        )  # fmt: skip
    axes.set(xlabel="guidance w", title=f"{space['label']} by guidance w, lower is better")
    axes.set_ylim(bottom=0, top=1.1 * max([row["frechet"] for row in rows.values()] + ([floor["frechet"]] if floor else [])) or 1)
