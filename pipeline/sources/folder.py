"""Folders of images: the parent folder is the page, and its files stand on it in the order of their names."""

import os
from collections.abc import Iterator
from urllib.parse import quote

from pagepairs.config import ScanConfig
from pagepairs.files import open_read
from pagepairs.stores import names_in, store_of
from pagepairs.urls import canonical_page
from pipeline.sources.records import ImageRecord, LinkRecord, PageRecord, Record, ScanUnit, hash64, safe_text

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif")
_FILES_PER_UNIT = 1_000


def image_names(path: str) -> list[str]:
    """Returns the names of the image files that stand directly in a folder, sorted."""
    return [name for name in names_in(path) if is_image_name(name)]


def is_image_name(name: str) -> bool:
    """Tells whether a file may be an image, by the end of its name."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def find_pieces(path: str, _config: ScanConfig, _cut_bytes: int) -> list[tuple[int, int]]:
    """Returns the runs of files that a folder is read in."""
    count = len(image_names(path))
    return [(start, min(start + _FILES_PER_UNIT, count)) for start in range(0, count, _FILES_PER_UNIT)]


def read_folder(unit: ScanUnit, config: ScanConfig) -> Iterator[Record]:
    """Yields the images of one folder, each with its link, and the folder as their page."""
    folder = "" if unit.source == "." else unit.source
    page_url = canonical_page(file_url(folder))
    yield PageRecord(url=page_url)
    for position, name in enumerate(image_names(unit.path)[unit.start : unit.stop], unit.start):
        url = file_url(f"{folder}/{name}" if folder else name)
        yield read_file(os.path.join(unit.path, name), url=url, source=f"{folder}/{name}" if folder else name, max_bytes=config.max_bytes)
        yield LinkRecord(
            page_url=page_url, capture=hash64(unit.source), page_time_ms=None, image_url=url, position=position, alt="", via="folder"
        )


def read_file(path: str, *, url: str, source: str, max_bytes: int) -> ImageRecord:
    """Returns a file as an image; one that is absent or longer than `max_bytes` has that as its reason."""
    stat = store_of(path).stat(path)
    if stat is None:
        return ImageRecord(url=url, body=b"", source=source, offset=0, length=0, reason="missing_file", detail=source)
    with open_read(path) as file:
        body = file.read(max_bytes + 1)
    if len(body) > max_bytes:
        size = stat.bytes
        return ImageRecord(url=url, body=b"", source=source, offset=0, length=size, reason="too_many_bytes", detail=f"{size} bytes")
    return ImageRecord(url=url, body=body, source=source, offset=0, length=len(body))


def file_url(relative: str) -> str:
    """Returns the URL of something that has none, by its name relative to the input's root."""
    return "file:///" + quote(safe_text(relative))
