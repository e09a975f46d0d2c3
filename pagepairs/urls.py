"""URLs as browsers see them (the WHATWG rules, through ada), and the canonical form of a page's URL (through w3lib)."""

import functools

import ada_url
from w3lib.url import canonicalize_url, url_query_cleaner

from pagepairs.keys import text_key

# Parameters that name the visitor's way to the page, not the page.
_TRACKING = (
    *("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content", "utm_id", "utm_name", "utm_reader", "utm_cid"),
    *("fbclid", "gclid", "gclsrc", "dclid", "gbraid", "wbraid", "msclkid", "yclid", "twclid", "ttclid", "igshid", "li_fat_id"),
    *("mc_cid", "mc_eid", "_ga", "_gl", "_hsenc", "_hsmi", "mkt_tok", "oly_anon_id", "oly_enc_id", "vero_id", "wickedid", "spm"),
)


def resolve_url(reference: str, base: str | None = None) -> str | None:
    """Returns the absolute URL of a reference in a page, without its fragment; None if it is not http, https or a plain file name."""
    try:
        href = str((ada_url.URL(reference, base) if base else ada_url.URL(reference)).href)
    except ValueError:
        return None
    # In the normal form of these URLs the first # begins the fragment; asking ada for each part takes as long as parsing.
    return href.partition("#")[0] if href.startswith(("http:", "https:", "file:")) else None


def url_key(url: str) -> str:
    """Returns the join key of an absolute image URL: its query counts, its fragment does not."""
    return text_key(resolve_url(url) or url)


@functools.lru_cache(maxsize=65_536)
def canonical_page(url: str) -> str:
    """Returns the page's URL without fragment and tracking parameters, its query sorted."""
    resolved = resolve_url(url)
    if resolved is None:
        return url.encode("utf-8", "replace").decode()
    return str(canonicalize_url(url_query_cleaner(resolved, _TRACKING, remove=True, unique=False)))


def host_of(url: str) -> str:
    """Returns the host name of a URL, "" where there is none."""
    try:
        return str(ada_url.URL(url).hostname)
    except ValueError:
        return ""


def path_of(url: str) -> str:
    """Returns the path of a page's URL without its parameters (;jsessionid=...), the URL itself where it has none."""
    try:
        return str(ada_url.URL(url).pathname).partition(";")[0]
    except ValueError:
        return url


def episode_page(url: str, group_by: str) -> str:
    """Returns what names the episode of a canonical page URL: the page, its folder (`path`) or its host."""
    if group_by == "page":
        return url
    parsed = ada_url.URL(url) if ada_url.check_url(url) else None
    if parsed is None:
        return url.rsplit("/", 1)[0]
    return f"{parsed.origin}{parsed.pathname.rsplit('/', 1)[0]}/" if group_by == "path" else str(parsed.origin)
