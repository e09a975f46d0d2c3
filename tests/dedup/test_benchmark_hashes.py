"""Matches by hash: the rule at its limits, flat images, lists of one hash, and equality with comparing everything bit by bit."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dedup.benchmark import ITEMS
from dedup.benchmark_hashes import (
    HashSearch,
    hash_distances,
    is_match,
    match_hashes,
    match_images,
    nearest_by_hashes,
    open_hashes,
    order_items,
    search_of,
    write_hashes,
)


def items(rows: list[tuple[int | None, bytes | None, int | None]]) -> pa.Table:
    named = [{"item_id": f"{n:064x}", "item": str(n), "phash": p, "pdq": q, "texture": t} for n, (p, q, t) in enumerate(rows)]
    table = pa.Table.from_pylist(named, schema=ITEMS)
    return table.take(pa.array(order_items(table)))


def flipped(code: bytes, bits: int) -> bytes:
    """Returns a code with its first `bits` bits turned over."""
    array = np.unpackbits(np.frombuffer(code, np.uint8))
    array[:bits] ^= 1
    return np.packbits(array).tobytes()


def ask(search: HashSearch, rows: list[tuple[int, bytes, int]]) -> list[tuple[int, int]]:
    phash, pdq, texture = zip(*rows, strict=True)
    pdq_N32 = np.frombuffer(b"".join(pdq), np.uint8).reshape(-1, 32)
    query, item = match_hashes(search, np.array(phash, np.uint64), pdq_N32, np.array(texture))
    return list(zip(query.tolist(), item.tolist(), strict=True))


CODE = bytes(range(32))


@pytest.mark.parametrize(
    ("phash_bits", "pdq_bits", "texture", "matches"),
    [(0, 0, 50, True), (10, 48, 50, True), (11, 0, 50, False), (0, 49, 50, False), (10, 49, 50, False), (0, 0, 49, False)],
)
def test_both_hashes_must_be_near_and_the_image_not_flat(phash_bits: int, pdq_bits: int, texture: int, matches: bool) -> None:
    search = search_of(items([(0, CODE, 90)]))
    found = ask(search, [((1 << phash_bits) - 1, flipped(CODE, pdq_bits), texture)])
    assert found == ([(0, 0)] if matches else [])


def test_flat_items_match_nothing() -> None:
    table = items([(5, CODE, 49), (5, CODE, 50), (2**64 - 1, CODE, 0)])
    assert table["item"].to_pylist() == ["1", "0", "2"]  # flat ones stand behind the others
    assert ask(search_of(table), [(5, CODE, 90), (2**64 - 1, CODE, 90)]) == [(0, 0)]


@pytest.mark.parametrize(
    ("item", "phash_bits", "pdq_bits", "matches"),
    [
        ((0, None), 4, 200, True),
        ((0, None), 5, 0, False),
        ((None, CODE), 40, 31, True),
        ((None, CODE), 0, 32, False),
    ],
)
def test_a_list_of_one_hash_must_agree_more_closely(item: tuple, phash_bits: int, pdq_bits: int, matches: bool) -> None:
    search = search_of(items([(*item, None)]))
    assert ask(search, [((1 << phash_bits) - 1, flipped(CODE, pdq_bits), 90)]) == ([(0, 0)] if matches else [])


def test_the_nearest_item_is_named_and_a_tie_goes_to_the_lowest_row() -> None:
    search = search_of(items([(0b111, CODE, 90), (0b1, CODE, 90), (0b10, CODE, 90)]))
    assert ask(search, [(0, CODE, 90), (0b111, CODE, 90)]) == [(0, 1), (1, 0)]


def nearest(search: HashSearch, phash: list[int], pdq: list[bytes]) -> list[tuple[int, float]]:
    item, apart = nearest_by_hashes(search, np.array(phash, np.uint64), np.frombuffer(b"".join(pdq), np.uint8).reshape(-1, 32))
    return list(zip(item.tolist(), apart.tolist(), strict=True))


def test_the_nearest_that_stay_are_found_by_whichever_hash_a_list_has() -> None:
    far = flipped(CODE, 64)  # a quarter of its bits
    both, alone = (0b1111, far, None), (None, flipped(CODE, 96), None)
    assert nearest(search_of(items([alone])), [0], [CODE]) == [(0, 0.375)]
    assert nearest(search_of(items([(0xFF, None, None)])), [0], [CODE]) == [(0, 0.125)]
    # With both hashes (4 of 64 and 64 of 256 bits) nearer than with PDQ alone (96 of 256), though more bits differ than of pHash.
    assert nearest(search_of(items([alone, both])), [0], [CODE]) == [(0, (1 / 16 + 1 / 4) / 2)]
    assert nearest(search_of(items([both, (None, flipped(CODE, 32), None)])), [0, 0b1111], [CODE, far]) == [(1, 0.125), (0, 0.0)]
    assert nearest(search_of(items([(0b111, CODE, 90), (0b1, CODE, 90), (0b1, CODE, 90)])), [0], [CODE]) == [(1, 1 / 128)]  # a tie
    assert nearest(search_of(items([(0, CODE, 20)])), [0], [CODE]) == [(-1, np.inf)]


def test_equal_files_match_even_where_they_are_flat_and_name_their_item() -> None:
    search = search_of(items([(0, CODE, 90), (0, CODE, 90), (5, CODE, 20)]))
    ids = pa.chunked_array([[f"{n:064x}" for n in (2, 9, 1, 7)]])
    phash, pdq = np.array([5, 5, 0, 0], np.uint64), np.frombuffer(4 * CODE, np.uint8).reshape(-1, 32)
    query, item = match_images(search, ids, phash, pdq, np.array([20, 20, 90, 90]))
    assert list(zip(query.tolist(), item.tolist(), strict=True)) == [(0, 2), (2, 1), (3, 0)]
    assert [array.tolist() for array in match_images(search_of(items([])), ids, phash, pdq, np.array([20, 20, 90, 90]))] == [[], []]


def test_no_items_and_no_images() -> None:
    assert ask(search_of(items([])), [(0, CODE, 90)]) == []
    query, item = match_hashes(search_of(items([(0, CODE, 90)])), np.empty(0, np.uint64), np.empty((0, 32), np.uint8), np.empty(0, int))
    assert (len(query), len(item)) == (0, 0)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 40))
def test_matches_are_those_of_comparing_everything(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [(int(rng.integers(0, 2**63)), rng.bytes(32), int(rng.integers(40, 60))) for _ in range(count)]
    rows = [(None if n % 7 == 3 else p, None if n % 5 == 4 and n % 7 != 3 else q, t) for n, (p, q, t) in enumerate(rows)]
    table = items(rows)
    rows = list(zip(*(table[name].to_pylist() for name in ("phash", "pdq", "texture")), strict=True))
    asked = []
    for _ in range(30):
        phash, pdq, _ = rows[rng.integers(count)]
        code = np.unpackbits(np.frombuffer(pdq or rng.bytes(32), np.uint8))
        code[rng.permutation(256)[: rng.integers(0, 60)]] ^= 1
        bits = int(np.bitwise_or.reduce(np.uint64(1) << rng.permutation(64)[: rng.integers(0, 13)].astype(np.uint64), initial=np.uint64(0)))
        asked.append(((phash or 0) ^ bits, np.packbits(code).tobytes(), int(rng.integers(40, 60))))
    expected = []
    for number, (phash, pdq, texture) in enumerate(asked):
        best = None
        for row, (other, code, quality) in enumerate(rows):
            if texture < 50 or quality < 50:
                continue
            near = (phash ^ other).bit_count() if other is not None else -1
            bits = (int.from_bytes(pdq, "big") ^ int.from_bytes(code, "big")).bit_count() if code is not None else -1
            good = near <= 4 if bits < 0 else bits <= 31 if near < 0 else near <= 10 and bits <= 48
            score = max(near, 0) / 10 + max(bits, 0) / 48
            if good and (best is None or score < best[0]):
                best = (score, row)
        expected += [(number, best[1])] if best else []
    assert ask(search_of(table), asked) == expected


def test_distances_are_minus_one_where_there_is_no_hash() -> None:
    search = search_of(items([(0, None, None), (None, CODE, None)]))
    pdq = np.frombuffer(CODE + CODE, np.uint8).reshape(2, 32)
    phash_distance, pdq_distance = hash_distances(search, np.array([3, 3], np.uint64), pdq, np.array([0, 1]))
    assert (phash_distance.tolist(), pdq_distance.tolist()) == ([2, -1], [-1, 0])
    assert is_match(phash_distance, pdq_distance).tolist() == [True, True]


def test_hashes_on_disk_are_mapped_and_those_in_memory(tmp_path: Path) -> None:
    search = search_of(items([(5, CODE, 40), (None, CODE, None), (7, None, None), (6, CODE, 90)]))
    write_hashes(str(tmp_path), search)
    mapped = open_hashes(str(tmp_path))
    for name in ("phash_N", "pdq_N32", "kinds_K", "ids_N", "id_rows_N"):
        assert isinstance(getattr(mapped, name), np.memmap)
        assert getattr(mapped, name).tolist() == getattr(search, name).tolist()
    assert mapped.kinds_K.tolist() == [1, 1, 1, 1]
    assert ask(mapped, [(7, CODE, 90), (2**64 - 1, CODE, 90)]) == ask(search, [(7, CODE, 90), (2**64 - 1, CODE, 90)]) == [(0, 1), (1, 2)]
