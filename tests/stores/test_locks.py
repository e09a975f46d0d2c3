"""Two runs never write one output folder.

The server of these tests does not check generations on creation, so that two runs create a lock in the same instant is not tested in
an object store; what is tested is everything that reads first.
"""

import time
from pathlib import Path

import pytest

from pagepairs import locks
from pagepairs.gcs import LockObject
from pagepairs.locks import OutputLocked, lock_output
from pagepairs.stores import store_of


@pytest.fixture(params=["local", "gs"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    root = str(tmp_path) if request.param == "local" else str(request.getfixturevalue("remote_folder"))
    return f"{root}/out/.work/lock"


def test_the_second_run_is_refused_and_the_next_one_is_not(path: str) -> None:
    with lock_output(path) as check:
        check()
        with (
            pytest.raises(OutputLocked, match="out: another run is writing there; wait for it, or give another --output"),
            lock_output(path),
        ):
            pass
        check()
    with lock_output(path):
        pass


def test_a_run_that_fails_gives_the_folder_free(path: str) -> None:
    with pytest.raises(RuntimeError), lock_output(path):
        raise RuntimeError
    with lock_output(path):
        pass


def test_a_killed_run_gives_an_object_free_when_it_expires(remote_folder: str) -> None:
    path = f"{remote_folder}/.work/lock"
    dead, next_one = LockObject(path, owner="dead"), LockObject(path, owner="next")
    assert dead.take(expiry_s=600)
    assert not next_one.take(expiry_s=600)
    time.sleep(0.05)
    assert next_one.take(expiry_s=0.01)
    assert store_of(path).files(remote_folder) == [path]
    next_one.give_back()
    assert store_of(path).files(remote_folder) == []


def test_a_run_that_lost_its_object_stops(remote_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"{remote_folder}/.work/lock"
    monkeypatch.setattr(locks, "EXPIRY_S", 0.5)
    monkeypatch.setattr(LockObject, "renew", lambda _: False)  # as after a take-over, which needs a store that checks generations
    with lock_output(path) as check:
        time.sleep(0.3)
        with pytest.raises(OutputLocked, match="lost to another run"):
            check()
