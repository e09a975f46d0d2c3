"""Archives made for tests: records of every kind, packed as WARC, ARC, WACZ and tar."""

import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Iterable
from typing import Any

JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 4
DATE = "2024-05-06T07:08:09Z"
DATE_MS = 1_714_979_289_000


def http(body: bytes, content_type: str, *headers: tuple[str, str], status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode() + body


def request(referer: str) -> bytes:
    return f"GET / HTTP/1.1\r\nReferer: {referer}\r\n\r\n".encode()


def warc(url: str, content: bytes, kind: str = "response") -> bytes:
    lines = [
        "WARC/1.1",
        f"WARC-Type: {kind}",
        f"WARC-Target-URI: {url}",
        f"WARC-Date: {DATE}",
        f"Content-Type: application/http; msgtype={kind}",
    ]
    return "\r\n".join([*lines, f"Content-Length: {len(content)}", "", ""]).encode() + content + b"\r\n\r\n"


def arc(url: str, content: bytes, kind: str = "text/html") -> bytes:
    return f"{url} 127.0.0.1 20240506070809 {kind} {len(content)}\n".encode() + content + b"\n"


def arc_head() -> bytes:
    content = b"1 0 test\nURL IP-address Archive-date Content-type Archive-length\n\n"
    return f"filedesc://test.arc 0.0.0.0 20240506070809 text/plain {len(content)}\n".encode() + content


def by_record(records: Iterable[bytes]) -> bytes:
    return b"".join(gzip.compress(record, mtime=0) for record in records)


def wacz(members: dict[str, tuple[bytes, int]]) -> bytes:
    """Packs name -> (content, method of compression)."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, (content, method) in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return file.getvalue()


def tar(members: Iterable[tuple[str, bytes] | tarfile.TarInfo], form: int = tarfile.USTAR_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return file.getvalue()


def sidecar(**values: Any) -> bytes:
    return json.dumps(values).encode()
