import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pagepairs.keys import text_key
from pagepairs.urls import canonical_page, episode_page, host_of, path_of, resolve_url, url_key

PAGE = "https://example.org/a/b/page.html?q=1"
URLS = st.builds(
    lambda host, path, query, end: f"https://{host}/{path}{query}{end}",
    st.sampled_from(["example.org", "EXAMPLE.org:443", "münchen.de", "h:8080", "127.0.0.1"]),
    st.text(st.sampled_from("ab/.%2é +~&=;"), max_size=12),
    st.sampled_from(["", "?", "?b=2&a=1", "?a=&a", "?a=1&utm_source=x", "?utm_id=1", "?q=a+b%20c", "?é=%ff", "?a=%26&b=%3D"]),
    st.sampled_from(["", "#", "#top"]),
)


@pytest.mark.parametrize(
    ("reference", "resolved"),
    [
        ("photo.jpg", "https://example.org/a/b/photo.jpg"),
        ("../photo.jpg?w=1#x", "https://example.org/a/photo.jpg?w=1"),
        ("//cdn.example.net/x", "https://cdn.example.net/x"),
        ("  /sp ace.jpg ", "https://example.org/sp%20ace.jpg"),
        ("HTTP://Example.NET:80/%7ex", "http://example.net/%7ex"),
        ("", "https://example.org/a/b/page.html?q=1"),
        ("data:image/png;base64,AAAA", None),
        ("javascript:void(0)", None),
        ("http://[bad", None),
        ("file:///srv/x.jpg", "file:///srv/x.jpg"),
    ],
)
def test_references_resolve_as_browsers_do(reference: str, resolved: str | None) -> None:
    assert resolve_url(reference, PAGE) == resolved


def test_a_relative_reference_without_base_is_none() -> None:
    assert resolve_url("photo.jpg") is None


@given(URLS)
def test_resolving_twice_changes_nothing(url: str) -> None:
    once = resolve_url(url)
    assert once is not None
    assert "#" not in once
    assert resolve_url(once) == once
    assert url_key(url) == url_key(once)


def test_an_image_key_keeps_the_query_and_loses_the_fragment() -> None:
    assert url_key("https://e.org/x.jpg?w=1#a") == url_key("https://E.org/x.jpg?w=1") == text_key("https://e.org/x.jpg?w=1")
    assert url_key("https://e.org/x.jpg?utm_source=1") != url_key("https://e.org/x.jpg")
    assert url_key("photos/x.jpg") == text_key("photos/x.jpg")


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("https://e.org/p?b=2&a=1#top", "https://e.org/p?a=1&b=2"),
        ("https://e.org/p?utm_source=x&fbclid=y", "https://e.org/p"),
        ("https://e.org/p?id=7&utm_medium=x", "https://e.org/p?id=7"),
        ("https://e.org", "https://e.org/"),
        ("not a url", "not a url"),
        ("lone \ud800", "lone ?"),
    ],
)
def test_a_page_loses_fragment_and_tracking_and_its_query_is_sorted(url: str, canonical: str) -> None:
    assert canonical_page(url) == canonical


@given(URLS)
@example("https://e.org/?q=a+b%20c")
@example("https://e.org/?a&b=")
def test_the_canonical_page_is_its_own_canonical_page(url: str) -> None:
    assert canonical_page(canonical_page(url)) == canonical_page(url)


@given(URLS)
def test_fragment_and_tracking_never_count(url: str) -> None:
    bare = url.split("#", maxsplit=1)[0].rstrip()  # spaces at the end of a URL are not part of it
    assert canonical_page(bare + "#elsewhere") == canonical_page(bare)
    assert canonical_page(bare + ("&" if "?" in bare else "?") + "gclid=1") == canonical_page(bare)


@pytest.mark.parametrize(
    ("url", "host"), [("https://u@Example.ORG:8/x", "example.org"), ("file:///x", ""), ("x", ""), ("https://[::1]/", "[::1]")]
)
def test_hosts(url: str, host: str) -> None:
    assert host_of(url) == host


@pytest.mark.parametrize(
    ("url", "page", "path", "host"),
    [
        ("https://e.org:8/a/b?c=/d", "https://e.org:8/a/b?c=/d", "https://e.org:8/a/", "https://e.org:8"),
        ("https://e.org/", "https://e.org/", "https://e.org/", "https://e.org"),
        ("folder/page", "folder/page", "folder", "folder"),
    ],
)
def test_an_episode_is_a_page_a_folder_or_a_host(url: str, page: str, path: str, host: str) -> None:
    assert [episode_page(url, group_by) for group_by in ("page", "path", "host")] == [page, path, host]


def test_the_path_of_a_page_has_neither_query_nor_session() -> None:
    assert path_of("https://a.example/b/c.php;jsessionid=1A2B?sid=3") == "/b/c.php"
    assert path_of("https://a.example") == "/"
    assert path_of("no url") == "no url"
