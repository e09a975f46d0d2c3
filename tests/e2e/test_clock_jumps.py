"""The clock on the wall jumps by hours in the middle of a run (NTP, a machine that was asleep): same bytes, no negative time.

A clock that is patched within Python stops Beam: BatchElements keeps time.time, and pickles it by its name.
"""

import itertools
import json
import shutil
import threading
import time
from pathlib import Path

import pytest
from outputs import assert_sound, data_hashes

JUMPS = ("+5h", "-7h", "+0", "+400d", "-2h")
LIBRARY = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_jumping_clock_under_all_processes(workers: int, site_files: list[Path], site_run: Path, tmp_path: Path, shell) -> None:
    if not Path(LIBRARY).exists():
        pytest.skip(f"no {LIBRARY}: apt-get install libfaketime")
    setting, stop = tmp_path / "setting", threading.Event()
    setting.write_text("+0")

    def jump() -> None:
        for jump in itertools.cycle(JUMPS):
            (tmp_path / "next").write_text(jump)
            shutil.move(tmp_path / "next", setting)
            if stop.wait(0.3):
                return

    thread = threading.Thread(target=jump)
    thread.start()
    # Only the wall clock jumps; times of files are what they are.
    faked = {"LD_PRELOAD": LIBRARY, "FAKETIME_TIMESTAMP_FILE": str(setting), "FAKETIME_NO_CACHE": "1"}
    faked |= {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}
    started = time.monotonic()
    try:
        done = shell(
            "run", "--input", *site_files, "--output", tmp_path / "out", "--encoder", "builtin", "--workers", str(workers), **faked
        )
    finally:
        stop.set()
        thread.join()
    elapsed_s = time.monotonic() - started
    assert done.code == 0, done.err
    seconds = [stage["seconds"] for stage in json.loads((tmp_path / "out" / "run.json").read_text())["stages"].values()]
    assert len(seconds) == 5
    assert min(seconds) >= 0
    assert sum(seconds) < elapsed_s
    assert data_hashes(tmp_path / "out") == data_hashes(site_run)
    assert_sound(tmp_path / "out")
