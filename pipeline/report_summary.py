"""What the report needs to know of the datasets: bounded counts and keyed samples a file, merged in any order."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pagepairs.files import read_parquet
from pagepairs.keys import text_key
from pagepairs.urls import host_of, url_key
from pipeline.report_cells import first_of_pair
from pipeline.report_text import shorten

BINS = 200
DROPS_PER_REASON = 6
NEVER_SHOWN = ("opt_out", "blocked", "page_opt_out", "page_blocked", "copy_removed")
"""Reasons whose images must not be used: not in a report either."""
_SIDE_STEPS_PER_DOUBLING = 2

Sample = tuple[int, dict[str, Any]]
"""A row and the hash that decides whether it stays: the lowest of its group do."""


@dataclass(frozen=True, kw_only=True)  # Beam would take one that is not frozen for a row with a schema
class Summary:
    """What is known of some files of a run; sizes depend on settings and bins, not on rows."""

    counts: dict[str, Counter[Any]] = field(default_factory=dict)
    """By name, how often each value occurs."""
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    """By group, its rows of lowest hash, in this order."""


def merge(a: Summary, b: Summary) -> Summary:
    """Returns the summary of both sets of files; associative and commutative."""
    counts = {name: a.counts.get(name, Counter()) + b.counts.get(name, Counter()) for name in a.counts.keys() | b.counts.keys()}
    groups = a.samples.keys() | b.samples.keys()
    samples = {group: _lowest([*a.samples.get(group, []), *b.samples.get(group, [])]) for group in groups}
    return Summary(counts=counts, samples=samples)


def _lowest(samples: list[Sample]) -> list[Sample]:
    return sorted(samples, key=lambda sample: (sample[0], sorted(sample[1].items(), key=str)))[:DROPS_PER_REASON]


def summarise_images(images: pa.Table) -> Summary:
    """Counts the kept images by format and by shortest side (see `side_label`), and the others by reason."""
    kept = images.filter(pc.equal(images["reason"], ""))
    side_px = np.minimum(kept["width"].to_numpy(), kept["height"].to_numpy()).astype(np.float64)
    step = np.floor(np.log2(np.maximum(side_px, 1)) * _SIDE_STEPS_PER_DOUBLING).astype(np.int64)
    megapixels = np.floor(kept["width"].to_numpy().astype(np.int64) * kept["height"].to_numpy() / 1e6).astype(np.int64)
    return Summary(
        counts={
            "format": Counter(kept["format"].to_pylist()),
            "side": Counter(step.tolist()),
            "megapixels": Counter(np.minimum(megapixels, 100).tolist()),
            "image_reason": Counter(images["reason"].to_pylist()),
        }
    )


def side_range(step: int) -> tuple[int, int]:
    """Returns the shortest sides in pixels, first and last, that count `step` of "side" stands for."""
    first, after = (int(np.ceil(2 ** (s / _SIDE_STEPS_PER_DOUBLING) - 1e-9)) for s in (step, step + 1))
    return first, after - 1


def summarise_episodes(episodes: pa.Table) -> Summary:
    """Counts the pages by their number of images."""
    return Summary(counts={"images_per_page": Counter(pc.list_value_length(episodes["images"]).to_pylist())})


def summarise_candidates(candidates: pa.Table) -> Summary:
    """Counts candidates by similarity and reason; all rows of a pair stand in one file."""
    similarity_bin = bin_of(candidates["similarity"].to_numpy())
    return Summary(
        counts={
            "similarity_once": Counter(similarity_bin[first_of_pair(candidates)].tolist()),
            "candidate_reason": Counter(candidates["reason"].to_pylist()),
        }
    )


def bin_of(similarity: np.ndarray) -> np.ndarray:
    """Returns the histogram bin, in [0, BINS), of each cosine: bin i holds [-1 + i/100, -1 + (i+1)/100), the last also 1."""
    return np.clip(np.floor((similarity.astype(np.float64) + 1) * (BINS / 2)), 0, BINS - 1).astype(np.int64)


def summarise_drops(drops: pa.Table) -> Summary:
    """Counts the ledger by stage and reason, with examples of each."""
    counts: Counter[Any] = Counter()
    details: Counter[Any] = Counter()
    samples: dict[str, list[Sample]] = {}
    for row in drops.to_pylist():
        group = f"{'error' if row['error'] else 'drop'}/{row['stage']}/{row['reason']}"
        counts[group] += 1
        if row["reason"] == "image_dropped":  # its details are the scan's reasons, a closed list
            details[row["detail"]] += 1
        key = int(text_key("\0".join([row["page_url"] or "", row["image_url"] or "", row["detail"] or ""]))[:16], 16)
        samples.setdefault(group, []).append((key, row))
        if len(samples[group]) > 50 * DROPS_PER_REASON:
            samples[group] = _lowest(samples[group])
    shown = {group: [(key, _shorten(row)) for key, row in _lowest(rows)] for group, rows in samples.items()}
    return Summary(counts={"ledger": counts, "image_dropped": details}, samples=shown)


def picture_key(row: Mapping[str, Any]) -> str:
    """Returns the key under which the page finds a dropped image; "" for one that must not be shown, or has no URL."""
    if row["error"] or {row["reason"], row["detail"]} & set(NEVER_SHOWN) or not row["image_url"]:
        return ""
    return url_key(row["image_url"])


def _shorten(row: dict[str, Any]) -> dict[str, Any]:
    texts = {name: shorten(value) if isinstance(value, str) else value for name, value in row.items()}
    return texts | {"picture": picture_key(row)}


_SUMMARISE: dict[str, tuple[Callable[[pa.Table], Summary], list[str] | None]] = {
    "images": (summarise_images, ["width", "height", "format", "reason"]),
    "episodes": (summarise_episodes, ["images"]),
    "candidates": (summarise_candidates, None),
    "drops": (summarise_drops, None),
}


def summarise_file(kind: str, path: str) -> Summary:
    """Returns the summary of one file of a dataset; `kind` is images, episodes, candidates or drops."""
    summarise, columns = _SUMMARISE[kind]
    return summarise(read_parquet(path, columns))


_HOST_COLUMNS = {"images": ["image_url", "reason"], "episodes": ["page_url"], "candidates": ["page_url"]}


def count_hosts(kind: str, path: str) -> Iterator[tuple[tuple[str, str], int]]:
    """Yields ((kind, host), n) for the kept images, the episodes or the candidates of one file; other datasets give nothing."""
    if kind not in _HOST_COLUMNS:
        return
    table = read_parquet(path, _HOST_COLUMNS[kind])
    if kind == "images":
        table = table.filter(pc.equal(table["reason"], ""))
    hosts: Counter[str] = Counter()
    for url in pc.value_counts(table[0]).to_pylist():
        hosts[shorten(host_of(url["values"]))] += url["counts"]
    yield from (((kind, host), count) for host, count in hosts.items())
