"""The background images that a style sheet, or a style attribute, names."""

import re

_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)", re.DOTALL)
_STRING = r"\"[^\"\n]*+\"|'[^'\n]*+'"
_BACKGROUND = re.compile(rf"\bbackground(?:-image)?\s*:((?:{_STRING}|url\([^)]*+(?:\)|\Z)|[^;{{}}])*+)", re.IGNORECASE)
_URL = re.compile(rf"\burl\(\s*+(?:({_STRING})|((?:\\[0-9a-fA-F]{{1,6}}\s?|\\.|[^()\"'\s\\])*+))\s*+\)", re.IGNORECASE)
_ESCAPE = re.compile(r"\\(?:([0-9a-fA-F]{1,6})\s?|(.))")


def background_urls(css: str) -> list[list[str]]:
    """Returns the URLs of each background or background-image declaration that names any, in order."""
    lower = css.lower()
    if "url(" not in lower or "background" not in lower:
        return []
    values = (declaration[1] for declaration in _BACKGROUND.finditer(_COMMENT.sub(" ", css)))
    found = ([_unescape(quoted[1:-1] or bare) for quoted, bare in _URL.findall(value)] for value in values)
    return [urls for urls in found if urls]


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda found: _character(found[1]) if found[1] else found[2], text) if "\\" in text else text


def _character(digits: str) -> str:
    code = int(digits, 16)
    return chr(code) if 0 < code < 0x110000 and not 0xD800 <= code < 0xE000 else "\ufffd"
