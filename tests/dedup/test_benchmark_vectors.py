"""Matches by embedding: every kind of index finds what comparing everything finds, and a build that loses too much fails."""

from pathlib import Path

import numpy as np
import pytest

from dedup import benchmark_vectors
from dedup.benchmark import VectorSearch
from dedup.benchmark_build import check_recall, write_vectors
from dedup.benchmark_vectors import (
    OpenVectors,
    build_index,
    choose_search,
    count_cells,
    decision_recall,
    nearest_by_all,
    nearest_items,
    open_vectors,
    similarities_to,
)


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    rng = np.random.default_rng(1)
    themes = rng.standard_normal((60, 70))
    return unit(themes[rng.integers(0, 60, 3000)] + rng.standard_normal((3000, 70)))


@pytest.fixture(scope="module")
def queries(vectors: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(2)
    return unit(vectors[rng.integers(0, 3000, 700)].astype(np.float64) + rng.uniform(0, 0.2, (700, 1)) * rng.standard_normal((700, 70)))


def brute_force(vectors: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    exact = (queries.astype(np.float64) @ vectors.astype(np.float64).T).astype(np.float32)
    return exact.argmax(1), exact.max(1)


def opened(folder: Path, vectors: np.ndarray, search: VectorSearch) -> OpenVectors:
    write_vectors(str(folder), vectors, search)
    return open_vectors(str(folder), search)


@pytest.mark.parametrize(("kind", "share"), [("flat", 1.0), ("pq", 0.995), ("ivf", 0.98)])
def test_the_nearest_is_that_of_comparing_everything(
    kind: str, share: float, vectors: np.ndarray, queries: np.ndarray, tmp_path: Path
) -> None:
    index = opened(tmp_path, vectors, choose_search(3000, kind=kind, candidates=0, nprobe=0))
    item, similarity = nearest_items(index, queries)
    expected, exact = brute_force(vectors, queries)
    assert (item == expected).mean() >= share
    same = item == expected
    np.testing.assert_allclose(similarity[same], exact[same], rtol=0, atol=6e-8)  # the last bit, of another order of sums
    assert (similarity.dtype, np.isnan(similarity).any()) == (np.float32, False)


@pytest.mark.parametrize("kind", ["flat", "pq", "ivf"])
def test_answers_do_not_depend_on_the_batch(kind: str, vectors: np.ndarray, queries: np.ndarray, tmp_path: Path) -> None:
    index = opened(tmp_path, vectors, choose_search(3000, kind=kind, candidates=0, nprobe=0))
    item, similarity = nearest_items(index, queries)
    for start, stop in [(0, 1), (1, 20), (20, 187), (187, 700)]:
        part_item, part_similarity = nearest_items(index, queries[start:stop])
        assert part_item.tolist() == item[start:stop].tolist()
        assert part_similarity.tobytes() == similarity[start:stop].tobytes()


def test_ties_go_to_the_lowest_row(vectors: np.ndarray, tmp_path: Path) -> None:
    twice = np.concatenate([vectors[:50], vectors[:50]])
    index = opened(tmp_path, twice, choose_search(100, kind="auto", candidates=0, nprobe=0))
    assert nearest_items(index, vectors[:50])[0].tolist() == list(range(50))
    assert nearest_by_all(twice, vectors[:50])[0].tolist() == list(range(50))
    np.testing.assert_array_equal(similarities_to(index, vectors[:50], np.arange(50, 100)), nearest_items(index, vectors[:50])[1])


def test_one_item_and_no_query(vectors: np.ndarray, tmp_path: Path) -> None:
    index = opened(tmp_path, vectors[:1], choose_search(1, kind="auto", candidates=0, nprobe=0))
    item, similarity = nearest_items(index, vectors[:2])
    assert item.tolist() == [0, 0]
    assert similarity[0] == pytest.approx(1, abs=1e-3)
    assert [len(found) for found in nearest_items(index, vectors[:0])] == [0, 0]


def test_exact_comparison_without_an_index_is_that_of_numpy(vectors: np.ndarray, queries: np.ndarray) -> None:
    item, similarity = nearest_by_all(vectors, queries)
    expected, exact = brute_force(vectors, queries)
    assert item.tolist() == expected.tolist()
    np.testing.assert_allclose(similarity, exact, rtol=0, atol=6e-8)


def test_the_kind_goes_by_size() -> None:
    kinds = {items: choose_search(items, kind="auto", candidates=0, nprobe=0) for items in (10, 200_000, 200_001, 20_000_000, 20_000_001)}
    assert [search.kind for search in kinds.values()] == ["flat", "flat", "pq", "pq", "ivf"]
    assert [search.candidates for search in kinds.values()] == [4, 4, 100, 100, 100]
    assert (count_cells(20_000_001), kinds[20_000_001].nprobe) == (4096, 1024)
    assert choose_search(5000, kind="ivf", candidates=7, nprobe=3) == VectorSearch(kind="ivf", candidates=7, nprobe=3)


def test_settings_that_cannot_be_used_name_the_flag() -> None:
    with pytest.raises(ValueError, match="--index ivf needs 1,000 images to train on, there are 999: give --index flat"):
        choose_search(999, kind="ivf", candidates=0, nprobe=0)
    with pytest.raises(ValueError, match=r"--nprobe 65: --index ivf of 3,000 images has 64 cells"):
        choose_search(3000, kind="ivf", candidates=0, nprobe=65)


def test_decision_recall_of_a_flat_index_is_one_and_a_poor_search_fails_the_build(vectors: np.ndarray, tmp_path: Path) -> None:
    exact = choose_search(3000, kind="flat", candidates=0, nprobe=0)
    write_vectors(str(tmp_path), vectors, exact)
    found = check_recall(str(tmp_path), exact, cut=0.6, seed=0)
    assert (found["kind"], found["decision_recall"]) == ("flat", 1.0)
    assert 900 < found["decision_queries"] <= 1000
    poor = choose_search(3000, kind="ivf", candidates=1, nprobe=1)
    build_index(vectors, poor, str(tmp_path / "vectors.faiss"))
    with pytest.raises(ValueError, match=r"--index ivf with --candidates 1 finds 0\.\d+ of the matches at the cut of 0.6, .* --nprobe 2$"):
        check_recall(str(tmp_path), poor, cut=0.6, seed=0)


def test_decision_recall_counts_what_a_search_misses(vectors: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = opened(tmp_path, vectors, choose_search(3000, kind="flat", candidates=0, nprobe=0))

    def blind(_: OpenVectors, query_QD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # a fake: it misses every second match
        item, similarity = nearest_by_all(vectors, query_QD)
        similarity[::2] = 0
        return item, similarity

    monkeypatch.setattr(benchmark_vectors, "nearest_items", blind)
    recall, queries = decision_recall(index, cut=0.6, queries=400, seed=0)
    assert recall == pytest.approx(0.5, abs=0.03)
    assert queries > 350


def test_two_builds_give_the_same_bytes(vectors: np.ndarray, tmp_path: Path) -> None:
    for kind in ("flat", "pq", "ivf"):
        search = choose_search(3000, kind=kind, candidates=0, nprobe=0)
        for name in ("a", "b"):
            build_index(vectors, search, str(tmp_path / name))
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
