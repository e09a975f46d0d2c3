"""Where large files are cut, remembered: finding the records of an archive means to inflate all of it."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress

from pagepairs.config import ScanConfig
from pagepairs.files import read_json, write_json
from pagepairs.stores import store_of
from pipeline.sources import frames
from pipeline.sources.find import Found
from pipeline.sources.records import safe_text

_VERSION = 1  # of the way files are cut

Pieces = Sequence[tuple[int, ...]]


def kept_pieces(folder: str, found: Found, config: ScanConfig, find: Callable[[str, ScanConfig], Pieces]) -> Pieces:
    """Returns what `find` returns for a file, from an earlier run where name, size, time and settings are the same.

    Args:
      folder: one small file a large file is kept here, written whole or not at all; "" for none.
      found: a file shorter than CUT_BYTES, or a folder, is not kept.
      config: of all sources.
      find: of the kind of source.

    Raises:
      ValueError: whatever `find` raises; it is not kept.
    """
    stat = store_of(found.path).stat(found.path) if folder else None
    if stat is None or stat.bytes <= frames.CUT_BYTES:  # a folder has no state of its own
        return find(found.path, config)
    key = [_VERSION, found.kind, found.source, stat.bytes, stat.version, frames.CUT_BYTES, config.page_url_key]
    path = os.path.join(folder, f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]}.json")
    with suppress(OSError, ValueError):
        return [tuple(piece) for piece in read_json(path)["pieces"]]
    pieces = find(found.path, config)
    write_json(path, {"source": safe_text(found.source), "pieces": pieces})
    return pieces
