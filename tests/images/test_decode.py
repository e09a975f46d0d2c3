"""decode() and sniff(): every reason on both sides of its limit, every kind of pixel, damage, and threads."""

import io
import pickle
import struct
import time
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps

from pagepairs.images import Decoded, ImageError, decode, sniff

LIMITS = {"max_bytes": 10_000_000, "max_pixels": 10_000_000, "timeout_s": 60.0}


def picture(width: int = 80, height: int = 60, seed: int = 0) -> Image.Image:
    """A smooth picture with an edge, so that every codec has something to do."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    image.paste((250, 20, 30), (width // 4, height // 4, width // 2, height // 2))
    return image


def as_bytes(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def refusal(body: bytes, **limits: object) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode(body, **{**LIMITS, **limits})
    return caught.value


def by_pillow(body: bytes) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(body))).convert("RGB"))


def png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


FORMATS = {
    "jpeg": {"quality": 90},
    "png": {},
    "gif": {},
    "webp": {"lossless": True},
    "bmp": {},
    "avif": {},
}


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_gives_pillows_pixels(form: str) -> None:
    body = as_bytes(picture(), form, **FORMATS[form])
    decoded = decode(body, **LIMITS)
    assert (sniff(body), decoded.format, decoded.width, decoded.height) == (form, form, 80, 60)
    assert decoded.rgb.dtype == np.uint8
    assert decoded.rgb.flags.c_contiguous
    np.testing.assert_array_equal(decoded.rgb, by_pillow(body))


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(80, 60), (1, 1), (17, 33), (641, 479)])
def test_jpeg_gives_pillows_pixels(subsampling: int, progressive: bool, mode: str, size: tuple[int, int]) -> None:
    options = {} if mode == "L" else {"subsampling": subsampling}
    body = as_bytes(picture(*size).convert(mode), "jpeg", progressive=progressive, **options)
    np.testing.assert_array_equal(decode(body, **LIMITS).rgb, by_pillow(body))


def test_cmyk_jpeg_gives_pillows_pixels() -> None:
    body = as_bytes(picture().convert("CMYK"), "jpeg")
    np.testing.assert_array_equal(decode(body, **LIMITS).rgb, by_pillow(body))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["jpeg", "png", "webp", "avif"])
def test_exif_orientation_is_applied(form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    body = as_bytes(picture(), form, exif=exif)
    decoded = decode(body, **LIMITS)
    assert (decoded.width, decoded.height) == ((80, 60) if orientation < 5 else (60, 80))
    np.testing.assert_array_equal(decoded.rgb, by_pillow(body))


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0" + bytes(40)])
def test_damaged_exif_leaves_the_picture_alone(exif: bytes) -> None:
    plain = as_bytes(picture(), "jpeg")
    body = as_bytes(picture(), "jpeg", exif=exif)
    assert exif in body
    np.testing.assert_array_equal(decode(body, **LIMITS).rgb, decode(plain, **LIMITS).rgb)


def test_transparency_is_shown_on_white() -> None:
    image = picture(4, 1).convert("RGBA")
    for x, pixel in enumerate([(10, 20, 30, 255), (10, 20, 30, 0), (0, 0, 0, 128), (255, 0, 0, 51)]):
        image.putpixel((x, 0), pixel)
    want = [[[10, 20, 30], [255, 255, 255], [127, 127, 127], [255, 204, 204]]]
    assert decode(as_bytes(image, "png"), **LIMITS).rgb.tolist() == want
    assert decode(as_bytes(image, "webp", lossless=True, exact=True), **LIMITS).rgb.tolist() == want


def test_palette_and_colour_key_transparency_are_shown_on_white() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([1, 2, 3, 200, 100, 50])
    palette.putpixel((1, 0), 1)
    for form in ("png", "gif"):
        assert decode(as_bytes(palette, form), **LIMITS).rgb.tolist() == [[[1, 2, 3], [200, 100, 50]]]
        assert decode(as_bytes(palette, form, transparency=1), **LIMITS).rgb.tolist() == [[[1, 2, 3], [255, 255, 255]]]
    keyed = Image.new("RGB", (2, 1), (9, 9, 9))
    keyed.putpixel((1, 0), (7, 8, 9))
    assert decode(as_bytes(keyed, "png", transparency=(9, 9, 9)), **LIMITS).rgb.tolist() == [[[255, 255, 255], [7, 8, 9]]]
    grey = Image.new("LA", (2, 1), (40, 255))
    grey.putpixel((1, 0), (40, 0))
    assert decode(as_bytes(grey, "png"), **LIMITS).rgb.tolist() == [[[40] * 3, [255] * 3]]


def test_sixteen_bits_keep_their_upper_eight() -> None:
    values = np.array([[0, 255, 256, 0x1234, 0xFFFF]], np.uint16)
    rgb = decode(as_bytes(Image.fromarray(values), "png"), **LIMITS).rgb
    assert rgb.tolist() == [[[v] * 3 for v in (0, 0, 1, 0x12, 0xFF)]]


def test_one_bit_is_black_and_white() -> None:
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    assert decode(as_bytes(image, "png"), **LIMITS).rgb.tolist() == [[[0] * 3, [255] * 3]]


def test_of_an_mpo_the_first_picture_is_taken() -> None:
    first, second = picture(seed=1), picture(seed=2)
    body = as_bytes(first, "mpo", save_all=True, append_images=[second])
    decoded = decode(body, **LIMITS)
    assert decoded.format == "jpeg"
    np.testing.assert_array_equal(decoded.rgb, by_pillow(as_bytes(first, "jpeg")))


@pytest.mark.parametrize("form", ["gif", "webp", "png", "avif"])
def test_an_animation_is_dropped_unless_its_first_frame_is_asked_for(form: str) -> None:
    frames = [picture(seed=seed) for seed in range(3)]
    options = {"lossless": True} if form == "webp" else {}
    body = as_bytes(frames[0], form, save_all=True, append_images=frames[1:], **options)
    error = refusal(body)
    assert (error.reason, error.detail) == ("animated", "3 frames")
    first = decode(body, **LIMITS, animations="first-frame").rgb
    assert np.abs(first.astype(int) - np.asarray(frames[0])).mean() < 12
    still = as_bytes(frames[0], form, save_all=True, **options)
    assert decode(still, **LIMITS).format == form


def test_limits_hold_on_both_sides() -> None:
    body = as_bytes(picture(), "jpeg")
    for form in FORMATS:
        image = as_bytes(picture(), form)
        assert decode(image, **{**LIMITS, "max_pixels": 4800}).rgb.shape == (60, 80, 3)
        error = refusal(image, max_pixels=4799)
        assert (error.reason, error.detail) == ("too_many_pixels", "80 x 60")
    assert decode(body, **{**LIMITS, "max_bytes": len(body)}).format == "jpeg"
    assert refusal(body, max_bytes=len(body) - 1).reason == "too_many_bytes"
    assert refusal(b"").reason == "empty_body"


@pytest.mark.parametrize("form", FORMATS)
def test_a_deadline_that_has_passed_is_a_timeout(form: str) -> None:
    assert refusal(as_bytes(picture(), form), timeout_s=1e-9).reason == "decode_timeout"


@pytest.mark.parametrize(
    "body",
    [
        png_claiming(50_000, 50_000),
        png_claiming(2**31 - 1, 2**31 - 1),
        as_bytes(picture(), "bmp")[:18] + struct.pack("<ii", 50_000, 50_000) + as_bytes(picture(), "bmp")[26:],
        as_bytes(picture(), "gif")[:6] + struct.pack("<HH", 65_535, 65_535) + as_bytes(picture(), "gif")[10:],
        b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + b"\xff\x3f\0\xff\x3f\0" + bytes(8),
    ],
    ids=["png", "png-max", "bmp", "gif", "webp"],
)
def test_a_header_of_billions_of_pixels_costs_nothing(body: bytes) -> None:
    tracemalloc.start()
    started = time.perf_counter()
    assert refusal(body, max_pixels=100_000_000).reason in ("too_many_pixels", "broken_image")
    assert time.perf_counter() - started < 0.5
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_fifty_thousand_squared_is_named() -> None:
    error = refusal(png_claiming(50_000, 50_000), max_pixels=100_000_000)
    assert (error.reason, error.detail) == ("too_many_pixels", "50000 x 50000")


def test_a_png_of_more_pixels_than_pillow_likes_raises_no_warning() -> None:
    body = as_bytes(Image.new("1", (9_500, 9_500)), "png")  # Pillow warns above 89 478 485 pixels
    assert decode(body, **{**LIMITS, "max_pixels": 100_000_000}).width == 9_500


def test_a_jpeg_of_a_thousand_scans_is_refused_before_decoding() -> None:
    body = as_bytes(picture(), "jpeg", progressive=True)
    last = body.rindex(b"\xff\xda")
    scan = body[last : body.rindex(b"\xff\xd9")]
    error = refusal(body[:last] + scan * 1000 + b"\xff\xd9")
    assert error.reason == "decode_timeout"
    assert error.detail.endswith(" scans")


def test_scan_markers_after_the_end_do_not_count() -> None:
    body = as_bytes(picture(), "jpeg")  # a phone's photo with a film behind it
    np.testing.assert_array_equal(decode(body + b"\xff\xda" * 1000, **LIMITS).rgb, by_pillow(body))


@pytest.mark.parametrize(
    ("body", "name", "reason"),
    [
        (b"<!DOCTYPE html><html><body>404</body></html>", "html", "not_an_image"),
        (b"\xef\xbb\xbf\n  <!-- hello --><HTML lang=en>", "html", "not_an_image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "svg", "unsupported_format"),
        (b"<?xml version='1.0'?>\n<!-- made by hand -->\n<svg:svg/>", "svg", "unsupported_format"),
        (b"<?xml version='1.0'?>\n<!DOCTYPE svg PUBLIC 'x' 'y'><svg></svg>", "svg", "unsupported_format"),
        (b"II*\0rest", "tiff", "unsupported_format"),
        (as_bytes(picture(32, 32), "ico"), "ico", "unsupported_format"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "heic", "unsupported_format"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif", "avif", "broken_image"),
        (b"%PDF-1.7", "pdf", "unsupported_format"),
        (b"\xff\x0a\0\0", "jxl", "unsupported_format"),
        (b"hello", "", "unsupported_format"),
        (b"\xff\xd8\xff\xd9", "jpeg", "broken_image"),
    ],
)
def test_sniffing_names_what_a_body_is(body: bytes, name: str, reason: str) -> None:
    assert sniff(body) == name
    assert refusal(body).reason == reason


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("jpeg", {}),
        ("jpeg", {"progressive": True}),
        ("jpeg", {"restart_marker_rows": 1}),
        ("png", {}),
        ("gif", {}),
        ("webp", {}),
        ("webp", {"lossless": True}),
        ("bmp", {}),
        ("avif", {}),
    ],
)
def test_a_truncated_body_is_broken_wherever_it_ends(form: str, options: dict[str, object]) -> None:
    whole = as_bytes(picture(), form, **options)
    pixels = decode(whole, **LIMITS).rgb
    kept, reasons = [], set()
    for cut in sorted({*range(16, 200), *range(16, len(whole), 41), *range(len(whole) - 64, len(whole))}):
        try:
            np.testing.assert_array_equal(decode(whole[:cut], **LIMITS).rgb, pixels)
            kept.append(cut - len(whole))
        except ImageError as error:
            reasons.add(error.reason)
    assert reasons == {"broken_image"}
    # What lacks only its end mark, and no pixel, may pass: a PNG's last checksum, a GIF's trailer and the end of its last block.
    assert all(missing >= -4 for missing in kept)
    assert not kept or form in ("png", "gif")


def test_a_damaged_png_chunk_is_broken() -> None:
    body = bytearray(as_bytes(picture(), "png"))
    body[body.index(b"IDAT") + 20] ^= 1
    assert refusal(bytes(body)).reason == "broken_image"


def test_a_truncated_cmyk_jpeg_is_broken() -> None:
    body = as_bytes(picture().convert("CMYK"), "jpeg")
    for cut in range(len(body) // 2, len(body), 7):
        assert refusal(body[:cut]).reason == "broken_image"


@pytest.mark.parametrize(
    ("size", "reduced"), [((1023, 1200), (1023, 1200)), ((1024, 1201), (512, 601)), ((2048, 2049), (512, 513)), ((4097, 4096), (513, 512))]
)
def test_a_jpeg_may_be_reduced_to_a_side(size: tuple[int, int], reduced: tuple[int, int]) -> None:
    body = as_bytes(picture(*size), "jpeg", quality=90)
    limits = {**LIMITS, "max_pixels": 20_000_000}
    decoded = decode(body, **limits, at_least_px=512)
    assert (decoded.width, decoded.height) == size
    assert decoded.rgb.shape == (reduced[1], reduced[0], 3)
    whole = Image.fromarray(decode(body, **limits).rgb).resize(reduced, Image.Resampling.BOX)
    assert np.abs(decoded.rgb.astype(int) - np.asarray(whole)).mean() < 2


def test_a_reduced_jpeg_is_refused_when_truncated() -> None:
    body = as_bytes(picture(1100, 1100), "jpeg")
    for cut in range(len(body) // 2, len(body), 997):
        assert refusal(body[:cut], at_least_px=512).reason == "broken_image"


def test_threads_get_the_same_pixels() -> None:
    bodies = [as_bytes(picture(300 + seed, 200, seed), form, **options) for seed in range(8) for form, options in FORMATS.items()]

    def facts(body: bytes) -> tuple[bytes, str]:
        decoded: Decoded = decode(body, **LIMITS)
        return decoded.rgb.tobytes(), decoded.format

    alone = [facts(body) for body in bodies]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(facts, bodies * 4)) == alone * 4


def test_an_image_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(ImageError("broken_image", "why")))
    assert (error.reason, error.detail, str(error)) == ("broken_image", "why", "broken_image: why")
    assert str(ImageError("empty_body")) == "empty_body"


def test_a_body_that_needs_more_memory_than_there_is_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(simplejpeg, "decode_jpeg", refuse)
    error = refusal(as_bytes(picture(), "jpeg"))
    assert (error.reason, error.detail) == ("broken_image", "not enough memory to decode it")
