"""The images of a test set as an index keeps them: read, decoded, hashed and embedded just as the crawl's are."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from dedup.benchmark import ITEMS, THUMBNAILS
from encoders import Encoder, embed_all
from pagepairs.config import ScanConfig
from pagepairs.images import ImageError, encode_image, resize_shortest
from pipeline.ahead import map_ahead
from pipeline.benchmark_items import Item
from pipeline.look import Look, look, pixels

SCAN = ScanConfig(animations="first-frame")
"""How the images of a test set are decoded: as scan decodes, without its rules on size and shape."""
_THUMBNAIL_PX, _THUMBNAIL_QUALITY = 96, 75


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """An item that was read and decoded."""

    look: Look
    thumbnail: bytes
    network_input: np.ndarray | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """All that is known of the images of a test set; row i of each is one item."""

    table: pa.Table
    thumbnails: pa.Table
    vectors_ND: np.ndarray | None  # float16
    paths: list[str]
    unreadable: list[dict[str, str]]


def read_items(items: list[Item], encoder: Encoder | None, *, batch_size: int, threads: int) -> Items:
    """Reads, decodes, hashes and embeds the images; those that give no image are listed with their reason."""
    rows: list[dict[str, object]] = []
    thumbnails: list[bytes] = []
    paths: list[str] = []
    unreadable: list[dict[str, str]] = []
    vectors: list[np.ndarray] = []
    inputs: list[np.ndarray] = []
    for item, prepared in map_ahead(lambda item: _prepare(item, encoder), items, threads=threads, window=3 * batch_size):
        if isinstance(prepared, ImageError):
            unreadable.append({"path": item.name, "reason": prepared.reason, "detail": prepared.detail})
            continue
        seen = prepared.look
        rows.append({"item_id": seen.image_id, "item": item.name, "phash": seen.phash, "pdq": seen.pdq, "texture": seen.texture})
        thumbnails.append(prepared.thumbnail)
        paths.append(item.path)
        if encoder is not None and prepared.network_input is not None:
            inputs.append(prepared.network_input)
            if len(inputs) == batch_size:
                vectors.append(_embed(encoder, inputs, batch_size))
    if encoder is not None:
        vectors += [_embed(encoder, inputs, batch_size)] if inputs else []
        vectors_ND = np.concatenate([np.empty((0, encoder.width), np.float16), *vectors])
        finite = np.isfinite(vectors_ND).all(axis=1)
        for lost in np.flatnonzero(~finite)[::-1]:
            unreadable.append({"path": str(rows[lost]["item"]), "reason": "not_finite", "detail": ""})
            del rows[lost], thumbnails[lost], paths[lost]
        vectors_ND = vectors_ND[finite]
    return Items(
        table=pa.Table.from_pylist(rows, schema=ITEMS),
        thumbnails=pa.table([pa.array(thumbnails, pa.binary())], schema=THUMBNAILS),
        vectors_ND=vectors_ND if encoder is not None else None,
        paths=paths,
        unreadable=sorted(unreadable, key=lambda row: row["path"]),
    )


def _prepare(item: Item, encoder: Encoder | None) -> Prepared | ImageError:
    try:
        body = item.read(SCAN.max_bytes)
        rgb = pixels(body, SCAN).rgb
        network_input = None if encoder is None else encoder.preprocess(rgb)
        thumbnail = encode_image(resize_shortest(rgb, _THUMBNAIL_PX), "webp", _THUMBNAIL_QUALITY)
        return Prepared(look=look(body, SCAN), thumbnail=thumbnail, network_input=network_input)
    except ImageError as error:
        return error


def _embed(encoder: Encoder, inputs: list[np.ndarray], batch_size: int) -> np.ndarray:
    """Returns the vectors as the crawl's are stored, and empties the batch."""
    vectors_BD = embed_all(encoder, inputs, batch_size=batch_size).astype(np.float16)
    inputs.clear()
    return vectors_BD
