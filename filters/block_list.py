"""Domains, URLs and images that a user wants to keep out."""

import re
from dataclasses import dataclass
from typing import Self

from pagepairs.files import read_bytes
from pagepairs.urls import canonical_page, host_of, resolve_url

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_DOMAIN = re.compile(r"[^\s/:@?#*]+\.[^\s/:@?#*.]+")
_COMMENT = re.compile(r"(^|\s)#.*")


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockList:
    """What is blocked; an empty list blocks nothing."""

    domains: frozenset[str] = frozenset()
    urls: frozenset[str] = frozenset()  # canonical
    image_ids: frozenset[str] = frozenset()

    @classmethod
    def read(cls, path: str) -> Self:
        """Returns what a text file lists: one domain, http(s) URL or sha256 of an image a line, `#` before a comment.

        A domain stands for its subdomains too; a URL for all spellings with its canonical form: no fragment, no tracking parameters.

        Raises:
          ValueError: if a line is none of these; names the line.
        """
        found: dict[str, set[str]] = {"domains": set(), "urls": set(), "image_ids": set()}
        for number, line in enumerate(read_bytes(path).removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
            entry = _COMMENT.sub("", line.decode("utf-8", "replace")).strip()
            if entry:
                kind, value = _parse(entry) or _refuse(path, number, entry)
                found[kind].add(value)
        return cls(**{kind: frozenset(values) for kind, values in found.items()})

    def blocks_url(self, url: str) -> bool:
        """Returns whether the URL of a page or an image, its host or a parent domain of it is blocked."""
        if self.urls and canonical_page(url) in self.urls:
            return True
        host = host_of(url).rstrip(".") if self.domains else ""
        while host:
            if host in self.domains:
                return True
            host = host.partition(".")[2]
        return False

    def blocks_id(self, image_id: str) -> bool:
        """Returns whether the image with this sha256, in lower-case hex, is blocked."""
        return image_id in self.image_ids


def _parse(entry: str) -> tuple[str, str] | None:
    if _SHA256.fullmatch(entry):
        return "image_ids", entry.lower()
    if entry.lower().startswith(("http://", "https://")):
        return ("urls", canonical_page(entry)) if resolve_url(entry) else None
    host = host_of(f"http://{entry}/") if _DOMAIN.fullmatch(entry.rstrip(".")) else ""
    return ("domains", host.rstrip(".")) if host else None


def _refuse(path: str, number: int, entry: str) -> tuple[str, str]:
    what = f"{path}, line {number}: {entry[:80]!r}"
    raise ValueError(f"{what} is no domain (example.org), no http(s) URL and no sha256: correct the line, or put # before it")
