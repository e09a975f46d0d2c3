"""Texts from the web, made safe to look at: on a page, in a terminal."""

import unicodedata
from urllib.parse import unquote, urlsplit

_INVISIBLE = ("Cc", "Cf", "Cs", "Zl", "Zp")  # control, format (direction marks among them), surrogates, line and paragraph separators


def plain(text: str | None) -> str:
    """Returns a text in which control, direction and other invisible characters are shown as U+FFFD."""
    return "".join("\ufffd" if unicodedata.category(character) in _INVISIBLE else character for character in text or "")


def address(url: str | None) -> str:
    """Returns a URL as people read it: its escapes undone, without scheme; safe to show, not to follow."""
    return plain(unquote(url or "").removeprefix("https://").removeprefix("http://"))


def link(url: str | None) -> str:
    """Returns a URL that may be followed, "" unless it is http or https."""
    try:
        return (url or "") if urlsplit(url or "").scheme in ("http", "https") else ""
    except ValueError:
        return ""


def shorten(text: str, characters: int = 500) -> str:
    """Returns at most so many characters of a text."""
    return text if len(text) <= characters else text[: characters - 1] + "…"
