"""Google Cloud Storage: objects as files. Requests are repeated with backoff on 429, 5xx and broken connections, by Google's own client.

What it gives up, or need not try again, is an OSError with errno, the store's own words and the path, as of any file.
"""

import errno
import functools
import http
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, cast

from google.api_core.exceptions import GoogleAPIError, NotFound, PreconditionFailed, RetryError
from google.auth.exceptions import GoogleAuthError
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption
from google.cloud.storage.fileio import BlobReader
from google.cloud.storage.retry import DEFAULT_RETRY, _should_retry
from requests import RequestException

from pagepairs.stores import REMOTE, Stat

_FIRST_AHEAD_BYTES, _MOST_AHEAD_BYTES = 64 * 1024, 4 * 1024 * 1024
_TIMEOUT_S = 60.0
_SPOOL_BYTES = 16 * 1024 * 1024
_ERRNO = {401: errno.EACCES, 403: errno.EACCES, 404: errno.ENXIO, 413: errno.EFBIG, 507: errno.ENOSPC}


def _is_passing(error: Exception) -> bool:
    """Whether a request is worth repeating; that there were too many of late is said with 429, and has been with 403."""
    return bool(_should_retry(error)) or _reason(error) in ("rateLimitExceeded", "userRateLimitExceeded")


_RETRY = DEFAULT_RETRY.with_predicate(_is_passing).with_timeout(600.0)


def _said(error: Exception) -> dict[str, Any]:
    """What the store's answer says of the error."""
    try:
        said = error.response.json()["error"]  # type: ignore[attr-defined]
        return said if isinstance(said, dict) else {}
    except (AttributeError, ValueError, KeyError, TypeError):
        return {}


def _reason(error: Exception) -> str:
    return str(next(iter(_said(error).get("errors") or [{}])).get("reason", ""))


def _words(error: BaseException | None) -> str:
    """One line without colons and quotes, which end the words in the text of an OSError."""
    code = getattr(error, "code", None)
    if code is None or not isinstance(error, Exception):
        text = f"{type(error).__name__} {error}"
    else:
        more = ", ".join(filter(None, (_reason(error), str(_said(error).get("message", "")))))
        text = f"the store answers {int(code)} {http.HTTPStatus(code).phrase}" + (f" ({more})" if more else "")
    return re.sub(r"[\s:'\[\]]+", " ", text)[:300].strip()


@contextmanager
def _as_os_error(path: str) -> Iterator[None]:
    try:
        yield
    except RetryError as error:
        raise OSError(errno.ETIMEDOUT, f"given up after many attempts, {_words(error.cause)}", path) from error
    except (GoogleAPIError, GoogleAuthError, DataCorruption, RequestException) as error:
        number = errno.EACCES if isinstance(error, GoogleAuthError) else _ERRNO.get(getattr(error, "code", 0), errno.EIO)
        raise OSError(errno.EDQUOT if _reason(error) == "quotaExceeded" else number, _words(error), path) from error


@functools.lru_cache(maxsize=1)
def _client(process: int) -> Any:
    """The client of this process: its connections must not be shared with a process that was forked from it."""
    # Else the client asks for each bucket's metadata, for traces: in a thread, and with a right that few accounts have.
    os.environ["DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA"] = "true"
    return storage.Client()


def _split(path: str) -> tuple[Any, str]:
    bucket, _, name = path.removeprefix(REMOTE).partition("/")
    if not bucket:
        raise ValueError(f"{path}: a bucket is missing, give gs://bucket/name")
    return _client(os.getpid()).bucket(bucket), name


class _Reader(BlobReader):  # type: ignore[misc]
    """An object that is read by range, ahead of what is asked for.

    How far doubles with each request that goes on where the last one ended, and starts anew where it does not: a file that is read through
    takes few requests, and a slice of one costs little more than its bytes.
    """

    _chunk_size: int

    def __init__(self, blob: Any) -> None:
        super().__init__(blob, chunk_size=_FIRST_AHEAD_BYTES, retry=_RETRY, timeout=_TIMEOUT_S)

    def read(self, size: int = -1) -> bytes:
        """Returns the next bytes."""
        fetched = self._pos
        with _as_os_error(f"{REMOTE}{self._blob.bucket.name}/{self._blob.name}"):
            data = cast(bytes, super().read(size))
        if self._pos != fetched:
            self._chunk_size = min(2 * self._chunk_size, _MOST_AHEAD_BYTES)
        return data

    def seek(self, pos: int, whence: int = os.SEEK_SET) -> int:
        """Moves within the object and returns the position."""
        before, after = super().seek(0, os.SEEK_CUR), super().seek(pos, whence)
        if after != before and self._buffer.tell() >= self._buffer.getbuffer().nbytes:
            self._chunk_size = _FIRST_AHEAD_BYTES
        return int(after)


class ObjectStore:
    """Objects of Google Cloud Storage, or of the server that STORAGE_EMULATOR_HOST names. A storage as `stores.Store` describes it."""

    def stat(self, path: str) -> Stat | None:
        blob = self._find(path)
        return None if blob is None else Stat(bytes=blob.size, version=str(blob.generation))

    def open_read(self, path: str) -> BinaryIO:
        blob = self._find(path)
        if blob is None:
            raise FileNotFoundError(errno.ENOENT, "there is no such object", path)
        return cast(BinaryIO, _Reader(blob))

    def read(self, path: str) -> bytes:
        with _as_os_error(path):
            bucket, name = _split(path)
            try:
                return cast(bytes, bucket.blob(name).download_as_bytes(retry=_RETRY, timeout=_TIMEOUT_S))
            except NotFound as error:
                raise FileNotFoundError(errno.ENOENT, "there is no such object", path) from error

    def _find(self, path: str) -> Any:
        with _as_os_error(path):
            bucket, name = _split(path)
            return bucket.get_blob(name, retry=_RETRY, timeout=_TIMEOUT_S) if name else None

    @contextmanager
    def open_write(self, path: str) -> Iterator[BinaryIO]:
        with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as file:
            try:
                yield cast(BinaryIO, file)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT) or error.filename is not None:
                    raise
                raise OSError(error.errno, error.strerror, tempfile.gettempdir()) from error  # of this machine, not of the store
            size = file.tell() if file.seek(0, os.SEEK_END) else 0
            file.seek(0)
            with _as_os_error(path):
                bucket, name = _split(path)
                bucket.blob(name).upload_from_file(file, size=size, checksum="crc32c", retry=_RETRY, timeout=_TIMEOUT_S)

    def files(self, folder: str, *, deep: bool = True) -> list[str]:
        return sorted(f"{REMOTE}{blob.bucket.name}/{blob.name}" for blob in self._list(folder, deep=deep))

    def folder_version(self, folder: str) -> str:
        return ",".join(str(blob.generation) for blob in self._list(folder, deep=False))

    def _list(self, folder: str, *, deep: bool) -> list[Any]:
        with _as_os_error(folder):
            bucket, prefix = _split(folder.rstrip("/") + "/")
            return list(bucket.list_blobs(prefix=prefix, delimiter=None if deep else "/", retry=_RETRY, timeout=_TIMEOUT_S))

    def remove(self, path: str) -> None:
        # Where there is none, an earlier attempt may have deleted it, and its answer was lost.
        with _as_os_error(path), suppress(NotFound):
            bucket, name = _split(path)
            bucket.blob(name).delete(retry=_RETRY, timeout=_TIMEOUT_S)

    def remove_tree(self, folder: str) -> None:
        for path in self.files(folder):
            self.remove(path)

    def move_tree(self, folder: str, new: str) -> None:
        paths = self.files(folder)
        for path in sorted(paths, key=lambda path: path.endswith("/manifest.json")):
            place = new.rstrip("/") + path[len(folder.rstrip("/")) :]
            with _as_os_error(place):
                (bucket, name), (target, target_name) = _split(path), _split(place)
                bucket.copy_blob(bucket.blob(name), target, target_name, retry=_RETRY, timeout=_TIMEOUT_S)
        self.remove_tree(folder)


class LockObject:
    """An object that at most one run owns: every change names the generation that it replaces, which the store checks."""

    def __init__(self, path: str, *, owner: str) -> None:
        self._path, self._owner, self._generation = path, owner, 0
        with _as_os_error(path):
            self._bucket, self._name = _split(path)

    def take(self, *, expiry_s: float) -> bool:
        """Creates the object, or replaces one that was not renewed for `expiry_s` by the store's own clock; False if it is held."""
        with _as_os_error(self._path):
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
        with _as_os_error(self._path):
            return self._write(self._generation)

    def give_back(self) -> None:
        """Deletes the object if it is still ours; tries for half a minute, as it expires anyway."""
        with _as_os_error(self._path), suppress(NotFound, PreconditionFailed):
            retry = _RETRY.with_timeout(30.0)
            self._bucket.blob(self._name).delete(if_generation_match=self._generation, retry=retry, timeout=_TIMEOUT_S)

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
