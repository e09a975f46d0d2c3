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
      A function to call now and then: it raises OutputLocked if the lock was lost. On this machine it cannot be.

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
    stop, lost = threading.Event(), threading.Event()
    thread = threading.Thread(target=_renew, args=(lock, stop, lost), daemon=True)
    thread.start()

    def check() -> None:
        if lost.is_set():
            raise OutputLocked(f"{path}: the lock was lost to another run; what was finished is kept, start this run again later")

    try:
        yield check
    finally:
        stop.set()
        thread.join()
        if not lost.is_set():
            with suppress(OSError):  # then it expires
                lock.give_back()


def _renew(lock: Any, stop: threading.Event, lost: threading.Event) -> None:
    """Renews the lock ten times as often as it expires. Only the store's clock, and how much time went by here, count: clocks jump."""
    renewed = time.monotonic()
    while not stop.wait(EXPIRY_S / 10):
        started = time.monotonic()
        try:
            held = lock.renew()
            renewed = started
        except OSError:  # the run meets the same trouble, and says so
            held = started - renewed < EXPIRY_S
        if not held:
            lost.set()
            return
