"""What an owner says about training: X-Robots-Tag and robots meta with noai or noimageai, and the TDM Reservation Protocol."""

import re
from collections.abc import Iterable

_DIRECTIVES = ("noai", "noimageai", "tdm-reservation")
_WORDS = re.compile(r"[,;:\s]+")


def directive_of(name: str, content: str) -> str:
    """Returns noai, noimageai or tdm-reservation if a header or a meta element says so, else "".

    A directive for one crawler (`X-Robots-Tag: examplebot: noai`, `<meta name="examplebot">`) counts like one for all: its owner opted out.

    Args:
      name: of the header, or the `name` attribute of the meta element.
      content: the header's value, or the `content` attribute.
    """
    name = name.strip().lower()
    if name == "tdm-reservation":
        return name if content.strip() == "1" else ""
    if name not in ("x-robots-tag", "robots") and not name.endswith("bot"):
        return ""
    words = set(_WORDS.split(content.lower()))
    return next((directive for directive in _DIRECTIVES[:2] if directive in words), "")


def opt_out_directive(headers: Iterable[tuple[str, str]]) -> str:
    """Returns the first of noai, noimageai and tdm-reservation that headers or meta elements say, which may repeat, else ""."""
    said = {directive_of(name, value) for name, value in headers}
    return next((directive for directive in _DIRECTIVES if directive in said), "")
