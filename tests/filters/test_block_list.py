"""Block lists: what a line means, what it matches, and what is refused."""

from pathlib import Path

import pytest

from filters.block_list import BlockList

IMAGE = "0123456789abcdef" * 4


def read(folder: Path, text: str | bytes) -> BlockList:
    path = folder / "block.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return BlockList.read(str(path))


def test_every_kind_of_line(tmp_path: Path) -> None:
    text = f"""\ufeff# a comment
example.org   # with its subdomains
Bücher.example.
https://cdn.example.net/a.jpg?size=1&utm_source=x#top

{IMAGE.upper()}
"""
    blocked = read(tmp_path, text)
    assert blocked.domains == {"example.org", "xn--bcher-kva.example"}
    assert blocked.urls == {"https://cdn.example.net/a.jpg?size=1"}
    assert blocked.image_ids == {IMAGE}


@pytest.mark.parametrize(
    ("url", "want"),
    [
        ("https://example.org/", True),
        ("http://EXAMPLE.org:8080/a?b#c", True),
        ("https://img.cdn.example.org/x.png", True),
        ("https://example.org./x.png", True),
        ("https://notexample.org/", False),
        ("https://example.org.evil.example/", False),
        ("https://example.net/?u=example.org", False),
        ("https://bücher.example/1.jpg", True),
        ("https://cdn.example.net/a.jpg?size=1", True),
        ("https://cdn.example.net/a.jpg?fbclid=7&size=1#x", True),
        ("https://cdn.example.net/a.jpg?size=2", False),
        ("https://cdn.example.net/a.jpg", False),
        ("folder/a.jpg", False),
        ("", False),
    ],
)
def test_urls(tmp_path: Path, url: str, want: bool) -> None:
    blocked = read(tmp_path, "example.org\nbücher.example\nhttps://cdn.example.net/a.jpg?size=1\n")
    assert blocked.blocks_url(url) is want


def test_ids(tmp_path: Path) -> None:
    blocked = read(tmp_path, IMAGE)
    assert blocked.blocks_id(IMAGE)
    assert not blocked.blocks_id("f" * 64)


@pytest.mark.parametrize(
    "line", ["example", "example.org/path", "*.example.org", "ftp://example.org/", "two words.org", IMAGE + "0.", "a@b.org", "b\xfc"]
)
def test_a_line_that_is_none_of_these_is_refused_with_its_number(tmp_path: Path, line: str) -> None:
    with pytest.raises(ValueError, match=r"block\.txt, line 3: .*is no domain"):
        read(tmp_path, f"example.org\n\n{line}\n")


def test_bytes_that_are_no_utf8_are_refused_with_their_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="line 2"):
        read(tmp_path, b"example.org\n\xff\xfe\n")


def test_an_empty_list_blocks_nothing(tmp_path: Path) -> None:
    blocked = read(tmp_path, "# nothing\n")
    assert blocked == BlockList()
    assert not blocked.blocks_url("https://example.org/")
    assert not blocked.blocks_id(IMAGE)
