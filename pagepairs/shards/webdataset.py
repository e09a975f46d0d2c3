"""webdataset: a tar of `<pair_id>.condition.jpg`, `<pair_id>.target.jpg` and `<pair_id>.json`, which holds all other columns.

Embeddings, where asked for, are `<pair_id>.condition_embedding.npy` and `<pair_id>.target_embedding.npy`. Every member has the mode 0644,
the owner 0 and the time 0, so the bytes depend on the pairs only.
"""

import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from itertools import groupby

import numpy as np
import pyarrow as pa

from pagepairs.files import Hashed, open_read
from pagepairs.images import sniff
from pagepairs.shards.rows import Row, rows_of

_EXTENSIONS = {"jpeg": "jpg", "png": "png", "webp": "webp"}
_BLOCK_BYTES = tarfile.BLOCKSIZE


def write(file: Hashed, schema: pa.Schema, batches: Iterable[pa.Table]) -> None:
    """Writes the members of each pair one after the other."""
    written = 0
    for batch in batches:
        for row in rows_of(batch):
            for name, data in members_of(row):
                head, tail = _head(f"{row['pair_id']}.{name}", len(data)), bytes(-len(data) % _BLOCK_BYTES)
                file.write(b"".join((head, data, tail)))
                written += len(head) + len(data) + len(tail)
    end = 2 * _BLOCK_BYTES
    file.write(bytes(end + -(written + end) % tarfile.RECORDSIZE))


def members_of(row: Row) -> Iterator[tuple[str, bytes]]:
    """Yields what follows the pair's id in each member's name, and the member's bytes."""
    fields = {}
    for name, value in row.items():
        if isinstance(value, bytes):
            yield f"{name.removesuffix('_image')}.{_EXTENSIONS[sniff(value)]}", value
        elif isinstance(value, np.ndarray):
            yield f"{name}.npy", _npy(value)
        else:
            fields[name] = value
    yield "json", json.dumps(fields, ensure_ascii=False).encode()


def _npy(vector_D: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, vector_D, allow_pickle=False)
    return buffer.getvalue()


def _head(name: str, count_bytes: int) -> bytes:
    # What TarInfo does not say is fixed: mode 0644, user and group 0 without names, time 0.
    member = tarfile.TarInfo(name)
    member.size = count_bytes
    return member.tobuf(tarfile.USTAR_FORMAT)


def read(path: str) -> Iterator[Row]:
    """Yields the rows, one pair in memory at a time.

    Raises:
      ValueError: for a tar that holds anything else.
    """
    try:
        with open_read(path) as file, tarfile.open(fileobj=file, mode="r|") as tar:
            members = ((member.name, _body(tar, member)) for member in tar)
            for _, group in groupby(members, key=lambda member: member[0].partition(".")[0]):
                yield _row(group)
    except (tarfile.TarError, KeyError) as error:
        raise ValueError(f"{path} is no shard of pairs: {error}") from error


def _body(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    return b"" if file is None else file.read()


def _row(members: Iterable[tuple[str, bytes]]) -> Row:
    parts = {name.partition(".")[2]: body for name, body in members}
    row: Row = json.loads(parts.pop("json"))
    images = {name.partition(".")[0]: body for name, body in parts.items() if not name.endswith(".npy")}
    row |= {f"{side}_image": images[side] for side in ("condition", "target")}
    return row | {name.removesuffix(".npy"): np.load(io.BytesIO(body)) for name, body in parts.items() if name.endswith(".npy")}
