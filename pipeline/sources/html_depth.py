"""Pages that nest deeper than any browser goes: found before they are parsed, and made flat.

Browsers nest 512 levels; the time of a conforming parser grows with the square of the depth (100 000 levels: 8 s).
"""

import re
from collections import defaultdict

import numpy as np

_MAX_DEPTH = 1_000
_MANY_TAGS = 20_000
_TAG = re.compile(rb"<(/?)([a-zA-Z][^\s/<>]*)")
_FLAT_TAGS = frozenset(
    (
        *(b"area", b"br", b"col", b"embed", b"hr", b"img", b"input", b"link", b"meta", b"source", b"track", b"wbr"),
        *(b"p", b"li", b"td", b"th", b"tr", b"dd", b"dt", b"option", b"tbody", b"thead", b"tfoot"),
    )
)
_NESTING_TAG = re.compile(
    rb"</?(?!(?:img|base|meta|script|style|title|textarea|xmp|iframe|noembed|noframes|plaintext)[\s/>])[a-zA-Z][^<>]*>?", re.IGNORECASE
)
_NAME_BYTES = 8
_NAME_ENDS = np.isin(np.arange(256), list(b"\0\t\n\v\f\r /<>"))
_FLAT_PAIRS = np.isin(np.arange(2**16) | 0x2020, [int.from_bytes(name, "little") for name in _FLAT_TAGS if len(name) == 2])
_LETTERS = np.arange(ord("a"), ord("z") + 1, dtype=np.uint64)
_FLAT_NAMES = np.array([int.from_bytes(name.ljust(_NAME_BYTES, b"\0"), "little") for name in sorted(_FLAT_TAGS)], "<u8")


def flatten(html: bytes) -> bytes:
    """Removes the elements that nest from a page that nests too deep; its images then stand one by one."""
    if len(html) <= 3 * _MANY_TAGS or (tags := html.count(b"<")) <= _MANY_TAGS or tags - html.count(b"</") <= _MANY_TAGS:
        return html
    name_N, step_N = _nesting_tags(html)
    if np.count_nonzero(step_N > 0) <= _MANY_TAGS or _deepest(name_N, step_N) <= _MAX_DEPTH or not _depth_exceeds(html, _MAX_DEPTH):
        return html
    return _NESTING_TAG.sub(b"", html)


def _depth_exceeds(html: bytes, limit: int) -> bool:
    """Tells whether more than `limit` elements are open anywhere: an end tag closes the last open element of its name, if there is one."""
    depth = 0
    open_tags: dict[bytes, int] = defaultdict(int)
    for tag in _TAG.finditer(html):
        name = tag[2].lower()
        if name in _FLAT_TAGS:
            continue
        if not tag[1]:
            open_tags[name] += 1
            depth += 1
            if depth > limit:
                return True
        elif open_tags[name]:
            open_tags[name] -= 1
            depth -= 1
    return False


def _nesting_tags(html: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Returns name and step of each tag that nests, for a bound of what `_depth_exceeds` counts, in a tenth of its time.

    N = tags, K = bytes of a name.

    Returns:
      name_N: uint64, its first 8 bytes.
      step_N: int64, 1 for a start tag and -1 for an end tag, whose longer names are left out: they would close elements of other names.
    """
    data = np.frombuffer(html + bytes(_NAME_BYTES + 2), np.uint8)
    words = np.ndarray((len(html) + 2,), "<u8", buffer=data, strides=(1,))  # the 8 bytes from each byte on
    at_N = np.flatnonzero(data == ord("<")) + 1
    closes_N = data[at_N] == ord("/")
    at_N += closes_N
    cells_N = _FLAT_PAIRS[words[at_N] & np.uint64(0xFFFF)] & _NAME_ENDS[data[at_N + 2]]  # most tags of the longest pages: soon gone
    at_N, closes_N = at_N[~cells_N], closes_N[~cells_N]
    name_NK = words[at_N].view(np.uint8).reshape(-1, _NAME_BYTES)
    ended_NK = np.logical_or.accumulate(_NAME_ENDS[name_NK], axis=1)
    name_N = np.where(ended_NK, 0, name_NK | np.uint8(0x20)).view("<u8").ravel()
    letter_N = np.isin(name_N & np.uint64(0xFF), _LETTERS)
    short_N = ended_NK[:, -1] | _NAME_ENDS[data[at_N + _NAME_BYTES]]
    counts_N = letter_N & ~np.isin(name_N, _FLAT_NAMES) & (short_N | ~closes_N)
    return name_N[counts_N], np.where(closes_N[counts_N], -1, 1)


def _deepest(name_N: np.ndarray, step_N: np.ndarray) -> int:
    """Returns the largest sum over all names of how many elements of that name are open, which never falls below 0."""
    order_N = np.argsort(name_N, kind="stable")
    name_N = name_N[order_N]
    first_N = np.append(True, name_N[1:] != name_N[:-1])[: len(name_N)]
    sum_N = np.cumsum(step_N[order_N])
    before_N = (sum_N - step_N[order_N])[first_N][np.cumsum(first_N) - 1]
    apart_N = (np.cumsum(first_N) - 1) * (2 * len(name_N) + 1)  # keeps the lowest of one name out of the next
    lowest_N = np.minimum.accumulate(sum_N - before_N - apart_N) + apart_N
    open_N = sum_N - before_N - np.minimum(lowest_N, 0)
    change_N = np.diff(open_N, prepend=0)
    change_N[first_N] = open_N[first_N]
    total_N = np.empty_like(change_N)
    total_N[order_N] = change_N
    return int(np.cumsum(total_N).max(initial=0))
