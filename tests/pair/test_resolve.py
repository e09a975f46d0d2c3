import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.resolve import close_aliases, follow_aliases, nearest_capture

TIME = pa.timestamp("ms", tz="UTC")
Links = list[tuple[str, int | None]]
Captures = list[tuple[str, int | None, str]]


def found(links: Links, captures: Captures) -> np.ndarray:
    link_table = pa.table({"url_key": pa.array([k for k, _ in links], pa.string()), "page_time": pa.array([t for _, t in links], TIME)})
    keys, times, ids = (list(column) for column in zip(*captures, strict=True)) if captures else ([], [], [])
    capture_table = pa.table(
        {"url_key": pa.array(keys, pa.string()), "time": pa.array(times, TIME), "image_id": pa.array(ids, pa.string())}
    )
    return nearest_capture(link_table, capture_table)


def slow_found(links: Links, captures: Captures) -> list[tuple[str, int | None, str] | None]:
    """Every link against every capture. A time that is not known lies before all others."""
    never = -(10**30)

    def distance(link_time: int | None, capture: tuple[str, int | None, str]) -> tuple[int, str]:
        times = [never if time is None else time for time in (link_time, capture[1])]
        return abs(times[0] - times[1]), capture[2]

    return [min((c for c in captures if c[0] == key), key=lambda c: distance(time, c), default=None) for key, time in links]


def agree(links: Links, captures: Captures) -> None:
    rows = found(links, captures).tolist()
    assert len(rows) == len(links)
    for row, best, (_, time) in zip(rows, slow_found(links, captures), links, strict=True):
        if best is None:
            assert row == -1
            continue
        assert row >= 0
        key, at, image_id = captures[row]
        # Captures that agree in id and distance are the same choice.
        assert (key, image_id) == (best[0], best[2])
        assert at == best[1] or (None not in (at, time, best[1]) and abs(at - time) == abs(best[1] - time))


TIMES = st.none() | st.integers(0, 6) | st.sampled_from([-(2**40), 2**43, 1_700_000_000_000])
KEYS = st.sampled_from("abc")


@given(st.lists(st.tuples(KEYS, TIMES), max_size=8), st.lists(st.tuples(KEYS, TIMES, st.sampled_from("xyz")), max_size=10))
@settings(max_examples=400, deadline=None)
@example([("a", 5)], [("a", 3, "z"), ("a", 7, "x")])
@example([("a", 5)], [("a", 3, "x"), ("a", 3, "z"), ("a", 7, "y")])
@example([("b", 5)], [("a", 5, "x"), ("c", 5, "x")])
@example([("a", None)], [("a", 3, "x"), ("a", None, "z")])
def test_the_choice_is_that_of_brute_force(links: Links, captures: Captures) -> None:
    agree(links, captures)


def test_many_links_and_captures_agree_with_brute_force() -> None:
    rng = np.random.default_rng(1)
    links = [(f"u{u}", int(t)) for u, t in zip(rng.integers(0, 12, 200), rng.integers(0, 30, 200), strict=True)]
    captures = [(f"u{u}", int(t), f"{i:02d}") for u, t, i in zip(*(rng.integers(0, high, 150) for high in (10, 30, 20)), strict=True)]
    agree(links, captures)


@pytest.mark.parametrize(
    ("page", "captures", "row"),
    [
        (10, [("a", 8, "x"), ("a", 11, "y")], 1),
        (10, [("a", 9, "y"), ("a", 11, "x")], 1),
        (10, [("a", 9, "x"), ("a", 11, "y")], 0),
        (10, [("a", 10, "y"), ("a", 10, "x")], 1),
        (10, [("a", None, "x"), ("a", 10**12, "y")], 1),
        (None, [("a", 5, "x"), ("a", 4, "y")], 1),
        (10, [("b", 10, "x")], -1),
        (10, [], -1),
    ],
)
def test_nearest_in_time_then_lowest_id(page: int | None, captures: Captures, row: int) -> None:
    assert found([("a", page)], captures).tolist() == [row]


def test_no_links() -> None:
    assert found([], [("a", 1, "x")]).tolist() == []


# Aliases


def alias_table(pairs: list[tuple[str, str]]) -> pa.Table:
    return pa.table({name: pa.array([pair[i] for pair in pairs], pa.string()) for i, name in enumerate(("url_key", "target_key"))})


def pairs_of(table: pa.Table) -> list[tuple[str, str]]:
    return list(zip(table["url_key"].to_pylist(), table["target_key"].to_pylist(), strict=True))


def slow_closure(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    reached, ends = set(), {(a, a) for a, _ in pairs}
    for _ in range(5):
        ends = {(start, target) for start, end in ends for url, target in pairs if url == end}
        reached |= ends
    return sorted(pair for pair in reached if pair[0] != pair[1])


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("abcdefgh")), max_size=12))
@settings(deadline=None, max_examples=60)
def test_closing_is_walking_five_hops(pairs: list[tuple[str, str]]) -> None:
    assert pairs_of(close_aliases(alias_table(pairs))) == slow_closure(pairs)
    assert pairs_of(close_aliases(alias_table(pairs[::-1] + pairs))) == slow_closure(pairs)


def test_five_hops_are_followed_and_six_are_not() -> None:
    chain = [*itertools.pairwise("abcdefg")]
    reached = {target for url, target in pairs_of(close_aliases(alias_table(chain))) if url == "a"}
    assert reached == set("bcdef")


def test_no_aliases() -> None:
    assert pairs_of(close_aliases(alias_table([]))) == []


def test_rows_are_repeated_under_every_key_they_lead_to() -> None:
    rows = pa.table({"n": [1, 2, 3], "url_key": ["a", "b", "c"], "time": pa.array([None, 5, 6], TIME)})
    moved = follow_aliases(rows, alias_table([("a", "x"), ("a", "y"), ("c", "x"), ("z", "b")]))
    assert moved.schema == rows.schema
    assert moved.slice(0, 3).equals(rows)
    assert sorted((row["n"], row["url_key"]) for row in moved.slice(3).to_pylist()) == [(1, "x"), (1, "y"), (3, "x")]


@pytest.mark.parametrize(("keys", "aliases"), [(["a"], []), ([], [("a", "b")]), (["q"], [("a", "b")])])
def test_nothing_to_follow_leaves_the_rows_alone(keys: list[str], aliases: list[tuple[str, str]]) -> None:
    rows = pa.table({"url_key": pa.array(keys, pa.string())})
    assert follow_aliases(rows, alias_table(aliases)).equals(rows)
