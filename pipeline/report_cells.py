"""Pairs and pages by cell, so that the page can count any band under any filter: host, images on the page, size of the images.

A pair that stands on several pages is counted on its lowest page ("once"), where it would be kept; its other pages are "again". Pages
are counted by gaps (see report_scale.gaps_of), for every choice of the size filter, because it parts the pairs of a page.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pagepairs.files import read_parquet
from pagepairs.keys import mix, part_of, prefix64
from pagepairs.urls import host_of
from pipeline.report_scale import bins_of, count_slots, gaps_of, slots_of
from pipeline.report_text import shorten

HOSTS = 15
"""Hosts with a filter of their own; all others share one more."""
PAGE_IMAGES = (2, 3, 5, 9, 17, 33)
"""Fewest images of a page of each group."""
SIDES_PX = (0, 256, 512, 1024)
"""Shortest sides, of the smaller image of a pair, at which each group begins."""
SIZE_CHOICES = ((0, 1, 2, 3), (0,), (1, 2, 3), (2, 3), (3,))
"""Groups of SIDES_PX behind each choice of the size filter: all, below 256 px, from 256, from 512, from 1024 px."""
REASONS = ("", "below_low", "above_high", "on_another_page")
_SHAPE = (HOSTS + 1, len(PAGE_IMAGES), len(SIDES_PX))
_PAIRS_PER_BIN, _PAIRS_PER_STRATUM, _PAIRS_PER_REASON = 3, 1, 6
_BINS_PER_STRATUM = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class Sparse:
    """Counts by key: int64, keys ascending, no count of 0."""

    keys: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    counts: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    @classmethod
    def of(cls, keys: np.ndarray, counts: np.ndarray | None = None) -> "Sparse":
        """Counts keys, each for 1 or for its count."""
        found, inverse = np.unique(keys, return_inverse=True)
        total = np.zeros(len(found), np.int64)
        np.add.at(total, inverse, 1 if counts is None else counts)
        return cls(keys=found[total != 0], counts=total[total != 0])

    def __add__(self, other: "Sparse") -> "Sparse":
        """Returns the sum, key by key."""
        return Sparse.of(np.concatenate([self.keys, other.keys]), np.concatenate([self.counts, other.counts]))

    def __sub__(self, other: "Sparse") -> "Sparse":
        """Returns the difference, key by key."""
        return Sparse.of(np.concatenate([self.keys, other.keys]), np.concatenate([self.counts, -other.counts]))

    def as_dict(self) -> dict[int, int]:
        """Returns the counts by key."""
        return dict(zip(self.keys.tolist(), self.counts.tolist(), strict=True))


@dataclass(frozen=True, kw_only=True)
class Level:
    """Pairs, pages and gaps: of pairs where they stand once, or what all rows add to that."""

    pairs: Sparse = field(default_factory=Sparse)
    """By (cell, slot); a cell is (host, page group, size group)."""
    pages: Sparse = field(default_factory=Sparse)
    """By (host, page group, size choice): pages with a pair of that size."""
    gaps: Sparse = field(default_factory=Sparse)
    """By (host, page group, size choice, first slot, last slot)."""

    def __add__(self, other: "Level") -> "Level":
        """Returns the sum of both."""
        return Level(pairs=self.pairs + other.pairs, pages=self.pages + other.pages, gaps=self.gaps + other.gaps)

    def __sub__(self, other: "Level") -> "Level":
        """Returns the difference of both."""
        return Level(pairs=self.pairs - other.pairs, pages=self.pages - other.pages, gaps=self.gaps - other.gaps)


@dataclass(frozen=True, slots=True)
class Pick:
    """A row of candidates/ to be shown: its hash among all rows, and the groups of its page and images."""

    row: int
    host: int
    page: int
    size: int
    images: int


@dataclass(frozen=True, kw_only=True)  # Beam would take one that is not frozen for a row with a schema
class Cells:
    """What is known of the candidates of some pages."""

    once: Level = field(default_factory=Level)
    again: Level = field(default_factory=Level)
    """What counting a pair on each of its pages adds to `once`."""
    kept_per_page: Counter[int] = field(default_factory=Counter)
    picks: dict[str, list[tuple[int, Pick]]] = field(default_factory=dict)
    """By group (bin/, host/, page/, size/, reason/), rows of lowest hash."""


def merge_cells(a: Cells, b: Cells) -> Cells:
    """Returns what is known of both sets of pages; associative and commutative."""
    picks = {name: lowest([*a.picks.get(name, []), *b.picks.get(name, [])], name) for name in a.picks.keys() | b.picks.keys()}
    return Cells(once=a.once + b.once, again=a.again + b.again, kept_per_page=a.kept_per_page + b.kept_per_page, picks=picks)


def lowest(picks: list[tuple[int, Pick]], name: str) -> list[tuple[int, Pick]]:
    """Returns the picks of a group that stay."""
    return sorted(picks, key=lambda pick: (pick[0], pick[1].row))[: _group_size(name)]


def _group_size(name: str) -> int:
    return {"bin": _PAIRS_PER_BIN, "reason": _PAIRS_PER_REASON}.get(name.split("/", maxsplit=1)[0], _PAIRS_PER_STRATUM)


def first_of_pair(candidates: pa.Table) -> np.ndarray:
    """Marks one row of each pair, the one of its lowest page: where the pair would be kept, whatever the band."""
    page, a, b = (prefix64(candidates[name]) for name in ("page_key", "a_id", "b_id"))
    order = np.lexsort((page, b, a))
    a, b = a[order], b[order]
    first = np.empty(candidates.num_rows, bool)
    first[order] = np.append(True, (a[1:] != a[:-1]) | (b[1:] != b[:-1]))[: candidates.num_rows]
    return first


_ROW = np.dtype([("page", "u8"), ("a", "u8"), ("b", "u8"), ("slot", "u2"), ("reason", "u1"), ("once", "?")])
_MEMBER = np.dtype([("page", "u8"), ("image", "u8"), ("side", "u4"), ("images", "u4"), ("host", "u1")])


def spread_candidates(path: str, parts: int, edges: Sequence[float]) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the rows of one file of candidates/ by part of their page, 28 bytes each."""
    table = read_parquet(path, ["page_key", "a_id", "b_id", "similarity", "reason"])
    rows = np.empty(table.num_rows, _ROW)
    for name, column in (("page", "page_key"), ("a", "a_id"), ("b", "b_id")):
        rows[name] = prefix64(table[column])
    rows["slot"] = slots_of(table["similarity"].to_numpy(), edges)
    rows["reason"] = pc.index_in(table["reason"], pa.array(REASONS)).to_numpy()
    rows["once"] = first_of_pair(table)
    yield from _spread(rows, parts)


def spread_members(path: str, parts: int, hosts: Sequence[str]) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the images of one file of episodes/ by part of their page, with what their page is: 25 bytes each."""
    table = read_parquet(path, ["page_url", "page_key", "images"])
    images = table["images"].combine_chunks()
    count = pc.list_value_length(images).to_numpy()
    members = pc.list_flatten(images)
    rank = {host: place for place, host in enumerate(hosts[:HOSTS])}
    rows = np.empty(len(members), _MEMBER)
    rows["page"], rows["image"] = np.repeat(prefix64(table["page_key"]), count), prefix64(members.field("image_id"))
    rows["side"] = np.minimum(members.field("width").to_numpy(), members.field("height").to_numpy())
    rows["images"] = np.repeat(count, count)
    host = np.array([rank.get(shorten(host_of(url)), HOSTS) for url in table["page_url"].to_pylist()], np.uint8)
    rows["host"] = np.repeat(host, count)
    yield from _spread(rows, parts)


def _spread(rows: np.ndarray, parts: int) -> Iterator[tuple[int, np.ndarray]]:
    owner = part_of(rows["page"], parts)
    yield from ((int(part), rows[owner == part]) for part in np.unique(owner))


def summarise_part(pieces: Mapping[str, Iterable[np.ndarray]], edges: Sequence[float]) -> Cells:
    """Counts the candidates of some pages; `pieces` are rows and members of these pages, all there are."""
    rows = _joined(pieces["rows"], _ROW)
    if not len(rows):
        return Cells()
    members = _joined(pieces["members"], _MEMBER)
    cell, images = _cells_of(rows, members)
    page = np.unique(rows["page"], return_inverse=True)[1]
    once = rows["once"]
    level = _level(page[once], rows["slot"][once], cell[once], edges)
    every = level if once.all() else _level(page, rows["slot"], cell, edges)
    kept = np.bincount(page[rows["reason"] == 0], minlength=int(page.max()) + 1)
    with_pairs = np.unique(page[once])
    return Cells(
        once=level,
        again=every - level,
        kept_per_page=Counter(kept[with_pairs].tolist()),
        picks=_pick(rows, cell, images, edges),
    )


def _joined(pieces: Iterable[np.ndarray], kind: np.dtype) -> np.ndarray:
    return np.concatenate([np.empty(0, kind), *pieces])


def _cells_of(rows: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (host, page group, size group) of each row, int64 of shape (N, 3), and the number of images on its page."""
    keys = mix(members["page"], members["image"])
    order = np.argsort(keys)
    a, b = (order[np.searchsorted(keys[order], mix(rows["page"], rows[side]))] for side in "ab")
    assert np.array_equal(members["image"][a], rows["a"])
    assert np.array_equal(members["image"][b], rows["b"])
    side = np.minimum(members["side"][a], members["side"][b])
    images = members["images"][a]
    page_group = np.maximum(np.searchsorted(PAGE_IMAGES, images, "right") - 1, 0)
    size_group = np.searchsorted(SIDES_PX, side, "right") - 1
    return np.stack([members["host"][a].astype(np.int64), page_group, size_group], axis=1), images


def _level(page: np.ndarray, slot: np.ndarray, cell: np.ndarray, edges: Sequence[float]) -> Level:
    slots = count_slots(edges)
    slot = slot.astype(np.int64)
    level = Level(pairs=Sparse.of(np.ravel_multi_index(tuple(cell.T), _SHAPE) * slots + slot))
    for choice, groups in enumerate(SIZE_CHOICES):
        of_size = np.isin(cell[:, 2], groups)
        pages, first, inverse = np.unique(page[of_size], return_index=True, return_inverse=True)
        where = cell[of_size][first]
        group = (where[:, 0] * _SHAPE[1] + where[:, 1]) * len(SIZE_CHOICES) + choice
        owner, gap = gaps_of(inverse, slot[of_size], slots)
        level += Level(pages=Sparse.of(group[: len(pages)]), gaps=Sparse.of(group[owner] * slots**2 + gap))
    return level


def _pick(rows: np.ndarray, cell: np.ndarray, images: np.ndarray, edges: Sequence[float]) -> dict[str, list[tuple[int, Pick]]]:
    pair_hash, row_hash = mix(rows["a"], rows["b"]), mix(rows["page"], rows["a"], rows["b"])
    similarity_bin = bins_of(rows["slot"].astype(np.int64), edges)
    stratum = similarity_bin // _BINS_PER_STRATUM
    groups = {
        "bin": similarity_bin,
        "host": cell[:, 0] * 100 + stratum,
        "page": cell[:, 1] * 100 + stratum,
        "size": cell[:, 2] * 100 + stratum,
    }
    picks: dict[str, list[tuple[int, Pick]]] = {}

    def add(name: str, group: np.ndarray, among: np.ndarray) -> None:
        for index in among[_first_of_each(group[among], pair_hash[among], _group_size(name))]:
            pick = Pick(int(row_hash[index]), *(int(value) for value in (*cell[index], images[index])))
            picks.setdefault(f"{name}/{group[index]}", []).append((int(pair_hash[index]), pick))

    for name, group in groups.items():
        add(name, group, np.flatnonzero(rows["once"]))
    add("reason", rows["reason"], np.flatnonzero(rows["reason"]))
    return picks


def _first_of_each(group: np.ndarray, hashes: np.ndarray, size: int) -> np.ndarray:
    order = np.lexsort((hashes, group))
    ordered = group[order]
    rank = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    chosen: np.ndarray = order[rank < size]
    return chosen


def find_picks(path: str, wanted: Mapping[int, Pick]) -> Iterator[dict[str, Any]]:
    """Yields the wanted rows of one file of candidates/, texts shortened, with what their pick says."""
    table = read_parquet(path)
    row_hash = mix(*(prefix64(table[name]) for name in ("page_key", "a_id", "b_id")))
    chosen = np.flatnonzero(np.isin(row_hash, np.array(sorted(wanted), np.uint64)))
    for index, row in zip(chosen, table.take(pa.array(chosen)).to_pylist(), strict=True):
        pick = wanted[int(row_hash[index])]
        short = {name: shorten(value) if isinstance(value, str) else value for name, value in row.items()}
        yield short | {"host": pick.host, "page": pick.page, "size": pick.size, "images": pick.images, "row": pick.row}
