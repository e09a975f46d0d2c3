"""Drops sprite sheets: many small pictures in one file, told by its name; size and shape do not tell them from photos."""

import re
from urllib.parse import urlsplit

_PART = r"(?:icons?|css|ui|nav|menu|social|flags?|buttons?|btn|emoji|global|common|main|site|header|footer)"
_END = r"(?:icons?|sheet|css|all|main|min|\d+x?|v\d+|[0-9a-f]{6,})"
# A name that says more is kept: a drink and a spirit are called sprite, too.
_SHEET = re.compile(rf"(?:{_PART}[-_.]*)*sprites?(?:[-_.@]*{_END})*", re.IGNORECASE)


def sprite(url: str) -> str:
    """Returns sprite if the file name of an image's URL is that of a sheet: sprite.png, icons-sprite@2x.png, sprites-3f2a9c.webp."""
    stem = urlsplit(url).path.rpartition("/")[2].rpartition(".")[0]
    return "sprite" if _SHEET.fullmatch(stem) else ""
