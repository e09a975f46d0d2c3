"""An archive as a crawler leaves it, and the truth table of what must become of its images, references and pairs."""

import gzip
import hashlib
import io
import uuid
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import combinations

from scenes import encode, generator, scene
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

_WORDS = ("light", "water", "stone", "path", "early", "morning", "market", "boats", "field", "wind", "old", "quiet", "river", "harbour")
FORMATS = {"jpg": "jpeg", "png": "png", "webp": "webp", "gif": "gif", "svg": "svg+xml"}
Headers = tuple[tuple[str, str], ...]


def image_id(body: bytes) -> str:
    """Returns what names an image in every dataset: the sha256 of its body."""
    return hashlib.sha256(body).hexdigest()


def page_key(url: str) -> str:
    """Returns the key by whose order a pair that several pages show is given to one of them."""
    return hashlib.blake2b(url.encode(), digest_size=16).hexdigest()


def img(source: str, text: str = "") -> str:
    """Returns the HTML element of an image."""
    return f'<figure><img src="{source}" alt="{text}"></figure>'


@dataclass
class Crawl:
    """The records of the archive, in order, and the truth about them."""

    seed: int
    archive: io.BytesIO = field(default_factory=io.BytesIO)
    truth: list[dict[str, str]] = field(default_factory=list)
    records: int = 0
    date: str = ""  # of the latest record

    def write(self, kind: str, url: str, line: str, headers: Headers, body: bytes, *, day: int = 2, extra: Headers = ()) -> None:
        """Adds one WARC record; record ids are hashes, dates count up from 10:00 of `day`."""
        self.records += 1
        identity = uuid.UUID(bytes=hashlib.blake2b(f"{self.seed} {self.records} {url}".encode(), digest_size=16).digest())
        self.date = f"2025-03-{day:02d}T10:{self.records // 60 % 60:02d}:{self.records % 60:02d}Z"
        warc = {"WARC-Record-ID": f"<urn:uuid:{identity}>", "WARC-Date": self.date, **dict(extra)}
        start, _, line = line.partition(" ")
        http = StatusAndHeaders(line, list(headers), protocol=start)
        writer = WARCWriter(self.archive, gzip=True, warc_version="WARC/1.1")
        payload = None if kind == "revisit" else io.BytesIO(body)
        writer.write_record(writer.create_warc_record(url, kind, payload, len(body), warc_headers_dict=warc, http_headers=http))

    def request(self, url: str, page_url: str) -> None:
        """Adds the request for an image, sent by a page."""
        path = url.split("/", 3)[3]
        self.write("request", url, f"GET /{path} HTTP/1.1", (("Host", url.split("/")[2]), ("Referer", page_url)), b"")

    def image(self, url: str, body: bytes, expected: str = "kept", *, status: str = "200 OK", headers: Headers = (), day: int = 2) -> str:
        """Adds an image response, says what scan makes of it, and returns the image's id."""
        kind = f"image/{FORMATS.get(url.rsplit('.', 1)[-1], 'jpeg')}"
        row = {"record": "image", "page_url": "", "image_url": url, "image_id": image_id(body), "stage": "scan", "expected": expected}
        self.truth.append(row)
        sent = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if ("Transfer-Encoding", "chunked") in headers else body
        self.write("response", url, f"HTTP/1.1 {status}", (("Content-Type", kind), *headers), sent, day=day)
        return image_id(body)

    def reference(self, page_url: str, image_url: str, expected: str = "kept", *, image: str = "", detail: str = "") -> None:
        """Says what becomes of a reference; `image` where its id is certain, `detail` where scan dropped its image."""
        row = {"record": "reference", "page_url": page_url, "image_url": image_url, "image_id": image, "stage": "pair"}
        self.truth.append({**row, "expected": expected, "detail": detail})

    def ids(self, page_url: str) -> list[str]:
        """Returns the known ids of the images that a page refers to so far."""
        return [row["image_id"] for row in self.truth if row["record"] == "reference" and row["page_url"] == page_url and row["image_id"]]

    def candidates(self, page_url: str, ids: Iterable[str], expected: str) -> None:
        """Says what becomes of the unordered pairs of some images of a page."""
        for one, other in combinations(sorted(ids), 2):
            row = {"record": "candidate", "page_url": page_url, "image_url": "", "image_id": one, "other_id": other}
            self.truth.append({**row, "stage": "candidates", "expected": expected})

    def page(self, url: str, body: str, *, head: str = "", charset: str = "utf-8", headers: Headers = (), zipped: bool = False) -> None:
        """Adds an HTML response: a title, some sentences and `body`."""
        rng = generator(self.seed, zlib.crc32(url.encode()))
        text = [f"<p>{' '.join(rng.choice(_WORDS, 30)).capitalize()}.</p>" for _ in range(3)]
        meta = f'<meta charset="{charset}">' if charset == "utf-8" else ""
        head = f"<head>{meta}{head}<title>A page</title></head>"
        html = f"<!doctype html><html>{head}\n<body>{text[0]}\n{body}\n{text[1]}{text[2]}</body></html>\n"
        data = gzip.compress(html.encode(charset), mtime=0) if zipped else html.encode(charset)
        encoding = (("Content-Encoding", "gzip"),) if zipped else ()
        self.write("response", url, "HTTP/1.1 200 OK", (("Content-Type", f"text/html; charset={charset}"), *encoding, *headers), data)

    def views(self, page_url: str, theme: int, expected: str = "kept", *, views: int = 2, kind: str = "jpg", pairs: bool = True) -> str:
        """Adds views of a theme, which form pairs where they are kept, and returns their HTML elements."""
        urls = [f"{page_url.rsplit('/', 1)[0]}/photos/{theme}-{view}.{kind}" for view in range(views)]
        ids = []
        for view, url in enumerate(urls):
            self.request(url, page_url)
            ids.append(self.image(url, encode(scene(self.seed, theme, view), FORMATS[kind])))
            self.reference(page_url, url, expected, image=ids[-1] if expected == "kept" else "")
        if pairs and expected == "kept":
            self.candidates(page_url, ids, "kept")
        return "\n".join(img(url, f"view {view} of theme {theme}") for view, url in enumerate(urls))
