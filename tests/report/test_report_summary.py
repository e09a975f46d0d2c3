"""Summaries: the same from one file as from many, in any order; samples by key; shortest sides at the edges of their steps."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagepairs.keys import text_key
from pagepairs.records import CANDIDATES, DROPS, IMAGES, rows_to_table
from pagepairs.urls import url_key
from pipeline.report_cells import first_of_pair
from pipeline.report_summary import (
    Summary,
    bin_of,
    merge,
    picture_key,
    side_range,
    summarise_candidates,
    summarise_drops,
    summarise_images,
)


def candidate(pair: int, page: int, similarity: float, reason: str = "") -> dict[str, object]:
    page_key, a, b = text_key(f"page {page}"), text_key(f"a {pair}") * 2, text_key(f"b {pair}") * 2
    row: dict[str, object] = {
        "page_url": f"https://example.org/{page}",
        "page_key": page_key,
        "a_id": a,
        "b_id": b,
        "a_url": "a",
        "b_url": "b",
    }
    return row | {"similarity": similarity, "reason": reason}


def drop(number: int, reason: str = "aspect") -> dict[str, object]:
    return {
        "stage": "scan",
        "reason": reason,
        "error": False,
        "page_url": None,
        "image_url": f"https://example.org/{number}",
        "detail": None,
    }


def same(a: Summary, b: Summary) -> bool:
    return a.counts == b.counts and a.samples == b.samples


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 999), st.integers(0, 4)), min_size=1, max_size=120, unique_by=lambda item: item[0]),
    st.permutations([0, 1, 2]),
)
def test_merged_files_equal_one_file(rows: list[tuple[int, int]], order: list[int]) -> None:
    candidates = [candidate(pair, page, pair / 999 * 0.05) for pair, page in rows]
    drops = [drop(pair, f"reason_{page}") for pair, page in rows]
    whole = merge(summarise_candidates(rows_to_table(candidates, CANDIDATES)), summarise_drops(rows_to_table(drops, DROPS)))
    parts = [
        merge(summarise_candidates(rows_to_table(candidates[i::3], CANDIDATES)), summarise_drops(rows_to_table(drops[i::3], DROPS)))
        for i in range(3)
    ]
    left = merge(merge(parts[order[0]], parts[order[1]]), parts[order[2]])
    right = merge(parts[order[0]], merge(parts[order[1]], parts[order[2]]))
    assert same(left, whole)
    assert same(right, whole)


def test_the_first_row_of_a_pair_is_its_lowest_page() -> None:
    rows = [candidate(1, page, 0.5) for page in range(5)] + [candidate(2, 3, 0.5)]
    first = first_of_pair(rows_to_table(rows, CANDIDATES))
    lowest = min(range(5), key=lambda page: text_key(f"page {page}"))
    assert np.flatnonzero(first).tolist() == [lowest, 5]
    assert first_of_pair(CANDIDATES.empty_table()).tolist() == []


@pytest.mark.parametrize(
    ("similarity", "expected"),
    [(-1.0, 0), (-0.995, 0), (0.0, 100), (np.float32(0.3), 130), (0.999, 199), (1.0, 199), (np.float32(1.0001), 199)],
)
def test_bins(similarity: float, expected: int) -> None:
    assert bin_of(np.array([similarity], np.float32)).tolist() == [expected]


@pytest.mark.parametrize("side", [200, 255, 256, 361, 362, 363, 511, 512, 724, 725, 1024])
def test_a_shortest_side_lies_in_the_range_of_its_step(side: int) -> None:
    row = dict.fromkeys(IMAGES.names) | {"width": side, "height": 2000, "format": "png", "reason": ""}
    [step] = summarise_images(pa.Table.from_pylist([row], IMAGES)).counts["side"]
    first, last = side_range(step)
    assert first <= side <= last
    assert side_range(step + 1)[0] == last + 1


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({}, True),
        ({"reason": "opt_out"}, False),
        ({"reason": "image_dropped", "detail": "blocked"}, False),
        ({"reason": "page_blocked"}, False),
        ({"error": True}, False),
        ({"image_url": ""}, False),
    ],
)
def test_images_that_must_not_be_used_have_no_picture(change: dict[str, object], shown: bool) -> None:
    row = drop(1) | change
    assert picture_key(row) == (url_key("https://example.org/1") if shown else "")


def test_images_that_were_opted_out_are_not_counted_as_kept() -> None:
    rows = [
        dict.fromkeys(IMAGES.names) | {"width": 300, "height": 300, "format": "jpeg", "reason": reason} for reason in ("", "opt_out", "")
    ]
    counts = summarise_images(pa.Table.from_pylist(rows, IMAGES)).counts
    assert counts["format"] == {"jpeg": 2}
    assert counts["image_reason"] == {"": 2, "opt_out": 1}
