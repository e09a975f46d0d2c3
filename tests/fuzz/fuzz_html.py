"""Fuzzes pages: charset, links, srcset, opt-outs, URLs."""

import atheris
from harness import PACKAGES, fuzz

with atheris.instrument_imports(include=PACKAGES):
    from pagepairs.urls import canonical_page, episode_page, host_of, resolve_url, url_key
    from pipeline.sources.html import read_page, srcset_urls

PAGE = "https://a.example/folder/page?x=1"


def target(data: bytes) -> None:
    """The first line is the Content-Type, the rest the page; the whole is a srcset and a URL, too."""
    content_type, _, html = data.partition(b"\n")
    page = read_page(html, content_type.decode("latin-1") or None, PAGE)
    links = page.links
    page.opt_out.encode("utf-8")
    assert page.title == " ".join(page.title.split())
    positions = [link.position for link in links]
    assert len({(link.position, link.url) for link in links}) == len(links)
    assert positions == sorted(positions) or any(link.via == "lazy" or link.via == "picture" or link.via == "srcset" for link in links)
    for link in links:
        assert resolve_url(link.url) == link.url
        link.alt.encode("utf-8")
    text = data.decode("utf-8", "replace")
    assert all(url and not url.endswith(",") for url in srcset_urls(text))
    check_url(text)


def check_url(text: str) -> None:
    """The canonical form is stable, and every name of a URL can be written."""
    page = canonical_page(text)
    assert canonical_page(page) == page
    for value in (page, url_key(text), host_of(text), *(episode_page(page, by) for by in ("page", "path", "host"))):
        value.encode("utf-8")


SEEDS = [
    b'text/html; charset=utf-8\n<base href="/b/"><img src="a.jpg" srcset="a.jpg 1x, b.jpg 2x" data-src="c.jpg" alt="x">',
    b"text/html\n<meta charset=gb18030><picture><source srcset=a.webp><img src=a.jpg></picture><noscript><img src=b.jpg></noscript>",
    b"\n\xff\xfe<\0i\0m\0g\0 \0s\0r\0c\0=\0a\0>\0",
    b'\n<meta property="og:image" content="//c.example/og.png"><meta name=robots content="noai"><meta name=tdm-reservation content=1>',
    b"text/html; charset=iso-2022-jp\n<div><amp-img src=data:image/png;base64,xx data-lazy-srcset='a 1w, b (2,3) 2w'>",
    b"https://user:pw@B.example:8080/%7e/../a;b?utm_source=x&b=2&a=%E4#frag",
    b"http://xn--bcher-kva.example/%zz?a=%26&amp;b&fbclid=1",
]

if __name__ == "__main__":
    fuzz(target, SEEDS)
