import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedup.boilerplate import boilerplate_reasons

KINDS = {"image_id": pa.string(), "page_url": pa.string(), "host": pa.string()}


def table(rows: list[tuple[str, str, str]]) -> pa.Table:
    return pa.table({name: pa.array([row[i] for row in rows], kind) for i, (name, kind) in enumerate(KINDS.items())})


def slow_reasons(rows: list[tuple[str, str, str]], max_pages: int, max_hosts: int) -> list[str]:
    reasons = []
    for image, _, _ in rows:
        pages, hosts = {row[1] for row in rows if row[0] == image}, {row[2] for row in rows if row[0] == image}
        reasons.append("boilerplate_pages" if len(pages) > max_pages else "boilerplate_hosts" if len(hosts) > max_hosts else "")
    return reasons


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("pqrs"), st.sampled_from(["", "h", "i", "j"]))),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_counts_are_those_of_brute_force(rows: list[tuple[str, str, str]], max_pages: int, max_hosts: int) -> None:
    reasons = boilerplate_reasons(table(rows), max_pages=max_pages, max_hosts=max_hosts)
    assert isinstance(reasons, pa.Array)
    assert reasons.to_pylist() == slow_reasons(rows, max_pages, max_hosts)
    chunked = pa.concat_tables([table(rows).slice(0, 2), table(rows).slice(2)])
    assert boilerplate_reasons(chunked, max_pages=max_pages, max_hosts=max_hosts).to_pylist() == reasons.to_pylist()


@pytest.mark.parametrize(("pages", "reason"), [(3, ""), (4, "boilerplate_pages")])
def test_the_largest_allowed_number_of_pages_stays(pages: int, reason: str) -> None:
    rows = [("x", f"page {n}", "h") for n in range(pages)] * 2
    assert boilerplate_reasons(table(rows), max_pages=3, max_hosts=1).to_pylist() == [reason] * pages * 2


@pytest.mark.parametrize(("hosts", "reason"), [(3, ""), (4, "boilerplate_hosts")])
def test_the_largest_allowed_number_of_hosts_stays(hosts: int, reason: str) -> None:
    rows = [("x", f"page {n}", f"host {n}") for n in range(hosts)]
    assert boilerplate_reasons(table(rows), max_pages=99, max_hosts=3).to_pylist() == [reason] * hosts


def test_pages_are_the_reason_where_both_are_too_many() -> None:
    rows = [("x", f"page {n}", f"host {n}") for n in range(3)]
    assert boilerplate_reasons(table(rows), max_pages=2, max_hosts=2).to_pylist() == ["boilerplate_pages"] * 3
