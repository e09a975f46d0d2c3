import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dedup.boilerplate import appearance_counts, boilerplate_reasons, count_appearances

KINDS = {"image_id": pa.string(), "page_set": pa.uint64(), "host": pa.string()}
Reference = tuple[str, int, str]


def table(rows: list[Reference]) -> pa.Table:
    return pa.table({name: pa.array([row[i] for row in rows], kind) for i, (name, kind) in enumerate(KINDS.items())})


def reasons(rows: pa.Table, max_pages: int, max_hosts: int) -> list[str]:
    found = boilerplate_reasons(rows, count_appearances(rows), max_pages=max_pages, max_hosts=max_hosts)
    assert isinstance(found, pa.Array)
    return found.to_pylist()


def slow_reasons(rows: list[Reference], max_pages: int, max_hosts: int) -> list[str]:
    reasons = []
    for image, _, _ in rows:
        pages = {row[1] for row in rows if row[0] == image}
        hosts = {min(row[2] for row in rows if row[:2] == (image, page)) for page in pages}
        reasons.append("boilerplate_pages" if len(pages) > max_pages else "boilerplate_hosts" if len(hosts) > max_hosts else "")
    return reasons


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3), st.sampled_from(["", "h", "i", "j"]))),
    st.integers(1, 4),
    st.integers(1, 4),
)
@settings(deadline=None)
def test_counts_are_those_of_brute_force(rows: list[Reference], max_pages: int, max_hosts: int) -> None:
    assert reasons(table(rows), max_pages, max_hosts) == slow_reasons(rows, max_pages, max_hosts)
    chunked = pa.concat_tables([table(rows).slice(0, 2), table(rows).slice(2)])
    assert reasons(chunked, max_pages, max_hosts) == slow_reasons(rows, max_pages, max_hosts)


@pytest.mark.parametrize(("pages", "reason"), [(3, ""), (4, "boilerplate_pages")])
def test_the_largest_allowed_number_of_pages_stays(pages: int, reason: str) -> None:
    rows = [("x", n, "h") for n in range(pages)] * 2
    assert reasons(table(rows), 3, 1) == [reason] * pages * 2


@pytest.mark.parametrize(("hosts", "reason"), [(3, ""), (4, "boilerplate_hosts")])
def test_the_largest_allowed_number_of_hosts_stays(hosts: int, reason: str) -> None:
    rows = [("x", n, f"host {n}") for n in range(hosts)]
    assert reasons(table(rows), 99, 3) == [reason] * hosts


def test_pages_are_the_reason_where_both_are_too_many() -> None:
    rows = [("x", n, f"host {n}") for n in range(3)]
    assert reasons(table(rows), 2, 2) == ["boilerplate_pages"] * 3


def test_one_page_under_many_addresses_and_hosts_counts_once() -> None:
    assert reasons(table([("x", 7, f"host {n}") for n in range(9)]), 1, 1) == [""] * 9


def test_numbers_of_appearances_stand_between_powers_of_two() -> None:
    numbers = pa.chunked_array([pa.array([1, 1, 2, 3, 4, 5, 8, 9, 16, 17])])
    assert appearance_counts(numbers) == {"1": 2, "2": 1, "3-4": 2, "5-8": 2, "9-16": 2, "17-32": 1}
