"""Reads images again by their references: in any order asked for, from files in the order of their bytes, several ranges at once."""

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from pagepairs.files import open_read
from pipeline.ahead import map_ahead
from pipeline.sources import decode_range
from pipeline.sources.http_body import BodyError

Reference = tuple[str, int, int]  # source, offset, length


class _Asked(NamedTuple):
    """A reference and its turn among those asked for; image_id "" stands for any content."""

    turn: int
    image_id: str
    source: str
    offset: int
    length: int


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


def read_images(
    references: Sequence[tuple[str, str, int, int]], locate: Callable[[str], str], *, threads: int = 1
) -> Iterator[bytes | SourceChanged]:
    """Yields the image behind each (image_id, source, offset, length) in the order asked for; any other content there is SourceChanged.

    Args:
      references: as in images/.
      locate: as `read_bodies` takes it.
      threads: that read, each another range.
    """
    return _read([_Asked(index, *reference) for index, reference in enumerate(references)], locate, threads)


def read_bodies(references: Sequence[Reference], locate: Callable[[str], str], *, threads: int = 1) -> Iterator[bytes | SourceChanged]:
    """Yields the body behind each reference, in the order asked for.

    References are taken 512, or 128 MiB of ranges, at a time; within them neighbouring ranges are read together, and each thread that
    reads a file opens it once. A body is yielded as soon as those asked for before it are read: at once where the references are sorted.
    At most a range a thread, and 16 MiB but for one range, are read before their turn.

    Args:
      references: (source, offset, length) as in images/.
      locate: source -> path; raises LookupError where the inputs hold it no more.
      threads: that read, each another range: an object store takes 30 ms or more to answer.
    """
    return _read([_Asked(index, "", *reference) for index, reference in enumerate(references)], locate, threads)


def read_body(reference: Reference, locate: Callable[[str], str]) -> bytes | SourceChanged:
    """Returns the body behind one reference."""
    return next(read_bodies([reference], locate))


def _read(asked: list[_Asked], locate: Callable[[str], str], threads: int) -> Iterator[bytes | SourceChanged]:
    bodies: dict[int, bytes | SourceChanged] = {}
    turn, source = 0, ""
    runs = (run for window in _windows(asked) for run in _runs(window))
    with closing(_Files(locate)) as files:
        for run, block in map_ahead(files.read, runs, threads=threads, window=threads, weigh=_bytes_of, max_weight=_MAX_READ_BYTES):
            if run[0].source != source:
                files.close_source(source)
                source = run[0].source
            for one in run:
                bodies[one.turn] = _body_of(one, block, run[0].offset) if isinstance(block, bytes) else block
                while turn in bodies:
                    yield bodies.pop(turn)
                    turn += 1


def _windows(asked: Iterable[_Asked]) -> Iterator[list[_Asked]]:
    window: list[_Asked] = []
    total_bytes = 0
    for one in asked:
        if window and (len(window) == _WINDOW_ITEMS or total_bytes + one.length > _WINDOW_BYTES):
            yield window
            window, total_bytes = [], 0
        window.append(one)
        total_bytes += one.length
    if window:
        yield window


def _runs(window: list[_Asked]) -> Iterator[list[_Asked]]:
    """Yields ranges of one source that are read together."""
    run: list[_Asked] = []
    start = end = 0
    for one in sorted(window, key=lambda one: (one.source, one.offset, one.length)):
        stop = one.offset + one.length
        if run and (one.source != run[0].source or one.offset - end > _MAX_GAP_BYTES or stop - start > _MAX_READ_BYTES):
            yield run
            run = []
        if not run:
            start = end = one.offset
        run.append(one)
        end = max(end, stop)
    yield run


def _bytes_of(run: list[_Asked]) -> int:
    return max(one.offset + one.length for one in run) - run[0].offset


class _Files:
    """The sources that are being read: each is open as often as threads read it at once."""

    def __init__(self, locate: Callable[[str], str]) -> None:
        self._locate, self._lock = locate, threading.Lock()
        self._idle: dict[str, list[BinaryIO]] = {}

    def read(self, run: list[_Asked]) -> bytes | SourceChanged:
        """Reads neighbours together: returns the bytes from the first on, or why the source cannot be opened; in any thread."""
        source = run[0].source
        try:
            file = self._take(source)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, LookupError) as error:
            return SourceChanged(detail=f"{source}: {error}")
        try:
            file.seek(run[0].offset)
            return file.read(_bytes_of(run))
        finally:
            with self._lock:
                self._idle.setdefault(source, []).append(file)

    def _take(self, source: str) -> BinaryIO:
        with self._lock:
            if idle := self._idle.get(source):
                return idle.pop()
        return open_read(self._locate(source))

    def close_source(self, source: str) -> None:
        """Closes what is free of a source."""
        with self._lock:
            idle = self._idle.pop(source, [])
        for file in idle:
            file.close()

    def close(self) -> None:
        """Closes everything."""
        for source in list(self._idle):
            self.close_source(source)


def _body_of(asked: _Asked, block: bytes, start: int) -> bytes | SourceChanged:
    """Returns the body behind a reference, given the bytes of the source from `start` on."""
    place = f"{asked.source} at offset {asked.offset}"
    raw = block[asked.offset - start : asked.offset - start + asked.length]
    if len(raw) < asked.length:
        return SourceChanged(detail=f"{place}: {len(raw)} of {asked.length} bytes left")
    try:
        body = decode_range(asked.source, raw, _MAX_BODY_BYTES)
    except BodyError as error:
        return SourceChanged(detail=f"{place}: {error}")
    if asked.image_id and hashlib.sha256(body).hexdigest() != asked.image_id:
        return SourceChanged(detail=f"{place}: other content than scan found")
    return body
