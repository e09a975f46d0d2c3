import random
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_pair import slowly_chosen

from pagepairs.keys import text_key
from pagepairs.records import PAGES, rows_to_table
from pipeline.episodes import choose_references, close_pages, episode_reasons
from pipeline.pair_job import REFERENCES

Row = dict[str, Any]


def reference(page: str = "p", **facts: Any) -> Row:
    row: Row = dict.fromkeys(REFERENCES.names)
    row |= {"page_url": page, "page_key": text_key(page), "capture": 1, "position": 0, "via": "img", "host": "h", "alt": "", "detail": ""}
    row |= {
        "reason": "",
        "pixels": 100,
        "image_id": "a" * 64,
        "image_url": "u",
        "url_key": "u",
        "source": "s",
        "offset": 0,
        "length": 1,
        "width": 10,
        "height": 10,
    }
    row |= facts
    if row["reason"] in ("not_in_crawl", "image_dropped"):
        row |= dict.fromkeys(["pixels", "image_id", "source", "offset", "length", "width", "height"])
    return row


def table(rows: list[Row]) -> pa.Table:
    return pa.table(
        [pa.array([row[name] for row in rows], kind) for name, kind in zip(REFERENCES.names, REFERENCES.types, strict=True)],
        schema=REFERENCES,
    )


def chosen(rows: list[Row]) -> list[Row]:
    return choose_references(close_pages(table(rows), PAGES.empty_table())).select(REFERENCES.names).to_pylist()


VERDICTS = st.sampled_from(["", "", "", "not_in_crawl", "image_dropped", "boilerplate_pages", "page_opt_out", "page_blocked"])
ROWS = st.lists(
    st.builds(
        lambda page, capture, position, image, url, via, reason, detail: reference(
            page,
            capture=capture,
            position=position,
            image_id=image * 64,
            pixels=ord(image) % 3,
            image_url=url,
            url_key=url,
            via=via,
            reason=reason,
            detail=detail,
        ),
        st.sampled_from("pq"),
        st.sampled_from([1, 2**64 - 1]),
        st.integers(0, 2),
        st.sampled_from("abcd"),
        st.sampled_from("uvw"),
        st.sampled_from(["img", "srcset", "referer"]),
        VERDICTS,
        st.sampled_from(["too_small", "aspect"]),
    ),
    max_size=10,
)
SHOWN = ("page_url", "capture", "position", "image_id", "image_url", "via", "reason", "detail", "pixels")


def shown(rows: list[Row]) -> list[tuple]:
    return [tuple(row[name] for name in SHOWN) for row in rows]


@given(ROWS, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=120)
def test_the_choice_is_the_rule_spelled_out_in_any_order(rows: list[Row], rng: random.Random) -> None:
    expected = shown(slowly_chosen(rows, []))
    assert shown(chosen(rows)) == expected
    rng.shuffle(rows)
    assert shown(chosen(rows)) == expected


def test_alternatives_of_an_element_are_one_reference_the_largest() -> None:
    rows = [reference(image_id=name * 64, pixels=pixels, image_url=name) for name, pixels in (("a", 5), ("b", 7), ("c", 6))]
    assert [row["image_url"] for row in chosen(rows)] == ["b"]


def test_the_largest_that_was_crawled_beats_a_larger_that_is_dropped() -> None:
    rows = [reference(pixels=5, image_url="small"), reference(pixels=9, image_url="large", reason="boilerplate_hosts")]
    assert [(row["image_url"], row["reason"]) for row in chosen(rows)] == [("small", "")]


def test_what_became_of_an_image_says_more_than_that_it_is_not_in_the_crawl() -> None:
    rows = [reference(reason="not_in_crawl", image_url="a"), reference(reason="image_dropped", detail="too_small", image_url="b")]
    assert [(row["reason"], row["detail"]) for row in chosen(rows)] == [("image_dropped", "too_small")]


def test_positions_of_other_captures_and_pages_are_other_references() -> None:
    rows = [reference(capture=1), reference(capture=2), reference("q"), reference(position=1)]
    assert len(chosen(rows)) == 4


def test_a_referer_counts_only_where_the_page_does_not_name_the_image() -> None:
    named = [reference(url_key="x"), reference(url_key="x", via="referer", position=9)]
    assert [row["via"] for row in chosen(named)] == ["img"]
    other_page = [reference("q", url_key="x"), reference(url_key="x", via="referer", position=9)]
    assert sorted(row["via"] for row in chosen(other_page)) == ["img", "referer"]


@pytest.mark.parametrize("reason", ["page_opt_out", "page_blocked"])
def test_a_page_left_out_in_one_capture_is_left_out_in_all(reason: str) -> None:
    rows = [
        reference(capture=1, reason=reason),
        reference(capture=2, position=1),
        reference(capture=2, position=2, reason="not_in_crawl"),
        reference("q"),
    ]
    assert sorted((row["page_url"], row["reason"]) for row in chosen(rows)) == [("p", reason)] * 3 + [("q", "")]


def test_a_capture_that_names_no_image_closes_its_page() -> None:
    captures = [{"page_url": "p", "time": 0, "opt_out": "noai", "reason": "page_opt_out", "source": "", "title": ""}]
    captures += [{"page_url": "q", "time": 0, "opt_out": "noai", "reason": "", "source": "", "title": ""}]
    rows = close_pages(table([reference(via="referer"), reference("q")]), rows_to_table(captures, PAGES)).to_pylist()
    assert [(row["page_url"], row["reason"]) for row in rows] == [("p", "page_opt_out"), ("q", "")]


def test_an_opt_out_outweighs_a_block() -> None:
    rows = [reference(reason="page_blocked"), reference(position=1, reason="page_opt_out")]
    assert [row["reason"] for row in chosen(rows)] == ["page_opt_out"] * 2


def test_no_rows() -> None:
    assert chosen([]) == []
    assert episode_reasons(choose_references(table([]))).to_pylist() == []
