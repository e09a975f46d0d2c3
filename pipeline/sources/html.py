"""The images that an HTML page names, in page order, its title, and what its owner says against training."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from selectolax.lexbor import LexborHTMLParser, LexborNode
from w3lib.encoding import html_body_declared_encoding, http_content_type_encoding, read_bom, to_unicode

from filters.opt_out import opt_out_directive
from pagepairs.urls import resolve_url
from pipeline.sources.css import background_urls
from pipeline.sources.html_depth import flatten
from pipeline.sources.records import safe_alt, safe_text

_LAZY_URLS = (
    *("data-src", "data-original", "data-lazy-src", "data-lazy", "data-original-src", "data-actualsrc", "data-echo", "data-hi-res-src"),
    *("data-full-src", "data-image-src", "data-img-src", "data-large-file", "data-orig-file", "data-src-retina", "data-fallback-src"),
)
_LAZY_SETS = ("data-srcset", "data-lazy-srcset", "data-original-set", "data-original-srcset")
_OG_IMAGE = ("og:image", "og:image:url", "og:image:secure_url")
_IMAGES = ("img", "amp-img")
_ELEMENTS = 'img, amp-img, picture source, [style*="url(" i]'
_PARTS = ("base", "link", "meta", "noscript", "style", "title")
_SELECTOR = f'base[href], head > title, noscript, link[rel~="preload" i][as="image" i], style, meta[content], {_ELEMENTS}'
_MAX_TITLE_CHARACTERS = 300
_PICTURE_DEPTH = 3  # elements between an img and its picture, at most

# The encodings of the WHATWG standard, by the names that Python gives them: a page must not choose any other codec.
_ENCODINGS = frozenset(
    (
        *("utf-8", "utf-16", "utf-16-le", "utf-16-be", "cp866", "cp874", "koi8-r", "koi8-u", "mac-roman"),
        *(f"iso8859-{part}" for part in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)),
        *(f"cp{page}" for page in range(1250, 1259)),
        *("gb18030", "big5hkscs", "euc_jp", "iso2022_jp", "cp932", "cp949"),
    )
)

_SRCSET_URL = re.compile(r"[\s,]*(\S+)")
_SRCSET_DESCRIPTORS = re.compile(r"(?:[^,(]++|\([^)]*+\)?)*+")


_Nodes = dict[str, list[LexborNode]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PageLink:
    """One URL that a page names as an image."""

    url: str
    position: int
    alt: str
    via: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What a page says.

    The links stand in page order; then preloaded images, backgrounds of style sheets in the page, and og:image. The alternatives of one
    element share a position: src, srcset, lazy attributes, the sources of the picture around it, the noscript fallback after it, its
    background. A URL appears once a position.
    """

    links: list[PageLink]
    opt_out: str  # "" or the directive of a robots or tdm-reservation meta element
    title: str  # its white space collapsed, cut to 300 characters


def read_page(html: bytes, content_type: str | None, page_url: str) -> Page:
    """Returns what a page says.

    Args:
      html: body of the page, decoded but for its charset.
      content_type: the Content-Type header, for its charset.
      page_url: the URL that relative references start from, unless the page has a base element.
    """
    nodes = _nodes(LexborHTMLParser(flatten(utf8_html(html, content_type))))
    base = _base_url(nodes, page_url)
    links: list[PageLink] = []
    seen: set[tuple[int, str]] = set()
    elements = list(_elements(nodes))
    free = max((position for position, *_ in elements), default=-1) + 1
    for position, via, reference, alt in [*elements, *_of_the_page(nodes, free)]:
        url = resolve_url(reference, base) if reference else None
        if url is not None and (position, url) not in seen:
            seen.add((position, url))
            links.append(PageLink(url=url, position=position, alt=alt, via=via))
    return Page(links=links, opt_out=_opt_out(nodes), title=_title(nodes))


def utf8_html(html: bytes, content_type: str | None) -> bytes:
    """Returns a page as UTF-8, its charset found as browsers do: byte order mark, HTTP header, meta element, UTF-8, windows-1252."""
    encoding, mark = read_bom(html)
    if encoding is not None and mark is not None:
        return _recode(html[len(mark) :], encoding)
    encoding = http_content_type_encoding(content_type)
    if encoding in _ENCODINGS:
        return _recode(html, encoding)
    encoding = html_body_declared_encoding(html[:4096])
    if encoding in _ENCODINGS:
        # A page whose meta element could be read is not UTF-16.
        return _recode(html, "utf-8" if encoding.startswith("utf-16") else encoding)
    return html if _is_utf8(html) else _recode(html, "cp1252")


def _recode(html: bytes, encoding: str) -> bytes:
    return html if (encoding == "utf-8" and _is_utf8(html)) else to_unicode(html, encoding).encode("utf-8", "replace")


def _is_utf8(html: bytes) -> bool:
    try:
        return html.isascii() or bool(html.decode())
    except UnicodeDecodeError:
        return False


def srcset_urls(srcset: str) -> list[str]:
    """Returns the URLs of a srcset attribute, split as the HTML standard says: a comma inside a URL belongs to it."""
    urls, at = [], 0
    while (found := _SRCSET_URL.match(srcset, at)) is not None:
        url = found[1].rstrip(",")
        at = found.end()
        if url == found[1]:
            descriptors = _SRCSET_DESCRIPTORS.match(srcset, at)
            assert descriptors is not None
            at = descriptors.end()
        if url:
            urls.append(url)
    return urls


def _nodes(tree: LexborHTMLParser) -> _Nodes:
    """Returns the elements that matter, by tag, in page order; those that may show images under "".

    One walk over the tree finds all of them: a walk over a large page takes as long as a fifth of parsing it.
    """
    nodes: _Nodes = {"": [], **{tag: [] for tag in _PARTS}}
    for node in tree.css(_SELECTOR):
        tag = node.tag
        nodes[tag if tag in _PARTS else ""].append(node)
    return nodes


def _base_url(nodes: _Nodes, page_url: str) -> str:
    reference = next((base.attributes.get("href") for base in nodes["base"]), None)
    return (resolve_url(reference, page_url) if reference else None) or page_url


def _title(nodes: _Nodes) -> str:
    text = next((title.text()[: 2 * _MAX_TITLE_CHARACTERS] for title in nodes["title"]), "")
    return safe_text(" ".join(text.split())[:_MAX_TITLE_CHARACTERS].rstrip())


def _elements(nodes: _Nodes) -> Iterator[tuple[int, str, str, str]]:
    """Yields (position, via, reference, alt) of every image element and every source of a picture, in page order."""
    fallbacks = _noscript_fallbacks(nodes)
    positions: dict[int, int] = {}  # of images and pictures, by node
    count = 0
    for node in nodes[""]:
        picture = _picture_of(node)
        owner = picture if picture is not None else fallbacks.get(node.mem_id, node.mem_id)
        if owner not in positions:
            positions[owner] = count
            count += 1
        position = positions[owner]
        attributes = node.attributes
        alt = safe_alt(attributes.get("alt"))
        for via, reference in _references(attributes, node.tag):
            yield position, via, reference, alt


def _references(attributes: dict[str, str | None], tag: str | None) -> Iterator[tuple[str, str]]:
    for urls in background_urls(attributes.get("style") or ""):
        for url in urls:
            yield "css", url
    if tag not in (*_IMAGES, "source"):
        return
    via = "picture" if tag == "source" else "img"
    if via == "img" and (source := attributes.get("src")):
        yield via, source
    if srcset := attributes.get("srcset"):
        for url in srcset_urls(srcset):
            yield "srcset" if via == "img" else via, url
    for name, value in attributes.items():
        if not value or not name.startswith("data-"):
            continue
        if name in _LAZY_URLS and any(mark in value for mark in "./?"):  # data-lazy="true" is a switch, not a URL
            yield "lazy", value
        elif name in _LAZY_SETS:
            for url in srcset_urls(value):
                yield "lazy", url


def _picture_of(node: LexborNode) -> int | None:
    parent = node.parent
    for _ in range(_PICTURE_DEPTH):
        if parent is None:
            return None
        if parent.tag == "picture":
            return parent.mem_id
        parent = parent.parent
    return None


def _noscript_fallbacks(nodes: _Nodes) -> dict[int, int]:
    """Maps the one image of a noscript element to the lazy image (or its picture) directly before that element."""
    owners = {}
    for noscript in nodes["noscript"]:
        before = noscript.prev
        while before is not None and before.is_text_node and not (before.text_content or "").strip():
            before = before.prev
        images = noscript.css("img, amp-img") if before is not None and before.tag in (*_IMAGES, "picture") else []
        if before is not None and len(images) == 1 and _is_lazy(before):
            owners[images[0].mem_id] = before.mem_id
    return owners


def _is_lazy(node: LexborNode) -> bool:
    image = node if node.tag in _IMAGES else node.css_first("img, amp-img")
    if image is None:
        return True
    attributes = image.attributes
    source = attributes.get("src") or ""
    return not source or source.startswith("data:") or any(name in attributes for name in (*_LAZY_URLS, *_LAZY_SETS))


def _of_the_page(nodes: _Nodes, position: int) -> Iterator[tuple[int, str, str, str]]:
    """Yields (position, via, reference, alt) of the images that stand at no place in the page, from a position on."""
    for via, references in [*_preloaded(nodes), *_backgrounds(nodes), *_og_images(nodes)]:
        for reference in references:
            yield position, via, reference, ""
        position += 1


def _preloaded(nodes: _Nodes) -> Iterator[tuple[str, list[str]]]:
    for node in nodes["link"]:
        attributes = node.attributes
        yield "preload", [attributes.get("href") or "", *srcset_urls(attributes.get("imagesrcset") or "")]


def _backgrounds(nodes: _Nodes) -> Iterator[tuple[str, list[str]]]:
    for node in nodes["style"]:
        for urls in background_urls(node.text()):
            yield "css", urls


def _og_images(nodes: _Nodes) -> Iterator[tuple[str, list[str]]]:
    """Yields the URLs of each og:image: further properties that follow it name the same image."""
    urls: list[str] = []
    for node in nodes["meta"]:
        attributes = node.attributes
        name = (attributes.get("property") or attributes.get("name") or "").strip().lower()
        if name in _OG_IMAGE and (content := attributes.get("content")):
            if name == "og:image" and urls:
                yield "og", urls
                urls = []
            urls.append(content)
    if urls:
        yield "og", urls


def _opt_out(nodes: _Nodes) -> str:
    values: dict[str, list[str]] = {"robots": [], "tdm-reservation": []}
    for node in nodes["meta"]:
        attributes = node.attributes
        name = (attributes.get("name") or "").strip().lower()
        if name in values:
            values[name].append(attributes.get("content") or "")
    return opt_out_directive((name, value) for name, said in values.items() for value in said)
