"""The members of a tar, found header by header, so that a hostile one costs neither memory nor a way out of the archive."""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.sources.frames import DamageError, Readable

_BLOCK = tarfile.BLOCKSIZE
_MAX_EXTENSION_BYTES = 1_000_000
_EXTENSIONS = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_WITHOUT_CONTENT = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE)


@dataclass(frozen=True, slots=True)
class Member:
    """One member: `offset` is where its header stands, `start` where its content does."""

    name: str
    offset: int
    start: int
    size: int
    is_file: bool

    @property
    def is_inside(self) -> bool:
        """Whether it is a file whose name leads nowhere else."""
        return self.is_file and not self.name.startswith("/") and ".." not in self.name.split("/") and "\0" not in self.name


def tar_members(file: Readable) -> Iterator[Member]:
    """Yields the members in the order of the archive; whoever takes them may move the file's position.

    Raises:
      DamageError: where no header stands, or a member or its header is cut off.
    """
    offset = 0
    name, size = "", -1  # from extensions of the header that follows them
    while info := _header(file, offset):
        start = offset + _BLOCK
        if info.type in _EXTENSIONS:
            name, size = _extension(file, info, start, name, size)
            offset = start + _padded(info.size)
            continue
        size = size if size >= 0 else info.size
        if info.type in _WITHOUT_CONTENT:
            size = 0
        yield Member(name or info.name, offset, start, size, info.type in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE))
        if size and file.tell() < start + size:  # going back is slow in a compressed tar
            file.seek(start + size - 1)
            if not file.read(1):
                raise DamageError(offset, f"the file ends within {(name or info.name)!r}")
        offset = start + _padded(size)
        name, size = "", -1


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _header(file: Readable, offset: int) -> tarfile.TarInfo | None:
    file.seek(offset)
    block = file.read(_BLOCK)
    if not block.strip(b"\0") and len(block) in (0, _BLOCK):
        return None
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError) as error:
        raise DamageError(offset, f"no tar header stands here: {error}") from error
    if info.size < 0 or info.type == tarfile.GNUTYPE_SPARSE:
        raise DamageError(offset, f"a member of {info.size} bytes and type {info.type!r}")
    return info


def _extension(file: Readable, info: tarfile.TarInfo, start: int, name: str, size: int) -> tuple[str, int]:
    """Returns name and size of the next member, as far as a header before its own says them."""
    if info.size > _MAX_EXTENSION_BYTES:
        raise DamageError(start - _BLOCK, f"a header of {info.size} bytes")
    content = file.read(info.size)
    if len(content) < info.size:
        raise DamageError(start - _BLOCK, "the file ends within a header")
    if info.type == tarfile.GNUTYPE_LONGNAME:
        return content.rstrip(b"\0").decode("utf-8", "surrogateescape"), size
    if info.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
        for key, value in _pax_records(content):
            if key == b"path":
                name = value.decode("utf-8", "surrogateescape")
            elif key == b"size" and value.isdigit() and len(value) < 19:
                size = int(value)
    return name, size


def _pax_records(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields the records of a pax header: each is "<its length> <key>=<value>" and a line end."""
    at = 0
    while (space := content.find(b" ", at, at + 20)) > 0 and content[at:space].isdigit():
        end = at + int(content[at:space])
        key, equals, value = content[space + 1 : end - 1].partition(b"=")
        if not equals or end <= space:
            return
        yield key, value
        at = end
