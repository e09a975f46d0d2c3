"""The dataset card: README.md in shards/, for people and hubs. It depends on manifests and settings only, never on paths or times."""

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import jinja2
import pyarrow as pa
import pyarrow.parquet as pq

from pagepairs.config import Config
from pagepairs.files import parquet_source, read_bytes, write_bytes
from pagepairs.manifest import Manifest, dataset_files, read_manifest
from pagepairs.shards import FORMATS
from pagepairs.stores import exists
from pipeline.datasets import CARD
from pipeline.report_text import plain

_HOSTS = 20
_BIN_STEPS = 5  # hundredths of a row of the similarity table
_BLOCKS = 30
_HUB_FORMATS = ("parquet", "webdataset")
_HUB_TYPES = {"string": "string", "float": "float32", "binary": "image"}
_STAGES = {
    "images": "images of the crawl",
    "episodes": "references to images in pages",
    "candidates": "sampled pairs",
    "shards": "pairs as images",
}
_OPT_OUTS = (
    ("images", "opt_out", "images opted out"),
    ("images", "blocked", "images blocked"),
    ("episodes", "page_opt_out", "references in pages opted out"),
    ("episodes", "page_blocked", "references in pages blocked"),
    ("episodes", "copy_removed", "references to copies of such images"),
)
_NOT_SHOWN = ("input", "limit", "block_list", "isolate")  # paths, how much a quick look took, and what changes no row


def most_common_hosts(counts: Iterable[Mapping[str, int]]) -> dict[str, Any]:
    """Adds the hosts of all shards; returns how many there are, and those with most pairs."""
    hosts: Counter[str] = Counter()
    for count in counts:
        hosts.update(count)
    ordered = sorted(hosts.items(), key=lambda item: (-item[1], item[0]))
    return {"hosts": len(hosts), "most_common": ordered[:_HOSTS]}


def write_card(output: str, config: Config) -> None:
    """Writes the card of a run's complete shards, unless it stands there already."""
    path = os.path.join(output, "shards", CARD)
    manifests = {name: read_manifest(os.path.join(output, name)) for name in _STAGES}
    files = dataset_files(os.path.join(output, "shards"))
    schema = pq.read_schema(parquet_source(files[0])) if files and files[0].endswith(".parquet") else None
    card = make_card(manifests, config, schema).encode()
    if not exists(path) or read_bytes(path) != card:
        write_bytes(path, card)


def make_card(manifests: Mapping[str, Manifest], config: Config, schema: pa.Schema | None) -> str:
    """Returns the card's text.

    Args:
      manifests: of images, episodes, candidates and shards.
      config: of the run.
      schema: columns of the shards where they are Parquet.
    """
    counters = {name: manifest.counters for name, manifest in manifests.items()}
    shards, form = manifests["shards"], counters["shards"]["format"]
    return _template().render(
        size_category=size_category(shards.rows),
        pattern=f"pairs-*{FORMATS[form].extension}" if form in _HUB_FORMATS else "",
        features=[_feature(field) for field in schema or ()],
        pairs=shards.rows,
        files=len(shards.files),
        bytes=sum(file.bytes for file in shards.files),
        format=form,
        image_format=config.shard.image_format
        if config.shard.image_format == "png"
        else f"{config.shard.image_format} of quality {config.shard.quality}",
        shape=f"{config.shard.size} px square" if config.shard.resize == "crop" else f"shortest side {config.shard.size} px",
        stages=[{"what": what, "counts": counters[name], "left_out": _left_out(counters[name])} for name, what in _STAGES.items()],
        encoder=counters["candidates"]["encoder"],
        band=counters["candidates"]["band"],
        similarity=similarity_rows(counters["shards"]["histogram"]),
        hosts=counters["shards"]["hosts"],
        ignore_opt_out=config.scan.ignore_opt_out,
        block_list=bool(config.scan.block_list),
        opt_outs=[(what, counters[name]["dropped"].get(reason, 0)) for name, reason, what in _OPT_OUTS],
        configuration=_settings(config, counters["candidates"]),
    )


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline"),
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["cell"] = table_cell
    return environment.get_template("card.md")


def table_cell(text: str) -> str:
    """Returns a text from the web as code in a Markdown table: it ends neither the code nor the cell."""
    return "`" + plain(text).replace("`", "'").replace("|", "\ufffd") + "`"


def size_category(rows: int) -> str:
    """Returns the hub's name for a number of rows."""
    limits = (
        (10**3, "n<1K"),
        (10**4, "1K<n<10K"),
        (10**5, "10K<n<100K"),
        (10**6, "100K<n<1M"),
        (10**7, "1M<n<10M"),
        (10**8, "10M<n<100M"),
        (10**9, "100M<n<1B"),
    )
    return next((name for limit, name in limits if rows < limit), "n>1B")


def _feature(field: pa.Field) -> dict[str, Any]:
    """Returns a column as the hub's YAML names it; older readers know `sequence`, newer ones take it for `list`."""
    if pa.types.is_fixed_size_list(field.type):
        return {"name": field.name, "sequence": "float16", "length": field.type.list_size}
    return {"name": field.name, "dtype": _HUB_TYPES[str(field.type)]}


def _left_out(counters: Mapping[str, Any]) -> str:
    found = {**counters["dropped"], "errors": counters["errors"]}
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(found.items(), key=lambda item: (-item[1], item[0])) if count)


def similarity_rows(counts: list[int]) -> list[dict[str, Any]]:
    """Returns the rows of the similarity table, from the first that holds a pair to the last; counts are 200 bins of [-1, 1]."""
    sums = [sum(counts[at : at + _BIN_STEPS]) for at in range(0, len(counts), _BIN_STEPS)]
    filled = [index for index, count in enumerate(sums) if count]
    rows = range(filled[0], filled[-1] + 1) if filled else range(0)
    width = 2 * _BIN_STEPS / len(counts)
    return [
        {"low": -1 + i * width, "high": -1 + (i + 1) * width, "pairs": sums[i], "blocks": -(-_BLOCKS * sums[i] // max(sums))} for i in rows
    ]


def _settings(config: Config, candidates: Mapping[str, Any]) -> str:
    """Returns the settings that decide the pairs, without paths and machines."""
    settings = {
        "scan": {name: value for name, value in dataclasses.asdict(config.scan).items() if name not in _NOT_SHOWN},
        "embed": {"encoder": candidates["encoder"]},
        "pair": candidates["settings"] | {name: candidates["band"][name] for name in ("low", "high")},
        "shard": dataclasses.asdict(config.shard),
    }
    return json.dumps(settings, indent=1, sort_keys=True)
