"""The dataset card: what it says of numbers, and what hosts from the web cannot do to it."""

import pytest

from pipeline.card import most_common_hosts, similarity_rows, size_category, table_cell


def test_hosts_add_up_over_shards_and_ties_go_by_name() -> None:
    found = most_common_hosts([{"b": 1, "a": 1}, {"c": 3, "b": 1}, {}])
    assert found == {"hosts": 3, "most_common": [("c", 3), ("b", 2), ("a", 1)]}
    many = most_common_hosts([{f"h{i:02}": 1 for i in range(50)}])
    assert (many["hosts"], [host for host, _ in many["most_common"]]) == (50, [f"h{i:02}" for i in range(20)])


def test_the_similarity_table_spans_what_there_is() -> None:
    counts = [0] * 200
    counts[130], counts[134], counts[199] = 2, 4, 3
    rows = similarity_rows(counts)
    assert [(round(row["low"], 2), round(row["high"], 2)) for row in rows] == [
        (round(0.3 + i / 20, 2), round(0.35 + i / 20, 2)) for i in range(14)
    ]
    assert [row["pairs"] for row in rows] == [6] + [0] * 12 + [3]
    assert [row["blocks"] for row in rows] == [30] + [0] * 12 + [15]
    assert similarity_rows([0] * 200) == []


@pytest.mark.parametrize(("rows", "name"), [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (50_000_000, "10M<n<100M"), (10**9, "n>1B")])
def test_sizes_have_the_hubs_names(rows: int, name: str) -> None:
    assert size_category(rows) == name


def test_a_host_stays_in_its_cell() -> None:
    assert table_cell("a.example") == "`a.example`"
    assert table_cell("a`|\n\u202eb") == "`a'\ufffd\ufffd\ufffdb`"
