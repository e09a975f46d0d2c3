"""A store for tests that answers as slowly as an object store."""

import io
import threading
import time
from typing import BinaryIO, cast


class SlowStore:
    """Files of this machine, but that every opening and every read takes 30 ms more; counts the reads that go on at once."""

    DELAY_S = 0.03

    def __init__(self) -> None:
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()

    def open_read(self, path: str) -> BinaryIO:
        """Opens a file, slowly."""
        time.sleep(self.DELAY_S)
        return cast(BinaryIO, _SlowFile(path, self))

    def wait(self) -> None:
        """Takes the time of a read."""
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        time.sleep(self.DELAY_S)
        with self._lock:
            self._at_once -= 1


class _SlowFile(io.FileIO):
    def __init__(self, path: str, store: SlowStore) -> None:
        super().__init__(path)
        self._store = store

    def read(self, size: int | None = -1, /) -> bytes:
        """Reads, slowly."""
        self._store.wait()
        return super().read(size) or b""
