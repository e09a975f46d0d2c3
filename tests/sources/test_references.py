"""Reading images again by reference."""

import hashlib
import random
from pathlib import Path

import pytest

from pipeline import references
from pipeline.references import SourceChanged, read_bodies, read_images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.tar", "b.tar"):
        (tmp_path / name).write_bytes(random.Random(name).randbytes(400_000))
    return tmp_path


def ranges(count: int) -> list[tuple[str, int, int]]:
    choice = random.Random(0)
    return [(choice.choice(["a.tar", "b.tar"]), choice.randrange(390_000), choice.randrange(10_000)) for _ in range(count)]


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

    bodies = read_bodies(sorted(ranges(100)), locate)
    next(bodies)
    assert opened == ["a.tar"]
    list(bodies)
    assert opened == ["a.tar", "b.tar"]


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
