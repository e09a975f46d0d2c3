"""Finds the records of a WARC file: where each begins and ends, and where the file is damaged."""

import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

_CONTENT_LENGTH = re.compile(rb"^content-length:[ \t]*(\d{1,18})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_MAX_HEADER_BYTES = 1_000_000
# zlib copies what is left of a piece at the end of every member, so pieces stay small.
_PIECE_BYTES = 32 * 1024
_GZIP = b"\x1f\x8b"


class DamageError(Exception):
    """The file cannot be read beyond `offset`; the text says why."""

    def __init__(self, offset: int, text: str) -> None:
        super().__init__(text)
        self.offset = offset


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One record, and where it stands in the file.

    `offset` and `length` give a range of the file that holds this record and nothing else, unless `shared`: then one gzip member holds
    several records, and they count in the inflated stream.
    """

    offset: int
    length: int
    record: bytes
    cut: bool  # the record is longer than what was kept of it
    shared: bool


class _Stream:
    """Reads from a function that returns the next piece of bytes, b"" at the end."""

    def __init__(self, more: Callable[[], bytes], position: int) -> None:
        self._more = more
        self._piece = b""
        self._at = 0
        self.position = position

    def _fill(self) -> bool:
        piece = self._more()
        self._piece = self._piece[self._at :] + piece
        self._at = 0
        return bool(piece)

    def at_end(self) -> bool:
        return self._at == len(self._piece) and not self._fill()

    def until(self, mark: bytes, limit: int) -> bytes | None:
        """Returns the bytes up to and with `mark`; None if the next `limit` bytes, or what is left, lack it."""
        while (found := self._piece.find(mark, self._at)) < 0:
            if len(self._piece) - self._at > limit or not self._fill():
                return None
        return self.take(found + len(mark) - self._at)

    def take(self, size: int, keep: int | None = None) -> bytes:
        """Reads `size` bytes and returns the first `keep` of them (all where not given); fewer where the stream ends."""
        pieces, left, room = [], size, size if keep is None else keep
        while left > 0 and not self.at_end():
            piece = self._piece[self._at : self._at + left]
            self._at += len(piece)
            left -= len(piece)
            pieces.append(piece[:room])
            room = max(0, room - len(piece))
        self.position += size - left
        return b"".join(pieces)

    def skip_line_ends(self) -> None:
        while not self.at_end() and self._piece[self._at] in b"\r\n":
            self._at += 1
            self.position += 1


def frames(file: BinaryIO, *, keep_bytes: int) -> Iterator[Frame]:
    """Yields the records of a WARC file that is plain, compressed record by record, or compressed as a whole.

    Args:
      file: at its beginning.
      keep_bytes: of a record's content; the rest of a longer one is skipped.

    Raises:
      DamageError: after the last whole record.
    """
    head = file.read(2)
    file.seek(0)
    yield from _gzip_frames(file, keep_bytes) if head == _GZIP else _plain_frames(file, keep_bytes)


def _plain_frames(file: BinaryIO, keep_bytes: int) -> Iterator[Frame]:
    stream = _Stream(lambda: file.read(_PIECE_BYTES), 0)
    stream.skip_line_ends()
    while not stream.at_end():
        start = stream.position
        record, cut = _next_record(stream, start, keep_bytes)
        yield Frame(offset=start, length=stream.position - start, record=record, cut=cut, shared=False)


def _gzip_frames(file: BinaryIO, keep_bytes: int) -> Iterator[Frame]:
    members = _Members(file)
    inflated = 0  # position in the inflated stream
    while members.open_next():
        stream = _Stream(members.read, inflated)
        alone = True
        stream.skip_line_ends()
        while not stream.at_end():
            start = stream.position
            record, cut = _next_record(stream, members.start, keep_bytes)
            alone = alone and stream.at_end()
            if alone:
                yield Frame(offset=members.start, length=members.position - members.start, record=record, cut=cut, shared=False)
            else:
                yield Frame(offset=start, length=stream.position - start, record=record, cut=cut, shared=True)
        inflated = stream.position


class _Members:
    """Inflates the members of a gzip file, one after the other."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._piece = b""
        self._inflater = zlib.decompressobj(31)
        self.position = 0  # of the first byte that is not inflated yet
        self.start = 0

    def open_next(self) -> bool:
        """Goes to the next member; False at the end of the file."""
        self._fill()
        if not self._piece:
            return False
        self.start = self.position
        self._inflater = zlib.decompressobj(31)
        return True

    def read(self) -> bytes:
        """Returns the next piece of the member, b"" at its end."""
        while not self._inflater.eof:
            self._fill()
            if not self._piece:
                raise DamageError(self.start, "the file ends within a gzip member")
            piece = self._inflate()
            if piece:
                return piece
        return b""

    def _fill(self) -> None:
        if not self._piece:
            self._piece = self._file.read(_PIECE_BYTES)

    def _inflate(self) -> bytes:
        before = len(self._piece)
        try:
            piece = self._inflater.decompress(self._piece, 8 * _PIECE_BYTES)
        except zlib.error as error:
            raise DamageError(self.start, f"a gzip member is damaged: {error}") from error
        self._piece = self._inflater.unused_data if self._inflater.eof else self._inflater.unconsumed_tail
        self.position += before - len(self._piece)
        return piece


def _next_record(stream: _Stream, offset: int, keep_bytes: int) -> tuple[bytes, bool]:
    """Returns the next record, with at most `keep_bytes` of its content, and whether it is longer."""
    header = stream.until(b"\r\n\r\n", _MAX_HEADER_BYTES)
    if header is None or not header.startswith(b"WARC/"):
        raise DamageError(offset, "no WARC record begins here" if header else "a record header does not end")
    found = _CONTENT_LENGTH.search(header)
    if found is None:
        raise DamageError(offset, "a record has no Content-Length")
    length, before = int(found[1]), stream.position
    content = stream.take(length, keep_bytes)
    if stream.position - before < length:
        raise DamageError(offset, f"a record ends after {stream.position - before} of {length} bytes")
    stream.skip_line_ends()
    if len(content) < length:
        header = header[: found.start(1)] + str(len(content)).encode() + header[found.end(1) :]
    return header + content + b"\r\n\r\n", len(content) < length
