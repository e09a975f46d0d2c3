"""Makes a small web crawl of rendered pages and images by seed, and the table of what must become of each of them.

    python examples/make_crawl.py --output DIR [--seed 0] [--pages 24]

DIR/crawl.warc.gz is what a crawler would leave; DIR/truth.jsonl is what check_crawl.py compares a run with. The same seed
gives the same bytes, on the same libraries.
"""

import argparse
import base64
import hashlib
import json
from pathlib import Path
from urllib.parse import quote

import numpy as np
from crawl import FORMATS, Crawl, img, page_key
from PIL import Image
from scenes import closer, copied, encode, png_bomb, quilt, scene

HOSTS = (
    *("garden.example.com", "harbour.example.com", "trails.example.org", "kitchen.example.org"),
    *("museum.example.net", "sky.example.net", "blog.example.org", "shop.example.com"),
)
MIN_PAGES = 21  # the logo must stand on more than 20


def add_stories(crawl: Crawl, pages: int) -> None:
    """Adds pages of three related pictures with the logo; some with an unrelated picture, a near-duplicate, a badge or a poster."""
    logos = [encode(quilt(crawl.seed, 0, size=(320, 320)), kind) for kind in ("png", "webp")]  # hosts serve it in one format or the other
    badge = encode(quilt(crawl.seed, 1, size=(300, 300)), "webp")
    poster = encode(quilt(crawl.seed, 2, size=(400, 320)), "png")
    for number in range(pages):
        host = HOSTS[number % len(HOSTS)]
        page_url, theme = f"https://{host}/stories/{number}.html", 1000 + number  # the other pages' themes lie below
        html = add_logo(crawl, page_url, logos[number % 2] if number < len(HOSTS) else b"")
        html += crawl.views(page_url, theme, views=3, kind="webp" if number % 4 == 3 else "jpg")
        ids = crawl.ids(page_url)
        if number % 3 == 0:
            picture = scene(crawl.seed, theme, 9, opposite=True)
            html += add_picture(crawl, page_url, "elsewhere.jpg", encode(picture), "below_low", *ids)
        if number % 3 == 1:
            html += add_picture(crawl, page_url, "again.jpg", encode(closer(scene(crawl.seed, theme, 0))), "above_high", ids[0])
        if number < 7:  # on more than 5 hosts
            html += add_copy(crawl, page_url, "badge.webp", badge, "boilerplate_hosts")
        if number < 5:  # on 5 hosts: just kept
            html += add_copy(crawl, page_url, "poster.png", poster, "kept")
        crawl.page(f"{page_url}?utm_source=mail#top" if number == 2 else page_url, html, zipped=number == 3)


def add_logo(crawl: Crawl, page_url: str, body: bytes = b"", expected: str = "boilerplate_pages") -> str:
    """Adds the logo to a page, and to its host where `body` is given."""
    url = f"https://{page_url.split('/')[2]}/static/logo.png"
    if body:
        crawl.image(url, body)
    crawl.reference(page_url, url, expected)
    return img("/static/logo.png", "logo")


def add_picture(crawl: Crawl, page_url: str, name: str, body: bytes, outcome: str, *others: str) -> str:
    """Adds a picture that is kept, but whose pair with each of `others` has another outcome."""
    url = f"{page_url.removesuffix('.html')}/{name}"
    picture = crawl.image(url, body)
    crawl.reference(page_url, url, image=picture)
    for other in others:
        crawl.candidates(page_url, (picture, other), outcome)
    return img(url)


def add_copy(crawl: Crawl, page_url: str, name: str, body: bytes, expected: str) -> str:
    """Adds an image that every host serves under its own URL."""
    url = f"https://{page_url.split('/')[2]}/shared/{name}"
    crawl.image(url, body)
    crawl.reference(page_url, url, expected)
    return img(url)


def add_prints(crawl: Crawl) -> None:
    """Adds a page with one picture in three sizes and qualities, one of its URLs named twice."""
    page_url = "https://museum.example.net/prints.html"
    names = {"large.png": (640, 480), "medium.jpg": (480, 360), "small.webp": (400, 300)}
    html = ""
    for index, (name, size) in enumerate(names.items()):
        url = f"https://museum.example.net/prints/{name}"
        crawl.image(url, encode(quilt(crawl.seed, 3, size=(640, 480)).resize(size), FORMATS[name.split(".")[1]]))
        crawl.reference(page_url, url, "duplicate_on_page" if index else "kept")
        html += img(f"prints/{name}")
    crawl.reference(page_url, f"https://museum.example.net/prints/{name}", "duplicate_on_page")
    crawl.page(page_url, html + img(f"prints/{name}") + crawl.views(page_url, 100))


def add_broken(crawl: Crawl) -> None:
    """Adds a page whose images are each unusable for another reason, but for two."""
    page_url = "https://blog.example.org/broken.html"
    photo = scene(crawl.seed, 200, 0, size=(400, 300))
    jpeg, png = encode(photo), encode(photo, "png")
    icon, banner = encode(photo.resize((64, 64)), "png"), encode(photo.resize((900, 240)))
    flat = Image.new("RGB", (400, 300), (128, 128, 128))
    vignette = Image.radial_gradient("L").resize((400, 300)).point(lambda value: 120 + value // 32)
    frames = [scene(crawl.seed, 200, view, size=(256, 256)).quantize(32) for view in range(3)]
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" width="400" height="400"><circle cx="200" cy="200" r="150"/></svg>'
    bodies: dict[str, tuple[bytes, str]] = {
        "cut.jpg": (jpeg[: len(jpeg) * 3 // 5], "broken_image"),
        "cut.png": (png[: len(png) * 3 // 5], "broken_image"),
        "empty.jpg": (b"", "empty_body"),
        "login.jpg": (b"<!doctype html><html><body><h1>Please log in</h1></body></html>", "not_an_image"),
        "gone.png": (icon, "http_status"),
        "icon.png": (icon, "too_small"),
        "banner.jpg": (banner, "aspect"),
        "flat.jpg": (encode(flat), "low_texture"),
        "flat-too.png": (encode(flat.resize((300, 300)), "png"), "low_texture"),  # of one hash with flat.jpg, and no copy of it
        "vignette.jpg": (encode(vignette), "low_texture"),
        "moving.gif": (encode(frames[0], "gif", save_all=True, append_images=frames[1:], duration=200, loop=0), "animated"),
        "moving.webp": (encode(frames[0].convert("RGB"), "webp", save_all=True, append_images=frames[1:], duration=200), "animated"),
        "drawing.svg": (svg, "unsupported_format"),
        "bomb.png": (png_bomb(50_000), "too_many_pixels"),
    }
    html = add_logo(crawl, page_url)
    for name, (body, reason) in bodies.items():
        url = f"https://blog.example.org/broken/{name}"
        crawl.request(url, page_url)
        status = "404 Not Found" if name == "gone.png" else "200 OK"
        crawl.image(url, body, reason, status=status)
        crawl.reference(page_url, url, "image_dropped", detail=reason)
        html += img(f"/broken/{name}")
    crawl.page(page_url, html + crawl.views(page_url, 101))


def add_formats(crawl: Crawl) -> None:
    """Adds a page of pictures that need care, all kept: CMYK, 16 bit, palette with alpha, EXIF rotation, a wrong type, chunks."""
    page_url = "https://museum.example.net/formats.html"
    rotated = Image.Exif()
    rotated[0x0112] = 6
    photos = [scene(crawl.seed, 102, view, size=(480, 360)) for view in range(8)]
    deep = Image.fromarray(np.asarray(photos[1].convert("L")).astype(np.uint16) * 257)
    bodies = {
        "cmyk.jpg": encode(photos[0].convert("CMYK")),
        "deep.png": encode(deep, "png"),
        "palette.png": encode(photos[2].quantize(64), "png", transparency=3),
        "turned.jpg": encode(photos[3], exif=rotated),
        "really-png.jpg": encode(photos[4].quantize(64), "png"),
        "chunked.jpg": encode(photos[5]),
        "noindex.jpg": encode(photos[6]),
        "reserved-not.webp": encode(photos[7], "webp"),
    }
    headers = {
        "chunked.jpg": (("Transfer-Encoding", "chunked"),),
        "noindex.jpg": (("X-Robots-Tag", "noindex"),),
        "reserved-not.webp": (("tdm-reservation", "0"),),
    }
    for name, body in bodies.items():
        url = f"https://museum.example.net/formats/{name}"
        picture = crawl.image(url, body, headers=headers.get(name, ()))
        crawl.reference(page_url, url, image=picture)
    crawl.page(page_url, add_logo(crawl, page_url) + "".join(img(f"formats/{name}") for name in bodies))


def add_opt_outs(crawl: Crawl) -> None:
    """Adds images whose owner said no, copies of them elsewhere, and two pages that said no."""
    page_url, copies_url = "https://shop.example.com/rights.html", "https://blog.example.org/copies.html"
    first, second = quilt(crawl.seed, 4, size=(400, 300)), quilt(crawl.seed, 5, size=(480, 360))
    html = ""
    for name, picture, header in (("noai", first, ("X-Robots-Tag", "noindex, noai")), ("reserved", second, ("tdm-reservation", "1"))):
        url = f"https://shop.example.com/rights/{name}.png"
        crawl.image(url, encode(picture, "png"), "opt_out", headers=(header,))
        crawl.reference(page_url, url, "image_dropped", detail="opt_out")
        html += img(url)
    crawl.page(page_url, html + crawl.views(page_url, 103))
    html = ""
    for name, body in (("same.png", encode(first, "png")), ("again.jpg", encode(second.resize((360, 270)), quality=80))):
        url = f"https://blog.example.org/copies/{name}"
        crawl.image(url, body)
        crawl.reference(copies_url, url, "copy_removed", detail="opt_out")
        html += img(url)
    crawl.page(copies_url, html + crawl.views(copies_url, 104))
    robots_url, reserved_url = "https://kitchen.example.org/private/robots.html", "https://sky.example.net/private/reserved.html"
    html = add_logo(crawl, robots_url, expected="page_opt_out") + crawl.views(robots_url, 105, "page_opt_out")
    crawl.page(robots_url, html, head='<meta name="robots" content="index, noimageai">')
    crawl.page(reserved_url, crawl.views(reserved_url, 106, "page_opt_out"), headers=(("tdm-reservation", "1"),))


def add_copies(crawl: Crawl) -> None:
    """Adds pictures, a page with smaller, brighter and recompressed ones beside one of its own, and a brighter copy of an opt-out."""
    page_url, copies_url = "https://museum.example.net/originals.html", "https://blog.example.org/borrowed.html"
    crawl.page(page_url, crawl.views(page_url, 114, views=3, kind="webp", pairs=False))
    originals = crawl.ids(page_url)
    html = ""
    copies = {"recompressed.jpg": (0, 0.9, 1.0, 30), "brighter.jpg": (1, 0.7, 1.3, 60)}
    for name, (view, scale, brightness, quality) in copies.items():
        url = f"https://blog.example.org/borrowed/{name}"
        crawl.image(url, encode(copied(scene(crawl.seed, 114, view), scale=scale, brightness=brightness), quality=quality))
        crawl.reference(copies_url, url, image=originals[view])
        html += img(url)
    html += crawl.views(copies_url, 115, views=1)
    first, second = sorted((page_url, copies_url), key=page_key)
    crawl.candidates(first, originals[:2], "kept")
    crawl.candidates(second, originals[:2], "on_another_page")
    crawl.candidates(page_url, originals[1:], "kept")
    refused, brighter = "https://shop.example.com/refused.jpg", "https://blog.example.org/borrowed/refused.jpg"
    picture = scene(crawl.seed, 117, 0)
    crawl.image(refused, encode(picture), "opt_out", headers=(("X-Robots-Tag", "noimageai"),))
    crawl.image(brighter, encode(copied(picture, scale=0.8, brightness=1.3)))
    crawl.reference(copies_url, brighter, "copy_removed", detail="opt_out")
    crawl.page(copies_url, html + img(brighter))


def add_markup(crawl: Crawl) -> None:
    """Adds a page that names its images in every way HTML has, relative to a base, one of them in several sizes."""
    page_url, base = "https://trails.example.org/walks/markup.html", "https://cdn.example.org/media/"
    names = ("og.jpg", "lazy.jpg", "quiet.jpg", "plain.jpg?id=7&w=640", "sizes-480.jpg", "choice-600.webp")
    ids = []
    for view, name in enumerate(names):
        ids.append(crawl.image(base + name, encode(scene(crawl.seed, 107, view), "webp" if name.endswith("webp") else "jpeg")))
        crawl.reference(page_url, base + name, image=ids[-1] if view < 4 else "")
    for view, name in ((4, "sizes-320.jpg"), (5, "choice-400.jpg")):  # smaller alternatives of one element
        crawl.image(base + name, encode(scene(crawl.seed, 107, view).resize((360, 270))))
    crawl.candidates(page_url, ids[:4], "kept")
    pixel = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="
    html = f"""<img class="lazy" src="{pixel}" data-src="lazy.jpg" alt="late">
<img src="../media/plain.jpg?id=7&amp;w=640" alt="plain">
<p>Some browsers run no scripts.</p><noscript><img src="./quiet.jpg" alt="without scripts"></noscript>
<img src="sizes-320.jpg" srcset="sizes-320.jpg 320w, sizes-480.jpg 480w, sizes-960.jpg 960w" alt="sizes">
<picture><source type="image/webp" srcset="choice-600.webp 1.5x"><img src="choice-400.jpg" alt="choice"></picture>"""
    crawl.page(page_url, html, head=f'<base href="//cdn.example.org/media/"><meta property="og:image" content="{base}og.jpg">')


def add_charset(crawl: Crawl) -> None:
    """Adds a page in windows-1251 whose image names are Cyrillic."""
    page_url = "https://harbour.example.com/ru/index.html"
    for view, name in enumerate(("лыжи", "дым")):
        url = f"https://harbour.example.com/ru/{quote(name)}.jpg"
        crawl.reference(page_url, url, image=crawl.image(url, encode(scene(crawl.seed, 108, view))))
    crawl.candidates(page_url, crawl.ids(page_url), "kept")
    crawl.page(page_url, img("лыжи.jpg", "лыжи") + img("дым.jpg", "дым"), charset="windows-1251")


def add_archive(crawl: Crawl) -> None:
    """Adds a page whose images come through a redirect, a revisit record and two captures, next to some that were never crawled."""
    page_url, root = "https://sky.example.net/archive.html", "https://sky.example.net/archive/"
    html = "".join(img(f"archive/{name}") for name in ("moved.jpg", "again.jpg", "webcam.jpg", "lost-1.jpg", "lost-2.png"))
    crawl.request(root + "moved.jpg", page_url)
    crawl.write("response", root + "moved.jpg", "HTTP/1.1 302 Found", (("Location", "/archive/new/place.jpg"),), b"")
    crawl.request(root + "new/place.jpg", page_url)
    place = crawl.image(root + "new/place.jpg", encode(scene(crawl.seed, 109, 0)))
    body = encode(scene(crawl.seed, 109, 1))
    original = "https://cdn.example.org/original.jpg"
    revisited = crawl.image(original, body, day=1)
    digest = "sha1:" + base64.b32encode(hashlib.sha1(body).digest()).decode()
    extra = (
        ("WARC-Profile", "http://netpreserve.org/warc/1.1/revisit/identical-payload-digest"),
        ("WARC-Payload-Digest", digest),
        ("WARC-Refers-To-Target-URI", original),
        ("WARC-Refers-To-Date", crawl.date),
    )
    crawl.write("revisit", root + "again.jpg", "HTTP/1.1 200 OK", (("Content-Type", "image/jpeg"),), b"", extra=extra)
    crawl.image(root + "webcam.jpg", encode(scene(crawl.seed, 110, 0)), day=1)
    webcam = crawl.image(root + "webcam.jpg", encode(scene(crawl.seed, 109, 2)))
    for name, picture in (("moved.jpg", place), ("again.jpg", revisited), ("webcam.jpg", webcam)):
        crawl.reference(page_url, root + name, image=picture)
    for name in ("lost-1.jpg", "lost-2.png"):
        crawl.reference(page_url, root + name, "not_in_crawl")
    crawl.candidates(page_url, (place, revisited, webcam), "kept")
    crawl.page(page_url, html)


def add_few(crawl: Crawl) -> None:
    """Adds a gallery that only scripts load, a page without images, one with a single usable image, and two pages with the same pair."""
    gallery_url = "https://garden.example.com/gallery.html"
    crawl.page(gallery_url, '<div id="gallery"></div><script src="/gallery.js"></script>')
    crawl.views(gallery_url, 111, views=3)
    crawl.page("https://blog.example.org/words.html", "<h1>No pictures</h1>")
    lonely_url, root = "https://kitchen.example.org/lonely.html", "https://kitchen.example.org/lonely/"
    crawl.image(root + "only.jpg", encode(scene(crawl.seed, 112, 0)))
    crawl.reference(lonely_url, root + "only.jpg", "single_image")
    crawl.image(root + "small.jpg", encode(scene(crawl.seed, 112, 1, size=(340, 255))))
    crawl.reference(lonely_url, root + "small.jpg", "smaller_than_size")
    crawl.page(lonely_url, add_logo(crawl, lonely_url) + img("lonely/only.jpg") + img("lonely/small.jpg"))
    add_twins(crawl)


def add_twins(crawl: Crawl) -> None:
    """Adds two pages with the same pair, one of which shows a third picture, and two pages that show the same pictures."""
    one_url, other_url = "https://trails.example.org/twins/one.html", "https://trails.example.org/twins/other.html"
    html = crawl.views(one_url, 113, pairs=False)
    ids = crawl.ids(one_url)
    add_again(crawl, one_url, other_url)
    first, second = sorted((one_url, other_url), key=page_key)
    crawl.candidates(first, ids, "kept")
    crawl.candidates(second, ids, "on_another_page")
    crawl.page(one_url, html)
    crawl.page(other_url, html + crawl.views(other_url, 118, views=1))
    print_url = "https://garden.example.com/print/visit.html"
    first, second = sorted(("https://garden.example.com/visit.html", print_url), key=page_key)
    html = crawl.views(first, 119, views=3)
    add_again(crawl, first, second, "same_images_as_other_page")
    crawl.page(first, html)
    crawl.page(second, html)


def add_again(crawl: Crawl, page_url: str, other_url: str, expected: str = "kept") -> None:
    """Says that a page refers to the images of another one so far."""
    for row in [row for row in crawl.truth if row["page_url"] == page_url and row["record"] == "reference"]:
        detail = page_url if expected != "kept" else ""
        crawl.reference(other_url, row["image_url"], expected, image=row["image_id"] if expected == "kept" else "", detail=detail)


def make_crawl(output: Path, *, seed: int = 0, pages: int = 24) -> None:
    """Writes crawl.warc.gz and truth.jsonl into `output`.

    Args:
      output: folder, made where it is absent.
      seed: another seed, other pictures and texts.
      pages: pages of related pictures; about fifteen more show one thing each.

    Raises:
      ValueError: if there are too few pages for the logo to count as boilerplate.
    """
    if pages < MIN_PAGES:
        raise ValueError(f"--pages {pages}: give at least {MIN_PAGES}, so that the logo stands on more than 20 pages")
    crawl = Crawl(seed=seed)
    add_stories(crawl, pages)
    for add in (add_prints, add_broken, add_formats, add_opt_outs, add_copies, add_markup, add_charset, add_archive, add_few):
        add(crawl)
    output.mkdir(parents=True, exist_ok=True)
    archive = crawl.archive.getvalue()
    (output / "crawl.warc.gz").write_bytes(archive)
    (output / "truth.jsonl").write_text("".join(json.dumps(row, sort_keys=True) + "\n" for row in crawl.truth), encoding="utf-8")
    print(f"{output / 'crawl.warc.gz'}: {crawl.records} records, {len(archive) / 1e6:.1f} MB, {len(crawl.truth)} facts in truth.jsonl")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Makes an example crawl and its truth table.")
    parser.add_argument("--output", type=Path, required=True, help="folder to write into")
    parser.add_argument("--seed", type=int, default=0, help="decides every picture and text")
    parser.add_argument("--pages", type=int, default=24, help=f"pages of related pictures, at least {MIN_PAGES}")
    flags = parser.parse_args()
    try:
        make_crawl(flags.output, seed=flags.seed, pages=flags.pages)
    except ValueError as error:
        parser.error(str(error))
