"""WARC files: HTML responses are pages, image responses are images; redirects and revisits are aliases."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from fastwarc.warc import HeaderMap, WarcRecord, WarcRecordType

from pagepairs.urls import canonical_page, host_of, resolve_url
from pipeline.sources.html import page_links
from pipeline.sources.http_body import BodyError, BodyTooLongError, decode_body, inflate
from pipeline.sources.opt_outs import opt_out_of
from pipeline.sources.records import (
    MAX_BODY_BYTES,
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
from pipeline.sources.warc_frames import DamageError, Frame, frames

_MAX_HTTP_HEADER_BYTES = 1_000_000
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


@dataclass(slots=True)
class _Referers:
    """What is known of a unit's requests when it ends."""

    requests: list[tuple[str, str, int | None]] = field(default_factory=list)  # image URL, referer, time
    images: set[int] = field(default_factory=set)
    stylesheets: set[int] = field(default_factory=set)
    links: set[int] = field(default_factory=set)
    pages: dict[str, tuple[int, int | None, int]] = field(default_factory=dict)  # capture, time, first free position


def find_pieces(path: str) -> list[tuple[int, int]]:
    """Returns the byte ranges that a file is read in."""
    return [(0, os.path.getsize(path))]


def read_warc(unit: ScanUnit, *, max_bytes: int = MAX_BODY_BYTES) -> Iterator[Record]:
    """Yields what a WARC file holds, in file order; the links that only Referer headers tell come last.

    A damaged file gives what stands before the damage, then one `broken_archive`.
    """
    referers = _Referers()
    damage: list[ErrorRecord] = []
    with open(unit.path, "rb") as file:
        try:
            for frame in frames(file, keep_bytes=max_bytes + _MAX_HTTP_HEADER_BYTES):
                yield from _read_frame(unit.source, frame, referers, max_bytes)
        except DamageError as error:
            damage.append(ErrorRecord(reason="broken_archive", detail=f"{unit.source} at offset {error.offset}: {error}"))
    yield from _referer_links(unit.source, referers)
    yield from damage


def warc_body(raw: bytes, max_bytes: int) -> bytes:
    """Returns the decoded body of the record that a reference of a WARC file points to.

    Raises:
      BodyError: if the range holds no whole record, or its body cannot be decoded.
    """
    try:
        record = inflate(raw, max_bytes + _MAX_HTTP_HEADER_BYTES) if raw.startswith(b"\x1f\x8b") else raw
        response = _parse(WarcRecord.from_bytes(record), Frame(offset=0, length=len(raw), record=record, cut=False, shared=False))
    except (OSError, ValueError) as error:
        raise BodyError(f"no WARC record stands here: {error}") from error
    if response is None:
        raise BodyError("the WARC record here is no response")
    return _decoded(response, max_bytes)


def _read_frame(source: str, frame: Frame, referers: _Referers, max_bytes: int) -> Iterator[Record]:
    try:
        record = WarcRecord.from_bytes(frame.record)
        if record.record_type == WarcRecordType.request:
            _note_request(record, referers)
            return
        response = _parse(record, frame)
    except (OSError, ValueError) as error:
        yield ErrorRecord(reason="broken_record", detail=f"{source} at offset {frame.offset}: {error}")
        return
    if response is None:
        return
    if record.record_type == WarcRecordType.revisit:
        yield from _revisit(record, response)
    elif 300 <= response.status < 400:
        yield from _redirect(response)
    else:
        yield from _read_response(source, response, referers, max_bytes)


def _parse(record: WarcRecord, frame: Frame) -> _Response | None:
    """Returns the resource that a record holds; None for records of other types and for URLs that name no web resource."""
    if record.record_type not in (WarcRecordType.response, WarcRecordType.resource, WarcRecordType.revisit):
        return None
    headers = record.headers
    url = _url_of(record, "WARC-Target-URI")
    if url is None:
        return None
    record.parse_http(quirks_mode=True)
    http = record.http_headers
    date = record.record_date
    truncated = headers.get("WARC-Truncated") or ("segmented" if "WARC-Segment-Number" in headers else "")
    return _Response(
        url=url,
        status=(http.status_code or 0) if http is not None else 200,
        http=http,
        content_type=((http.get("Content-Type") if http is not None else headers.get("Content-Type")) or "").strip(),
        body=record.reader.read(),
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


def _read_response(source: str, response: _Response, referers: _Referers, max_bytes: int) -> Iterator[Record]:
    reason = detail = ""
    try:
        body = _decoded(response, max_bytes)
    except BodyError as error:
        body = b""
        reason, detail = ("too_many_bytes" if isinstance(error, BodyTooLongError) else "broken_image"), str(error)
    kind = response.content_type.partition(";")[0].strip().lower()
    good = 200 <= response.status < 300
    if kind.startswith("image/") or _IMAGE_START.match(body or response.body[:64]):
        referers.images.add(hash64(response.url))
        yield _image(source, response, body, reason, detail)
    elif good and (kind in _HTML_TYPES or (not kind and _HTML_START.match(body))):
        if reason:
            yield ErrorRecord(reason="broken_record", detail=f"{source} at offset {response.frame.offset}: {response.url}: {detail}")
        else:
            yield from _page(source, response, body, referers)
    elif kind == "text/css":
        referers.stylesheets.add(hash64(response.url))


def _image(source: str, response: _Response, body: bytes, reason: str, detail: str) -> ImageRecord:
    if not 200 <= response.status < 300 or response.status == 206:
        reason, detail = "http_status", str(response.status)
    elif response.truncated and not reason:
        reason, detail = "broken_image", f"the crawler cut it: {response.truncated}"
    return ImageRecord(
        url=response.url,
        body=body,
        source=source,
        offset=response.frame.offset,
        length=response.frame.length,
        time_ms=response.time_ms,
        digest_key=digest_key(response.digest),
        opt_out=_header_opt_out(response),
        reason=reason,
        detail=detail,
        spill=response.frame.shared,
    )


def _header_opt_out(response: _Response) -> str:
    return opt_out_of(_header(response, "X-Robots-Tag"), _header(response, "tdm-reservation"))


def _page(source: str, response: _Response, body: bytes, referers: _Referers) -> Iterator[Record]:
    page_url = canonical_page(response.url)
    capture = hash64(f"{source}\n{response.frame.offset}\n{response.frame.shared}")
    links, opt_out = page_links(body, response.content_type, response.url)
    yield PageRecord(url=page_url, time_ms=response.time_ms, opt_out=_header_opt_out(response) or opt_out)
    for link in links:
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
    referers.pages[page_url] = (capture, response.time_ms, max((link.position for link in links), default=-1) + 1)


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
    record.parse_http(quirks_mode=True)
    referer = resolve_url(safe_text(record.http_headers.get("Referer") or "")) if record.http_headers is not None else None
    url = _url_of(record, "WARC-Target-URI")
    if referer is not None and url is not None and not _is_trimmed(referer, url):
        date = record.record_date
        referers.requests.append((url, referer, round(date.timestamp() * 1000) if date is not None else None))


def _is_trimmed(referer: str, url: str) -> bool:
    """Tells whether a browser cut the referer to its origin, as it does for other hosts: it does not name the page then."""
    return referer.count("/") == 3 and referer.endswith("/") and host_of(referer) != host_of(url)


def _referer_links(source: str, referers: _Referers) -> Iterator[LinkRecord]:
    """Yields links to images that were requested from a page whose HTML does not name them."""
    for url, referer, time_ms in referers.requests:
        page_url = canonical_page(referer)
        link = hash64(f"{page_url}\n{url}")
        is_stylesheet = hash64(referer) in referers.stylesheets or referer.partition("?")[0].endswith(".css")
        if is_stylesheet or link in referers.links or hash64(url) not in referers.images:
            continue
        referers.links.add(link)
        capture, page_time_ms, position = referers.pages.get(page_url, (hash64(f"{source}\nreferer\n{page_url}"), time_ms, 0))
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
