"""Reads images again by their references: in any order asked for, from files in the order of their bytes."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from pagepairs.files import open_read
from pipeline.sources import decode_range
from pipeline.sources.http_body import BodyError

Reference = tuple[str, int, int]  # source, offset, length
_Asked = tuple[int, Reference]  # index among the references asked for

_MAX_GAP_BYTES = 64 * 1024  # reading over a gap of this size is cheaper than seeking
_MAX_READ_BYTES = 16 * 1024 * 1024
_WINDOW_ITEMS = 512
_WINDOW_BYTES = 128 * 1024 * 1024
_MAX_BODY_BYTES = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceChanged:
    """The bytes behind a reference are no longer what scan found there; `detail` says how."""

    detail: str

    def __str__(self) -> str:
        return self.detail


def read_images(references: Sequence[tuple[str, str, int, int]], locate: Callable[[str], str]) -> Iterator[bytes | SourceChanged]:
    """Yields the image behind each (image_id, source, offset, length) in the order asked for; any other content there is SourceChanged."""
    bodies = read_bodies([reference[1:] for reference in references], locate)
    for (image_id, source, offset, _), body in zip(references, bodies, strict=True):
        if isinstance(body, bytes) and hashlib.sha256(body).hexdigest() != image_id:
            yield SourceChanged(detail=f"{source} at offset {offset}: other content than scan found")
        else:
            yield body


def read_bodies(references: Sequence[Reference], locate: Callable[[str], str]) -> Iterator[bytes | SourceChanged]:
    """Yields the body behind each reference, in the order asked for.

    References are taken 512, or 128 MiB of ranges, at a time; within them each file is opened once and neighbouring ranges are read
    together. A body is yielded as soon as those asked for before it are read: at once where the references are sorted.

    Args:
      references: (source, offset, length) as in images/.
      locate: source -> path; raises LookupError where the inputs hold it no more.
    """
    for window in _windows(references):
        bodies: dict[int, bytes | SourceChanged] = {}
        waiting = deque(index for index, _ in window)
        for source, asked in _by_source(window):
            for index, body in _read_source(source, asked, locate):
                bodies[index] = body
                while waiting and waiting[0] in bodies:
                    yield bodies.pop(waiting.popleft())


def read_body(reference: Reference, locate: Callable[[str], str]) -> bytes | SourceChanged:
    """Returns the body behind one reference."""
    return next(read_bodies([reference], locate))


def _windows(references: Sequence[Reference]) -> Iterator[list[_Asked]]:
    window: list[_Asked] = []
    total_bytes = 0
    for index, reference in enumerate(references):
        if window and (len(window) == _WINDOW_ITEMS or total_bytes + reference[2] > _WINDOW_BYTES):
            yield window
            window, total_bytes = [], 0
        window.append((index, reference))
        total_bytes += reference[2]
    if window:
        yield window


def _by_source(window: list[_Asked]) -> Iterator[tuple[str, list[_Asked]]]:
    sources: dict[str, list[_Asked]] = {}
    for index, reference in sorted(window, key=lambda asked: asked[1]):
        sources.setdefault(reference[0], []).append((index, reference))
    yield from sources.items()


def _read_source(source: str, asked: list[_Asked], locate: Callable[[str], str]) -> Iterator[tuple[int, bytes | SourceChanged]]:
    try:
        file = open_read(locate(source))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, LookupError) as error:
        for index, _ in asked:
            yield index, SourceChanged(detail=f"{source}: {error}")
        return
    with file:
        for run in _runs(asked):
            yield from _read_run(file, run)


def _runs(asked: list[_Asked]) -> Iterator[list[_Asked]]:
    """Yields ranges that are read together; `asked` is sorted by offset."""
    run: list[_Asked] = []
    start = end = 0
    for index, (source, offset, length) in asked:
        if run and (offset - end > _MAX_GAP_BYTES or offset + length - start > _MAX_READ_BYTES):
            yield run
            run = []
        if not run:
            start = end = offset
        run.append((index, (source, offset, length)))
        end = max(end, offset + length)
    yield run


def _read_run(file: BinaryIO, run: list[_Asked]) -> Iterator[tuple[int, bytes | SourceChanged]]:
    start = run[0][1][1]
    file.seek(start)
    block = file.read(max(offset + length for _, (_, offset, length) in run) - start)
    for index, (source, offset, length) in run:
        raw = block[offset - start : offset - start + length]
        yield index, _decode(source, offset, length, raw)


def _decode(source: str, offset: int, length: int, raw: bytes) -> bytes | SourceChanged:
    if len(raw) < length:
        return SourceChanged(detail=f"{source} at offset {offset}: {len(raw)} of {length} bytes left")
    try:
        return decode_range(source, raw, _MAX_BODY_BYTES)
    except BodyError as error:
        return SourceChanged(detail=f"{source} at offset {offset}: {error}")
