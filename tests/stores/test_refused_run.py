"""Rights, room and quota that are lost in the middle of a run on an object store: one sentence, and the same command goes on."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
from contents import contents, upload
from object_store import Door, Refusal

from pagepairs.stores import store_of
from pipeline.commands import EXIT_INPUT, EXIT_OUTPUT, main

FORBIDDEN = (403, "forbidden")


def allow(door: Door, count: int, refusal: Refusal, is_meant: Callable[[str, str], bool]) -> None:
    """Refuses every request of a kind after the next `count`."""
    numbers = itertools.count()
    door.refuse = lambda method, path: refusal if is_meant(method, path) and next(numbers) >= count else None


def is_write(method: str, path: str) -> bool:
    return method in ("POST", "PUT", "PATCH")


def journal(output: str) -> dict[str, str]:
    """The generation of every finished task's entry: another one if it is done again."""
    store = store_of(output)
    return {path: str(store.stat(path)) for path in store.files(f"{output}/.work") if path.endswith(".json") and path.count("/") > 6}


LOST = [
    (FORBIDDEN, "the store answers 403 Forbidden (forbidden, the account lacks a right on it none); give the right to write there: "),
    ((403, "quotaExceeded"), "the store answers 403 Forbidden (quotaExceeded, the account lacks a right on it none); raise the quota"),
    ((507, ""), "the store answers 507 Insufficient Storage; make room: "),
    ((413, ""), "the store answers 413 "),
]


def run_until_done(
    argv: list[str], limit: Callable[[int], None], capsys: pytest.CaptureFixture[str]
) -> Iterator[tuple[int, list[str], list[str]]]:
    """Repeats a command, each time under a new limit, until it ends well; yields exit code, last line and finished stages of each."""
    for number in range(8):
        limit(number)
        code = main("run", argv)
        lines = capsys.readouterr().err.splitlines()
        assert not any("Traceback" in line for line in lines)
        yield code, lines[-1], [line.split(":")[0] for line in lines if "kept, " not in line]
        if code == 0:
            return
    raise AssertionError("no end")


def test_writing_is_refused_at_any_stage_and_then_allowed(
    site: Path, site_run: Path, remote_folder: str, door: Door, capsys: pytest.CaptureFixture[str]
) -> None:
    output = f"{remote_folder}/out"
    argv = ["--input", str(site), "--output", output, "--encoder", "builtin"]
    finished: dict[str, str] = {}
    reached = []
    for code, line, stages in run_until_done(argv, lambda number: allow(door, 30, LOST[number % 4][0], is_write), capsys):
        door.refuse = lambda method, path: None
        after = journal(output)
        assert [path for path in after.keys() & finished.keys() if after[path] != finished[path]] == []
        finished |= after
        if code:
            assert code == EXIT_OUTPUT
            assert line.startswith(f"pagepairs: --output {output}: {LOST[len(reached) % 4][1]}")
            assert line.endswith("finished files are whole, the same command goes on from them")
        reached.append(stages)
    assert len(reached) > 3
    assert contents(output) == contents(str(site_run))


@pytest.mark.slow
def test_reading_the_crawl_is_refused_at_any_stage_and_then_allowed(
    site: Path, site_run: Path, remote_folder: str, door: Door, capsys: pytest.CaptureFixture[str]
) -> None:
    crawl, output = f"{remote_folder}/in", f"{remote_folder}/out"
    upload(site, crawl)

    def is_crawl(method: str, path: str) -> bool:
        return method == "GET" and "alt=media" in path and "/in/crawl-" in unquote(path)

    argv = ["--input", crawl, "--output", output, "--encoder", "builtin"]
    codes = []
    for code, line, _ in run_until_done(argv, lambda number: allow(door, (2, 4, 6, 10**9)[number], FORBIDDEN, is_crawl), capsys):
        if code:
            assert code == EXIT_INPUT, line
            assert line.startswith(f"pagepairs: {crawl}/crawl-")
            assert "the store answers 403 Forbidden (forbidden, " in line
        codes.append(code)
    assert codes[:2] == [EXIT_INPUT, EXIT_INPUT]  # in scan, and in embed
    door.refuse = lambda method, path: None
    assert contents(output) == contents(str(site_run))
