"""The evaluation as one HTML page: tables, plots and pictures inside it, no script, nothing loaded."""

import base64
import shlex
from collections.abc import Mapping, Sequence
from importlib import resources
from itertools import islice
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from pagepairs.images import encode_image
from train.condition_grid import cell
from train.evaluate import Scored
from train.evaluate_config import EvaluateConfig
from train.evaluation_plots import draw_plots

_CELL_PX = 112
_ROWS, _COLUMNS, _SWEEP_ROWS = 8, 8, 4
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def render(scored: Scored, config: EvaluateConfig) -> str:
    """Returns the page."""
    evaluation = scored.evaluation
    lead = next((space for space in evaluation["spaces"] if space["label"] == "FID"), evaluation["spaces"][0])
    best = min(lead["rows"], key=lambda name: lead["rows"][name]["frechet"])
    loader = jinja2.PackageLoader("train", "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"figure": _figure, "label": lambda name: _label(name, evaluation["sets"])}
    return environment.get_template("evaluation.html").render(
        e=evaluation,
        lead=lead,
        best=best,
        style=Markup((resources.files("train") / "templates" / "evaluation.css").read_text("utf-8")),
        policy=_POLICY,
        plots=[draw_plots(space, evaluation["sets"]) for space in evaluation["spaces"]],
        grid=_grid(scored, best),
        sweep=_sweep(scored),
        copies=[(_picture(copy.generated), _picture(copy.training.rgb_HW3), copy) for copy in scored.copies],
        command=_command(config),
    )


def _figure(value: float | None, digits: int = 3) -> str:
    """Returns a number as it is read in a table."""
    if value is None:
        return "–"
    return f"{value:,.{digits}f}" if abs(value) < 100 else f"{value:,.1f}"


def _label(name: str, sets: Mapping[str, Mapping[str, Any]]) -> str:
    return f"w = {sets[name]['guidance']:g}" if "guidance" in sets[name] else name


def _picture(rgb_HW3: np.ndarray) -> str:
    """Returns the middle square as a data URI: small images as they are, larger ones at twice the size of their place."""
    small = max(rgb_HW3.shape[:2]) <= _CELL_PX
    form = "png" if small else "jpeg"
    shown = rgb_HW3 if small else cell(rgb_HW3, min(2 * _CELL_PX, *rgb_HW3.shape[:2]))
    return f"data:image/{form};base64," + base64.b64encode(encode_image(np.ascontiguousarray(shown), form, 88)).decode()


def _grid(scored: Scored, name: str) -> list[tuple[str | None, str, list[str]]]:
    """Returns rows of condition, its name, and samples of a set; without conditions just images."""
    if not scored.wanted:
        images = [_picture(image) for image in islice(scored.pixels(name), _ROWS * _COLUMNS // 2)]
        return [(None, "", images[at : at + _COLUMNS]) for at in range(0, len(images), _COLUMNS)]
    samples = scored.evaluation["protocol"]["samples_per_condition"]
    firsts = _spread(len(scored.wanted) // samples, _ROWS)
    wanted = [scored.wanted[row * samples + index] for row in firsts for index in range(min(samples, _COLUMNS))]
    images = [_picture(image) for image in scored.read(name, wanted)]
    width = min(samples, _COLUMNS)
    return [
        (_picture(wanted[at].condition.rgb_HW3), wanted[at].condition.name, images[at : at + width]) for at in range(0, len(images), width)
    ]


def _sweep(scored: Scored) -> list[tuple[str | None, str, list[str]]]:
    """Returns rows of condition, its name, and its first sample at each guidance."""
    if not scored.wanted or len(scored.evaluation["sets"]) < 2:
        return []
    samples = scored.evaluation["protocol"]["samples_per_condition"]
    wanted = [scored.wanted[row * samples] for row in _spread(len(scored.wanted) // samples, _SWEEP_ROWS)]
    columns = [[_picture(image) for image in scored.read(name, wanted)] for name in scored.evaluation["sets"]]
    return [(_picture(one.condition.rgb_HW3), one.condition.name, [column[row] for column in columns]) for row, one in enumerate(wanted)]


def _spread(count: int, at_most: int) -> Sequence[int]:
    """Returns numbers below `count`, evenly spread."""
    return [row * count // min(count, at_most) for row in range(min(count, at_most))]


def _command(config: EvaluateConfig) -> str:
    """Returns the command that makes this evaluation, defaults left out."""
    words = ["pagepairs", "evaluate"]
    for name, default in vars(EvaluateConfig()).items():
        value = getattr(config, name)
        if value == default:
            continue
        flag = f"--{name.replace('_', '-')}"
        words += [flag] if value is True else [flag, *([f"{entry:g}" for entry in value] if isinstance(value, tuple) else [str(value)])]
    return shlex.join(words)
