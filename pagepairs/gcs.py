"""Google Cloud Storage: objects as files. Requests are repeated with backoff on 429, 5xx and broken connections, by Google's own client."""

import functools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from google.api_core.exceptions import NotFound, PreconditionFailed
from google.cloud import storage
from google.cloud.storage.retry import DEFAULT_RETRY

from pagepairs.stores import REMOTE, Stat

_READ_AHEAD_BYTES = 4 * 1024 * 1024
_RETRY = DEFAULT_RETRY.with_timeout(600.0)
_TIMEOUT_S = 60.0
_SPOOL_BYTES = 16 * 1024 * 1024


@functools.lru_cache(maxsize=1)
def _client(process: int) -> Any:
    """The client of this process: its connections must not be shared with a process that was forked from it."""
    return storage.Client()


def _split(path: str) -> tuple[Any, str]:
    bucket, _, name = path.removeprefix(REMOTE).partition("/")
    if not bucket:
        raise ValueError(f"{path}: a bucket is missing, give gs://bucket/name")
    return _client(os.getpid()).bucket(bucket), name


class ObjectStore:
    """Objects of Google Cloud Storage, or of the server that STORAGE_EMULATOR_HOST names. A storage as `stores.Store` describes it."""

    def stat(self, path: str) -> Stat | None:
        bucket, name = _split(path)
        blob = bucket.get_blob(name, retry=_RETRY, timeout=_TIMEOUT_S) if name else None
        return None if blob is None else Stat(bytes=blob.size, version=str(blob.generation))

    def open_read(self, path: str) -> BinaryIO:
        bucket, name = _split(path)
        blob = bucket.get_blob(name, retry=_RETRY, timeout=_TIMEOUT_S) if name else None
        if blob is None:
            raise FileNotFoundError(f"{path}: there is no such object")
        return cast(BinaryIO, blob.open("rb", chunk_size=_READ_AHEAD_BYTES, retry=_RETRY, timeout=_TIMEOUT_S))

    @contextmanager
    def open_write(self, path: str) -> Iterator[BinaryIO]:
        bucket, name = _split(path)
        with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as file:
            yield cast(BinaryIO, file)
            size = file.tell() if file.seek(0, os.SEEK_END) else 0
            file.seek(0)
            bucket.blob(name).upload_from_file(file, size=size, checksum="crc32c", retry=_RETRY, timeout=_TIMEOUT_S)

    def files(self, folder: str, *, deep: bool = True) -> list[str]:
        return sorted(f"{REMOTE}{blob.bucket.name}/{blob.name}" for blob in self._list(folder, deep=deep))

    def folder_version(self, folder: str) -> str:
        return ",".join(str(blob.generation) for blob in self._list(folder, deep=False))

    def _list(self, folder: str, *, deep: bool) -> Any:
        bucket, prefix = _split(folder.rstrip("/") + "/")
        return bucket.list_blobs(prefix=prefix, delimiter=None if deep else "/", retry=_RETRY, timeout=_TIMEOUT_S)

    def remove(self, path: str) -> None:
        bucket, name = _split(path)
        try:
            bucket.blob(name).delete(retry=_RETRY, timeout=_TIMEOUT_S)
        except NotFound:  # or an earlier attempt deleted it, and its answer was lost
            return

    def remove_tree(self, folder: str) -> None:
        for path in self.files(folder):
            self.remove(path)

    def move_tree(self, folder: str, new: str) -> None:
        paths = self.files(folder)
        for path in sorted(paths, key=lambda path: path.endswith("/manifest.json")):
            bucket, name = _split(path)
            target, target_name = _split(new.rstrip("/") + path[len(folder.rstrip("/")) :])
            bucket.copy_blob(bucket.blob(name), target, target_name, retry=_RETRY, timeout=_TIMEOUT_S)
        self.remove_tree(folder)


class LockObject:
    """An object that at most one run owns: every change names the generation that it replaces, which the store checks."""

    def __init__(self, path: str, *, owner: str) -> None:
        self._bucket, self._name = _split(path)
        self._owner, self._generation = owner, 0

    def take(self, *, expiry_s: float) -> bool:
        """Creates the object, or replaces one that was not renewed for `expiry_s` by the store's own clock; False if it is held."""
        held = self._bucket.get_blob(self._name, retry=_RETRY, timeout=_TIMEOUT_S)
        if held is None:
            return self._write(0)
        probe = self._bucket.blob(f"{self._name}-{self._owner}")
        probe.upload_from_string(b"", retry=_RETRY, timeout=_TIMEOUT_S)
        age_s = (probe.updated - held.updated).total_seconds()
        probe.delete(retry=_RETRY, timeout=_TIMEOUT_S)
        return age_s > expiry_s and self._write(held.generation)

    def renew(self) -> bool:
        """Writes the object again; False if another run has taken it."""
        return self._write(self._generation)

    def give_back(self) -> None:
        """Deletes the object if it is still ours."""
        try:
            self._bucket.blob(self._name).delete(if_generation_match=self._generation, retry=_RETRY, timeout=_TIMEOUT_S)
        except (NotFound, PreconditionFailed):
            return

    def _write(self, generation: int) -> bool:
        blob = self._bucket.blob(self._name)
        try:
            blob.upload_from_string(self._owner, if_generation_match=generation, retry=_RETRY, timeout=_TIMEOUT_S)
        except PreconditionFailed:  # also when our own write arrived and its answer was lost: then the object holds our name
            blob = self._bucket.get_blob(self._name, retry=_RETRY, timeout=_TIMEOUT_S)
            if blob is None or blob.download_as_bytes(retry=_RETRY, timeout=_TIMEOUT_S) != self._owner.encode():
                return False
        self._generation = int(blob.generation)
        return True
