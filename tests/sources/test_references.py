"""Reading images again by reference."""

import hashlib
import io
import random
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import pytest
from slow_store import SlowStore

from pagepairs.files import open_read
from pipeline import references
from pipeline.references import SourceChanged, read_bodies, read_images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.tar", "b.tar", "c.tar"):
        (tmp_path / name).write_bytes(random.Random(name).randbytes(400_000))
    return tmp_path


def ranges(count: int, sources: Sequence[str] = ("a.tar", "b.tar")) -> list[tuple[str, int, int]]:
    choice = random.Random(0)
    return [(choice.choice(sources), choice.randrange(390_000), choice.randrange(10_000)) for _ in range(count)]


def slow(folder: Path, asked: list[tuple[str, int, int]]) -> list[bytes]:
    return [(folder / source).read_bytes()[offset : offset + length] for source, offset, length in asked]


@pytest.mark.parametrize(("items", "window_bytes", "gap"), [(512, 10**8, 65536), (7, 10**8, 0), (512, 20_000, 100)])
def test_bodies_come_in_the_order_asked(folder: Path, monkeypatch: pytest.MonkeyPatch, items: int, window_bytes: int, gap: int) -> None:
    monkeypatch.setattr(references, "_WINDOW_ITEMS", items)
    monkeypatch.setattr(references, "_WINDOW_BYTES", window_bytes)
    monkeypatch.setattr(references, "_MAX_GAP_BYTES", gap)
    asked = ranges(100)
    assert list(read_bodies(asked, lambda source: str(folder / source))) == slow(folder, asked)
    assert list(read_bodies(sorted(asked), lambda source: str(folder / source))) == slow(folder, sorted(asked))


def test_each_file_is_opened_once_and_sorted_bodies_are_not_held_back(folder: Path) -> None:
    opened: list[str] = []

    def locate(source: str) -> str:
        opened.append(source)
        return str(folder / source)

    bodies = read_bodies(sorted(ranges(100, ["a.tar", "b.tar", "c.tar"])), locate)
    next(bodies)
    assert opened in (["a.tar"], ["a.tar", "b.tar"])  # one range is read ahead
    list(bodies)
    assert opened == ["a.tar", "b.tar", "c.tar"]


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_threads_give_the_same_bodies_and_leave_no_file_open(folder: Path, monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    monkeypatch.setattr(references, "_WINDOW_ITEMS", 30)
    monkeypatch.setattr(references, "_MAX_GAP_BYTES", 0)
    opened: list[BinaryIO] = []

    def noted(path: str) -> BinaryIO:
        opened.append(open_read(path))
        return opened[-1]

    monkeypatch.setattr(references, "open_read", noted)
    asked = ranges(200, ["a.tar", "b.tar", "c.tar"])
    assert list(read_bodies(asked, lambda source: str(folder / source), threads=threads)) == slow(folder, asked)
    assert len(opened) <= 3 * 7 * threads  # a source a window and thread
    early = read_bodies(sorted(asked), lambda source: str(folder / source), threads=threads)
    next(early)
    early.close()
    assert [file.closed for file in opened] == [True] * len(opened)


def test_ranges_that_are_read_ahead_are_few(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "_MAX_GAP_BYTES", 0)
    monkeypatch.setattr(references, "_MAX_READ_BYTES", 10_000)
    read_bytes = 0
    count = threading.Lock()

    class Counted(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            nonlocal read_bytes
            data = super().read(size) or b""
            with count:
                read_bytes += len(data)
            return data

    monkeypatch.setattr(references, "open_read", Counted)
    asked = [("a.tar", 10_000 * number, 4_000) for number in range(40)]
    taken = 0
    for body in read_bodies(asked, lambda source: str(folder / source), threads=16):
        taken += len(body)
        # Two ranges fit into 10 000 bytes; one more is being taken, and one was read while the sum was looked at.
        assert read_bytes - taken <= 4 * 4_000
    assert taken == read_bytes == 160_000


def test_eight_threads_read_scattered_ranges_of_a_slow_store_four_times_as_fast(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "open_read", SlowStore().open_read)
    asked = [("a.tar" if number % 2 else "b.tar", 80_000 * (number % 5) + number, 4_000) for number in range(10)]
    asked = [(f"{number}-{source}", offset, length) for number in range(6) for source, offset, length in asked]
    for number in range(6):
        for name in ("a.tar", "b.tar"):
            (folder / f"{number}-{name}").hardlink_to(folder / name)
    seconds = {}
    for threads in (1, 8):
        started = time.monotonic()
        assert list(read_bodies(sorted(asked), lambda source: str(folder / source), threads=threads)) == slow(folder, sorted(asked))
        seconds[threads] = time.monotonic() - started
    assert seconds[1] > len(asked) * SlowStore.DELAY_S
    assert seconds[1] / seconds[8] > 4, seconds


def test_what_is_gone_short_or_other_is_changed(folder: Path) -> None:
    body = (folder / "a.tar").read_bytes()[10:20]
    image_id = hashlib.sha256(body).hexdigest()
    asked = [(image_id, "a.tar", 10, 10), (image_id, "a.tar", 11, 10), (image_id, "a.tar", 399_999, 10), (image_id, "gone.tar", 10, 10)]
    found = list(read_images(asked, lambda source: str(folder / source)))
    assert found[0] == body
    assert found[1] == SourceChanged(detail="a.tar at offset 11: other content than scan found")
    assert found[2] == SourceChanged(detail="a.tar at offset 399999: 1 of 10 bytes left")
    assert isinstance(found[3], SourceChanged)
    assert str(found[3]).startswith("gone.tar: ")


def test_nothing_asked_nothing_read() -> None:
    assert list(read_bodies([], str)) == []
