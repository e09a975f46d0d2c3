"""The object store that the tests of this folder share."""

import gc
import os
import sys
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / name) for name in ("stores", "runners")]  # modules beside the tests

from object_store import Door, serve_objects  # noqa: E402

from pagepairs import gcs  # noqa: E402

BUCKET = "crawls-for-tests"


@pytest.fixture(scope="session")
def object_server() -> Iterator[str]:
    with serve_objects(BUCKET) as address:
        yield address


@pytest.fixture
def door(object_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    """The way to the server, which can be made to fail."""
    door = Door(object_server)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", door.address)
    gcs._client.cache_clear()
    yield door
    gcs._client(os.getpid()).close()
    gcs._client.cache_clear()
    door.close()
    with warnings.catch_warnings():  # Google's client leaves a connection that broke to the garbage collector, which later tests would meet
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def remote_folder(door: Door) -> str:
    """A folder of the object store that no other test uses."""
    return f"gs://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture
def quick_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits a hundredth of the time between attempts."""
    monkeypatch.setattr(gcs, "_RETRY", gcs._RETRY.with_delay(initial=0.01, maximum=0.1))
