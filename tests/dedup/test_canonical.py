import itertools
import random

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dedup.canonical import CANONICAL, choose_canonical
from pagepairs.records import IMAGES, rows_to_table

BLANK = dict.fromkeys(IMAGES.names, "") | {"pdq": b"\0" * 32, "texture": 100, "time": None}


def image(image_id: str, **facts: object) -> dict[str, object]:
    size = {"width": 10, "height": 10, "bytes": 100, "phash": 7, "source": "a.warc", "offset": 0, "length": 100}
    return BLANK | size | {"image_id": image_id, "url_key": f"key of {image_id}"} | facts


def chosen(rows: list[dict]) -> dict[tuple, tuple]:
    """What the product says of each row, by what names the row."""
    table = choose_canonical(rows_to_table(rows, IMAGES)).to_pylist()
    return {
        _name(row): (row["canonical_id"], *(row[f"canonical_{name}"] for name in CANONICAL), row["reason"], row["pixels"]) for row in table
    }


def _name(row: dict) -> tuple:
    return row["image_id"], row["source"], row["offset"], row["url_key"]


def slowly_chosen(rows: list[dict]) -> dict[tuple, tuple]:
    """Every row against every row."""
    found = {}
    for row in rows:
        group = [other for other in rows if other["phash"] == row["phash"]]
        best = min(group, key=lambda r: (-r["width"] * r["height"], -r["bytes"], r["image_id"], r["source"], r["offset"], r["url_key"]))
        removed = any(other["reason"] for other in group)
        reason = row["reason"] or ("copy_removed" if removed else "")
        found[_name(row)] = (best["image_id"], *(best[name] for name in CANONICAL), reason, row["width"] * row["height"])
    return found


IMAGE_ROWS = st.lists(
    st.builds(
        lambda n, side, source, offset, key, phash, reason: image(
            f"{n:064x}", width=side, height=3, bytes=n // 2, source=source, offset=offset, url_key=key, phash=phash, reason=reason
        ),
        st.integers(0, 5),
        st.integers(1, 3),
        st.sampled_from("ab"),
        st.integers(0, 1),
        st.sampled_from("xy"),
        st.sampled_from([0, 1, 2**63, 2**64 - 1]),
        st.sampled_from(["", "", "", "opt_out", "blocked"]),
    ),
    max_size=12,
    unique_by=_name,
)


@given(IMAGE_ROWS)
@settings(deadline=None)
def test_the_choice_is_that_of_brute_force_in_any_order(rows: list[dict]) -> None:
    assert chosen(rows) == slowly_chosen(rows)
    assert chosen(rows[::-1]) == slowly_chosen(rows)


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
    assert {entry[1:3] for entry in chosen(rows).values()} == {("a", 9)}


def test_pixels_beyond_32_bits_count() -> None:
    rows = [image("a" * 64, width=2**20, height=2**20), image("b" * 64, width=10, height=10)]
    assert {entry[0] for entry in chosen(rows).values()} == {"a" * 64}


def test_a_whole_group_goes_with_one_member_and_no_other_group_does() -> None:
    rows = [image("a" * 64), image("b" * 64, reason="blocked"), image("c" * 64, reason="opt_out"), image("d" * 64, phash=8)]
    assert {name[0][0]: entry[-2] for name, entry in chosen(rows).items()} == {"a": "copy_removed", "b": "blocked", "c": "opt_out", "d": ""}


def test_no_rows() -> None:
    table = choose_canonical(IMAGES.empty_table())
    assert table.num_rows == 0
    assert {"canonical_id", "pixels", *(f"canonical_{name}" for name in CANONICAL)} < set(table.column_names)


def test_rows_in_several_chunks_are_one_group() -> None:
    rows = [image(f"{n:064x}") for n in range(20)]
    random.Random(0).shuffle(rows)
    whole = rows_to_table(rows, IMAGES)
    pieces = pa.concat_tables([whole.slice(start, 3) for start in range(0, 20, 3)])
    assert choose_canonical(pieces).to_pylist() == choose_canonical(whole).to_pylist()
    assert choose_canonical(pieces)["canonical_id"].unique().to_pylist() == [f"{0:064x}"]
