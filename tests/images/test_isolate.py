"""Child processes: their results, their deaths, and the crawl in which an image kills its decoder."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))  # deadly: a module beside the tests, which the children import too

import deadly

import pipeline.look
from pagepairs.config import ScanConfig
from pagepairs.images import ImageError
from pipeline.isolate import end_children, isolated
from pipeline.look import look, pixels
from pipeline.progress import Meter
from pipeline.scan import DATASETS, ScanTask, ScanUnits
from pipeline.sources import find_units


@pytest.fixture(autouse=True)
def no_children_left() -> Iterator[None]:
    before = set(psutil.Process().children())
    yield
    end_children()
    assert set(psutil.Process().children()) <= before


def outcome(word: str, timeout_s: float = 30.0) -> str:
    try:
        return isolated(deadly.act, word, timeout_s=timeout_s)
    except ImageError as error:
        return str(error)


def test_a_result_comes_back_and_its_child_is_used_again() -> None:
    assert outcome("a") == "a done"
    child = isolated(deadly.process_id, timeout_s=30.0)
    assert child != os.getpid()
    assert isolated(deadly.process_id, timeout_s=30.0) == child


@pytest.mark.parametrize(
    ("word", "ending"),
    [
        ("crash", "broken_image: the decoder crashed (signal 11)"),
        ("exit", "broken_image: the decoder crashed (exit status 3)"),
        ("image error", "too_many_pixels: 9 x 9"),
    ],
)
def test_an_ending_costs_its_own_call_only(word: str, ending: str) -> None:
    assert [outcome("a"), outcome(word), outcome("b"), outcome(word)] == ["a done", ending, "b done", ending]


def test_a_call_that_hangs_is_stopped() -> None:
    started = time.monotonic()
    assert outcome("hang", timeout_s=0.2) == "decode_timeout: the decoder was stopped"
    assert time.monotonic() - started < 20
    assert outcome("b", timeout_s=0.2) == "b done"


def test_what_an_earlier_call_left_behind_is_not_held_against_the_next() -> None:
    assert [outcome("spoil"), outcome("crash if spoilt")] == ["spoil done", "crash if spoilt done"]


def test_any_other_error_is_raised_here() -> None:
    with pytest.raises(KeyError, match="error"):
        isolated(deadly.act, "error", timeout_s=30.0)
    assert outcome("a") == "a done"


def test_a_child_that_died_while_it_waited_is_replaced() -> None:
    child = isolated(deadly.process_id, timeout_s=30.0)
    os.kill(child, signal.SIGKILL)
    psutil.Process(child).wait(10)
    assert outcome("a") == "a done"


def test_threads_have_children_of_their_own() -> None:
    words = ["a", "crash", "b", "exit", "c", "d"] * 3
    before = {child.pid for child in psutil.Process().children()}  # of other tests
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(outcome, words))
    endings = {"crash": "broken_image: the decoder crashed (signal 11)", "exit": "broken_image: the decoder crashed (exit status 3)"}
    assert results == [endings.get(word, f"{word} done") for word in words]
    assert len({child.pid for child in psutil.Process().children()} - before) <= 3


def test_children_end_with_a_parent_that_is_killed() -> None:
    code = "import os, time; from pipeline.isolate import isolated; print(isolated(os.getpid, timeout_s=9.0), flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    child.wait(10)


def photo(seed: int, side: int = 260) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(buffer, "jpeg")
    return buffer.getvalue()


def test_look_and_pixels_are_the_same_in_a_child() -> None:
    here, apart = ScanConfig(), ScanConfig(isolate=True)
    body = photo(1, 700)
    assert look(body, apart) == look(body, here)
    assert (pixels(body, apart).rgb == pixels(body, here).rgb).all()
    for function in (look, pixels):
        with pytest.raises(ImageError, match=r"^broken_image: "):
            function(body[:-500], apart)


def scan(root: Path, config: ScanConfig) -> list[list[dict[str, object]]]:
    """Returns the rows of all datasets."""
    [unit] = find_units((str(root / "in"),))
    output = root / f"out-{config.isolate}"
    ScanUnits(config=config, output=str(output), threads=2, meter=Meter(""))(ScanTask(unit=unit))
    return [pq.read_table(output / name / f"{unit.name}.parquet").to_pylist() for name in DATASETS]


def write_crawl(root: Path, endings: dict[str, bytes]) -> None:
    (root / "in").mkdir()
    for number in range(12):
        (root / "in" / f"{number:02}.jpg").write_bytes(photo(number) + endings.get(f"{number:02}", b""))
    (root / "in" / "12.jpg").write_bytes(photo(12)[:900])


def test_a_crawl_gives_the_same_rows_with_children(tmp_path: Path) -> None:
    write_crawl(tmp_path, {})
    here, apart = scan(tmp_path, ScanConfig()), scan(tmp_path, ScanConfig(isolate=True))
    assert here == apart
    assert [row["reason"] for row in here[4]] == ["broken_image"]


def test_an_image_that_kills_its_decoder_is_one_drop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_crawl(tmp_path, {"03": b"crash", "07": b"?hang"})
    here = scan(tmp_path, ScanConfig(decode_timeout_s=1.5))
    monkeypatch.setattr(pipeline.look, "_look", deadly.look)
    apart = scan(tmp_path, ScanConfig(decode_timeout_s=1.5, isolate=True))
    dead = {"03": ("broken_image", "the decoder crashed (signal 11)"), "07": ("decode_timeout", "the decoder was stopped")}
    drops = {row["image_url"][-6:-4]: (row["reason"], row["detail"]) for row in apart[4]}
    assert {number: drop for number, drop in drops.items() if number != "12"} == dead
    assert apart[0] == [row for row in here[0] if row["image_url"][-6:-4] not in dead]
    assert apart[1:4] == here[1:4]


def test_later_stages_lose_one_image_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.look, "_decode", deadly.decode)
    with pytest.raises(ImageError, match="crashed"):
        pixels(photo(1), ScanConfig(isolate=True))
