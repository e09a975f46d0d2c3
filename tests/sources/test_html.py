"""What a page names as its images."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources import html_depth
from pipeline.sources.css import background_urls
from pipeline.sources.html import read_page, srcset_urls, utf8_html

PAGE = "https://example.com/dir/page.html"


def links_of(html: str, page: str = PAGE) -> list[tuple[int, str, str, str]]:
    found = read_page(html.encode(), "text/html; charset=utf-8", page)
    return [(link.position, link.url, link.via, link.alt) for link in found.links]


def test_src_is_resolved_without_fragment_and_with_query() -> None:
    assert links_of('<img src="a.jpg?v=1#x" alt="A &amp; B"><img src="//cdn.com/b.png">') == [
        (0, "https://example.com/dir/a.jpg?v=1", "img", "A & B"),
        (1, "https://cdn.com/b.png", "img", ""),
    ]


def test_base_href_is_resolved_against_the_page() -> None:
    assert links_of('<base href="/other/"><base href="/third/"><img src="a.jpg">') == [(0, "https://example.com/other/a.jpg", "img", "")]


def test_data_urls_and_empty_references_are_ignored() -> None:
    assert links_of('<img src="data:image/png;base64,AAAA"><img src=""><img><img src="javascript:x"><img src="http://[bad/">') == []


def test_src_and_srcset_share_a_position_and_a_url_appears_once() -> None:
    assert links_of('<img src="a.jpg" srcset="a.jpg 1x, b.jpg 2x"><img src="c.jpg">') == [
        (0, "https://example.com/dir/a.jpg", "img", ""),
        (0, "https://example.com/dir/b.jpg", "srcset", ""),
        (1, "https://example.com/dir/c.jpg", "img", ""),
    ]


def test_picture_is_one_element() -> None:
    html = '<picture><source srcset="a.webp"><source srcset="a.avif"><span><img src="a.jpg" alt="x"></span></picture><img src="b.jpg">'
    assert links_of(html) == [
        (0, "https://example.com/dir/a.webp", "picture", ""),
        (0, "https://example.com/dir/a.avif", "picture", ""),
        (0, "https://example.com/dir/a.jpg", "img", "x"),
        (1, "https://example.com/dir/b.jpg", "img", ""),
    ]


def test_sources_of_a_video_are_no_images() -> None:
    assert links_of('<video><source src="a.mp4"></video>') == []


@pytest.mark.parametrize("name", ["data-src", "data-original", "data-lazy-src", "data-lazy", "data-srcset", "data-lazy-srcset"])
def test_lazy_attributes(name: str) -> None:
    assert links_of(f'<img src="wait.gif" {name}="a.jpg">') == [
        (0, "https://example.com/dir/wait.gif", "img", ""),
        (0, "https://example.com/dir/a.jpg", "lazy", ""),
    ]


def test_a_lazy_switch_is_no_url() -> None:
    assert links_of('<img src="a.jpg" data-lazy="true">') == [(0, "https://example.com/dir/a.jpg", "img", "")]


def test_noscript_after_a_lazy_image_is_its_fallback() -> None:
    html = '<img data-src="a.jpg"> \n<noscript><p><img src="big.jpg"></p></noscript><img src="b.jpg"><noscript><img src="c.jpg"></noscript>'
    assert links_of(html) == [
        (0, "https://example.com/dir/a.jpg", "lazy", ""),
        (0, "https://example.com/dir/big.jpg", "img", ""),
        (1, "https://example.com/dir/b.jpg", "img", ""),
        (2, "https://example.com/dir/c.jpg", "img", ""),
    ]


def test_noscript_after_a_lazy_picture_and_inside_one() -> None:
    html = '<picture><source data-srcset="a.webp"><img data-src="a.jpg"></picture><noscript><img src="a.png"></noscript>'
    inside = '<picture><img data-src="b.jpg"><noscript><img src="b.png"></noscript></picture>'
    assert [(position, url.rsplit("/", 1)[1]) for position, url, _, _ in links_of(html + inside)] == [
        (0, "a.webp"),
        (0, "a.jpg"),
        (0, "a.png"),
        (1, "b.jpg"),
        (1, "b.png"),
    ]


def test_og_image_comes_last_and_its_urls_share_a_position() -> None:
    html = (
        '<head><meta property="og:image" content="/o.jpg"><meta property="og:image:secure_url" content="https://s.com/o.jpg">'
        '<meta property="OG:image" content="/p.jpg"><meta property="og:title" content="x.jpg"></head><img src="a.jpg"><img src="b.jpg">'
    )
    assert links_of(html) == [
        (0, "https://example.com/dir/a.jpg", "img", ""),
        (1, "https://example.com/dir/b.jpg", "img", ""),
        (2, "https://example.com/o.jpg", "og", ""),
        (2, "https://s.com/o.jpg", "og", ""),
        (3, "https://example.com/p.jpg", "og", ""),
    ]


def test_images_in_comments_scripts_and_templates_of_text_do_not_count() -> None:
    html = "<!-- <img src=a.jpg> --><script>'<img src=b.jpg>'</script><textarea><img src=c.jpg></textarea><img src=d.jpg>"
    assert links_of(html) == [(0, "https://example.com/dir/d.jpg", "img", "")]


def test_alt_is_cut_at_1000_characters() -> None:
    assert [len(alt) for *_, alt in links_of(f'<img src=a.jpg alt="{"x" * 1000}"><img src=b.jpg alt="{"x" * 1001}">')] == [1000, 1000]


@pytest.mark.parametrize(
    ("srcset", "urls"),
    [
        ("a.jpg", ["a.jpg"]),
        ("a.jpg 1x,b.jpg 2x", ["a.jpg", "b.jpg"]),
        ("a.jpg, b.jpg 2x", ["a.jpg", "b.jpg"]),
        (" ,, a,b.jpg 100w , c.jpg?x=1,2 200w,", ["a,b.jpg", "c.jpg?x=1,2"]),
        ("data:image/png;base64,AA== 1x, b.jpg 2x", ["data:image/png;base64,AA==", "b.jpg"]),
        ("a.jpg calc(1, 2) 3w, b.jpg", ["a.jpg", "b.jpg"]),
        ("a.jpg (never closed, b.jpg", ["a.jpg"]),
        ("", []),
        (" , ,", []),
        ("a.jpg\n\t2x,\r\nb.jpg", ["a.jpg", "b.jpg"]),
    ],
)
def test_srcset(srcset: str, urls: list[str]) -> None:
    assert srcset_urls(srcset) == urls


@given(st.text(alphabet="ab.,() \n1x", max_size=60))
def test_srcset_urls_are_never_empty_and_stand_in_the_text_in_order(srcset: str) -> None:
    at = 0
    for url in srcset_urls(srcset):
        assert url
        assert not url.endswith(",")
        at = srcset.index(url, at) + len(url)


@pytest.mark.parametrize(
    ("html", "content_type", "text"),
    [
        (b"\xef\xbb\xbf\xc3\xa9", "text/html; charset=latin1", "é"),
        ("é".encode("utf-16"), "text/html; charset=utf-8", "é"),
        (b"\xe9", "text/html; charset=iso-8859-1", "é"),
        (b"\x93x\x94", "text/html; charset=iso-8859-1", "“x”"),
        (b'<meta charset="gb2312">\xd6\xd0', "text/html", '<meta charset="gb2312">中'),
        (b'<meta charset="utf-16">\xc3\xa9', None, '<meta charset="utf-16">é'),
        (b'<meta http-equiv=content-type content="text/html; charset=windows-1251">\xc6', "text/html", None),
        ("é".encode(), None, "é"),
        (b"caf\xe9", None, "café"),
        (b"\xff\xfa\xc3\xa9", "text/html; charset=utf-8", "\ufffd\ufffdé"),
        (b"\xc3\xa9", "text/html; charset=nonsense", "é"),
        (b"+2AA-", "text/html; charset=utf-7", "+2AA-"),
        (b"\\ud800", "text/html; charset=unicode_escape", "\\ud800"),
        (b"abc", "text/html; charset=zlib", "abc"),
    ],
)
def test_charset(html: bytes, content_type: str | None, text: str | None) -> None:
    decoded = utf8_html(html, content_type).decode()
    assert decoded == text if text is not None else decoded.endswith("Ж")


def test_charset_reaches_the_url_of_an_image() -> None:
    page = read_page('<meta charset="gbk"><img src="改刀.jpg">'.encode("gbk"), "text/html", PAGE)
    assert [link.url for link in page.links] == ["https://example.com/dir/%E6%94%B9%E5%88%80.jpg"]


@pytest.mark.parametrize(
    ("head", "opt_out"),
    [
        ('<meta name="robots" content="noindex, NoAI">', "noai"),
        ('<meta name="ROBOTS" content="noimageai">', "noimageai"),
        ('<meta name="robots" content="noimageai"><meta name="robots" content="noai">', "noai"),
        ('<meta name="tdm-reservation" content="1">', "tdm-reservation"),
        ('<meta name="tdm-reservation" content="0">', ""),
        ('<meta name="robots" content="noimageindex, noarchive">', ""),
        ('<meta name="description" content="noai">', ""),
        ("<p>noai</p>", ""),
    ],
)
def test_opt_out(head: str, opt_out: str) -> None:
    assert read_page(head.encode(), "text/html", PAGE).opt_out == opt_out


def test_a_page_with_100_000_images_takes_seconds() -> None:
    html = "".join(f'<div><img src="/i/{index}.jpg" srcset="/j/{index}.jpg 2x"></div>' for index in range(100_000))
    start = time.process_time()
    links = links_of(html)
    assert len(links) == 200_000
    assert links[-1][:2] == (99_999, "https://example.com/j/99999.jpg")
    assert time.process_time() - start < 10


@pytest.mark.parametrize("tag", ["<div>", "<b><p>", "<picture>", "<a", "<a <b "])
def test_deep_nesting_takes_no_quadratic_time(tag: str) -> None:
    html = tag * 100_000 + "><p>x<img src=a.jpg>"
    start = time.process_time()
    assert [url for _, url, _, _ in links_of(html)] == ["https://example.com/dir/a.jpg"]
    assert time.process_time() - start < 5


def test_a_long_flat_page_keeps_its_pictures() -> None:
    html = '<ul><li>x<picture><source srcset="a.webp"><img src="a.jpg"></picture>' + "<li>x<p>y" * 30_000
    assert [(position, url.rsplit("/", 1)[1]) for position, url, _, _ in links_of(html)] == [(0, "a.webp"), (0, "a.jpg")]


@given(st.binary(max_size=300))
def test_no_bytes_make_it_fail(html: bytes) -> None:
    page = read_page(b"<title>" + html + b'</title><img src="' + html + b'" alt="' + html, "text/html", PAGE)
    for link in page.links:
        assert (link.url + link.alt).encode()
    assert page.opt_out in ("", "noai", "noimageai", "tdm-reservation")
    assert page.title.encode().decode() == " ".join(page.title.split())


@pytest.mark.parametrize(
    ("html", "title"),
    [
        ("<title> Soup,\n\t of\u3000the &lt;b&gt;day&#x202e; </title><title>no</title>", "Soup, of the <b>day\u202e"),
        ("<svg><title>a drawing</title></svg>", ""),
        ("<title></title><p>x", ""),
        ("<title>" + "ab " * 500, ("ab " * 100).strip()),
        ("<title>" + " " * 5_000_000 + "x</title>", ""),
    ],
    ids=["first", "of an svg", "empty", "long", "blank"],
)
def test_the_title_of_a_page(html: str, title: str) -> None:
    assert read_page(html.encode(), "text/html; charset=utf-8", PAGE).title == title


TAGS = [
    f"<{slash}{name}{end}"
    for slash in ("", "/")
    for name in ("a", "B", "p", "custom-element", "section8", "div", "tD", "tds")
    for end in (">", " x>", "")
]
NO_TAGS = ["<", "</", "<!--", "text", "<1>", "</ a>"]


@given(st.lists(st.sampled_from([*TAGS, *NO_TAGS]), max_size=60))
def test_depth_is_bounded_as_it_is_counted(tags: list[str]) -> None:
    html = "".join(tags).encode()
    depth = next(depth for depth in range(100) if not html_depth._depth_exceeds(html, depth))
    bound = html_depth._deepest(*html_depth._nesting_tags(html))
    assert bound == depth if b"custom" not in html else bound >= depth


def test_backgrounds_and_preloaded_images() -> None:
    html = b"""<link rel="Preload" as=IMAGE href=hero.jpg imagesrcset="hero-1.jpg 1x, hero-2.jpg 2x"><link rel=preload as=font href=f.woff>
    <style>/* url(no.jpg) background: url(no.jpg) */ .a { background: red url( "a b.jpg" ) no-repeat, url(b.jpg); color: red }
    .c { BACKGROUND-IMAGE: image-set(url('c.webp') 1x, url(c.png) 2x) }
    .d { cursor: url(no.cur); background: url(data:image/png;base64,AAAA) }
    .e { background: url(e\\28 1\\).jpg) }</style>
    <div style="color: red; background-image: url('/first.jpg')">x</div><img src=i.jpg style="background:url(blur.jpg)">
    <p style="list-style: url(no.jpg)"><meta property=og:image content=og.jpg>"""
    links = read_page(html, None, "https://e.com/").links
    assert [(link.position, link.via, link.url.removeprefix("https://e.com/")) for link in links] == [
        (0, "css", "first.jpg"),
        (1, "css", "blur.jpg"),
        (1, "img", "i.jpg"),
        (2, "preload", "hero.jpg"),
        (2, "preload", "hero-1.jpg"),
        (2, "preload", "hero-2.jpg"),
        (3, "css", "a%20b.jpg"),
        (3, "css", "b.jpg"),
        (4, "css", "c.webp"),
        (4, "css", "c.png"),
        (6, "css", "e(1).jpg"),
        (7, "og", "og.jpg"),
    ]


@pytest.mark.parametrize(
    "piece", ["url(", "background:url(", "'url(\"", "/*", "background:'", "url(\\", "background:url(' ", "{background:url( "]
)
def test_a_style_sheet_cannot_take_long(piece: str) -> None:
    start = time.process_time()
    background_urls("background:" + piece * 200_000)
    assert time.process_time() - start < 3
