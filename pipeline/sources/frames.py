"""Finds the records of an archive (WARC or ARC): where each begins and ends, and where the file is damaged."""

import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, BinaryIO, NamedTuple, Protocol

from zlib_ng import zlib_ng

from pagepairs.files import open_read
from pagepairs.stores import is_failure, size_of

CUT_BYTES = 256 * 1024 * 1024  # a longer archive is read in pieces of about this size
_MAX_HEADER_BYTES = 1_000_000
_PIECE_BYTES = 64 * 1024
_INFLATED_BYTES = 256 * 1024  # at once, at most
_FIRST_BYTES = 8 * 1024  # of a record's content that are never split, for its HTTP headers
_InflateError: type[Exception] = zlib_ng.error  # type: ignore[assignment]  # its stub declares an instance
# What readers of compressed files raise where these are damaged.
_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, _InflateError, EOFError, OSError)
_NO_LINE_END = re.compile(rb"[^\r\n]")
_GZIP = b"\x1f\x8b"


class DamageError(Exception):
    """The file cannot be read beyond `offset`; the text says why."""

    def __init__(self, offset: int, text: str) -> None:
        super().__init__(text)
        self.offset = offset


class Header(NamedTuple):  # a frozen dataclass takes 1 µs to make, which counts when a record takes 10
    """A record's header as WARC has it, but for the number that is its Content-Length."""

    before: bytes
    length: int
    after: bytes

    def with_length(self, length: int) -> bytes:
        """Returns the header of a record that has so much content."""
        return b"%b%d%b" % (self.before, length, self.after)


class Frame(NamedTuple):
    """One record, and where it stands in the file.

    `offset` and `length` give a range of the file that holds this record and nothing else, unless `shared`: then one gzip member holds
    several records, and they count in the inflated stream. `begin` is where the record, or its gzip member, begins in the file.
    """

    begin: int
    offset: int
    length: int
    header: Header
    content: list[memoryview]  # in pieces, because every copy costs a tenth of the time
    cut: bool  # the record is longer than what was kept of it
    shared: bool


class Stream:
    """Reads from a function that returns the next piece of bytes, b"" at the end; it may, but need not, heed how many are wanted."""

    __slots__ = ("_at", "_more", "_piece", "position")

    def __init__(self, more: Callable[[int], bytes], position: int) -> None:
        self._more = more
        self._piece = b""
        self._at = 0
        self.position = position

    def at_end(self) -> bool:
        """Tells whether nothing is left."""
        return self._at == len(self._piece) and not self._fill(_PIECE_BYTES)

    def gather(self, size: int) -> None:
        """Makes the next `size` bytes come in one piece."""
        while len(self._piece) - self._at < size and self._fill(_PIECE_BYTES):
            pass

    def starts_with(self, mark: bytes) -> bool:
        """Tells whether the next bytes are `mark`, which stays unread."""
        self.gather(len(mark))
        return self._piece.startswith(mark, self._at)

    def until(self, mark: bytes, limit: int = _MAX_HEADER_BYTES) -> bytes | None:
        """Returns the bytes up to and with `mark`; None if the next `limit` bytes, or what is left, lack it."""
        searched = 0
        while (found := self._piece.find(mark, self._at + searched)) < 0:
            searched = max(0, len(self._piece) - self._at - len(mark) + 1)
            if searched > limit or not self._fill(_PIECE_BYTES):
                return None
        start, self._at = self._at, found + len(mark)
        self.position += self._at - start
        return self._piece[start : self._at]

    def take(self, size: int, keep: int | None = None) -> list[memoryview]:
        """Reads `size` bytes and returns the first `keep` of them (all where not given); fewer where the stream ends."""
        start, stop = self._at, self._at + size
        if stop <= len(self._piece):
            self._at = stop
            self.position += size
            return [memoryview(self._piece)[start : stop if keep is None else min(stop, start + keep)]]
        pieces, left, room = list[memoryview](), size, size if keep is None else keep
        while left > 0 and (self._at < len(self._piece) or self._fill(left)):
            piece = memoryview(self._piece)[self._at : self._at + left]
            self._at += len(piece)
            left -= len(piece)
            if room > 0:
                pieces.append(piece[:room])
                room -= len(piece)
        self.position += size - left
        return pieces

    def skip_line_ends(self) -> None:
        """Reads over any line ends."""
        while self._at < len(self._piece) or self._fill(_PIECE_BYTES):
            found = _NO_LINE_END.search(self._piece, self._at)
            at = found.start() if found is not None else len(self._piece)
            self.position += at - self._at
            self._at = at
            if found is not None:
                return

    def _fill(self, wanted: int) -> bool:
        piece = self._more(wanted)
        self._piece = self._piece[self._at :] + piece if self._at < len(self._piece) else piece
        self._at = 0
        return bool(piece)


class Readable(Protocol):
    """What archives are read from."""

    def read(self, size: int, /) -> bytes:
        """Reads up to `size` bytes; none only at the end."""

    def seek(self, offset: int, /) -> int:
        """Goes to a position."""

    def tell(self) -> int:
        """Returns the position."""


ReadHeader = Callable[[Stream], Header | str]  # a string says why no record begins here


def frames(file: Readable, read_header: ReadHeader, *, keep_bytes: int, start: int = 0) -> Iterator[Frame]:
    """Yields the records of an archive that is plain, compressed record by record, or compressed as a whole.

    Args:
      file: can be read from, and where `start` is not 0, sought.
      read_header: of the kind of archive.
      keep_bytes: of a record's content; the rest of a longer one is skipped.
      start: where a record, or a gzip member, begins.

    Raises:
      DamageError: after the last whole record.
    """
    if start:
        file.seek(start)
    head = file.read(_PIECE_BYTES)
    if head.startswith(_GZIP):
        yield from _gzip_frames(_Members(file, head, start), read_header, keep_bytes)
    else:
        yield from _plain_frames(_PlainFile(file, head), read_header, keep_bytes, start)


def find_cuts(path: str, read_header: ReadHeader, cut_bytes: int, *, start: int = 0, stop: int | None = None) -> list[tuple[int, int]]:
    """Returns the byte ranges that an archive is read in: one, unless it is longer than `cut_bytes`; then a pass over it finds its records.

    A gzip member is never cut, so an archive that is compressed as a whole is one piece.

    Args:
      path: of the file.
      read_header: of the kind of archive.
      cut_bytes: what a range has at least, but for the last.
      start: where the archive begins in the file.
      stop: where it ends; the end of the file where not given.
    """
    stop = size_of(path) if stop is None else stop
    cuts = [start]
    if stop - start > cut_bytes:
        with open_read(path) as file:
            try:
                for frame in frames(Window(file, start, stop), read_header, keep_bytes=0, start=start):
                    if frame.begin - cuts[-1] >= cut_bytes:
                        cuts.append(frame.begin)
            except DamageError:
                pass  # whoever reads the last piece finds it again, and reports it
    return list(zip(cuts, [*cuts[1:], stop], strict=True))


class Window:
    """The part of a file from `start` to `stop`; positions are those of the file."""

    def __init__(self, file: BinaryIO, start: int, stop: int) -> None:
        self._file, self._stop = file, stop
        file.seek(start)

    def read(self, size: int, /) -> bytes:
        """Reads up to `size` bytes."""
        return self._file.read(max(0, min(size, self._stop - self._file.tell())))

    def seek(self, offset: int, /) -> int:
        """Goes to a position of the file."""
        return self._file.seek(offset)

    def tell(self) -> int:
        """Returns the position in the file."""
        return self._file.tell()


class Inflated:
    """A file that is inflated while it is read; positions are those of its content, and damage is a DamageError."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int, /) -> bytes:
        """Reads up to `size` bytes."""
        with _damage_at(self._file.tell()):
            return self._file.read(size)

    def seek(self, offset: int, /) -> int:
        """Goes to a position: slowly, and back only from the beginning."""
        with _damage_at(self._file.tell()):
            return self._file.seek(offset)

    def tell(self) -> int:
        """Returns the position in the content."""
        return self._file.tell()


@contextmanager
def _damage_at(position: int) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        if is_failure(error):
            raise
        raise DamageError(position, str(error)) from error


def _plain_frames(file: "_PlainFile", read_header: ReadHeader, keep_bytes: int, start: int) -> Iterator[Frame]:
    stream = Stream(file.read, start)
    stream.skip_line_ends()
    while not stream.at_end():
        begin = stream.position
        header, content = _next_record(stream, begin, read_header, keep_bytes)
        yield Frame(begin, begin, stream.position - begin, header, content, header.length > keep_bytes, False)
        del content  # the next record is read into the same memory, which is in the processor's cache: a third of the time of photos


def _gzip_frames(members: "_Members", read_header: ReadHeader, keep_bytes: int) -> Iterator[Frame]:
    inflated = 0  # position in the inflated stream
    while members.open_next():
        stream = Stream(members.read, inflated)
        alone = True
        begin = members.start
        stream.skip_line_ends()
        while not stream.at_end():
            offset = stream.position
            try:
                header, content = _next_record(stream, begin, read_header, keep_bytes)
            except DamageError as error:
                inside = f", {offset - inflated} bytes into this gzip member" if offset > inflated else ""
                raise DamageError(begin, f"{error}{inside}") from error
            alone = alone and stream.at_end()
            at, length = (begin, members.position - begin) if alone else (offset, stream.position - offset)
            yield Frame(begin, at, length, header, content, header.length > keep_bytes, not alone)
            del content  # as above
        inflated = stream.position


class _PlainFile:
    """Reads a file from a first piece on that was read already."""

    def __init__(self, file: Readable, head: bytes) -> None:
        self._file, self._head = file, head

    def read(self, wanted: int) -> bytes:
        """Returns the next piece: short at the header of a record, as much of its content as is wanted."""
        head, self._head = self._head, b""
        return head or self._file.read(min(wanted, 32 * _PIECE_BYTES))


class _Members:
    """Inflates the members of a gzip file, one after the other."""

    def __init__(self, file: Readable, head: bytes, position: int) -> None:
        self._file = file
        self._piece, self._at = head, 0
        self._step = 0  # what is inflated at once grows within a member, because what is left of it at the member's end is copied
        self._inflater = zlib_ng.decompressobj(31)
        self.position = position  # of the first byte that is not inflated yet
        self.start = position

    def open_next(self) -> bool:
        """Goes to the next member; False at the end of the file."""
        if self._at == len(self._piece) and not self._fill():
            return False
        self.start = self.position
        self._inflater = zlib_ng.decompressobj(31)
        self._step = _FIRST_BYTES
        return True

    def read(self, _wanted: int) -> bytes:
        """Returns the next piece of the member, b"" at its end."""
        while not self._inflater.eof:
            if self._at == len(self._piece) and not self._fill():
                if self.position == self.start == 0:
                    return b""  # an empty file
                raise DamageError(self.start, "the file ends within a gzip member")
            piece = self._inflate()
            if piece:
                return piece
        return b""

    def _fill(self) -> bool:
        self._piece, self._at = self._file.read(_PIECE_BYTES), 0
        return bool(self._piece)

    def _inflate(self) -> bytes:
        step = memoryview(self._piece)[self._at : self._at + self._step]
        self._step = min(2 * self._step, _PIECE_BYTES)
        try:
            piece = self._inflater.decompress(step, _INFLATED_BYTES)
        except _InflateError as error:
            raise DamageError(self.start, f"a gzip member is damaged: {error}") from error
        used = len(step) - len(self._inflater.unused_data if self._inflater.eof else self._inflater.unconsumed_tail)
        self._at += used
        self.position += used
        return piece


class Gunzipped:
    """A gzip file that is inflated while it is read, forward only; positions are those of its content."""

    def __init__(self, file: Readable) -> None:
        self._members = _Members(file, b"", 0)
        self._members.open_next()
        self._stream = Stream(self._more, 0)

    def read(self, size: int, /) -> bytes:
        """Reads up to `size` bytes; damage is a DamageError."""
        return b"".join(self._stream.take(size))

    def seek(self, offset: int, /) -> int:
        """Reads on to a position."""
        assert offset >= self._stream.position, "a compressed file cannot go back"
        self._stream.take(offset - self._stream.position, 0)
        return self._stream.position

    def tell(self) -> int:
        """Returns the position in the content."""
        return self._stream.position

    def _more(self, wanted: int) -> bytes:
        while not (piece := self._members.read(wanted)) and self._members.open_next():
            pass
        return piece


def _next_record(stream: Stream, begin: int, read_header: ReadHeader, keep_bytes: int) -> tuple[Header, list[memoryview]]:
    """Returns the next record, with at most `keep_bytes` of its content."""
    header = read_header(stream)
    if isinstance(header, str):
        raise DamageError(begin, header)
    before, length = stream.position, header.length
    stream.gather(min(length, keep_bytes, _FIRST_BYTES))
    content = stream.take(length, keep_bytes)
    if stream.position - before < length:
        raise DamageError(begin, f"a record ends after {stream.position - before} of {length} bytes")
    stream.skip_line_ends()
    return header, content
