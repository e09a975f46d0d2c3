import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import progress
from pipeline.progress import Meter, watch


def test_counts_of_threads_and_copies_add_up(tmp_path: Path) -> None:
    with watch(str(tmp_path), "x", 100, "img") as meter:
        meter.add(2)
        pickle.loads(pickle.dumps(meter)).add(3)
        assert meter.total() == 5


def test_counts_of_other_processes_add_up(tmp_path: Path) -> None:
    with watch(str(tmp_path), "x", 100, "img") as meter:
        meter.add(1)
        code = f"from pipeline.progress import Meter; Meter({meter.folder!r}).add(41.5)"
        subprocess.run([sys.executable, "-c", code], check=True)
        assert meter.total() == 42.5


def test_a_half_written_count_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    (tmp_path / "b").write_text("1e")
    (tmp_path / "c").write_text("2.5")
    assert Meter(str(tmp_path)).total() == 2.5


def test_a_watch_leaves_no_file_even_after_an_error(tmp_path: Path) -> None:
    def fail() -> None:
        with watch(str(tmp_path), "x", 1, "img") as meter:
            meter.add(1)
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 (any other would not be ours)
        fail()
    assert list(tmp_path.iterdir()) == []
    assert [folder for folder in progress._counts if folder.startswith(str(tmp_path))] == []


def test_a_meter_whose_folder_is_gone_is_no_error(tmp_path: Path) -> None:
    meter = Meter(str(tmp_path / "gone"))
    meter.add(1)
    assert meter.total() == 1
    progress._counts.pop(meter.folder)


def test_lines_appear_where_there_is_no_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import time

    monkeypatch.setattr(progress, "_INTERVAL_S", 0.01)
    monkeypatch.setattr(progress, "_LOG_INTERVAL_S", 0.02)
    with watch(str(tmp_path), "scan", 10, "img") as meter:
        meter.add(4)
        time.sleep(0.2)
    assert "scan: 4 of 10 img, " in capsys.readouterr().err
