import itertools
import random

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dedup.canonical
from dedup.canonical import choose_canonical
from dedup.near import MAX_EQUAL
from pagepairs.records import IMAGES, rows_to_table

BLANK = dict.fromkeys(IMAGES.names, "") | {"pdq": b"\0" * 32, "texture": 100, "time": None}


def image(image_id: str, **facts: object) -> dict[str, object]:
    size = {"width": 10, "height": 10, "bytes": 100, "phash": 7, "source": "a.warc", "offset": 0, "length": 100}
    return BLANK | size | {"image_id": image_id, "url_key": f"key of {image_id}"} | facts


def chosen(rows: list[dict], *, many: bool = False) -> dict[tuple, tuple]:
    """What the product says of each row, by what names the row; `many`: as if thousands of images had each pHash."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dedup.canonical, "MAX_EQUAL", 0 if many else MAX_EQUAL)
        table = choose_canonical(rows_to_table(rows, IMAGES)).to_pylist()
    names = ("canonical_id", "reason", "detail", "group_reason", "stands", "pixels")
    return {_name(row): tuple(row[name] for name in names) for row in table}


def _name(row: dict) -> tuple:
    return row["image_id"], row["source"], row["offset"], row["url_key"]


def _rank(row: dict) -> tuple:
    return -row["width"] * row["height"], -row["bytes"], row["image_id"], row["source"], row["offset"], row["url_key"]


def _equal(a: dict, b: dict, radius: int) -> bool:
    bits = (int.from_bytes(a["pdq"], "big") ^ int.from_bytes(b["pdq"], "big")).bit_count()
    return a["phash"] == b["phash"] and bits <= radius and min(a["texture"], b["texture"]) >= 50


def slowly_chosen(rows: list[dict], *, radius: int = 0) -> dict[tuple, tuple]:
    """Every row against every kept row."""
    stands: dict[str, dict] = {}
    kept: list[dict] = []
    for row in sorted(rows, key=_rank):
        if row["image_id"] not in stands:
            stands[row["image_id"]] = next((other for other in kept if _equal(row, other, radius)), row)
            kept += [row] * (stands[row["image_id"]] is row)
    found = {}
    for row in rows:
        best = stands[row["image_id"]]
        group = [other for other in rows if stands[other["image_id"]] is best]
        reason = min({other["reason"] for other in group} - {""}, default="")
        own = row["reason"] or ("copy_removed" if reason else "")
        detail = reason if own == "copy_removed" else ""
        found[_name(row)] = (best["image_id"], own, detail, reason, row is best, row["width"] * row["height"])
    return found


def _row(n: int, source: str, offset: int, key: str, reason: str) -> dict:
    """A capture; size, hashes and texture follow from which image it is."""
    pdq = [0, (1 << 30) - 1, (1 << 60) - 1][n % 3].to_bytes(32, "big")
    facts = {"width": 1 + n % 2, "bytes": n // 2, "phash": [0, 2**64 - 1][n // 6], "pdq": pdq, "texture": 49 if n == 5 else 50}
    return image(f"{n:064x}", source=source, offset=offset, url_key=key, reason=reason, **facts)


IMAGE_ROWS = st.lists(
    st.builds(
        _row,
        st.integers(0, 9),
        st.sampled_from("ab"),
        st.integers(0, 1),
        st.sampled_from("xy"),
        st.sampled_from(["", "", "", "", "", "", "opt_out", "blocked"]),
    ),
    max_size=14,
    unique_by=_name,
)


@given(IMAGE_ROWS)
@settings(deadline=None)
def test_the_choice_is_that_of_brute_force_in_any_order(rows: list[dict]) -> None:
    assert chosen(rows) == slowly_chosen(rows)
    assert chosen(rows[::-1]) == slowly_chosen(rows)


@given(IMAGE_ROWS)
@settings(deadline=None)
def test_of_too_many_with_one_phash_the_choice_is_that_of_brute_force_by_pdq(rows: list[dict]) -> None:
    equal_first = slowly_chosen(rows)  # an image with the hashes of a better one goes where that one goes
    found, expected = chosen(rows, many=True), slowly_chosen(rows, radius=48)
    assert {name: entry[0] for name, entry in found.items()} == {
        name: next(e[0] for other, e in expected.items() if other[0] == equal_first[name][0]) for name in found
    }


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"width": 11, "bytes": 1}, {"width": 10, "bytes": 999}),
        ({"width": 20, "height": 6}, {"width": 10, "height": 11}),
        ({"bytes": 101, "image_id": "f" * 64}, {"bytes": 100, "image_id": "0" * 64}),
        ({"image_id": "0" * 64, "source": "z"}, {"image_id": "1" * 64, "source": "a"}),
    ],
)
def test_more_pixels_then_more_bytes_then_the_lower_id(better: dict, worse: dict) -> None:
    rows = [
        image("5" * 64, **better) if "image_id" not in better else image(**better),
        image("6" * 64, **worse) if "image_id" not in worse else image(**worse),
    ]
    for order in itertools.permutations(rows):
        assert {entry[0] for entry in chosen(list(order)).values()} == {rows[0]["image_id"]}


def test_one_id_has_its_lowest_reference() -> None:
    rows = [image("a" * 64, source=s, offset=o, url_key=f"{s}{o}") for s, o in (("b", 0), ("a", 9), ("a", 10))]
    assert [name[1:3] for name, entry in chosen(rows).items() if entry[4]] == [("a", 9)]


def test_pixels_beyond_32_bits_count() -> None:
    rows = [image("a" * 64, width=2**20, height=2**20), image("b" * 64, width=10, height=10)]
    assert {entry[0] for entry in chosen(rows).values()} == {"a" * 64}


def test_a_whole_group_goes_with_one_member_and_no_other_group_does() -> None:
    rows = [image("a" * 64), image("b" * 64, reason="blocked"), image("c" * 64, reason="opt_out"), image("d" * 64, phash=8)]
    found = {name[0][0]: entry[1:4] for name, entry in chosen(rows).items()}
    assert found == {
        "a": ("copy_removed", "blocked", "blocked"),
        "b": ("blocked", "", "blocked"),
        "c": ("opt_out", "", "blocked"),
        "d": ("", "", ""),
    }


def test_any_reason_takes_the_copies_with_it() -> None:
    found = chosen([image("a" * 64), image("b" * 64, reason="benchmark_match")])
    assert {name[0][0]: entry[1:3] for name, entry in found.items()} == {
        "a": ("copy_removed", "benchmark_match"),
        "b": ("benchmark_match", ""),
    }


@pytest.mark.parametrize(("bits", "ids"), [(48, ["a"]), (49, ["a", "b"])])
def test_of_too_many_with_one_phash_a_copy_has_a_pdq_within_48_bits(bits: int, ids: list[str]) -> None:
    rows = [image("a" * 64), image("b" * 64, pdq=((1 << bits) - 1).to_bytes(32, "big"))]
    assert sorted({entry[0][0] for entry in chosen(rows, many=True).values()}) == ids
    assert sorted({entry[0][0] for entry in chosen(rows).values()}) == ["a", "b"]


@pytest.mark.parametrize(("texture", "ids"), [(50, ["a"]), (49, ["a", "b"])])
def test_flat_images_have_no_copies_but_those_of_the_same_bytes(texture: int, ids: list[str]) -> None:
    rows = [image("a" * 64, texture=texture), image("b" * 64, texture=texture), image("b" * 64, texture=texture, offset=9)]
    assert sorted({entry[0][0] for entry in chosen(rows).values()}) == ids


def test_members_are_near_the_image_that_stands_for_them_not_near_each_other() -> None:
    """Three images of one pHash in a row, 40 bits of PDQ apart: the best is the one in the middle, or one at the end."""
    pdq = [((1 << bits) - 1).to_bytes(32, "big") for bits in (0, 40, 80)]
    for sizes, groups in (((10, 20, 10), {"1": "012"}), ((20, 10, 10), {"0": "01", "2": "2"})):
        rows = [image(f"{n}" * 64, width=width, pdq=pdq[n]) for n, width in enumerate(sizes)]
        found: dict[str, str] = {}
        for name, entry in sorted(chosen(rows, many=True).items()):
            found[entry[0][0]] = found.get(entry[0][0], "") + name[0][0]
        assert found == groups


def test_no_rows() -> None:
    table = choose_canonical(IMAGES.empty_table())
    assert table.num_rows == 0
    assert {"canonical_id", "pixels", "detail", "group_reason", "stands"} < set(table.column_names)


def test_rows_in_several_chunks_are_one_group() -> None:
    rows = [image(f"{n:064x}") for n in range(20)]
    random.Random(0).shuffle(rows)
    whole = rows_to_table(rows, IMAGES)
    pieces = pa.concat_tables([whole.slice(start, 3) for start in range(0, 20, 3)])
    assert choose_canonical(pieces).to_pylist() == choose_canonical(whole).to_pylist()
    assert choose_canonical(pieces)["canonical_id"].unique().to_pylist() == [f"{0:064x}"]
