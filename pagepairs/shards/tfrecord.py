"""TFRecord: one tf.train.Example a pair, its features named as the columns, written and read without TensorFlow.

Texts and images are bytes_list, the similarity and embeddings float_list (a float16 is a float32 too). An Example is

    Example {1: Features {1: entry {1: name, 2: Feature {1: BytesList {1: value} | 2: FloatList {1: packed values}}} ...}}

as a protocol buffer, of which it needs one kind of field only: the one that begins with its tag and length. Features are sorted by name, as
TensorFlow's own deterministic serialisation has them. A record is its length (uint64) and its bytes, each followed by a masked CRC-32C.
"""

import functools
import struct
from collections.abc import Iterable, Iterator
from typing import Any

import google_crc32c
import numpy as np
import pyarrow as pa

from pagepairs.files import Hashed, open_read
from pagepairs.shards.rows import Row, rows_of

_FIRST, _SECOND = b"\x0a", b"\x12"  # tags of fields 1 and 2 with a length
_FLOAT32 = np.dtype("<f4")
HEAD_BYTES, CHECK_BYTES = 12, 4


def write(file: Hashed, schema: pa.Schema, batches: Iterable[pa.Table]) -> None:
    """Writes one record a pair."""
    for batch in batches:
        for row in rows_of(batch):
            data = encode_example(row)
            length = struct.pack("<Q", len(data))
            file.write(b"".join((length, _check(length), data, _check(data))))


def _check(data: bytes) -> bytes:
    """Returns the masked CRC-32C of the bytes."""
    crc = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def encode_example(row: Row) -> bytes:
    """Returns the row as a serialised tf.train.Example."""
    pieces = [piece for name in sorted(row) for piece in _encode_feature(name.encode(), row[name])]
    return b"".join((_FIRST, _varint(sum(map(len, pieces))), *pieces))


def _encode_feature(name: bytes, value: Any) -> tuple[bytes, bytes]:
    """Returns the entry of one feature in two pieces, so that an image is copied once."""
    if isinstance(value, str | bytes):
        kind, data = _FIRST, value.encode() if isinstance(value, str) else value
    else:
        kind, data = _SECOND, np.asarray(value, _FLOAT32).tobytes()
    head = _FIRST + _varint(len(data))
    head = kind + _varint(len(head) + len(data)) + head
    head = _FIRST + _varint(len(name)) + name + _SECOND + _varint(len(head) + len(data)) + head
    return _FIRST + _varint(len(head) + len(data)) + head, data


@functools.lru_cache(maxsize=4096)  # most lengths are those of the row before: a third of the time of a record
def _varint(value: int) -> bytes:
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def read(path: str) -> Iterator[Row]:
    """Yields the rows, one in memory at a time.

    Raises:
      ValueError: for a file that is damaged or holds anything else.
    """
    with open_read(path) as file:
        while head := file.read(HEAD_BYTES):
            try:
                yield decode_example(checked_body(head + file.read(record_length(head) + CHECK_BYTES)))
            except ValueError as error:
                raise ValueError(f"{path}: damaged before byte {file.tell()}: {error}") from error


def record_length(head: bytes) -> int:
    """Returns the length of the message behind the HEAD_BYTES of a record.

    Raises:
      ValueError: if they are damaged.
    """
    if len(head) < HEAD_BYTES or _check(head[:8]) != head[8:]:
        raise ValueError("no record begins there")
    return int.from_bytes(head[:8], "little")


def checked_body(record: bytes) -> bytes:
    """Returns the message of a whole record: HEAD_BYTES, the message, CHECK_BYTES.

    Raises:
      ValueError: if its check does not fit.
    """
    body = record[HEAD_BYTES:-CHECK_BYTES]
    if len(body) != record_length(record[:HEAD_BYTES]) or _check(body) != record[-CHECK_BYTES:]:
        raise ValueError("the check of a record does not fit")
    return body


def decode_example(data: bytes) -> Row:
    """Returns the row that `encode_example` wrote.

    Raises:
      ValueError: for a message of another kind.
    """
    features = _fields(_only(memoryview(data)))
    return dict(_decode_feature(entry) for _, entry in features)


def _decode_feature(entry: memoryview) -> tuple[str, Any]:
    fields = dict(_fields(entry))
    if fields.keys() != {_FIRST[0], _SECOND[0]}:
        raise ValueError("no Example of a pair: a feature without name or value")
    name = bytes(fields[_FIRST[0]]).decode()
    kind, values = next(_fields(fields[_SECOND[0]]), (0, memoryview(b"")))
    value = bytes(_only(values))
    if kind == _FIRST[0]:
        return name, value if name.endswith("_image") else value.decode()
    numbers = np.frombuffer(value, _FLOAT32)
    return name, numbers.astype(np.float16) if name.endswith("_embedding") else float(numbers[0])


def _only(message: memoryview) -> memoryview:
    """Returns the content of a message's one field."""
    fields = list(_fields(message))
    if len(fields) != 1:
        raise ValueError(f"no Example of a pair: {len(fields)} fields in place of one")
    return fields[0][1]


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yields tag and content of each field."""
    at = 0
    while at < len(message):
        tag, (length, start) = message[at], _read_varint(message, at + 1)
        at = start + length
        if tag not in (_FIRST[0], _SECOND[0]) or at > len(message):
            raise ValueError(f"no Example of a pair: tag {tag} and length {length}")
        yield tag, message[start:at]


def _read_varint(message: memoryview, at: int) -> tuple[int, int]:
    """Returns the number that begins at byte `at`, and where the next byte after it stands."""
    value = 0
    for shift in range(0, 64, 7):
        if at >= len(message):
            break
        value |= (message[at] & 0x7F) << shift
        at += 1
        if message[at - 1] < 0x80:
            return value, at
    raise ValueError("no Example of a pair: a length without end")
