"""Where files stand: the file system of this machine, or an object store (`gs://bucket/name`). The same functions serve both.

An object store has no folders, no rename and no half-written object: an upload is seen when it is whole. So a dataset is complete when its
manifest is there, never because a folder has its final name.
"""

import errno
import fcntl
import hashlib
import itertools
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Protocol

REMOTE = "gs://"
TEMPORARY = ".tmp-"
_COPY_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Stat:
    """What tells one version of a file from another."""

    bytes: int
    version: str
    """Modification time in nanoseconds, or the generation of an object."""


class Store(Protocol):
    """What every kind of storage offers. Paths are whole, as a user would write them."""

    def stat(self, path: str) -> Stat | None:
        """Returns the state of a file; None where there is none."""
        ...

    def open_read(self, path: str) -> BinaryIO:
        """Opens a file for reading and seeking; FileNotFoundError where there is none."""
        ...

    def read(self, path: str) -> bytes:
        """Returns a whole small file at once; FileNotFoundError where there is none."""
        ...

    def open_write(self, path: str) -> AbstractContextManager[BinaryIO]:
        """Opens a file that is seen under its name only when the block ends without an error."""
        ...

    def files(self, folder: str, *, deep: bool = True) -> list[str]:
        """Returns the paths of all files below a folder, or directly in it, sorted; empty where there are none."""
        ...

    def folder_version(self, folder: str) -> str:
        """Returns what changes when files are added to a folder or removed."""
        ...

    def remove(self, path: str) -> None:
        """Deletes a file; nothing where there is none."""
        ...

    def remove_tree(self, folder: str) -> None:
        """Deletes a folder and all below it; nothing where there is none."""
        ...

    def move_tree(self, folder: str, new: str) -> None:
        """Moves a folder to a name that is free. Where this takes many steps, its manifest.json arrives last."""
        ...


class _Local:
    """The file system of this machine."""

    def stat(self, path: str) -> Stat | None:
        try:
            found = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return None if os.path.isdir(path) else Stat(bytes=found.st_size, version=str(found.st_mtime_ns))

    def open_read(self, path: str) -> BinaryIO:
        return open(path, "rb")

    def read(self, path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read()

    @contextmanager
    def open_write(self, path: str) -> Iterator[BinaryIO]:
        folder = os.path.dirname(os.path.abspath(path))
        os.makedirs(folder, exist_ok=True)
        temporary = os.path.join(folder, f"{TEMPORARY}{uuid.uuid4().hex}")
        try:
            with open(temporary, "xb") as file:
                yield file
            os.replace(temporary, path)
        except BaseException:
            self.remove(temporary)
            raise

    def files(self, folder: str, *, deep: bool = True) -> list[str]:
        tops = os.walk(folder) if deep else itertools.islice(os.walk(folder), 1)
        return sorted(os.path.join(top, name) for top, _, names in tops for name in names)

    def folder_version(self, folder: str) -> str:
        return str(os.stat(folder).st_mtime_ns)

    def remove(self, path: str) -> None:
        if os.path.lexists(path):
            os.unlink(path)

    def remove_tree(self, folder: str) -> None:
        if os.path.isdir(folder):
            try:
                shutil.rmtree(folder)
            except OSError as error:  # which names the file without its folder
                raise OSError(error.errno, error.strerror, folder) from error

    def move_tree(self, folder: str, new: str) -> None:
        os.makedirs(os.path.dirname(new), exist_ok=True)
        os.rename(folder, new)


_LOCAL = _Local()


def is_remote(path: str) -> bool:
    """Tells whether a path stands in an object store."""
    return path.startswith(REMOTE)


def store_of(path: str) -> Store:
    """Returns the storage that holds a path.

    Raises:
      ValueError: if the path names a storage that is not known.
    """
    if is_remote(path):
        from pagepairs.gcs import ObjectStore  # its library takes 0.5 s to import

        return ObjectStore()
    if "://" in path:
        raise ValueError(f"{path}: give a path of this machine or gs://bucket/name")
    return _LOCAL


def absolute(path: str) -> str:
    """Returns the path from the root of its storage, without a slash at its end."""
    return path.rstrip("/") if is_remote(path) else os.path.abspath(path)


def exists(path: str) -> bool:
    """Tells whether there is a file of this name."""
    return store_of(path).stat(path) is not None


def is_folder(path: str) -> bool:
    """Tells whether there is a folder of this name; in an object store, one with a file below it."""
    return bool(store_of(path).files(path)) if is_remote(path) else os.path.isdir(path)


def size_of(path: str) -> int:
    """Returns the length of a file in bytes.

    Raises:
      FileNotFoundError: if there is none.
    """
    found = store_of(path).stat(path)
    if found is None:
        raise FileNotFoundError(f"{path}: there is no such file")
    return found.bytes


def local_copy(path: str) -> str:
    """Returns a file or folder as a path of this machine: itself, or a copy of what stands in an object store.

    A copy is made once for all processes and runs of a user, in the cache folder; another version of an object is another copy.

    Raises:
      FileNotFoundError: if the object store holds nothing there.
    """
    if not is_remote(path):
        return path
    store, path = store_of(path), path.rstrip("/")
    stats = {name: stat for name in [path, *store.files(path)] if (stat := store.stat(name)) is not None}
    if not stats:
        raise FileNotFoundError(f"{path}: there is no such object")
    cache = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "pagepairs")
    key = hashlib.sha256(repr(sorted(stats.items())).encode()).hexdigest()[:32]
    target = os.path.join(cache, key, os.path.basename(path))
    os.makedirs(cache, exist_ok=True)
    with open(os.path.join(cache, f"{key}.lock"), "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(target):
            aside = os.path.join(cache, f"{TEMPORARY}{uuid.uuid4().hex}")
            for name in stats:
                with store.open_read(name) as source, _LOCAL.open_write(aside + name[len(path) :]) as copy:
                    shutil.copyfileobj(source, copy, _COPY_BYTES)
            _LOCAL.move_tree(aside, target)
    return target


def is_failure(error: BaseException) -> bool:
    """Tells whether storage did not give the bytes of a file (no right, no answer, a broken disk), rather than gave damaged ones.

    Readers of archives and tables raise OSError for damage too: without a number, or EINVAL for a place that cannot be.
    """
    return isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)


def names_in(folder: str) -> list[str]:
    """Returns the names of the files that stand directly in a folder, sorted."""
    return [os.path.basename(path) for path in store_of(folder).files(folder, deep=False)]
