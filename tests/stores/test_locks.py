"""Two runs never write one output folder.

The server of these tests does not check generations on creation, so that two runs create a lock in the same instant is not tested in
an object store; what is tested is everything that reads first.
"""

import itertools
import subprocess
import sys
import time
from pathlib import Path

import pytest
from object_store import Door
from PIL import Image

from pagepairs import locks
from pagepairs.gcs import LockObject
from pagepairs.locks import OutputLocked, lock_output
from pagepairs.stores import store_of
from pipeline.commands import EXIT_NO_PAIRS, EXIT_OUTPUT, main


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


def test_a_run_of_another_process_is_seen_and_ends_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    hold = f"from pagepairs.locks import lock_output\nwith lock_output({str(output / '.work' / 'lock')!r}): print(1, flush=True); input()"
    folder = tmp_path / "photos"
    folder.mkdir()
    argv = ["--input", str(folder), "--output", str(output), "--encoder", "builtin"]
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"1\n"
        Image.new("RGB", (300, 300)).save(folder / "one.png")
        assert main("run", argv) == EXIT_OUTPUT
        assert "another run is writing there" in capsys.readouterr().err
        other.kill()
    assert main("run", argv) == EXIT_NO_PAIRS


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
    monkeypatch.setattr(LockObject, "renew", lambda _: False)  # as after a take-over, which needs a store that checks generations
    with lock_output(path) as check, pytest.raises(OutputLocked, match="lost to another run"):
        check()  # long before the next renewal is due: the machine may have slept


def test_a_run_that_lost_its_object_in_the_middle_of_a_stage_completes_nothing(
    remote_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (300, 300)).save(tmp_path / "one.png")
    output, answers = f"{remote_folder}/out", iter([True])
    monkeypatch.setattr(LockObject, "renew", lambda _: next(answers, False))  # held when stage scan starts, lost when it ends
    assert main("run", ["--input", str(tmp_path), "--output", output, "--encoder", "builtin"]) == EXIT_OUTPUT
    assert "the lock was lost to another run" in capsys.readouterr().err
    files = store_of(output).files(output)
    assert any(path.endswith(".parquet") for path in files)
    assert not [path for path in files if path.endswith("manifest.json")]


def test_a_clock_that_jumps_neither_loses_nor_steals_a_lock(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "EXPIRY_S", 1.0)
    clock, jumps = time.time, itertools.cycle((0.0, 18_000.0, -25_000.0, 3.5e7))
    monkeypatch.setattr(time, "time", lambda: clock() + next(jumps))
    with lock_output(path) as check:
        for _ in range(3):
            time.sleep(0.5)
            check()
            with pytest.raises(OutputLocked, match="another run is writing there"), lock_output(path):
                pass
    with lock_output(path):
        pass


def test_a_lock_outlives_refusals_until_it_expires(remote_folder: str, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"{remote_folder}/.work/lock"
    monkeypatch.setattr(locks, "EXPIRY_S", 0.5)
    with lock_output(path) as check:
        door.refuse = lambda method, path: None if method == "GET" else (403, "forbidden")
        time.sleep(0.2)
        check()
        time.sleep(0.6)
        with pytest.raises(OutputLocked, match="lost to another run"):
            check()


def test_a_lock_that_cannot_be_given_back_expires(remote_folder: str, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"{remote_folder}/.work/lock"
    door.refuse = lambda method, path: (403, "forbidden") if method == "DELETE" else None
    with pytest.raises(RuntimeError, match="what the run failed of"), lock_output(path):
        raise RuntimeError("what the run failed of")
    door.refuse = lambda method, path: None
    with pytest.raises(OutputLocked, match="gives it free after 10 minutes"), lock_output(path):
        pass
    monkeypatch.setattr(locks, "EXPIRY_S", 0.01)
    with lock_output(path):
        pass
