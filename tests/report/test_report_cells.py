"""Cells: counts of any band under any filter against a slow recount; the same from one part as from many; exact at the ends of a band."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.band import in_band
from pagepairs.files import write_parquet
from pagepairs.keys import text_key
from pagepairs.records import CANDIDATES, EPISODES, rows_to_table
from pipeline.report_cells import (
    HOSTS,
    PAGE_IMAGES,
    SIDES_PX,
    SIZE_CHOICES,
    Cells,
    Level,
    find_picks,
    merge_cells,
    spread_candidates,
    spread_members,
    summarise_part,
)
from pipeline.report_filters import name_filters, pack_cells
from pipeline.report_scale import bins_of, count_slots, gaps_of, scale_edges, slots_of

LOW, HIGH = 0.3, 0.8765
EDGES = scale_edges(LOW, HIGH)
SLOTS = count_slots(EDGES)
HOST_NAMES = ["a.example", "b.example"]


class Crawl:
    """Pages by seed, with pairs that stand on several of them; rows of a pair stand in one file."""

    def __init__(self, folder: Path, seed: int = 3, pages: int = 40) -> None:
        rng = np.random.default_rng(seed)
        images = [(text_key(f"image {i}") * 2, int(rng.integers(200, 1500))) for i in range(160)]
        self.episodes, self.candidates = [], []
        for page in range(pages):
            members = [images[i] for i in sorted(rng.choice(160, int(rng.choice([2, 3, 4, 7, 12, 40])), replace=False))]
            url = f"https://{'abc'[page % 3]}.example/{page}"
            self.episodes.append(self._episode(url, members))
            for _ in range(12):
                a, b = sorted(members[i] for i in rng.choice(len(members), 2, replace=False))
                if all((row["page_url"], row["a_id"], row["b_id"]) != (url, a[0], b[0]) for row in self.candidates):
                    self.candidates.append(self._candidate(url, a, b))
        self.sides = dict(images)
        again: set[tuple[Any, Any]] = set()
        for row in sorted(self.candidates, key=lambda row: str(row["page_key"])):
            reason = str(in_band(np.float32(row["similarity"]), LOW, HIGH))
            pair = (row["a_id"], row["b_id"])
            row["once"] = pair not in again
            row["reason"] = reason or ("on_another_page" if pair in again else "")
            again.add(pair)
        parts = [[row for row in self.candidates if int(row["a_id"][0], 16) % 2 == part] for part in (0, 1)]
        self.files = [self._write(folder / f"candidates-{i}.parquet", rows, CANDIDATES) for i, rows in enumerate(parts)]
        halves = (self.episodes[::2], self.episodes[1::2])
        self.pages = [self._write(folder / f"episodes-{i}.parquet", rows, EPISODES) for i, rows in enumerate(halves)]

    @staticmethod
    def _write(path: Path, rows: list[dict[str, Any]], schema: Any) -> str:
        write_parquet(str(path), rows_to_table(rows, schema))
        return str(path)

    @staticmethod
    def _episode(url: str, members: list[tuple[str, int]]) -> dict[str, Any]:
        images = [{"image_id": name, "image_url": name, "position": 0, "alt": "", "width": 2000, "height": side} for name, side in members]
        return {"page_url": url, "page_key": text_key(url), "images": images}

    @staticmethod
    def _candidate(url: str, a: tuple[str, int], b: tuple[str, int]) -> dict[str, Any]:
        similarity = float(np.float32(round(int(text_key(a[0] + b[0])[:4], 16) / 65535, 2)))  # many of them on edges
        ids = {"a_id": a[0], "b_id": b[0], "a_url": a[0], "b_url": b[0]}
        return {"page_url": url, "page_key": text_key(url), **ids, "similarity": similarity, "reason": ""}

    def cells(self, parts: int) -> Cells:
        """What the report counts, in so many parts."""
        rows = [piece for path in self.files for piece in spread_candidates(path, parts, EDGES)]
        members = [piece for path in self.pages for piece in spread_members(path, parts, HOST_NAMES)]
        found = Cells()
        for part in range(parts):
            pieces = {"rows": [p for n, p in rows if n == part], "members": [p for n, p in members if n == part]}
            found = merge_cells(found, summarise_part(pieces, EDGES))
        return found

    def matching(self, host: int | None, page: int | None, size: int) -> Iterator[dict[str, Any]]:
        """The slow way to filter candidates."""
        images = {row["page_url"]: len(row["images"]) for row in self.episodes}
        for row in self.candidates:
            side = min(self.sides[row["a_id"]], self.sides[row["b_id"]])
            group = sum(side >= first for first in SIDES_PX) - 1
            of_page = sum(images[row["page_url"]] >= first for first in PAGE_IMAGES) - 1
            name = row["page_url"].split("/")[2]
            of_host = HOST_NAMES.index(name) if name in HOST_NAMES else HOSTS
            if group in SIZE_CHOICES[size] and page in (None, of_page) and host in (None, of_host):
                yield row


def count(level: Level, ends: tuple[int, int], host: int | None, page: int | None, size: int) -> tuple[int, int]:
    """Returns pairs and pages of some slots under a filter, as the page counts them."""
    pairs = pages = 0
    for key, n in level.pairs.as_dict().items():
        cell, slot = divmod(key, SLOTS)
        at, group = divmod(cell, len(SIDES_PX))
        fits = group in SIZE_CHOICES[size] and page in (None, at % len(PAGE_IMAGES)) and host in (None, at // len(PAGE_IMAGES))
        pairs += n if fits and ends[0] <= slot <= ends[1] else 0
    for key, n in level.pages.as_dict().items():
        pages += n if fits_page(key, host, page, size) else 0
    for key, n in level.gaps.as_dict().items():
        where, gap = divmod(key, SLOTS**2)
        first, last = divmod(gap, SLOTS)
        pages -= n if fits_page(where, host, page, size) and first <= ends[0] and last >= ends[1] else 0
    return pairs, pages


def fits_page(key: int, host: int | None, page: int | None, size: int) -> bool:
    at, choice = divmod(key, len(SIZE_CHOICES))
    return choice == size and page in (None, at % len(PAGE_IMAGES)) and host in (None, at // len(PAGE_IMAGES))


@pytest.fixture(scope="module")
def crawl(tmp_path_factory: pytest.TempPathFactory) -> Crawl:
    return Crawl(tmp_path_factory.mktemp("cells"))


@pytest.mark.parametrize("band", [(LOW, HIGH), (0.5, 0.5), (0.25, 0.75), (-1.0, 1.0), (0.87, 0.88)])
@pytest.mark.parametrize(
    ("host", "page", "size"), [(None, None, 0), (0, None, 0), (HOSTS, None, 1), (None, 2, 2), (1, 5, 3), (None, None, 4), (0, 0, 2)]
)
def test_counts_equal_a_recount(crawl: Crawl, band: tuple[float, float], host: int | None, page: int | None, size: int) -> None:
    cells = crawl.cells(1)
    ends = (2 * EDGES.index(band[0]) + 1, 2 * EDGES.index(band[1]) + 1)
    inside = [row for row in crawl.matching(host, page, size) if not in_band(np.float32(row["similarity"]), *band)]
    once = [row for row in inside if row["once"]]
    assert count(cells.once, ends, host, page, size) == (len(once), len({row["page_url"] for row in once}))
    whole = Level() + cells.once + cells.again
    assert count(whole, ends, host, page, size) == (len(inside), len({row["page_url"] for row in inside}))
    assert any(not row["once"] for row in crawl.candidates)


def test_parts_make_no_difference(crawl: Crawl) -> None:
    one, many = crawl.cells(1), crawl.cells(7)
    for level in ("once", "again"):
        for kind in ("pairs", "pages", "gaps"):
            assert getattr(getattr(one, level), kind).as_dict() == getattr(getattr(many, level), kind).as_dict()
    assert one.kept_per_page == many.kept_per_page
    assert one.picks == many.picks


def test_picks_are_rows_of_their_group(crawl: Crawl) -> None:
    cells = crawl.cells(2)
    wanted = {pick.row: pick for picks in cells.picks.values() for _, pick in picks}
    rows = {row["row"]: row for path in crawl.files for row in find_picks(path, wanted)}
    assert rows.keys() == wanted.keys()
    images = {row["page_url"]: len(row["images"]) for row in crawl.episodes}
    for name, picks in cells.picks.items():
        kind, number = name.split("/")
        for _, pick in picks:
            row = rows[pick.row]
            slot = slots_of(np.float32([row["similarity"]]), EDGES)
            assert row["images"] == images[row["page_url"]]
            if kind == "bin":
                assert bins_of(slot, EDGES).tolist() == [int(number)]
            if kind == "reason":
                assert row["reason"] == ("", "below_low", "above_high", "on_another_page")[int(number)]
            if kind == "host":
                assert row["page_url"].split("/")[2] == ({**dict(enumerate(HOST_NAMES)), HOSTS: "c.example"})[int(number) // 100]


def test_filters_name_what_there_is(crawl: Crawl) -> None:
    filters = name_filters(crawl.cells(1), HOST_NAMES, EDGES)
    assert [name for _, name, _ in filters["host"]] == ["a.example", "b.example", "other hosts"]
    assert [name for _, name, _ in filters["page"]] == ["2 images", "3 to 4 images", "5 to 8 images", "9 to 16 images", "33 images or more"]
    once = sum(row["once"] for row in crawl.candidates)
    assert sum(pairs for _, _, pairs in filters["host"]) == sum(pairs for _, _, pairs in filters["page"]) == once
    assert all(pairs == sum(row["once"] for row in crawl.matching(None, None, size)) for size, _, pairs in filters["size"])


def test_too_many_hosts_are_counted_together(crawl: Crawl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.report_filters._PACKED_BYTES", 10)
    packed = pack_cells(crawl.cells(1), HOST_NAMES, EDGES)
    assert packed["hosts_kept"] == 0
    assert packed["filters"]["host"] == []


@settings(deadline=None, max_examples=80)
@given(st.floats(-1, 1, width=32), st.integers(0, 200), st.integers(0, 200))
def test_a_band_of_slots_is_the_band_of_the_filter(similarity: float, i: int, j: int) -> None:
    low, high = sorted([i, j])
    for value in (np.float32(similarity), np.float32(EDGES[i]), np.nextafter(np.float32(EDGES[j]), np.float32(2))):
        slot = int(slots_of(np.array([value], np.float32), EDGES)[0])
        assert (2 * low + 1 <= slot <= 2 * high + 1) == (in_band(np.float32(value), EDGES[low], EDGES[high]) == "")


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 19)), min_size=1, max_size=30),
    st.tuples(st.integers(0, 19), st.integers(0, 19)).map(sorted),
)
def test_gaps_count_pages_without_a_pair(pairs: list[tuple[int, int]], band: list[int]) -> None:
    pages, page = np.unique([p for p, _ in pairs], return_inverse=True)
    _, gaps = gaps_of(page, np.array([slot for _, slot in pairs]), 20)
    without = sum(first <= band[0] and last >= band[1] for first, last in (divmod(int(gap), 20) for gap in gaps))
    assert len(pages) - without == len({p for p, slot in pairs if band[0] <= slot <= band[1]})


def test_the_band_stands_on_the_scale_once() -> None:
    assert len(scale_edges(0.3, 0.9)) == 201
    assert len(scale_edges(float(np.float32(0.3)), 0.9)) == 201
    assert [edge for edge in scale_edges(0.3333, 0.9) if 0.33 <= edge <= 0.34] == [0.33, 0.3333, 0.34]
