"""The columns of every dataset, as Arrow schemas. A new fact is a new column and a new SCHEMA_VERSION.

Ids are lower-case hex strings: `*_id` of images and pairs is a sha256 (64 characters), `*_key` a blake2b of 16 bytes (32 characters).
"""

import numpy as np
import pyarrow as pa

SCHEMA_VERSION = 2

_TIME = pa.timestamp("ms", tz="UTC")

# Where the bytes of an image stand: `source` is a file, relative to its input root, or `spill/<unit>.tar` inside the output.
_REFERENCE = [("source", pa.string()), ("offset", pa.int64()), ("length", pa.int64())]

IMAGES = pa.schema(
    [
        ("image_id", pa.string()),  # sha256 of the body after transfer and content decoding
        ("image_url", pa.string()),
        ("url_key", pa.string()),
        *_REFERENCE,
        ("bytes", pa.int64()),  # length of the body
        ("width", pa.int32()),  # after EXIF orientation
        ("height", pa.int32()),
        ("format", pa.string()),  # as sniffed: jpeg, png, webp, ...
        ("phash", pa.uint64()),
        ("pdq", pa.binary(32)),
        ("texture", pa.int16()),  # PDQ's quality value, 0 (flat) to 100
        ("time", _TIME),  # of the capture; null where unknown
        ("digest_key", pa.string()),  # of the payload digest that revisit records refer to; "" where unknown
        ("reason", pa.string()),  # "" = kept; opt-outs and blocked images stay here, so that their copies can go too
    ]
)
PAGES = pa.schema(
    [
        ("page_url", pa.string()),
        ("time", _TIME),
        ("opt_out", pa.string()),  # the directive that the page carries
        ("reason", pa.string()),  # "" or why none of its images may be used: page_opt_out, page_blocked
        ("source", pa.string()),
        ("title", pa.string()),  # of the HTML page, white space collapsed, at most 300 characters; "" where there is none
    ]
)
LINKS = pa.schema(
    [
        ("page_url", pa.string()),  # canonical: no fragment, no tracking parameters
        ("capture", pa.uint64()),  # which capture of the page; positions count within it
        ("page_time", _TIME),
        ("image_url", pa.string()),
        ("url_key", pa.string()),
        ("position", pa.int32()),  # of the element in the page; alternatives of one element share it
        ("alt", pa.string()),
        ("via", pa.string()),  # img, srcset, picture, lazy, css, preload, og, referer, table, webdataset, folder
        ("reason", pa.string()),  # "" or why the whole page is left out: page_opt_out, page_blocked
    ]
)
ALIASES = pa.schema(
    [("url", pa.string()), ("url_key", pa.string()), ("target", pa.string()), ("target_key", pa.string()), ("kind", pa.string())]
)
UNITS = pa.schema([("image_id", pa.string()), *_REFERENCE, ("width", pa.int32()), ("height", pa.int32())])
DROPS = pa.schema(
    [
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("error", pa.bool_()),  # True: counted under errors, not under dropped
        ("page_url", pa.string()),
        ("image_url", pa.string()),
        ("detail", pa.string()),
    ]
)
# What scan dropped can be looked at again where it stands; source is "" where it cannot be read in place.
SCAN_DROPS = pa.schema([*DROPS, *_REFERENCE])
EPISODES = pa.schema(
    [
        ("page_url", pa.string()),
        ("page_key", pa.string()),
        (
            "images",
            pa.list_(
                pa.struct(
                    [
                        ("image_id", pa.string()),
                        ("image_url", pa.string()),
                        ("position", pa.int32()),
                        ("alt", pa.string()),
                        ("width", pa.int32()),
                        ("height", pa.int32()),
                    ]
                )
            ),
        ),
    ]
)
CANDIDATES = pa.schema(
    [
        ("page_url", pa.string()),
        ("page_key", pa.string()),
        ("a_id", pa.string()),  # a_id < b_id
        ("b_id", pa.string()),
        ("a_url", pa.string()),
        ("b_url", pa.string()),
        ("similarity", pa.float32()),
        ("reason", pa.string()),  # "" = kept
    ]
)
PAIRS = pa.schema(
    [
        ("pair_id", pa.string()),
        ("page_url", pa.string()),
        ("page_count", pa.int32()),
        ("condition_id", pa.string()),
        ("target_id", pa.string()),
        ("condition_url", pa.string()),
        ("target_url", pa.string()),
        ("similarity", pa.float32()),
        ("condition_alt", pa.string()),  # the alternative text on that page
        ("target_alt", pa.string()),
        *[(f"condition_{name}", kind) for name, kind in _REFERENCE],
        *[(f"target_{name}", kind) for name, kind in _REFERENCE],
    ]
)
# An image and the benchmark item that it resembles most; one row an image and benchmark.
MATCHES = pa.schema(
    [
        ("image_id", pa.string()),
        ("image_url", pa.string()),  # the lowest of its URLs
        ("benchmark", pa.string()),
        ("item_id", pa.string()),
        ("item", pa.string()),  # path or name in the benchmark
        ("phash_distance", pa.int16()),  # bits of 64; null where the item has no such hash
        ("pdq_distance", pa.int16()),  # bits of 256
        ("similarity", pa.float32()),  # null in an index of hashes alone
        ("signal", pa.string()),  # hash (or equal bytes), embedding, both; "" = no match: one of the nearest images that stay
        ("thumbnail", pa.binary()),  # of the item, WebP; of the rows that the report shows
    ]
)
# An image that another one stands for, on every page.
COPIES = pa.schema(
    [
        ("image_id", pa.string()),
        ("canonical_id", pa.string()),
        ("rule", pa.string()),  # that made it a copy: equal_hash, near_hash, near_embedding
    ]
)
SHARDS = pa.schema(
    [
        ("pair_id", pa.string()),
        ("page_url", pa.string()),
        ("condition_id", pa.string()),
        ("target_id", pa.string()),
        ("condition_url", pa.string()),
        ("target_url", pa.string()),
        ("similarity", pa.float32()),
        ("condition_image", pa.binary()),
        ("target_image", pa.binary()),
    ]
)


def shards_schema(*, alt: bool = False, embedding_width: int = 0) -> pa.Schema:
    """Returns the columns of shards: those of SHARDS, then alternative texts and both embeddings where they are asked for."""
    texts = [(f"{side}_alt", pa.string()) for side in ("condition", "target") if alt]
    vectors = [(f"{side}_embedding", pa.list_(pa.float16(), embedding_width)) for side in ("condition", "target") if embedding_width]
    return pa.schema([*SHARDS, *(pa.field(name, kind) for name, kind in [*texts, *vectors])])


def embeddings_schema(width: int) -> pa.Schema:
    """Returns the columns of embeddings/<encoder>/; `width` is the length of a vector, which has unit L2 norm."""
    return pa.schema([("image_id", pa.string()), ("embedding", pa.list_(pa.float16(), width))])


def vectors_of(column: pa.ChunkedArray) -> np.ndarray:
    """Returns an embedding column as float16 of shape (N, D), without copying it where it is in one piece."""
    array = column.combine_chunks()
    vectors_ND: np.ndarray = array.flatten().to_numpy(zero_copy_only=False).reshape(-1, array.type.list_size)
    return vectors_ND


def rows_to_table(rows: list[dict[str, object]], schema: pa.Schema) -> pa.Table:
    """Returns the rows as a table of exactly `schema`; a row that lacks a column raises KeyError."""
    return pa.table(
        [pa.array([row[name] for row in rows], kind) for name, kind in zip(schema.names, schema.types, strict=True)], schema=schema
    )
