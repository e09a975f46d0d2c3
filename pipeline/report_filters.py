"""The cells as the page takes them: filters with a name each, and counts packed small enough for one file."""

import base64
import itertools
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.report_cells import HOSTS, PAGE_IMAGES, SIDES_PX, SIZE_CHOICES, Cells, Level, Sparse
from pipeline.report_scale import count_slots

_PACKED_BYTES = 3_000_000
_FEWER_HOSTS = (HOSTS, 7, 3, 0)
_SHAPES = {"pairs": (len(PAGE_IMAGES), len(SIDES_PX)), "pages": (len(PAGE_IMAGES), len(SIZE_CHOICES))}


def pack_cells(cells: Cells, hosts: Sequence[str], edges: Sequence[float]) -> dict[str, Any]:
    """Returns filters and counts for the page; so many hosts have a filter of their own as fit into 3 MB.

    Args:
      cells: of all candidates.
      hosts: the hosts that cells numbers, in this order.
      edges: of the scale.
    """
    for kept in _FEWER_HOSTS:
        folded = _fold_hosts(cells, kept, count_slots(edges))
        packed = _pack(folded)
        if len(packed) <= _PACKED_BYTES:
            break
    return {
        "edges": list(edges),
        "page_groups": len(PAGE_IMAGES),
        "size_groups": len(SIDES_PX),
        "size_choices": [list(groups) for groups in SIZE_CHOICES],
        "hosts_kept": kept,
        "other": HOSTS,
        "filters": name_filters(folded, hosts, edges),
        "packed": packed,
    }


def _fold_hosts(cells: Cells, kept: int, slots: int) -> Cells:
    """Counts all but the first hosts as others."""
    units = {"pairs": np.prod(_SHAPES["pairs"]) * slots, "pages": np.prod(_SHAPES["pages"]), "gaps": np.prod(_SHAPES["pages"]) * slots**2}

    def fold(level: Level) -> Level:
        return Level(**{name: _fold(getattr(level, name), int(unit), kept) for name, unit in units.items()})

    return Cells(once=fold(cells.once), again=fold(cells.again))


def _fold(counts: Sparse, unit: int, kept: int) -> Sparse:
    host, rest = np.divmod(counts.keys, unit)
    return Sparse.of(np.where(host < kept, host, HOSTS) * unit + rest, counts.counts)


def name_filters(cells: Cells, hosts: Sequence[str], edges: Sequence[float]) -> dict[str, list[list[Any]]]:
    """Returns the choices of each filter as [number, name, sampled pairs]; a choice without pairs, or with all of them, is left out."""
    host, page, size, _ = np.unravel_index(cells.once.pairs.keys, (HOSTS + 1, *_SHAPES["pairs"], count_slots(edges)))
    count = cells.once.pairs.counts
    totals: dict[str, Any] = {
        "host": np.bincount(host, count, HOSTS + 1),
        "page": np.bincount(page, count, len(PAGE_IMAGES)),
        "size": [count[np.isin(size, groups)].sum() for groups in SIZE_CHOICES],
    }
    names = {"host": [*hosts[:HOSTS], *[""] * (HOSTS - len(hosts)), "other hosts"], "page": _page_names(), "size": _size_names()}
    whole = count.sum()
    return {
        kind: [[number, name, int(n)] for number, (name, n) in enumerate(zip(names[kind], totals[kind], strict=True)) if 0 < n < whole]
        for kind in totals
    }


def _page_names() -> list[str]:
    ranges = [(first, after - 1) for first, after in itertools.pairwise(PAGE_IMAGES)]
    names = [f"{first} images" if first == last else f"{first} to {last} images" for first, last in ranges]
    return [*names, f"{PAGE_IMAGES[-1]} images or more"]


def _size_names() -> list[str]:
    return ["any", f"below {SIDES_PX[1]} px", *(f"{side} px or more" for side in SIDES_PX[1:])]


def _pack(cells: Cells) -> str:
    value = {name: {kind: _deltas(getattr(level, kind)) for kind in ("pairs", "pages", "gaps")} for name, level in _levels(cells).items()}
    return base64.b64encode(zlib.compress(json.dumps(value, separators=(",", ":")).encode(), 9)).decode()


def _levels(cells: Cells) -> Mapping[str, Level]:
    return {"once": cells.once, "again": cells.again}


def _deltas(counts: Sparse) -> list[list[int]]:
    return [np.diff(counts.keys, prepend=0).tolist(), counts.counts.tolist()]
