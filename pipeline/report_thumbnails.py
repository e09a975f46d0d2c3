"""Small pictures and alt texts for the pairs that the report shows, read by reference from the crawl."""

import base64
import io
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from pagepairs.config import ScanConfig
from pagepairs.images import ImageError, decode
from pipeline.references import SourceChanged, read_images

SIDE_PX = 160
_WEBP_QUALITY = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumbnail:
    """A picture for the page, or the reason why there is none."""

    data_uri: str = ""
    reason: str = ""


def wanted_images(samples: Mapping[str, list[tuple[int, dict[str, Any]]]]) -> set[str]:
    """Returns the ids of both images of every sampled pair."""
    rows = [row for group, samples_of in samples.items() if group.startswith("bin/") for _, row in samples_of]
    return {row[side] for row in rows for side in ("a_id", "b_id")}


def wanted_pages(samples: Mapping[str, list[tuple[int, dict[str, Any]]]]) -> set[str]:
    """Returns the keys of the pages on which the sampled pairs stand."""
    return {row["page_key"] for group, samples_of in samples.items() if group.startswith("bin/") for _, row in samples_of}


def read_thumbnails(
    path: str, wanted: Collection[str], locate: Callable[[str], str], limits: Mapping[str, Any]
) -> Iterator[tuple[str, Thumbnail]]:
    """Yields (image_id, thumbnail) for the wanted images of one file of units/."""
    names = ["image_id", "source", "offset", "length"]
    table = pq.read_table(path, columns=names)
    rows = table.filter(pc.is_in(table["image_id"], pa.array(sorted(wanted), pa.string())))
    for reference in zip(*(rows[name].to_pylist() for name in names), strict=True):
        yield reference[0], read_thumbnail(reference, locate, limits)


def read_thumbnail(reference: tuple[str, str, int, int], locate: Callable[[str], str], limits: Mapping[str, Any]) -> Thumbnail:
    """Returns the picture behind (image_id, source, offset, length), or the reason why it cannot be read or decoded."""
    [body] = read_images([reference], locate)
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


def read_alts(path: str, wanted: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yields ("page_key/image_id", alt text) for the images of the wanted pages in one file of episodes/."""
    table = pq.read_table(path, columns=["page_key", "images"])
    for row in table.filter(pc.is_in(table["page_key"], pa.array(sorted(wanted), pa.string()))).to_pylist():
        for image in row["images"]:
            if image["alt"]:
                yield f"{row['page_key']}/{image['image_id']}", image["alt"]
