"""What the report needs to know of the datasets: bounded counts and keyed samples a file, merged in any order."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pagepairs.keys import mix, part_of, prefix64, text_key
from pagepairs.urls import host_of
from pipeline.report_text import shorten

BINS = 200
PAIRS_PER_BIN = 4
DROPS_PER_REASON = 6
_SIDE_STEPS_PER_DOUBLING = 2

Sample = tuple[int, dict[str, Any]]
"""A row and the hash that decides whether it stays: the lowest of its group do."""

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Distinct pairs on their way to their page: hash of the page (uint64), bin (uint8), and whether the pair is kept."""


@dataclass(kw_only=True)
class Summary:
    """What is known of some files of a run; sizes depend on settings and bins, not on rows."""

    counts: dict[str, Counter[Any]] = field(default_factory=dict)
    """By name, how often each value occurs."""
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    """By group, its rows of lowest hash, in this order."""
    page_gaps: np.ndarray = field(default_factory=lambda: np.zeros((BINS, BINS), np.int64))
    """[i, j]: pages without a candidate in bins i to j that have one, or the end of the scale, on both sides."""


def merge(a: Summary, b: Summary) -> Summary:
    """Returns the summary of both sets of files; associative and commutative."""
    counts = {name: a.counts.get(name, Counter()) + b.counts.get(name, Counter()) for name in a.counts.keys() | b.counts.keys()}
    groups = a.samples.keys() | b.samples.keys()
    samples = {group: _lowest([*a.samples.get(group, []), *b.samples.get(group, [])], group) for group in groups}
    return Summary(counts=counts, samples=samples, page_gaps=a.page_gaps + b.page_gaps)


def _lowest(samples: list[Sample], group: str) -> list[Sample]:
    size = PAIRS_PER_BIN if group.startswith("bin/") else DROPS_PER_REASON
    return sorted(samples, key=lambda sample: (sample[0], sorted(sample[1].items())))[:size]


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
    """Counts candidates by similarity and reason, and samples some of every bin; all rows of a pair stand in one file."""
    similarity_bin = bin_of(candidates["similarity"].to_numpy())
    once = first_of_pair(candidates)
    return Summary(
        counts={
            "similarity": Counter(similarity_bin.tolist()),
            "similarity_once": Counter(similarity_bin[once].tolist()),
            "candidate_reason": Counter(candidates["reason"].to_pylist()),
        },
        samples=_sample_bins(candidates.filter(pa.array(once)), similarity_bin[once]) if candidates.num_rows else {},
    )


def bin_of(similarity: np.ndarray) -> np.ndarray:
    """Returns the histogram bin, in [0, BINS), of each cosine: bin i holds [-1 + i/100, -1 + (i+1)/100), the last also 1."""
    return np.clip(np.floor((similarity.astype(np.float64) + 1) * (BINS / 2)), 0, BINS - 1).astype(np.int64)


def first_of_pair(candidates: pa.Table) -> np.ndarray:
    """Marks one row of each pair, the one of its lowest page: where the pair would be kept, whatever the band."""
    ids = candidates["a_id"].combine_chunks(), candidates["b_id"].combine_chunks()
    order = pc.sort_indices(candidates, [(name, "ascending") for name in ("a_id", "b_id", "page_key")])
    a, b = (column.take(order) for column in ids)
    same = pc.and_(pc.equal(a[1:], a[:-1]), pc.equal(b[1:], b[:-1])).to_numpy(zero_copy_only=False)
    first = np.empty(candidates.num_rows, bool)
    first[order.to_numpy()] = np.append(True, ~same)[: candidates.num_rows]
    return first


def _sample_bins(candidates: pa.Table, similarity_bin: np.ndarray) -> dict[str, list[Sample]]:
    hashes = mix(prefix64(candidates["a_id"]), prefix64(candidates["b_id"]))
    order = np.lexsort((hashes, similarity_bin))
    sorted_bin = similarity_bin[order]
    rank = np.arange(len(order)) - np.searchsorted(sorted_bin, sorted_bin)
    chosen = order[rank < PAIRS_PER_BIN]
    samples: dict[str, list[Sample]] = {}
    for index, row in zip(chosen, candidates.take(pa.array(chosen)).to_pylist(), strict=True):
        samples.setdefault(f"bin/{similarity_bin[index]}", []).append((int(hashes[index]), _shorten(row)))
    return samples


def spread_pages(path: str, parts: int) -> Iterator[tuple[int, Pairs]]:
    """Yields the pairs of a candidates file by part of their page: hashes of the pages, bins, and which are kept."""
    table = pq.read_table(path, columns=["page_key", "a_id", "b_id", "similarity", "reason"])
    table = table.filter(pa.array(first_of_pair(table)))
    page, similarity_bin = prefix64(table["page_key"]), bin_of(table["similarity"].to_numpy()).astype(np.uint8)
    kept = pc.equal(table["reason"], "").to_numpy()
    owner = part_of(page, parts)
    for part in np.unique(owner):
        here = owner == part
        yield int(part), (page[here], similarity_bin[here], kept[here])


def summarise_pages(pieces: Iterable[Pairs]) -> Summary:
    """Counts some pages by kept pairs, and by the bands in which they have none."""
    page, similarity_bin, kept = (np.concatenate(column) for column in zip(*pieces, strict=True))
    pages, inverse = np.unique(page, return_inverse=True)
    kept_per_page = np.bincount(inverse[kept], minlength=len(pages))
    gaps = _page_gaps(inverse, similarity_bin.astype(np.int64), len(pages))
    return Summary(counts={"pairs_per_page": Counter(kept_per_page.tolist())}, page_gaps=gaps)


def _page_gaps(page: np.ndarray, similarity_bin: np.ndarray, pages: int) -> np.ndarray:
    gaps = np.zeros((BINS, BINS), np.int64)
    every = np.arange(pages)
    # Every page gets a mark before the first and after the last bin; what lies between two marks is a gap.
    marks = np.concatenate([np.full(pages, -1), np.full(pages, BINS), similarity_bin])
    owner = np.concatenate([every, every, page])
    order = np.lexsort((marks, owner))
    marks, owner = marks[order], owner[order]
    first, last = marks[:-1] + 1, marks[1:] - 1
    inside = (owner[:-1] == owner[1:]) & (first <= last)
    np.add.at(gaps, (first[inside], last[inside]), 1)
    return gaps


def pages_kept(page_gaps: np.ndarray, pages: int, first_bin: int, last_bin: int) -> int:
    """Returns how many of `pages` have a candidate in the bins from `first_bin` to `last_bin`, both included."""
    return pages - int(page_gaps[: first_bin + 1, last_bin:].sum())


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
        samples.setdefault(group, []).append((key, _shorten(row)))
        if len(samples[group]) > 50 * DROPS_PER_REASON:
            samples[group] = _lowest(samples[group], group)
    lowest = {group: _lowest(rows, group) for group, rows in samples.items()}
    return Summary(counts={"ledger": counts, "image_dropped": details}, samples=lowest)


def _shorten(row: dict[str, Any]) -> dict[str, Any]:
    return {name: shorten(value) if isinstance(value, str) else value for name, value in row.items()}


_SUMMARISE: dict[str, tuple[Callable[[pa.Table], Summary], list[str] | None]] = {
    "images": (summarise_images, ["width", "height", "format", "reason"]),
    "episodes": (summarise_episodes, ["images"]),
    "candidates": (summarise_candidates, None),
    "drops": (summarise_drops, None),
}


def summarise_file(kind: str, path: str) -> Summary:
    """Returns the summary of one file of a dataset; `kind` is images, episodes, candidates or drops."""
    summarise, columns = _SUMMARISE[kind]
    return summarise(pq.read_table(path, columns=columns))


_HOST_COLUMNS = {"images": ["image_url", "reason"], "episodes": ["page_url"]}


def count_hosts(kind: str, path: str) -> Iterator[tuple[tuple[str, str], int]]:
    """Yields ((kind, host), n) for the kept images, or the episodes, of one file; other datasets give nothing."""
    if kind not in _HOST_COLUMNS:
        return
    columns = _HOST_COLUMNS[kind]
    table = pq.read_table(path, columns=columns)
    if "reason" in columns:
        table = table.filter(pc.equal(table["reason"], ""))
    hosts = Counter(shorten(host_of(url)) for url in table[columns[0]].to_pylist())
    yield from (((kind, host), count) for host, count in hosts.items())
