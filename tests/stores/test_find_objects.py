"""A crawl in an object store is found with a few requests, however many files it has."""

import pytest
from object_store import Door

from pagepairs.stores import store_of
from pipeline.sources import SUFFIXES, list_crawl
from pipeline.sources.find import find_files


@pytest.fixture
def crawl(remote_folder: str) -> str:
    for number in range(30):
        path = f"{remote_folder}/crawl/{number % 3}/{number:02d}.warc"
        with store_of(path).open_write(path) as file:
            file.write(b"x" * number)
    return f"{remote_folder}/crawl"


@pytest.mark.parametrize("pattern", ["", "/*/*.warc", "/**/*.warc", "/*"])
def test_a_listing_is_all_that_is_asked_for(crawl: str, door: Door, pattern: str) -> None:
    before = door.requests
    found = find_files((crawl + pattern,), SUFFIXES)
    assert [one.source for one in found] == sorted(f"{number % 3}/{number:02d}.warc" for number in range(30))
    assert door.requests - before <= 3


def test_every_file_is_looked_at_with_its_size_and_version(crawl: str, door: Door) -> None:
    before = door.requests
    files = list_crawl((f"{crawl}/*/*.warc",))
    assert {file.found.source: file.bytes for file in files} == {f"{number % 3}/{number:02d}.warc": number for number in range(30)}
    assert len({file.version for file in files}) == 30
    assert door.requests - before <= 3 + 2 * 30
