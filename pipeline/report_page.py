"""The report as one HTML page: every text from the web is escaped, every script is named by its hash, nothing is loaded."""

import base64
import functools
import hashlib
import json
import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2
import numpy as np
import vl_convert
from markupsafe import Markup

from encoders import encoder_folder
from pagepairs.stores import is_remote
from pipeline.report_cells import REASONS
from pipeline.report_charts import by_hundredth, draw_charts, similarity_domain
from pipeline.report_encoders import draw_encoders
from pipeline.report_text import address, link, plain
from pipeline.report_thumbnails import Thumbnail

_FOLDER = "templates"
_PICTURE_BYTES = 8_000_000
_RULES = (
    ("sampled", "all that were sampled"),
    ("below_low", "at or above the low end"),
    ("above_high", "and at or below the high end"),
    ("on_another_page", "and once, on the first of their pages: kept"),
)
_NOUNS = {
    "scan": "image records",
    "embed": "distinct images",
    "pair": "references in pages",
    "candidates": "sampled pairs",
    "shard": "pairs",
}
_MEANINGS = {
    "scan": "responses and table rows that hold an image",
    "embed": "kept images, each once",
    "pair": "places where a page shows an image",
    "candidates": "two images of one page, compared",
    "shard": "pairs written, both ways where asked",
}

_COPY_RULES = {
    "kept": "stands for itself",
    "exact_copy": "the same bytes again",
    "equal_hash": "equal pHash and PDQ",
    "near_hash": "near pHash and PDQ",
    "near_embedding": "near embedding",
}
"""The parts of duplicates.captures, the cheapest rule first."""


def render(
    report: Mapping[str, Any],
    cells: Mapping[str, Any],
    thumbnails: Mapping[str, Thumbnail],
    *,
    output: str,
    folder: str,
    match_pictures: Mapping[str, str],
) -> str:
    """Returns the page.

    Args:
      report: what report.json holds.
      cells: as `pack_cells` returns them.
      thumbnails: by image id, and by the picture of a drop; an image without one is shown as missing.
      output: the run's folder.
      folder: where relative paths of the configuration start.
      match_pictures: of benchmark items and the images that matched or came near, as data URIs.
    """
    scripts = {"library": library_script(), "bands": _asset("bands.js"), "script": _asset("report.js")}
    return (
        _environment()
        .get_template("report.html")
        .render(
            report=report,
            scripts={name: Markup(text) for name, text in scripts.items()},
            policy=_policy(*scripts.values()),
            style=Markup(_asset("report.css")),
            data=embed_json(_page_data(report, cells, thumbnails)),
            compare=report.get("compare"),
            decontamination=report.get("decontamination"),
            match_pictures=match_pictures,
            comparison=report.get("encoder_comparison"),
            stages=[_funnel_row(stage, counts) for stage, counts in report["stages"].items()],
            passed=_passed(report["stages"]),
            copies=[(name, report["duplicates"][rule]) for rule, name in _COPY_RULES.items() if report["duplicates"].get(rule)],
            appearances=[_appearances(name, report["appearances"][name]) for name in ("pages", "hosts") if report["appearances"].get(name)],
            rules=_RULES,
            hosts={kind: [(row["host"], row["count"]) for row in rows] for kind, rows in report["hosts"].items()},
            versions=flatten(
                {name: value for name, value in report["run"].items() if name != "versions"} | report["run"].get("versions", {})
            ),
            settings=shown_settings(report["configuration"]),
            commands=make_commands(report["configuration"], output, folder, encoder=report["similarity"]["encoder"]),
        )
    )


def _appearances(name: str, found: Mapping[str, Any]) -> tuple[str, int, list[tuple[str, int]]]:
    """Returns pages or hosts, the most that are no boilerplate, and the images by how many show them, in ascending order."""
    return name, found["most"], sorted(found["images"].items(), key=lambda item: int(item[0].partition("-")[0]))


@functools.cache
def library_script() -> str:
    """Returns Vega, Vega-Lite and Vega-Embed as one script, from the installed package."""
    script = str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))
    assert "</script" not in script.lower()
    return script


def _asset(name: str) -> str:
    return (resources.files("pipeline") / _FOLDER / name).read_text(encoding="utf-8")


def _environment() -> jinja2.Environment:
    loader = jinja2.PackageLoader("pipeline", _FOLDER)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "number": _number,
        "percent": _percent,
        "seconds": _seconds,
        "plain": plain,
        "address": address,
        "link": link,
        "band": _band,
    }
    environment.globals |= {"link": link}
    return environment


def embed_json(value: Any) -> Markup:
    """Returns JSON that no text can end early when it stands in a script element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _policy(*scripts: str) -> str:
    """The content security policy: nothing from outside, and no script but ours; Vega compiles its expressions with eval."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts)
    rules = ("default-src 'none'", "img-src data:", "style-src 'unsafe-inline'", f"script-src 'unsafe-eval' {hashes}", "base-uri 'none'")
    return "; ".join((*rules, "form-action 'none'"))


def _page_data(report: Mapping[str, Any], cells: Mapping[str, Any], thumbnails: Mapping[str, Thumbnail]) -> dict[str, Any]:
    similarity, edges = report["similarity"], np.array(cells["edges"], np.float32)
    examples, pictures = fit_pictures(report, thumbnails)
    data: dict[str, Any] = {"charts": draw_charts(report), "examples": [_example(row) for row in examples], "thumbnails": pictures}
    if "encoder_comparison" in report:
        comparison = report["encoder_comparison"]
        data["charts"] |= {name: chart.to_dict() for name, chart in draw_encoders(comparison).items()}
        data["disagreements"] = [_disagreement(row) for row in comparison["disagreements"]]
    if not report["bands"]["pages"]:
        return data
    first, last = similarity_domain(by_hundredth(report["bands"]), similarity["low"], similarity["high"])
    start = [int(np.searchsorted(edges, np.float32(similarity[name]))) for name in ("low", "high")]
    return data | {"first": first, "last": last, "start": start, "cells": cells}


def fit_pictures(report: Mapping[str, Any], thumbnails: Mapping[str, Thumbnail]) -> tuple[list[Any], dict[str, list[str]]]:
    """Returns the examples whose pictures fit into 8 MB, and the pictures by name; the first of every group go first."""
    pictures, left = {}, _PICTURE_BYTES
    for drop in report["drops"]:
        for row in drop["examples"]:
            if row["picture"] in thumbnails and thumbnails[row["picture"]].data_uri:
                pictures[row["picture"]] = _picture(thumbnails[row["picture"]])
    for row in report.get("encoder_comparison", {}).get("disagreements", []):
        pictures |= {row[side]: _picture(thumbnails.get(row[side])) for side in ("a_id", "b_id")}
    left -= sum(len(source) for source, _ in pictures.values())
    fitting = set()
    for place, row in sorted(enumerate(report["examples"]), key=lambda item: (min(item[1]["places"], key=_rank_of), item[0])):
        added = {row[side]: _picture(thumbnails.get(row[side])) for side in ("a_id", "b_id") if row[side] not in pictures}
        need = sum(len(source) for source, _ in added.values())
        if need <= left:
            left -= need
            pictures |= added
            fitting.add(place)
    return [row for place, row in enumerate(report["examples"]) if place in fitting], pictures


def _rank_of(place: str) -> int:
    return int(place.split(maxsplit=1)[0])


def _picture(thumbnail: Thumbnail | None) -> list[str]:
    return [thumbnail.data_uri, thumbnail.reason] if thumbnail else ["", "not in units"]


def _example(row: Mapping[str, Any]) -> dict[str, Any]:
    groups = [place.split()[1] for place in row["places"]]
    return {
        "similarity": row["similarity"],
        "host": row["host"],
        "group": row["page"],
        "size": row["size"],
        "images": row["images"],
        "reasons": [group for group in groups if group in REASONS],
        "along": any(group not in REASONS for group in groups),
        **_shown_pair(row),
    }


def _disagreement(row: Mapping[str, Any]) -> dict[str, Any]:
    values = [f"{similarity:.2f} ({rank:.0%})" for similarity, rank in zip(row["similarities"], row["ranks"], strict=True)]
    return {"nearer": row["nearer"], "value": " / ".join(values), **_shown_pair(row)}


def _shown_pair(row: Mapping[str, Any]) -> dict[str, Any]:
    sides = {f"{side}_text": plain(row[f"{side}_alt"]) for side in "ab"} | {f"{side}_url": address(row[f"{side}_url"]) for side in "ab"}
    sizes = {f"{side}_size": "{} × {}".format(*row[f"{side}_size"]) for side in "ab"}
    return {"page": address(row["page_url"]), "link": link(row["page_url"]), "a": row["a_id"], "b": row["b_id"], **sides, **sizes}


def _passed(stages: Mapping[str, Any]) -> str:
    """Names the rules that came before the band, those that dropped most first."""
    dropped = Counter({name: count for stage in ("scan", "embed", "pair") for name, count in stages[stage]["dropped"].items()})
    names = [f"{name.replace('_', ' ')} ({count:,})" for name, count in dropped.most_common() if name != "image_dropped" and count]
    return f"the rules of scan, embed and pair: {', '.join(names)}" if names else "the rules of scan, embed and pair, which dropped nothing"


def _funnel_row(stage: str, counts: Mapping[str, Any]) -> dict[str, Any]:
    reasons = [*counts["dropped"].items(), *([("errors", counts["errors"])] if counts["errors"] else [])]
    return {
        "name": stage,
        "noun": _NOUNS[stage],
        "meaning": _MEANINGS[stage],
        "in": counts["in"],
        "kept": counts["kept"],
        "reasons": [{"reason": reason, "count": count} for reason, count in reasons if count],
    }


def shown_settings(configuration: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns a configuration as (dotted name, value to show), stage by stage."""
    order = {name: place for place, name in enumerate(("scan", "embed", "pair", "shard", "run"))}
    return flatten(dict(sorted(configuration.items(), key=lambda item: (order.get(item[0], len(order)), item[0]))))


def flatten(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Returns settings as (dotted name, value to show), in their own order."""
    rows = []
    for name, value in settings.items():
        rows += flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(f"{prefix}{name}", _show(value))]
    return rows


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:,}"
    return (", ".join(map(str, value)) if isinstance(value, list | tuple) else str("" if value is None else value)) or "–"


def make_commands(configuration: Mapping[str, Any], output: str, folder: str, *, encoder: str = "") -> list[tuple[str, str, str]]:
    """Returns name, start and meaning of the commands that run again with another band; the page adds --low and --high.

    Args:
      configuration: as config.json holds it.
      output: the run's folder.
      folder: where relative paths of the configuration start; the commands go there first where there are such paths.
      encoder: name of the folder of the encoder whose similarities the page shows; "" for the first of the configuration.
    """
    output = output if is_remote(output) else os.path.join(folder, output)
    change = f"cd {shlex.quote(folder)} && " if any(_is_relative(path) for path in _paths(configuration)) else ""
    target = f"--config {shlex.quote(os.path.join(output, 'config.json'))} --output {shlex.quote(output)}"
    meanings = {"run": "Pairs, shards and this report again; images and vectors are kept:", "pair": "Pairs only:"}
    decides = _put_first(configuration.get("embed", {}), encoder) if encoder else ""
    if decides:  # a calibration chose another than the first, and pair takes no --encoder
        target, meanings = target + decides, {"run": meanings["run"]}
    return [(name, f"{change}pagepairs {name} {target}", meaning) for name, meaning in meanings.items()]


def _put_first(embed: Mapping[str, Any], folder: str) -> str:
    """Returns the flags that make another encoder the first, which --low and --high are for; "" where it is."""
    specs, weights = embed.get("encoder", "").split(","), embed.get("encoder_weights", "")
    order = sorted(range(len(specs)), key=lambda place: not specs[place] or encoder_folder(specs[place]) != folder)
    if order[0] == 0:
        return ""
    flags = f" --encoder {shlex.quote(','.join(specs[place] for place in order))}"
    return flags + (f" --encoder-weights {shlex.quote(','.join(weights.split(',')[place] for place in order))}" if weights else "")


def _paths(configuration: Mapping[str, Any]) -> list[str]:
    scan, embed = configuration.get("scan", {}), configuration.get("embed", {})
    encoders = embed.get("encoder", "").split(",")
    paths = [
        *scan.get("input", []),
        scan.get("block_list"),
        *embed.get("encoder_weights", "").split(","),
        *(encoder.partition(":")[2] for encoder in encoders if ":" in encoder),
        embed.get("embeddings_from"),
        configuration.get("pair", {}).get("band"),
        *configuration.get("pair", {}).get("benchmark", []),
    ]
    return [path for path in paths if path]


def _is_relative(path: str) -> bool:
    return not os.path.isabs(path) and "://" not in path


def _band(ends: Sequence[float]) -> str:
    return f"{ends[0]:.4g} to {ends[1]:.4g}"


def _number(value: float) -> str:
    return f"{value:,}"


def _percent(part: float, whole: float) -> str:
    share = part / whole if whole else 0.0
    return f"{share:.0%}" if share in (0.0, 1.0) else f"{share:.1%}"


def _seconds(value: float) -> str:
    if value < 60:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    return f"{minutes} min {seconds} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
