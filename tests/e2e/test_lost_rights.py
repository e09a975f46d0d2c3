"""A right or room on this machine that is lost in the middle of a run: one sentence, and the same command goes on."""

import errno
import os
import shutil
from pathlib import Path

import pytest
from limited_runs import Limits, call_limited, set_modes
from outputs import assert_sound, data_hashes, half_written, journal_files


@pytest.mark.parametrize(
    ("lost", "mode", "code", "words"),
    [
        ("out", 0o555, 4, "--output {}: Permission denied; give the right to write there: finished files are whole, the same command"),
        ("crawl", 0o000, 3, "{}/crawl-"),
    ],
)
def test_a_right_that_is_lost_and_given_back(
    lost: str, mode: int, code: int, words: str, site_files: list[Path], site_run: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    (tmp_path / "crawl").mkdir()
    crawl = [shutil.copy2(file, tmp_path / "crawl") for file in site_files]  # with its time, which the datasets' digests hold
    command = ["run", "--input", *crawl, "--output", output, "--encoder", "builtin"]
    for after in (2, 4):  # in scan; after it
        limits = Limits(lose=(str(tmp_path / lost), mode), after=after)
        ended, said = call_limited(command, limits, tmp_path / "said")
        assert (ended, "Traceback" in said) == (code, False), said
        assert words.format(tmp_path / lost) in said.splitlines()[-1]
        assert os.strerror(errno.EACCES) in said.splitlines()[-1]
        set_modes(tmp_path / lost, 0o755)
        assert half_written(output) == []
    finished = journal_files(output)
    ended, said = call_limited(command, Limits(), tmp_path / "said")
    assert ended == 0, said
    after_all = journal_files(output)
    assert {name: after_all[name] for name in finished if name in after_all} == {
        name: place for name, place in finished.items() if name in after_all
    }
    assert data_hashes(output) == data_hashes(site_run)
    assert_sound(output)


def test_files_that_are_too_long_for_the_disk(site_files: list[Path], site_run: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    command = ["run", "--input", *site_files, "--output", output, "--encoder", "builtin"]
    for max_bytes, stage in ((3_000, ""), (40_000, "pair")):
        ended, said = call_limited(command, Limits(max_file_bytes=max_bytes), tmp_path / "said")
        assert (ended, "Traceback" in said) == (4, False), said
        assert said.splitlines()[-1].startswith(f"pagepairs: --output {output}: {os.strerror(errno.EFBIG)}; finished files are whole")
        assert "".join(line.split(":")[0] for line in said.splitlines()[-2:-1]) == stage
        assert half_written(output) == []
    ended, said = call_limited(command, Limits(), tmp_path / "said")
    assert ended == 0, said
    assert data_hashes(output) == data_hashes(site_run)
    assert_sound(output)
