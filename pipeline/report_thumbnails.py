"""Small pictures and alt texts for the pairs that the report shows, read by reference from the crawl."""

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from pagepairs.config import ScanConfig
from pagepairs.files import read_parquet
from pagepairs.images import ImageError, decode
from pipeline.references import SourceChanged, read_body, read_images
from pipeline.report_summary import Summary

SIDE_PX = 128
_WEBP_QUALITY = 60
_REFERENCE = ("source", "offset", "length")
_DECODABLE = ("too_small", "aspect", "low_texture", "sprite", "animated")


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumbnail:
    """A picture for the page, or the reason why there is none."""

    data_uri: str = ""
    reason: str = ""


def read_thumbnails(
    path: str, rows: Sequence[Mapping[str, Any]], locate: Callable[[str], str], limits: Mapping[str, Any]
) -> Iterator[tuple[str, Thumbnail]]:
    """Yields (image_id, thumbnail) for the images of these candidates that stand in one file of units/."""
    wanted = {row[side] for row in rows for side in ("a_id", "b_id")}
    names = ["image_id", *_REFERENCE]
    table = read_parquet(path, names)
    found = table.filter(pc.is_in(table["image_id"], pa.array(sorted(wanted), pa.string())))
    for reference in zip(*(found[name].to_pylist() for name in names), strict=True):
        yield reference[0], read_thumbnail(reference, locate, limits)


def read_thumbnail(reference: tuple[str, str, int, int], locate: Callable[[str], str], limits: Mapping[str, Any]) -> Thumbnail:
    """Returns the picture behind (image_id, source, offset, length), or the reason why it cannot be read or decoded."""
    [body] = read_images([reference], locate)
    return _thumbnail(body, limits)


def _thumbnail(body: bytes | SourceChanged, limits: Mapping[str, Any]) -> Thumbnail:
    if isinstance(body, SourceChanged):
        return Thumbnail(reason="source_changed")
    try:
        return Thumbnail(data_uri=shrink(body, limits))
    except ImageError as error:
        return Thumbnail(reason=error.reason)


def decode_limits(scan: ScanConfig) -> dict[str, Any]:
    """Returns the arguments with which scan decoded the images."""
    limits = {name: getattr(scan, name) for name in ("max_bytes", "max_pixels", "animations")}
    return limits | {"timeout_s": scan.decode_timeout_s}


def shrink(body: bytes, limits: Mapping[str, Any]) -> str:
    """Returns an image body as a data URI: WebP, centre-cropped to SIDE_PX x SIDE_PX.

    Args:
      body: of an image, as the crawl holds it.
      limits: as `decode_limits` returns them.
    """
    image = Image.fromarray(decode(body, at_least_px=SIDE_PX, **limits).rgb)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side), reducing_gap=2.0)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=_WEBP_QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def read_members(path: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, tuple[str, int, int]]]:
    """Yields ("page_key/image_id", (alt text, width, height)) for the images of these candidates' pages in one file of episodes/."""
    wanted = {row["page_key"] for row in rows}
    table = read_parquet(path, ["page_key", "images"])
    for row in table.filter(pc.is_in(table["page_key"], pa.array(sorted(wanted), pa.string()))).to_pylist():
        for image in row["images"]:
            yield f"{row['page_key']}/{image['image_id']}", (image["alt"] or "", image["width"], image["height"])


Found = tuple[str, int, int, str]
"""Where a dropped image stands: source, offset, length; and its image_id, "" where nobody took it."""


def find_dropped(path: str, summary: Summary) -> Iterator[tuple[str, Found]]:
    """Yields (picture, place) for the sampled drops whose image stands in one file of images/, kept there."""
    wanted = {row["picture"] for samples in summary.samples.values() for _, row in samples if row["picture"]}
    names = ["url_key", *_REFERENCE, "image_id", "reason"]
    table = read_parquet(path, names)
    table = table.filter(pc.and_(pc.is_in(table["url_key"], pa.array(sorted(wanted), pa.string())), pc.equal(table["reason"], "")))
    for key, *place, _ in zip(*(table[name].to_pylist() for name in names), strict=True):
        yield key, tuple(place)


def drop_references(summary: Summary) -> Iterator[tuple[str, Found]]:
    """Yields (picture, place) for the sampled drops that bring their own reference."""
    for samples in summary.samples.values():
        for _, row in samples:
            if row["picture"] and row.get("source") and row["reason"] in _DECODABLE:
                yield row["picture"], (row["source"], row["offset"], row["length"], "")


def read_dropped(found: tuple[str, Found], locate: Callable[[str], str], limits: Mapping[str, Any]) -> tuple[str, Thumbnail]:
    """Returns the picture of a dropped image, of an animation its first frame, or the reason why there is none."""
    picture, (source, offset, length, image_id) = found
    shown = {**limits, "animations": "first-frame"}
    if image_id:
        return picture, read_thumbnail((image_id, source, offset, length), locate, shown)
    return picture, _thumbnail(read_body((source, offset, length), locate), shown)
