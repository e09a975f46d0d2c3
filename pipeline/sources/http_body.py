"""Undoes the transfer and content encodings of HTTP bodies, within a limit."""

import re
import zlib
from collections.abc import Callable, Iterable

import brotli
import zstandard

_CHUNK_SIZE = re.compile(rb"[ \t]*([0-9a-fA-F]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n")
_LINE_END = re.compile(rb"\r?\n")


class BodyError(Exception):
    """A body that cannot be decoded; the text says why."""


class BodyTooLongError(BodyError):
    """A body that is longer than the limit."""


def decode_body(body: bytes, *, transfer: Iterable[str], content: Iterable[str], max_bytes: int) -> bytes:
    """Returns the body without its encodings.

    Crawlers often store the decoded body under the headers of the encoded one, so a body without the mark of an encoding is left as it is.

    Args:
      body: as stored.
      transfer: values of the Transfer-Encoding headers.
      content: values of the Content-Encoding headers, in the order of encoding.
      max_bytes: length of the decoded body, at most.

    Raises:
      BodyTooLongError: if the body is longer than `max_bytes`, seen without decoding more than that.
      BodyError: if an encoded body is damaged or ends early.
    """
    codings = [*_names(content), *_names(transfer)]
    for coding in reversed(codings):
        decode = _DECODERS.get(coding)
        if decode is not None:
            body = decode(body, max_bytes)
    if len(body) > max_bytes:
        raise BodyTooLongError(f"more than {max_bytes} bytes")
    return body


def _names(values: Iterable[str]) -> list[str]:
    return [name.strip().lower() for value in values for name in value.split(",")]


def _dechunk(body: bytes, max_bytes: int) -> bytes:
    pieces: list[bytes] = []
    at = 0
    while (size := _CHUNK_SIZE.match(body, at)) is not None:
        length = int(size[1], 16)
        if length == 0:
            return b"".join(pieces)
        pieces.append(body[size.end() : size.end() + length])
        end = _LINE_END.match(body, size.end() + length)
        if end is None:
            break
        at = end.end()
    if not pieces:
        return body
    raise BodyError("a chunked body ends early")


def inflate(body: bytes, max_bytes: int, wbits: int = 31) -> bytes:
    """Returns what zlib makes of a body, within a limit; `wbits` is zlib's name for the format, 31 is gzip.

    Raises:
      BodyTooLongError: if it is longer than `max_bytes`.
      BodyError: if it is damaged or ends early.
    """
    pieces, room = [], max_bytes + 1
    while room > 0:
        inflater = zlib.decompressobj(wbits)
        try:
            pieces.append(inflater.decompress(body, room))
        except zlib.error as error:
            raise BodyError(f"a compressed body is damaged: {error}") from error
        room -= len(pieces[-1])
        if room > 0 and not inflater.eof:
            raise BodyError("a compressed body ends early")
        body = inflater.unused_data
        if not body.startswith(b"\x1f\x8b"):
            break
    if room <= 0:
        raise BodyTooLongError(f"more than {max_bytes} bytes after decompression")
    return b"".join(pieces)


def _gunzip(body: bytes, max_bytes: int) -> bytes:
    return inflate(body, max_bytes, 31) if body.startswith(b"\x1f\x8b") else body


def _deflate(body: bytes, max_bytes: int) -> bytes:
    for wbits in (zlib.MAX_WBITS, -zlib.MAX_WBITS):  # servers send both, with the zlib header and without
        try:
            return inflate(body, max_bytes, wbits)
        except BodyTooLongError:
            raise
        except BodyError:
            continue
    return body


def _brotli(body: bytes, max_bytes: int) -> bytes:
    decoder = brotli.Decompressor()
    pieces: list[bytes] = []
    room = max_bytes + 1
    try:
        piece = decoder.process(body, output_buffer_limit=room)
        while piece and room > 0:
            pieces.append(piece)
            room -= len(piece)
            piece = decoder.process(b"", output_buffer_limit=max(room, 1)) if room > 0 else b""
    except brotli.error:
        if pieces:
            raise BodyError("a compressed body is damaged") from None
        return body
    if room <= 0:
        raise BodyTooLongError(f"more than {max_bytes} bytes after decompression")
    if not decoder.is_finished():
        raise BodyError("a compressed body ends early")
    return b"".join(pieces)


def _unzstd(body: bytes, max_bytes: int) -> bytes:
    if not body.startswith(b"\x28\xb5\x2f\xfd"):
        return body
    try:
        decoded = zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(body).read(max_bytes + 1)
    except zstandard.ZstdError as error:
        raise BodyError(f"a compressed body is damaged: {error}") from error
    if len(decoded) > max_bytes:
        raise BodyTooLongError(f"more than {max_bytes} bytes after decompression")
    return bytes(decoded)


_DECODERS: dict[str, Callable[[bytes, int], bytes]] = {
    "chunked": _dechunk,
    "gzip": _gunzip,
    "x-gzip": _gunzip,
    "deflate": _deflate,
    "br": _brotli,
    "zstd": _unzstd,
}
