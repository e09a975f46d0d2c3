"""The plain functions of stage pair that the slow version does not name: histogram, pages, directions, digest."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_crawl import image_id

from pagepairs.config import PairConfig
from pagepairs.files import FileInfo
from pagepairs.keys import pair_id, text_key
from pagepairs.manifest import Manifest
from pagepairs.records import PAIRS
from pipeline.pair import parts_for, stage_digest
from pipeline.pair_job import CANDIDATE_ROWS
from pipeline.pair_ledger import direct_pairs, histogram, keep_lowest_page
from pipeline.pair_references import key_pages


@given(st.lists(st.integers(-(2**24), 2**24).map(lambda n: n / 2**24)))
def test_histogram_bins_are_half_open(values: list[float]) -> None:
    expected = [0] * 200
    for value in values:
        # In whole numbers: value = n / 2**24, bin = floor((value + 1) * 100).
        expected[min(199, (int(value * 2**24) + 2**24) * 100 // 2**24)] += 1
    assert histogram(np.array(values, np.float32)) == expected


@pytest.mark.parametrize(
    ("value", "bin_"), [(-1.0, 0), (-0.5, 50), (-(2.0**-48), 99), (0.0, 100), (0.75, 175), (1.0, 199), (1.0009765625, 199), (-1.001, 0)]
)
def test_histogram_edges(value: float, bin_: int) -> None:
    assert histogram(np.array([value], np.float32)).index(1) == bin_


@pytest.mark.parametrize(("value", "bin_"), [(0.3, 130), (0.9, 189), (0.7, 169)])
def test_a_float32_just_below_a_decimal_bound_is_below_it(value: float, bin_: int) -> None:
    assert math.floor((float(np.float32(value)) + 1) * 100) == bin_
    assert histogram(np.array([value], np.float32)).index(1) == bin_


def candidates(rows: list[tuple[str, str, str, str]]) -> pa.Table:
    """(page, a, b, reason) as rows of candidates."""
    columns = {
        name: pa.array([f"{name} of {row[1]}{row[2]}" for row in rows])
        for name in CANDIDATE_ROWS.names
        if CANDIDATE_ROWS.field(name).type == pa.string()
    }
    columns |= {name: pa.array([0] * len(rows), pa.int64()) for name in ("a_offset", "a_length", "b_offset", "b_length")}
    columns |= {"page_key": pa.array([row[0] * 32 for row in rows], pa.string()), "reason": pa.array([row[3] for row in rows], pa.string())}
    columns |= {f"{side}_id": pa.array([image_id(row[i]) for row in rows], pa.string()) for side, i in (("a", 1), ("b", 2))}
    columns |= {"similarity": pa.array([0.5] * len(rows), pa.float32())}
    return pa.table({name: columns[name] for name in CANDIDATE_ROWS.names}).cast(CANDIDATE_ROWS)


@given(
    st.permutations(
        [
            ("1", "a", "b", ""),
            ("2", "a", "b", ""),
            ("f", "a", "b", ""),
            ("2", "a", "c", ""),
            ("1", "b", "c", "below_low"),
            ("2", "b", "c", "below_low"),
        ]
    )
)
def test_a_pair_stays_on_its_lowest_page(rows: list[tuple[str, str, str, str]]) -> None:
    kept, count = keep_lowest_page(candidates(rows))
    found = {(row["page_key"], row["a_id"], row["b_id"]): (row["reason"], int(n)) for row, n in zip(kept.to_pylist(), count, strict=True)}
    a, b, c = (image_id(name) for name in "abc")
    assert found == {
        ("1" * 32, a, b): ("", 3),
        ("2" * 32, a, b): ("on_another_page", 3),
        ("f" * 32, a, b): ("on_another_page", 3),
        ("2" * 32, a, c): ("", 1),
        ("1" * 32, b, c): ("below_low", 2),
        ("2" * 32, b, c): ("below_low", 2),
    }
    assert count.dtype == np.int32


def test_no_candidates() -> None:
    kept, count = keep_lowest_page(CANDIDATE_ROWS.empty_table())
    assert (kept.num_rows, count.tolist()) == (0, [])
    assert direct_pairs(kept, count, "both", 0).equals(PAIRS.empty_table())


def test_both_directions_are_each_others_mirror_and_one_is_among_them() -> None:
    rows = candidates([("1", f"x{i}", f"y{i}", "") for i in range(50)])
    one, both = (direct_pairs(rows, np.ones(50, np.int32), directions, 3).to_pylist() for directions in ("one", "both"))
    assert len(both) == 100
    assert [row for row in one if row not in both] == []
    mirrored = [
        {name.replace("condition", "?").replace("target", "condition").replace("?", "target"): value for name, value in row.items()}
        for row in both
    ]
    strip = [{name: value for name, value in row.items() if name != "pair_id"} for row in both]
    assert all({name: value for name, value in row.items() if name != "pair_id"} in strip for row in mirrored)
    assert [row["pair_id"] for row in both] == sorted(pair_id(row["condition_id"], row["target_id"]) for row in both)


def test_the_direction_is_fair_and_depends_on_pair_and_seed_only() -> None:
    rows = candidates([("1", f"x{i}", f"y{i}", "") for i in range(2_000)])
    flips = []
    for seed in (0, 1):
        pairs = direct_pairs(rows, np.ones(2_000, np.int32), "one", seed)
        again = direct_pairs(rows.take(pa.array(range(1_999, -1, -1))), np.ones(2_000, np.int32), "one", seed)
        assert pairs.equals(again)
        first = set(rows["a_id"].to_pylist())
        flips.append({(row["condition_id"], row["target_id"]): row["condition_id"] in first for row in pairs.to_pylist()})
        assert abs(sum(flips[-1].values()) - 1_000) < 4 * math.sqrt(500)
    assert 800 < len(flips[0].keys() & flips[1].keys()) < 1_200


@pytest.mark.parametrize(
    ("group_by", "keys"),
    [
        ("page", ["https://h/f/1?a", "https://h/f/2", "lone"]),
        ("path", ["https://h/f/", "https://h/f/", "lone"]),
        ("host", ["https://h", "https://h", "lone"]),
    ],
)
def test_pages_are_keyed_by_their_episode(group_by: str, keys: list[str]) -> None:
    links = pa.table({"page_url": ["https://h/f/1?a", "https://h/f/2", "lone"] * 2})
    found = key_pages(links, group_by)
    assert found["page_key"].to_pylist() == [text_key(key) for key in keys] * 2
    assert found["host"].to_pylist() == ["h", "h", ""] * 2


def manifest(rows: int, sha256: str = "0") -> Manifest:
    return Manifest(dataset="x", digest="x", files=(FileInfo(name="a", rows=rows, bytes=1, sha256=sha256),), counters={})


def test_parts_come_from_the_larger_input() -> None:
    assert [parts_for(manifest(images), manifest(links)) for images, links in ((0, 0), (100_000, 1), (1, 100_001), (250_000, 3))] == [
        1,
        1,
        2,
        3,
    ]


def test_the_digest_sees_every_setting_the_band_the_size_and_the_inputs() -> None:
    def digest(config: PairConfig | None = None, low: float = 0.3, high: float = 0.9, size_px: int = 256, **inputs: Manifest) -> str:
        return str(stage_digest(config or PairConfig(), low=low, high=high, size_px=size_px, inputs={"images": manifest(1), **inputs}))

    settings = [
        {"seed": 1},
        {"group_by": "host"},
        {"directions": "both"},
        {"pairs_per_episode": 3},
        {"max_images_per_page": 3},
        {"max_pages_per_image": 3},
        {"max_hosts_per_image": 3},
    ]
    found = [digest(PairConfig(**setting)) for setting in settings]
    found += [digest(), digest(low=0.2), digest(high=0.8), digest(size_px=128), digest(images=manifest(1, "1")), digest(links=manifest(1))]
    assert len(set(found)) == len(found)
