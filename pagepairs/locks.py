"""One run at a time may write an output folder."""

import fcntl
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pagepairs.stores import is_remote

EXPIRY_S = 600.0


class OutputLocked(ValueError):
    """Another run is writing the same output folder."""


@contextmanager
def lock_output(path: str) -> Iterator[Callable[[], None]]:
    """Holds a lock while the block runs: flock on this machine, an object guarded by its generation in an object store.

    Yields:
      A function to call before what another run must not meet: it raises OutputLocked if the lock was lost. On this machine it cannot be.

    Raises:
      OutputLocked: if another run holds it.
    """
    if is_remote(path):
        with _hold_object(path) as check:
            yield check
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "a", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputLocked(_sentence(path)) from error
        yield lambda: None


def _sentence(path: str) -> str:
    return f"{os.path.dirname(os.path.dirname(path))}: another run is writing there; wait for it, or give another --output"


@contextmanager
def _hold_object(path: str) -> Iterator[Callable[[], None]]:
    from pagepairs.gcs import LockObject

    lock = LockObject(path, owner=uuid.uuid4().hex)
    if not lock.take(expiry_s=EXPIRY_S):
        raise OutputLocked(f"{_sentence(path)} (a run that was killed gives it free after {EXPIRY_S / 60:.0f} minutes)")
    holder = _Holder(lock)
    thread = threading.Thread(target=holder.renew_always, daemon=True)
    thread.start()

    def check() -> None:
        if not holder.renew():
            raise OutputLocked(f"{path}: the lock was lost to another run; what was finished is kept, start this run again later")

    try:
        yield check
    finally:
        holder.stop.set()
        thread.join()
        if not holder.lost:
            with suppress(OSError):  # then it expires
                lock.give_back()


class _Holder:
    """Renews a lock ten times as often as it expires, and whenever it is asked: a machine that slept has not noticed how long.

    Only the store's clock, and how much time went by here, count: clocks jump.
    """

    def __init__(self, lock: Any) -> None:
        self.stop, self.lost = threading.Event(), False
        self._lock, self._renewed, self._one = lock, time.monotonic(), threading.Lock()

    def renew_always(self) -> None:
        """Renews the lock until it is lost or `stop` is set."""
        while not self.stop.wait(EXPIRY_S / 10) and self.renew():
            pass

    def renew(self) -> bool:
        """Renews the lock; False if it is lost."""
        with self._one:
            started = time.monotonic()
            try:
                self.lost = self.lost or not self._lock.renew()
                self._renewed = started
            except OSError:  # the run meets the same trouble, and says so
                self.lost = started - self._renewed >= EXPIRY_S
            return not self.lost
