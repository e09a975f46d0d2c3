"""A crawl made by wget of a site served here; what must be found is the site's own definition."""

import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.sources import AliasRecord, ImageRecord, LinkRecord, PageRecord, Record


def jpeg(name: str) -> bytes:
    return b"\xff\xd8\xff\xe0" + name.encode() * 500


# path -> HTML
PAGES = {
    "/": '<a href="dir/gallery.html">gallery</a> <a href="/moved.html">moved</a> <a href="private.html">private</a>'
    '<img src="logo.jpg" alt="Logo">',
    "/dir/gallery.html": """<base href="/images/"><img src="one.jpg" alt="Eins">
        <img data-src="lazy.jpg" src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">
        <img src="small.jpg" srcset="small.jpg 1x, large.jpg 2x"><img src="../redirected.jpg"><img src="gone.jpg">
        <a href="lazy.jpg"></a>""",
    "/private.html": '<meta name="robots" content="noai"><img src="/images/one.jpg">',
    "/new.html": '<div style="background-image: url(/images/css.jpg)"></div>',
}
REDIRECTS = {"/moved.html": "/new.html", "/redirected.jpg": "/images/target.jpg"}
IMAGES = (
    "/logo.jpg",
    "/images/one.jpg",
    "/images/lazy.jpg",
    "/images/small.jpg",
    "/images/large.jpg",
    "/images/target.jpg",
    "/images/css.jpg",
)


class Site(BaseHTTPRequestHandler):
    """Serves what stands above."""

    def do_GET(self) -> None:
        if self.path in REDIRECTS:
            self.answer(302, "text/html", b"", Location=REDIRECTS[self.path])
        elif self.path in PAGES:
            self.answer(200, "text/html; charset=utf-8", PAGES[self.path].encode())
        elif self.path in IMAGES:
            self.answer(200, "image/jpeg", jpeg(self.path))
        elif self.path == "/robots.txt":
            self.answer(200, "text/plain", b"User-agent: *\nAllow: /\n")
        else:
            self.answer(404, "text/html", b"<img src=/logo.jpg>")

    def answer(self, status: int, kind: str, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": kind, "Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stays silent."""


@pytest.fixture
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("packed", [True, False])
def test_a_crawl_by_wget(tmp_path: Path, site: str, read_all: Callable[..., list[Record]], packed: bool) -> None:
    wget = shutil.which("wget")
    if wget is None:
        pytest.skip("wget is not installed")
    command = [wget, "--quiet", "--no-config", "--no-proxy", "--recursive", "--page-requisites", "--warc-file=crawl", f"{site}/"]
    command += [] if packed else ["--no-warc-compression"]
    done = subprocess.run(command, cwd=tmp_path, timeout=60, check=False)
    assert done.returncode == 8  # one image is gone
    records = read_all(tmp_path / ("crawl.warc.gz" if packed else "crawl.warc"))
    links = [record for record in records if isinstance(record, LinkRecord)]
    images = [record for record in records if isinstance(record, ImageRecord)]
    assert {record.url.removeprefix(site): record.opt_out for record in records if isinstance(record, PageRecord)} == {
        "/": "",
        "/dir/gallery.html": "",
        "/private.html": "noai",
        "/new.html": "",
    }
    assert {(image.url.removeprefix(site), image.body, image.reason) for image in images} == {(path, jpeg(path), "") for path in IMAGES}
    assert {
        record.url.removeprefix(site): record.target.removeprefix(site) for record in records if isinstance(record, AliasRecord)
    } == REDIRECTS
    named = sorted(
        (link.page_url.removeprefix(site), link.position, link.image_url.removeprefix(site), link.alt, link.via)
        for link in links
        if link.via != "referer"
    )
    gallery = "/dir/gallery.html"
    assert named == [
        ("/", 0, "/logo.jpg", "Logo", "img"),
        (gallery, 0, "/images/one.jpg", "Eins", "img"),
        (gallery, 1, "/images/lazy.jpg", "", "lazy"),
        (gallery, 2, "/images/large.jpg", "", "srcset"),
        (gallery, 2, "/images/small.jpg", "", "img"),
        (gallery, 3, "/redirected.jpg", "", "img"),
        (gallery, 4, "/images/gone.jpg", "", "img"),
        ("/new.html", 0, "/images/css.jpg", "", "css"),
        ("/private.html", 0, "/images/one.jpg", "", "img"),
    ]
    assert {(link.page_url.removeprefix(site), link.image_url.removeprefix(site)) for link in links if link.via == "referer"} <= {
        ("/moved.html", "/images/css.jpg"),  # wget names the page as it was linked
        (gallery, "/images/target.jpg"),
    }
