"""What a source yields: images, pages, links, aliases and errors, and the units that a crawl's files are cut into."""

import hashlib
from dataclasses import dataclass

from pagepairs.keys import text_key

_MAX_ALT_CHARACTERS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanUnit:
    """A piece of one input file or folder.

    `start` and `stop` count what the kind of source counts: bytes of an archive or a text file, row groups of a Parquet file, files of a
    folder.
    """

    name: str  # 16 hex characters, a hash of source and start
    source: str  # relative to the input's root, with / between folders
    path: str  # where the file or folder lies
    kind: str
    start: int
    stop: int
    root: str = ""  # the folder that `source` is relative to
    rows_before: int = 0  # of a table of text: rows of the file before `start`
    version: str = ""  # tells one state of the file or folder from another; "" where nobody looked


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """One image response, table row or file."""

    url: str
    body: bytes  # after transfer and content decoding
    source: str
    offset: int
    length: int
    time_ms: int | None = None
    digest_key: str = ""
    opt_out: str = ""
    reason: str = ""  # why it is dropped, where the source sees it
    detail: str = ""
    spill: bool = False  # True: (source, offset, length) cannot be read in place


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRecord:
    """One capture of a page."""

    url: str
    time_ms: int | None = None
    opt_out: str = ""
    title: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkRecord:
    """One URL that a page names as an image; the alternatives of one element share `position`."""

    page_url: str
    capture: int
    page_time_ms: int | None
    image_url: str
    position: int
    alt: str
    via: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasRecord:
    """A URL whose content stands under another URL, or under `digest:<payload digest>`."""

    url: str
    target: str
    kind: str  # redirect or revisit


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorRecord:
    """Something that could not be read at all."""

    reason: str
    detail: str


Record = ImageRecord | PageRecord | LinkRecord | AliasRecord | ErrorRecord


def hash64(text: str) -> int:
    """Returns 64 bits that stand for a text, the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def unit_name(source: str, start: int) -> str:
    """Returns the name of the unit of `source` that begins at `start`."""
    return format(hash64(f"{source}\n{start}"), "016x")


def digest_target(digest: str) -> str:
    """Returns what a revisit record points to when it names no URL."""
    return f"digest:{digest.strip()}"


def digest_key(digest: str) -> str:
    """Returns the key under which an image is found by its payload digest; "" where there is none."""
    return text_key(digest_target(digest)) if digest.strip() else ""


def safe_text(text: str) -> str:
    """Returns the text with whatever cannot be written as UTF-8 replaced."""
    return text.encode("utf-8", "replace").decode()


def safe_alt(text: str | None) -> str:
    """Returns an alternative text, cut to 1 000 characters."""
    return safe_text((text or "")[:_MAX_ALT_CHARACTERS])
