"""One behaviour for this machine's files and for objects, under broken requests too."""

import errno
import io
import itertools
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from google.auth.exceptions import DefaultCredentialsError
from object_store import Door, Fault

from pagepairs import gcs
from pagepairs.stores import absolute, exists, local_copy, names_in, store_of

BODY = bytes(range(256)) * 40_000  # 10 MB: several requests to read


@pytest.fixture(params=["local", "gs"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "folder") if request.param == "local" else str(request.getfixturevalue("remote_folder"))


def write(path: str, data: bytes) -> None:
    with store_of(path).open_write(path) as file:
        file.write(data)


def read(path: str) -> bytes:
    with store_of(path).open_read(path) as file:
        return file.read()


def test_a_file_reads_back_whole_and_by_range(folder: str) -> None:
    path = f"{folder}/a/b.bin"
    write(path, BODY)
    assert read(path) == BODY
    with store_of(path).open_read(path) as file:
        for offset, length in ((5_000_001, 17), (0, 3), (len(BODY) - 2, 100)):
            file.seek(offset)
            assert file.read(length) == BODY[offset : offset + length]
        assert file.seek(0, io.SEEK_END) == len(BODY)
        assert file.read(1) == b""
    stat = store_of(path).stat(path)
    assert stat is not None
    assert stat.bytes == len(BODY)


def test_another_content_is_another_version(folder: str) -> None:
    path = f"{folder}/a"
    write(path, b"one")
    before = store_of(path).stat(path)
    write(path, b"two")
    assert store_of(path).stat(path) != before
    assert read(path) == b"two"


def test_what_fails_leaves_nothing_under_the_name(folder: str) -> None:
    path = f"{folder}/a"
    with pytest.raises(TypeError), store_of(path).open_write(path) as file:
        file.writelines([b"half", "text"])  # type: ignore[list-item]
    assert store_of(path).stat(path) is None
    assert store_of(folder).files(folder) == []


def test_folders_are_listed_moved_and_removed(folder: str) -> None:
    for name in ("x/manifest.json", "x/b/c", "x/a", "xy/other"):
        write(f"{folder}/{name}", name.encode())
    store = store_of(folder)
    assert store.files(f"{folder}/x") == [f"{folder}/x/{name}" for name in ("a", "b/c", "manifest.json")]
    assert names_in(f"{folder}/x") == ["a", "manifest.json"]
    store.move_tree(f"{folder}/x", f"{folder}/z/y")
    assert store.files(folder) == [f"{folder}/xy/other", *(f"{folder}/z/y/{name}" for name in ("a", "b/c", "manifest.json"))]
    assert read(f"{folder}/z/y/b/c") == b"x/b/c"
    store.remove_tree(f"{folder}/z")
    store.remove_tree(f"{folder}/z")
    store.remove(f"{folder}/xy/other")
    store.remove(f"{folder}/xy/other")
    assert store.files(folder) == []


def test_what_is_not_there_is_said(folder: str) -> None:
    assert store_of(folder).stat(f"{folder}/none") is None
    assert not exists(f"{folder}/none")
    with pytest.raises(FileNotFoundError, match="none"):
        store_of(folder).open_read(f"{folder}/none")


def test_a_copy_of_objects_is_made_once_a_version(remote_folder: str, door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    write(f"{remote_folder}/weights/config.json", b"{}")
    write(f"{remote_folder}/weights/deep/model.bin", BODY)
    first = Path(local_copy(f"{remote_folder}/weights/"))
    assert first.name == "weights"
    assert {str(path.relative_to(first)): path.read_bytes() for path in first.rglob("*") if path.is_file()} == {
        "config.json": b"{}",
        "deep/model.bin": BODY,
    }
    before = door.requests
    assert local_copy(f"{remote_folder}/weights") == str(first)
    assert door.requests - before == 4  # one listing, and the state of three names: nothing is fetched again
    write(f"{remote_folder}/weights/config.json", b"[]")
    assert (Path(local_copy(f"{remote_folder}/weights")) / "config.json").read_bytes() == b"[]"
    assert Path(local_copy(f"{remote_folder}/weights/config.json")).read_bytes() == b"[]"
    assert local_copy("/some/where") == "/some/where"
    with pytest.raises(FileNotFoundError, match="none: there is no such object"):
        local_copy(f"{remote_folder}/none")


def test_paths() -> None:
    assert absolute("gs://bucket/a/") == "gs://bucket/a"
    assert absolute("/a/b/../c") == "/a/c"
    with pytest.raises(ValueError, match="s3://bucket/a: give a path of this machine or gs://bucket/name"):
        store_of("s3://bucket/a")
    with pytest.raises(ValueError, match="a bucket is missing"):
        store_of("gs:///a").stat("gs:///a")


def test_scattered_ranges_cost_little_more_than_their_bytes_and_a_whole_object_few_requests(remote_folder: str, door: Door) -> None:
    write(f"{remote_folder}/a", BODY)
    with store_of(remote_folder).open_read(f"{remote_folder}/a") as file:
        door.requests = door.sent_bytes = 0
        for number in range(10):
            file.seek(900_000 * number + 7)
            assert file.read(150_000) == BODY[900_000 * number + 7 :][:150_000]
        assert (door.requests, door.sent_bytes) == (10, 10 * 150_001)  # a range names its last byte
        file.seek(0)
        door.requests = door.sent_bytes = 0
        assert b"".join(iter(lambda: file.read(10_000), b"")) == BODY
        assert door.requests <= 10
        assert door.sent_bytes < len(BODY) + 100
        file.seek(5_000_000)
        door.requests = door.sent_bytes = 0
        assert file.read(10) + file.read(10) == BODY[5_000_000:5_000_020]
        assert (door.requests, door.sent_bytes) == (1, 64 * 1024 + 1)


FAULTS: dict[str, list[Fault]] = {
    "too many requests": [429, 429, 429],
    "unavailable": [503, 503],
    "reset": ["reset", "reset"],
    "reset in the answer": ["reset-in-answer", "reset-in-answer"],
    "slow": ["slow"],
    "too many requests, said with 403": [(403, "rateLimitExceeded"), (403, "userRateLimitExceeded")],
}
ACTIONS: dict[str, Callable[[str], object]] = {
    "read": lambda folder: read(f"{folder}/a"),
    "write": lambda folder: write(f"{folder}/b", b"new"),
    "list": lambda folder: store_of(folder).files(folder),
    "move": lambda folder: store_of(folder).move_tree(folder, f"{folder}-moved"),
    "remove": lambda folder: store_of(folder).remove(f"{folder}/a"),
}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("fault", FAULTS)
def test_broken_requests_are_repeated(fault: str, action: str, remote_folder: str, door: Door, quick_backoff: None) -> None:
    write(f"{remote_folder}/a", BODY[: 2**20])
    door.faults = list(FAULTS[fault])
    result = ACTIONS[action](remote_folder)
    # The answer to a deletion is empty, so it arrives whole the first time.
    assert door.faults == (["reset-in-answer"] if (fault, action) == ("reset in the answer", "remove") else [])
    door.faults = []
    after = {path: read(path) for path in store_of(remote_folder).files(remote_folder.rpartition("/")[0]) if path.startswith(remote_folder)}
    a, whole = f"{remote_folder}/a", BODY[: 2**20]
    expected = {
        "read": {a: whole},
        "write": {a: whole, f"{remote_folder}/b": b"new"},
        "list": {a: whole},
        "move": {f"{remote_folder}-moved/a": whole},
        "remove": {},
    }
    assert after == expected[action]
    assert result == {"read": whole, "list": [a]}.get(action)


REFUSALS: dict[str, tuple[list[Fault], int, str]] = {
    "no right": ([(403, "forbidden")], errno.EACCES, "the store answers 403 Forbidden (forbidden, the account lacks a right on it none)"),
    "no word": ([403], errno.EACCES, "the store answers 403 Forbidden"),
    "no account": ([(401, "required")], errno.EACCES, "InvalidOperation Anonymous credentials cannot be refreshed"),
    "quota": ([(403, "quotaExceeded")], errno.EDQUOT, "the store answers 403 Forbidden (quotaExceeded"),
    "too long": ([413], errno.EFBIG, "the store answers 413"),
    "full": ([507], errno.ENOSPC, "the store answers 507 Insufficient Storage"),
}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refusal_is_not_repeated_and_names_path_and_reason(refusal: str, action: str, remote_folder: str, door: Door) -> None:
    write(f"{remote_folder}/a", b"whole")
    faults, number, words = REFUSALS[refusal]
    door.faults, before = list(faults), door.requests
    with pytest.raises(OSError, match=rf"^\[Errno {number}\] {re.escape(words)}.*: '{remote_folder}") as caught:
        ACTIONS[action](remote_folder)
    assert caught.value.errno == number
    assert door.requests - before == 1
    assert {path: read(path) for path in store_of(remote_folder).files(remote_folder)} == {f"{remote_folder}/a": b"whole"}


@pytest.mark.parametrize("fault", [429, (403, "rateLimitExceeded"), "reset"])
def test_repeating_ends(fault: Fault, remote_folder: str, door: Door, quick_backoff: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcs, "_RETRY", gcs._RETRY.with_timeout(0.2))  # ten minutes, where it is not a test
    door.faults_between = itertools.repeat(fault)
    for action in ("write", "read", "list"):
        before = door.requests
        with pytest.raises(TimeoutError, match="given up after many attempts, "):
            ACTIONS[action](remote_folder)
        assert door.requests - before > 2


def test_a_machine_without_credentials_is_told(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(**_: object) -> None:
        raise DefaultCredentialsError("Your default credentials were not found.")

    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.setattr("google.auth.default", none)
    with pytest.raises(PermissionError, match=r"DefaultCredentialsError Your default credentials were not found.: 'gs://bucket/a'"):
        exists("gs://bucket/a")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", door.address)


def test_a_full_temporary_folder_is_named_as_what_is_full(small_disk: Path, remote_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    monkeypatch.setattr(gcs, "_SPOOL_BYTES", 1024)
    with pytest.raises(OSError, match="No space left on device") as full:
        write(f"{remote_folder}/a.bin", BODY)
    assert (full.value.errno, full.value.filename) == (errno.ENOSPC, str(small_disk))
    assert not exists(f"{remote_folder}/a.bin")
