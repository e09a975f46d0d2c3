"""WARC files: HTML responses are pages, image responses are images; redirects and revisits are aliases."""

import io
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from fastwarc.warc import HeaderMap, WarcRecord, WarcRecordType

from filters.opt_out import opt_out_directive
from pagepairs.config import ScanConfig
from pagepairs.files import open_read
from pagepairs.urls import canonical_page, host_of, resolve_url
from pipeline.sources.frames import DamageError, Frame, Header, Readable, ReadHeader, Stream, find_cuts, frames
from pipeline.sources.html import read_page
from pipeline.sources.http_body import BodyError, BodyTooLongError, decode_body
from pipeline.sources.records import (
    AliasRecord,
    ErrorRecord,
    ImageRecord,
    LinkRecord,
    PageRecord,
    Record,
    ScanUnit,
    digest_key,
    digest_target,
    hash64,
    safe_text,
)

_CONTENT_LENGTH = re.compile(rb"\ncontent-length:[ \t]*(\d{1,18})[ \t]*\r?\n", re.IGNORECASE)  # with ^ it takes five times as long
_NO_RESOURCE = re.compile(rb"\nwarc-type:[ \t]*(?:warcinfo|metadata|conversion|continuation)[ \t]*\r?\n", re.IGNORECASE)
_MAX_HTTP_HEADER_BYTES = 1_000_000
_MAX_HTTP_LINE_BYTES = 64 * 1024
_RECORDS_BEYOND = 16  # of the next unit, looked at for the requests and responses of this one
_BLANK_LINE = re.compile(rb"\r\n\r\n")
_HTTP_START = re.compile(rb"HTTP/|[A-Z]+ \S+ HTTP/")
_HTML_TYPES = ("text/html", "application/xhtml+xml")
_HTML_START = re.compile(rb"\s*<(?:!doctype html|html|head|body)\b", re.IGNORECASE)
_IMAGE_START = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP|BM....\0\0\0\0|II\*\0|MM\0\*|....ftyp(?:avi[fs]|hei[cs]|mif1)|\0\0\0\x0cJXL ",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Response:
    """A record that holds a web resource, its headers parsed and its body still encoded."""

    url: str
    status: int
    http: HeaderMap | None
    content_type: str
    body: bytes
    time_ms: int | None
    digest: str
    truncated: str
    frame: Frame


@dataclass(frozen=True, slots=True, kw_only=True)
class _Archive:
    """What all records of an archive have in common."""

    source: str
    name: str  # in messages
    max_bytes: int
    in_place: bool


@dataclass(slots=True)
class _Referers:
    """What is known of a unit's requests when it ends."""

    requests: list[tuple[str, str, int | None]] = field(default_factory=list)  # image URL, referer, time
    images: set[int] = field(default_factory=set)
    stylesheets: set[int] = field(default_factory=set)
    links: set[int] = field(default_factory=set)
    pages: dict[str, tuple[int, int | None, int]] = field(default_factory=dict)  # capture, time, first free position


def read_warc_header(stream: Stream) -> Header | str:
    """Reads the header of a WARC record; a string says why there is none."""
    header = stream.until(b"\r\n\r\n")
    if header is None or not header.startswith(b"WARC/"):
        return "no WARC record begins here" if header else "a record header does not end"
    found = _CONTENT_LENGTH.search(header)
    if found is None:
        return "a record has no Content-Length"
    start, end = found.span(1)
    return Header(header[:start], int(header[start:end]), header[end:])


def find_pieces(path: str, _config: ScanConfig, cut_bytes: int) -> list[tuple[int, int]]:
    """Returns the byte ranges that a file is read in."""
    return find_cuts(path, read_warc_header, cut_bytes)


def read_warc(unit: ScanUnit, config: ScanConfig) -> Iterator[Record]:
    """Yields what a unit of a WARC file holds, in file order; the links that only Referer headers tell come last.

    A damaged file gives what stands before the damage, then one `broken_archive`.
    """
    with open_read(unit.path) as file:
        yield from read_archive(unit, file, config, read_warc_header)


def read_archive(
    unit: ScanUnit, file: Readable, config: ScanConfig, read_header: ReadHeader, *, name: str = "", in_place: bool = True
) -> Iterator[Record]:
    """Yields the records of an archive that begin within the unit.

    A page and the requests that name it may lie in different units. So that neither a request nor its response is lost at a cut, the
    Referer headers of the next records count too; a page of another unit is known by its URL only.

    Args:
      unit: what is read of the source.
      file: the archive; positions are those of the source, unless it cannot be read in place.
      config: of all sources.
      read_header: of the kind of archive.
      name: of the archive, in messages; the source where not given.
      in_place: whether ranges of the archive are ranges of the source; otherwise the unit is the whole archive.
    """
    archive = _Archive(source=unit.source, name=name or unit.source, max_bytes=config.max_bytes, in_place=in_place)
    referers, beyond, looked = _Referers(), _Referers(), 0
    damage: list[ErrorRecord] = []
    try:
        for frame in frames(file, read_header, keep_bytes=config.max_bytes + _MAX_HTTP_HEADER_BYTES, start=unit.start if in_place else 0):
            if not in_place or frame.begin < unit.stop:
                yield from _read_frame(archive, frame, referers)
            elif looked < _RECORDS_BEYOND:
                deque(_read_frame(archive, frame, beyond), maxlen=0)
                looked += 1
            else:
                break
            del frame  # its memory serves the next one
    except DamageError as error:
        if not in_place or error.offset < unit.stop:
            damage.append(ErrorRecord(reason="broken_archive", detail=f"{archive.name} at offset {error.offset}: {error}"))
    yield from _referer_links(archive, referers, beyond)
    yield from damage


def warc_body(raw: bytes, max_bytes: int) -> bytes:
    """Returns the decoded body of the record that a reference of a WARC file points to.

    Raises:
      BodyError: if the range holds no whole record, or its body cannot be decoded.
    """
    return record_body(raw, max_bytes, read_warc_header)


def record_body(raw: bytes, max_bytes: int, read_header: ReadHeader) -> bytes:
    """Returns the decoded body of the first record of an archive.

    Raises:
      BodyError: if there is no whole record, or its body cannot be decoded.
    """
    try:
        frame = next(frames(io.BytesIO(raw), read_header, keep_bytes=max_bytes + _MAX_HTTP_HEADER_BYTES), None)
        response = _parse(*open_record(frame), frame) if frame is not None else None
    except (DamageError, OSError, ValueError) as error:
        raise BodyError(f"no record stands here: {error}") from error
    if response is None:
        raise BodyError("the record here is no response")
    return _decoded(response, max_bytes)


def open_record(frame: Frame) -> tuple[WarcRecord, bytes]:
    """Returns a record with its HTTP headers parsed, and the rest of its content, which is not copied more often than it must be."""
    header, pieces = frame.header, frame.content
    if not pieces or _HTTP_START.match(pieces[0]) is None:
        return WarcRecord.from_bytes(header.with_length(0) + b"\r\n\r\n"), b"".join(pieces)
    found = _BLANK_LINE.search(pieces[0], 0, _MAX_HTTP_LINE_BYTES)
    if found is None:
        pieces = [memoryview(b"".join(pieces))]
        found = _BLANK_LINE.search(pieces[0])
    end = found.end() if found is not None else len(pieces[0])
    record = WarcRecord.from_bytes(b"".join((header.with_length(end), pieces[0][:end], b"\r\n\r\n")))
    record.parse_http(quirks_mode=True)
    # The reader has something left of a header with other line ends.
    return record, b"".join((record.reader.read(), pieces[0][end:], *pieces[1:]))


def _read_frame(archive: _Archive, frame: Frame, referers: _Referers) -> Iterator[Record]:
    if _NO_RESOURCE.search(frame.header.before) is not None:
        return
    try:
        record, body = open_record(frame)
        if record.record_type == WarcRecordType.request:
            _note_request(record, referers)
            return
        response = _parse(record, body, frame)
    except (OSError, ValueError) as error:
        yield ErrorRecord(reason="broken_record", detail=f"{archive.name} at offset {frame.offset}: {error}")
        return
    if response is None:
        return
    if record.record_type == WarcRecordType.revisit:
        yield from _revisit(record, response)
    elif 300 <= response.status < 400:
        yield from _redirect(response)
    else:
        yield from _read_response(archive, response, referers)


def _parse(record: WarcRecord, body: bytes, frame: Frame) -> _Response | None:
    """Returns the resource that a record holds; None for records of other types and for URLs that name no web resource."""
    if record.record_type not in (WarcRecordType.response, WarcRecordType.resource, WarcRecordType.revisit):
        return None
    headers = record.headers
    url = _url_of(record, "WARC-Target-URI")
    if url is None:
        return None
    http = record.http_headers if record.is_http_parsed else None
    date = record.record_date
    truncated = headers.get("WARC-Truncated") or ("segmented" if "WARC-Segment-Number" in headers else "")
    return _Response(
        url=url,
        status=(http.status_code or 0) if http is not None else 200,
        http=http,
        content_type=((http.get("Content-Type") if http is not None else headers.get("Content-Type")) or "").strip(),
        body=body,
        time_ms=round(date.timestamp() * 1000) if date is not None else None,
        digest=headers.get("WARC-Payload-Digest") or "",
        truncated=truncated,
        frame=frame,
    )


def _url_of(record: WarcRecord, name: str) -> str | None:
    return resolve_url(safe_text(record.headers.get(name) or "").strip("<> "))  # old crawlers put URLs in angle brackets


def _header(response: _Response, name: str) -> list[str]:
    return [str(value) for value in response.http.get_multiple(name)] if response.http is not None else []


def _decoded(response: _Response, max_bytes: int) -> bytes:
    if response.frame.cut:
        raise BodyTooLongError(f"more than {max_bytes} bytes")
    transfer, content = _header(response, "Transfer-Encoding"), _header(response, "Content-Encoding")
    return decode_body(response.body, transfer=transfer, content=content, max_bytes=max_bytes)


def _read_response(archive: _Archive, response: _Response, referers: _Referers) -> Iterator[Record]:
    reason = detail = ""
    try:
        body = _decoded(response, archive.max_bytes)
    except BodyError as error:
        body = b""
        reason, detail = ("too_many_bytes" if isinstance(error, BodyTooLongError) else "broken_image"), str(error)
    kind = response.content_type.partition(";")[0].strip().lower()
    good = 200 <= response.status < 300
    if kind.startswith("image/") or _IMAGE_START.match(body or response.body[:64]):
        referers.images.add(hash64(response.url))
        yield _image(archive, response, body, reason, detail)
    elif good and (kind in _HTML_TYPES or (not kind and _HTML_START.match(body))):
        if reason:
            yield ErrorRecord(reason="broken_record", detail=f"{archive.name} at offset {response.frame.offset}: {response.url}: {detail}")
        else:
            yield from _page(archive, response, body, referers)
    elif kind == "text/css":
        referers.stylesheets.add(hash64(response.url))


def _image(archive: _Archive, response: _Response, body: bytes, reason: str, detail: str) -> ImageRecord:
    if not 200 <= response.status < 300 or response.status == 206:
        reason, detail = "http_status", str(response.status)
    elif response.truncated and not reason:
        reason, detail = "broken_image", f"the crawler cut it: {response.truncated}"
    return ImageRecord(
        url=response.url,
        body=body,
        source=archive.source,
        offset=response.frame.offset,
        length=response.frame.length,
        time_ms=response.time_ms,
        digest_key=digest_key(response.digest),
        opt_out=_header_opt_out(response),
        reason=reason,
        detail=detail,
        spill=response.frame.shared or not archive.in_place,
    )


def _header_opt_out(response: _Response) -> str:
    return opt_out_directive((name, value) for name in ("X-Robots-Tag", "tdm-reservation") for value in _header(response, name))


def _page(archive: _Archive, response: _Response, body: bytes, referers: _Referers) -> Iterator[Record]:
    page_url = canonical_page(response.url)
    capture = hash64(f"{archive.name}\n{response.frame.begin}\n{response.frame.offset}")
    page = read_page(body, response.content_type, response.url)
    yield PageRecord(url=page_url, time_ms=response.time_ms, opt_out=_header_opt_out(response) or page.opt_out, title=page.title)
    for link in page.links:
        referers.links.add(hash64(f"{page_url}\n{link.url}"))
        yield LinkRecord(
            page_url=page_url,
            capture=capture,
            page_time_ms=response.time_ms,
            image_url=link.url,
            position=link.position,
            alt=link.alt,
            via=link.via,
        )
    referers.pages[page_url] = (capture, response.time_ms, max((link.position for link in page.links), default=-1) + 1)


def _redirect(response: _Response) -> Iterator[AliasRecord]:
    for location in _header(response, "Location")[:1]:
        target = resolve_url(safe_text(location), response.url)
        if target is not None and target != response.url:
            yield AliasRecord(url=response.url, target=target, kind="redirect")


def _revisit(record: WarcRecord, response: _Response) -> Iterator[AliasRecord]:
    """Yields where the content of a revisit stands: under another URL, else under its payload digest."""
    if 300 <= response.status < 400 and response.status != 304:
        yield from _redirect(response)
        return
    target = _url_of(record, "WARC-Refers-To-Target-URI")
    if target is not None and target != response.url:
        yield AliasRecord(url=response.url, target=target, kind="revisit")
    elif response.digest:
        yield AliasRecord(url=response.url, target=digest_target(response.digest), kind="revisit")


def _note_request(record: WarcRecord, referers: _Referers) -> None:
    referer = resolve_url(safe_text(record.http_headers.get("Referer") or "")) if record.is_http_parsed else None
    url = _url_of(record, "WARC-Target-URI")
    if referer is not None and url is not None and not _is_trimmed(referer, url):
        date = record.record_date
        referers.requests.append((url, referer, round(date.timestamp() * 1000) if date is not None else None))


def _is_trimmed(referer: str, url: str) -> bool:
    """Tells whether a browser cut the referer to its origin, as it does for other hosts: it does not name the page then."""
    return referer.count("/") == 3 and referer.endswith("/") and host_of(referer) != host_of(url)


def _referer_links(archive: _Archive, referers: _Referers, beyond: _Referers) -> Iterator[LinkRecord]:
    """Yields links to images that were requested from a page whose HTML does not name them: request or image lies within the unit."""
    asked = [(request, referers.images | beyond.images) for request in referers.requests]
    asked += [(request, referers.images) for request in beyond.requests]
    stylesheets, named = referers.stylesheets | beyond.stylesheets, referers.links | beyond.links
    for (url, referer, time_ms), images in asked:
        page_url = canonical_page(referer)
        link = hash64(f"{page_url}\n{url}")
        is_stylesheet = hash64(referer) in stylesheets or referer.partition("?")[0].endswith(".css")
        if is_stylesheet or link in named or hash64(url) not in images:
            continue
        named.add(link)
        capture, page_time_ms, position = referers.pages.get(page_url, (hash64(f"{archive.name}\nreferer\n{page_url}"), time_ms, 0))
        referers.pages[page_url] = (capture, page_time_ms, position + 1)
        yield LinkRecord(
            page_url=page_url,
            capture=capture,
            page_time_ms=page_time_ms,
            image_url=url,
            position=position,
            alt="",
            via="referer",
        )
