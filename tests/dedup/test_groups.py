"""Stars, components and removals equal the plain definition, whatever the order of edges."""

import itertools
import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dedup.groups import NODE, choose_stars, label_components, number_nodes, removal_reasons, size_counts

EDGES = st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14)).filter(lambda edge: edge[0] != edge[1]), max_size=40)
KINDS = dict(zip(NODE, (pa.binary(32), pa.uint64(), pa.int64(), pa.int64(), pa.string()), strict=True))


def ends(edges: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    pairs = np.array(edges, np.int64).reshape(-1, 2)
    return pairs.min(axis=1, initial=99), pairs.max(axis=1, initial=-1)


def near_of(edges: list[tuple[int, int]]) -> dict[int, set[int]]:
    found: dict[int, set[int]] = {node: set() for node in range(15)}
    for a, b in edges:
        found[a].add(b)
        found[b].add(a)
    return found


def slow_stars(near: dict[int, set[int]]) -> list[int]:
    kept: list[int] = []
    stars = []
    for node in range(15):
        standing = [other for other in kept if other in near[node]]
        stars.append(standing[0] if standing else node)
        kept += [] if standing else [node]
    return stars


@given(EDGES, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_stars_are_those_of_the_definition_in_any_order_of_edges(edges: list[tuple[int, int]], order: random.Random) -> None:
    near = near_of(edges)
    mixed = [edge[:: order.choice([1, -1])] for edge in order.sample(edges, len(edges))]
    stars = choose_stars(*ends(mixed), 15).tolist()
    assert stars == slow_stars(near)
    for node, star in enumerate(stars):
        assert star == node or star in near[node]  # every member is near the one that stands for it
        assert stars[star] == star
    kept = [node for node, star in enumerate(stars) if star == node]
    assert all(b not in near[a] for a, b in itertools.combinations(kept, 2))


def test_a_chain_is_not_one_group() -> None:
    one, two = np.arange(6), np.arange(1, 7)
    assert choose_stars(one, two, 7).tolist() == [0, 0, 2, 2, 4, 4, 6]
    assert label_components(one, two, 7).tolist() == [0] * 7


def test_the_best_of_two_kept_neighbours_stands() -> None:
    assert choose_stars(np.array([1, 0]), np.array([2, 2]), 3).tolist() == [0, 1, 0]


@given(EDGES)
@settings(deadline=None)
def test_components_are_those_of_union_find(edges: list[tuple[int, int]]) -> None:
    root = list(range(15))
    for _ in range(15):
        for a, b in edges:
            root[a] = root[b] = min(root[a], root[b])
    assert label_components(*ends(edges), 15).tolist() == root


@given(EDGES, st.lists(st.sampled_from(["", "", "", "", "opt_out", "blocked", "benchmark_match"]), min_size=15, max_size=15))
@settings(deadline=None)
def test_a_reason_takes_its_group_and_its_neighbours_and_nothing_further(edges: list[tuple[int, int]], reasons: list[str]) -> None:
    near, (better, other) = near_of(edges), ends(edges)
    star = choose_stars(better, other, 15)
    expected = []
    for node in range(15):
        mates = {node, *near[node], *(mate for mate in range(15) if star[mate] == star[node])}
        expected.append(min({reasons[mate] for mate in mates} - {""}, default=""))
    found = removal_reasons(star, better, other, pa.chunked_array([pa.array(reasons[:7]), pa.array(reasons[7:])]))
    assert found.to_pylist() == expected


def edge_table(rows: list[tuple[dict, dict]]) -> pa.Table:
    names = [(side, name) for side in range(2) for name in NODE]
    return pa.table({f"{'ab'[side]}_{name}": pa.array([row[side][name] for row in rows], KINDS[name]) for side, name in names})


def node(number: int, *, pixels: int = 1, size: int = 1) -> dict:
    return {"id": bytes([number]) + bytes(30) + b"\x07", "phash": number, "pixels": pixels, "bytes": size, "reason": ""}


@pytest.mark.parametrize("turned", [False, True])
def test_images_are_numbered_by_pixels_then_bytes_then_id(turned: bool) -> None:
    best, second, third, last = node(200, pixels=2**40), node(3, size=2), node(1), node(129)
    rows = [(last, third), (third, second), (best, last)]
    nodes, better, other = number_nodes(edge_table([row[::-1] for row in rows] if turned else rows))
    assert nodes["phash"].to_pylist() == [200, 3, 1, 129]
    assert list(zip(better.tolist(), other.tolist(), strict=True)) == [(2, 3), (1, 2), (0, 3)]


def test_no_edges() -> None:
    nodes, better, other = number_nodes(edge_table([]))
    assert (nodes.num_rows, better.tolist(), other.tolist()) == (0, [], [])
    assert choose_stars(better, other, 0).tolist() == []
    assert label_components(better, other, 0).tolist() == []
    assert removal_reasons(choose_stars(better, other, 0), better, other, nodes["reason"]).to_pylist() == []
    assert size_counts(np.empty(0, np.int64)) == {}


def test_sizes_count_groups_of_two_and_more() -> None:
    assert size_counts(np.array([0, 0, 2, 3, 3, 3, 6, 6])) == {"2": 2, "3": 1}
