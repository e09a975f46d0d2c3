"""The report as one HTML page: every text from the web is escaped, every script is named by its hash, nothing is loaded."""

import base64
import functools
import hashlib
import json
import shlex
from collections.abc import Mapping
from importlib import resources
from typing import Any

import jinja2
import vl_convert
from markupsafe import Markup

from pipeline.report_charts import draw_charts, similarity_domain
from pipeline.report_text import address, link, plain
from pipeline.report_thumbnails import SIDE_PX, Thumbnail

_FOLDER = "templates"
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


def render(report: Mapping[str, Any], thumbnails: Mapping[str, Thumbnail]) -> str:
    """Returns the page.

    Args:
      report: what report.json holds.
      thumbnails: by image id; an image without one is shown as missing.
    """
    scripts = {"library": library_script(), "script": _asset("report.js")}
    return (
        _environment()
        .get_template("report.html")
        .render(
            report=report,
            scripts={name: Markup(text) for name, text in scripts.items()},
            policy=_policy(*scripts.values()),
            style=Markup(_asset("report.css")),
            data=embed_json(_page_data(report, thumbnails)),
            stages=[_funnel_row(stage, counts) for stage, counts in report["stages"].items()],
            hosts={kind: [(row["host"], row["count"]) for row in rows] for kind, rows in report["hosts"].items()},
            versions=flatten(
                {name: value for name, value in report["run"].items() if name != "versions"} | report["run"].get("versions", {})
            ),
            settings=_settings(report["configuration"]),
            command=_command(report["configuration"]),
            thumbnail_px=SIDE_PX,
        )
    )


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
    environment.filters |= {"number": _number, "percent": _percent, "seconds": _seconds, "plain": plain, "address": address, "link": link}
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


def _page_data(report: Mapping[str, Any], thumbnails: Mapping[str, Thumbnail]) -> dict[str, Any]:
    similarity, bands = report["similarity"], report["bands"]
    first, last = similarity_domain(bands["pairs"], similarity["low"], similarity["high"])
    shown = {image_id for row in report["examples"] for image_id in (row["a_id"], row["b_id"])}
    return {
        "charts": draw_charts(report),
        "kept": similarity["kept"],
        "kept_pages": bands["pages"] - report["pages"]["pairs_per_page"].get("0", 0),
        "low": similarity["low"],
        "high": similarity["high"],
        "first": first,
        "last": last,
        "pairs": bands["pairs"],
        "pages": bands["pages"],
        "gaps": bands["page_gaps"],
        "examples": [_example(row) for row in report["examples"]],
        "thumbnails": {image_id: _picture(thumbnails.get(image_id)) for image_id in sorted(shown)},
    }


def _picture(thumbnail: Thumbnail | None) -> list[str]:
    return [thumbnail.data_uri, thumbnail.reason] if thumbnail else ["", "not in units"]


def _example(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "similarity": round(row["similarity"], 4),
        "page": address(row["page_url"]),
        "link": link(row["page_url"]),
        "a": row["a_id"],
        "b": row["b_id"],
        "a_text": plain(row["a_alt"]),
        "b_text": plain(row["b_alt"]),
        "a_url": address(row["a_url"]),
        "b_url": address(row["b_url"]),
    }


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


def _settings(configuration: Mapping[str, Any]) -> list[tuple[str, str]]:
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


def _command(configuration: Mapping[str, Any]) -> str:
    """The start of the command that runs pair, shard and report again; the page adds --low and --high."""
    output = configuration.get("run", {}).get("output") or "OUT"
    return f"pagepairs run --config {shlex.quote(plain(output.rstrip('/') + '/config.json'))}"


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
