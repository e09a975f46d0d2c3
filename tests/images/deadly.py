"""Functions for child processes that do not come back from some of their calls."""

import os
import signal
import time

from pagepairs.config import ScanConfig
from pagepairs.images import Decoded, ImageError
from pipeline.look import Look, _look

SPOILT: list[bool] = []


def act(word: str) -> str:
    """Does what the word says."""
    match word:
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "exit":
            os._exit(3)
        case "hang":
            time.sleep(60)
        case "spoil":
            SPOILT.append(True)
        case "crash if spoilt" if SPOILT:
            os.kill(os.getpid(), signal.SIGSEGV)
        case "image error":
            raise ImageError("too_many_pixels", "9 x 9")
        case "error":
            raise KeyError(word)
    return f"{word} done"


def process_id() -> int:
    return os.getpid()


def look(body: bytes, config: ScanConfig) -> Look:
    """Looks at an image; one that ends with an order does that instead."""
    if body.endswith((b"crash", b"hang")):
        act(body[-5:].decode().removeprefix("?"))
    return _look(body, config)


def decode(body: bytes, config: ScanConfig, at_least_px: int) -> Decoded:
    """Crashes."""
    act("crash")
    raise AssertionError
