"""`pagepairs benchmark build`: an index of a test set, so that runs keep its images out (--benchmark) and audits prove it."""

import dataclasses
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa
import tyro

from dedup.benchmark import THUMBNAILS
from encoders import Encoder, load_encoder
from pipeline.benchmark_config import BenchmarkConfig
from pipeline.benchmark_images import Items, read_items
from pipeline.benchmark_items import find_items, read_hashes
from pipeline.commands import EXIT_SETTING, fail
from pipeline.report_text import plain

_ENCODER_SETTINGS = ("device", "dtype", "compile", "input_size", "engine")
_EXAMPLES = 3
_VERSIONS = ("pagepairs", "faiss-cpu", "numpy", "pillow", "pdqhash", "simplejpeg")


def main(command: str, argv: Sequence[str]) -> int:
    """Runs `pagepairs benchmark build`; returns 0, or 2 for what a user can set right."""
    if not argv or argv[0] != "build":
        helps = bool(argv) and argv[0] in ("-h", "--help")
        print("usage: pagepairs benchmark build --name NAME --images FOLDER|TABLE|LIST --output INDEX [FLAGS]; --help teaches the flags")
        return 0 if helps else 2
    try:
        config = tyro.cli(BenchmarkConfig, prog=f"pagepairs {command} build", args=list(argv[1:]), config=(tyro.conf.OmitArgPrefixes,))
        for line in build(config):
            print(line, flush=True)
    except (ValueError, OSError) as error:
        return fail(error, EXIT_SETTING)
    return 0


def build(config: BenchmarkConfig) -> Iterator[str]:
    """Builds an index; yields lines for the user.

    Raises:
      ValueError: if there is nothing to index, a setting cannot be used, or the search would miss too many matches.
    """
    from dedup.benchmark_build import complete_index, index_folder
    from dedup.benchmark_hashes import RULE, search_of, write_hashes
    from pipeline.benchmark_measure import measure

    with index_folder(config.output) as folder:
        listed = read_hashes(config.images)
        encoder, left_out = None, list[str]()
        if listed is not None:
            items = Items(table=listed, thumbnails=_no_thumbnails(listed.num_rows), vectors_ND=None, paths=[], unreadable=[])
        else:
            encoder = _load(config)
            found = find_items(config.images, "--images")
            left_out = found.left_out
            items = read_items(found.items, encoder, batch_size=config.embed.batch_size, threads=config.decode_threads)
        if not items.table.num_rows:
            raise ValueError(f"--images {config.images}: none of the {len(items.unreadable):,} files is a readable image")
        items = _in_order(items)
        hashes = search_of(items.table)
        write_hashes(folder, hashes)
        flat = int(hashes.kinds_K[-1])
        if items.vectors_ND is not None:
            # All flat images look alike to an encoder too: a vector of zeros is nobody's neighbour.
            items.vectors_ND[len(items.vectors_ND) - flat :] = 0
        value: dict[str, Any] = {
            "name": config.name,
            "items": items.table.num_rows,
            "encoder": encoder.digest if encoder else None,
            "spec": _spec_name(config) if encoder else "",
            "width": encoder.width if encoder else 0,
            "hashes": {"rule": RULE, "flat": flat},
            "left_out": {"count": len(left_out), "examples": left_out[:_EXAMPLES]},
            "unreadable": _count(row["reason"] for row in items.unreadable),
            "versions": {name: version(name) for name in _VERSIONS},
        }
        value |= yield from measure(folder, items, hashes, encoder, config)
        complete_index(folder, items.table, items.thumbnails, items.unreadable, value)
    if left_out:
        yield f"left out, as no images by name or content: {len(left_out):,} files, e.g. {', '.join(map(plain, left_out[:_EXAMPLES]))}"
    yield f"{config.output}: {items.table.num_rows:,} images of {config.name}, {flat:,} of them flat (matched by their bytes alone)" + _bad(
        items
    )


def _in_order(items: Items) -> Items:
    """Returns the items in the order of an index, in which flat ones stand last."""
    from dedup.benchmark_hashes import order_items

    order = order_items(items.table)
    if (np.diff(order) == 1).all():
        return items
    return dataclasses.replace(
        items,
        table=items.table.take(pa.array(order)),
        thumbnails=items.thumbnails.take(pa.array(order)),
        vectors_ND=None if items.vectors_ND is None else items.vectors_ND[order],
        paths=[items.paths[row] for row in order] if items.paths else [],
    )


def _spec(config: BenchmarkConfig) -> str:
    return config.descriptor or config.embed.encoder


def _load(config: BenchmarkConfig) -> Encoder | None:
    """Loads the encoder as stage embed does, or none."""
    threads = os.cpu_count() or 1
    if _spec(config) == "none":
        return None
    settings = {name: value for name, value in dataclasses.asdict(config.embed).items() if name in _ENCODER_SETTINGS}
    encoder = load_encoder(_spec(config), weights=config.embed.encoder_weights, threads=threads, **settings)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    return encoder


def _spec_name(config: BenchmarkConfig) -> str:
    """The encoder as --encoder takes it; of a file its name, as folders differ between machines."""
    kind, colon, path = _spec(config).partition(":")
    return f"{kind}{colon}{os.path.basename(path)}"


def _no_thumbnails(rows: int) -> pa.Table:
    return pa.table([pa.nulls(rows, pa.binary())], schema=THUMBNAILS)


def _count(reasons: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for reason in reasons:
        counts[reason] = counts.get(reason, 0) + 1
    return dict(sorted(counts.items()))


def _bad(items: Items) -> str:
    if not items.unreadable:
        return ""
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in _count(row["reason"] for row in items.unreadable).items())
    return f"; {len(items.unreadable):,} unreadable ({reasons}), listed in unreadable.parquet"
