"""Tars of samples, as webdataset and img2dataset write them: the members of a sample share all of their name before its first dot."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pagepairs.config import ScanConfig
from pagepairs.files import open_read
from pagepairs.stores import size_of
from pagepairs.urls import canonical_page, resolve_url
from pipeline.sources.folder import IMAGE_SUFFIXES, file_url
from pipeline.sources.frames import DamageError, Gunzipped, Readable
from pipeline.sources.records import ErrorRecord, ImageRecord, LinkRecord, PageRecord, Record, ScanUnit, hash64, safe_alt, safe_text
from pipeline.sources.tar_members import Member, tar_members

PARENT_OF_URL = "parent-of-url"
_URL_KEYS = ("url", "image_url")
_ALT_KEYS = ("caption", "alt", "text")
_MAX_SIDECAR_BYTES = 1_000_000
_SAMPLES_LOOKED_AT = 32
_COMPRESSED = (".gz", ".tgz")


@dataclass(slots=True, kw_only=True)
class _Sample:
    """What the text members of a sample say."""

    index: int  # among all samples of the tar
    page_url: str = ""
    image_url: str = ""
    alt: str = ""
    error: str = "it has no JSON member"
    images: list[Member] = field(default_factory=list)


def find_pieces(path: str, config: ScanConfig, cut_bytes: int) -> list[tuple[int, int]]:
    """Returns the byte ranges that a tar is read in; a sample belongs to the one in which its first member begins.

    Raises:
      ValueError: if no sample at the beginning says which page its image stands on.
    """
    _check_pages(path, config)
    size = size_of(path)
    cuts = [0]
    if size > cut_bytes and not _is_compressed(path):
        with open_read(path) as file:
            try:
                for member in tar_members(file):
                    if member.offset - cuts[-1] >= cut_bytes:
                        cuts.append(member.offset)
            except DamageError:
                pass  # whoever reads the tar finds it again, and reports it
    return list(zip(cuts, [*cuts[1:], size], strict=True))


def read_tar(unit: ScanUnit, config: ScanConfig) -> Iterator[Record]:
    """Yields an image and a link an image member, in the order of the tar, and each page of the unit once.

    Members are grouped by name wherever they stand: a first pass over the headers reads the text members, a second one the images.
    """
    damage: list[ErrorRecord] = []
    with _open(unit.path) as file:
        samples = _Samples(unit, config)
        try:
            for member in tar_members(file):
                samples.add(member, file)
        except DamageError as error:
            damage.append(ErrorRecord(reason="broken_archive", detail=f"{unit.source} at offset {error.offset}: {error}"))
    with _open(unit.path) as file:  # a compressed one cannot go back
        pages: set[str] = set()
        for sample, number, member in samples.images():
            image = _read_image(unit, config, file, sample=sample, number=number, member=member)
            if isinstance(image, ImageRecord) and sample.page_url not in pages:
                pages.add(sample.page_url)
                yield PageRecord(url=sample.page_url)
            yield image
            if isinstance(image, ImageRecord):
                yield _link(unit, sample, image.url)
    yield from samples.errors
    yield from damage


class _Samples:
    """Groups the members of a tar by sample; keeps those that begin within the unit."""

    def __init__(self, unit: ScanUnit, config: ScanConfig) -> None:
        self._unit, self._config = unit, config
        self._whole = _is_compressed(unit.path)
        self._samples: dict[str, _Sample | None] = {}  # None: of another unit
        self._count = 0
        self.errors: list[ErrorRecord] = []

    def add(self, member: Member, file: Readable) -> None:
        """Takes the next member."""
        key, suffix = _split(member.name)
        if not suffix:
            return
        is_image = f".{suffix.rpartition('.')[2]}" in IMAGE_SUFFIXES
        if not member.is_inside:
            if is_image and self._is_ours(member):
                detail = f"{self._unit.source} at offset {member.offset}: {safe_text(member.name)!r} is a link, or leads out of the tar"
                self.errors.append(ErrorRecord(reason="broken_record", detail=detail))
            return
        if key not in self._samples:
            self._samples[key] = _Sample(index=self._count) if self._is_ours(member) else None
            self._count += 1
        sample = self._samples[key]
        if sample is None:
            return
        if is_image:
            sample.images.append(member)
        elif suffix == "json":
            _take_json(sample, _read_text(file, member), self._config.page_url_key)
        elif suffix == "txt" and not sample.alt:
            sample.alt = safe_alt((_read_text(file, member) or b"").decode("utf-8", "replace"))

    def images(self) -> list[tuple[_Sample, int, Member]]:
        """Returns the image members with their samples and their number within these, in the order of the tar."""
        found = [
            (sample, number, member)
            for sample in self._samples.values()
            if sample is not None
            for number, member in enumerate(sample.images)
        ]
        return sorted(found, key=lambda entry: entry[2].offset)

    def _is_ours(self, member: Member) -> bool:
        return self._whole or self._unit.start <= member.offset < self._unit.stop


def _read_image(
    unit: ScanUnit, config: ScanConfig, file: Readable, *, sample: _Sample, number: int, member: Member
) -> ImageRecord | ErrorRecord:
    label = f"{unit.source} at offset {member.offset}: {safe_text(member.name)}"
    if sample.error:
        return ErrorRecord(reason="broken_record", detail=f"{label}: {sample.error}")
    body, reason, detail = b"", "", ""
    if member.size > config.max_bytes:
        reason, detail = "too_many_bytes", f"{member.size} bytes"
    else:
        try:
            file.seek(member.start)
            body = file.read(member.size)
        except DamageError as error:
            return ErrorRecord(reason="broken_record", detail=f"{label}: {error}")
        if len(body) < member.size:
            return ErrorRecord(reason="broken_record", detail=f"{label}: the file ends within it")
    # The URL names one image; more of them in a sample get names of their own.
    url = sample.image_url if sample.image_url and not number else file_url(f"{unit.source}/{member.name}")
    spill = _is_compressed(unit.path)
    return ImageRecord(
        url=url, body=body, source=unit.source, offset=member.start, length=member.size, reason=reason, detail=detail, spill=spill
    )


def _link(unit: ScanUnit, sample: _Sample, url: str) -> LinkRecord:
    return LinkRecord(
        page_url=sample.page_url,
        capture=hash64(unit.source),
        page_time_ms=None,
        image_url=url,
        position=min(sample.index, 2**31 - 1),
        alt=sample.alt,
        via="webdataset",
    )


def _split(name: str) -> tuple[str, str]:
    """Splits a member's name into the key of its sample and its suffix, both "" where it has none."""
    folder, slash, last = name.removeprefix("./").rpartition("/")
    stem, dot, suffix = last.partition(".")
    return (folder + slash + stem, suffix.lower()) if dot and stem else ("", "")


def _read_text(file: Readable, member: Member) -> bytes | None:
    """Returns the content of a text member, None if it is too long or cut off."""
    if member.size > _MAX_SIDECAR_BYTES:
        return None
    file.seek(member.start)
    text = file.read(member.size)
    return text if len(text) == member.size else None


def _parse(text: bytes | None) -> dict[str, Any] | str:
    """Returns what a JSON member holds; a string says what is wrong with it."""
    try:
        values = json.loads(text or b"")
    except (ValueError, RecursionError) as error:
        return f"its JSON member cannot be read: {error}"
    return values if isinstance(values, dict) else "its JSON member holds no object"


def _take_json(sample: _Sample, text: bytes | None, page_url_key: str) -> None:
    values = _parse(text)
    if isinstance(values, str):
        sample.error = values
        return
    url, page = _first_text(values, _URL_KEYS), _page_of(values, page_url_key)
    sample.error = "" if page else f"its JSON member says no {page_url_key}"
    sample.page_url = canonical_page(page)
    sample.image_url = resolve_url(url, page) or resolve_url(url) or url if url and page else ""
    sample.alt = safe_alt(_first_text(values, _ALT_KEYS)) or sample.alt


def _page_of(values: dict[str, Any], page_url_key: str) -> str:
    if page_url_key == PARENT_OF_URL:
        url = _first_text(values, _URL_KEYS)
        return (url and resolve_url(".", url)) or ""
    return _first_text(values, (page_url_key,))


def _first_text(values: dict[str, Any], names: tuple[str, ...]) -> str:
    found = (values.get(name) for name in names)
    return next((safe_text(text.strip()) for text in found if isinstance(text, str) and text.strip()), "")


def _check_pages(path: str, config: ScanConfig) -> None:
    suffixes: dict[str, None] = {}
    keys: dict[str, None] = {}
    looked, has_images = 0, False
    with _open(path) as file:
        try:
            for member in tar_members(file):
                suffix = _split(member.name)[1]
                if not suffix or not member.is_inside:
                    continue
                suffixes[safe_text(suffix)] = None
                has_images = has_images or f".{suffix.rpartition('.')[2]}" in IMAGE_SUFFIXES
                values = _parse(_read_text(file, member)) if suffix == "json" else ""
                if isinstance(values, dict):
                    if _page_of(values, config.page_url_key):
                        return
                    keys |= dict.fromkeys(safe_text(name) for name in values)
                    looked += 1
                    if looked == _SAMPLES_LOOKED_AT:
                        break
        except DamageError:
            return  # whoever reads it reports it
    if has_images:
        seen = f"the JSON of its samples has the keys {_some(keys)}" if keys else f"its samples have members {_some(suffixes)} but no JSON"
        raise ValueError(
            f"{path} says not on which page its images stand: {seen}; give --page-url-key with the key that holds the page's URL, or "
            f"--page-url-key {PARENT_OF_URL} to take the folder of the image's URL for a page"
        )


def _some(names: dict[str, None]) -> str:
    shown = [name[:40] for name in list(names)[:20]]
    return ", ".join(shown) + (", ..." if len(names) > len(shown) else "")


def _is_compressed(path: str) -> bool:
    return path.lower().endswith(_COMPRESSED)


@contextmanager
def _open(path: str) -> Iterator[Readable]:
    with open_read(path) as file:
        yield Gunzipped(file) if _is_compressed(path) else file
