"""A run that was killed goes on: same bytes as in one go, and nothing that was finished is done again."""

import signal
from pathlib import Path

import pytest
from killed_runs import kill_after, moments
from outputs import assert_sound, data_hashes, half_written, journal_files

import pipeline.jobs
import pipeline.journal

PART_ROWS = 7  # 4 parts for the small site


@pytest.fixture
def tasks_done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The journal entries that commands in this process write, as paths."""
    done: list[str] = []
    write = pipeline.journal.Journal.write

    def noted(journal: pipeline.journal.Journal, task: str, outcome: pipeline.journal.Outcome) -> None:
        write(journal, task, outcome)
        done.append(str(Path(journal.folder) / f"{task}.json"))

    monkeypatch.setattr(pipeline.journal.Journal, "write", noted)
    return done


@pytest.mark.parametrize("count", [6, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_at_many_moments_gives_the_same_bytes_and_repeats_nothing(
    count: int, site_files: list[Path], tmp_path: Path, pagepairs, tasks_done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.jobs, "PART_ROWS", PART_ROWS)

    def command(output: Path) -> list[object]:
        return [
            "run",
            "--input",
            *site_files,
            "--output",
            output,
            "--encoder",
            "builtin",
            "--pairs-per-shard",
            2,
        ]  # as many shards as parts

    files, code = kill_after(command(tmp_path / "whole"), tmp_path / "whole", files=None, part_rows=PART_ROWS)
    assert code == 0
    whole = data_hashes(tmp_path / "whole")
    stages_reached, killed = set(), 0
    in_shard = (count * files, 0.0, "/done/shard/")  # the shortest stage: a random moment may miss it
    for number, (moment, delay_s, sign) in enumerate([*((*moment, "\0") for moment in moments(count, files, seed=count)), in_shard]):
        output = tmp_path / f"killed-{number}"
        _, code = kill_after(command(output), output, files=moment, delay_s=delay_s, part_rows=PART_ROWS, sign=sign)
        killed += code == -signal.SIGKILL
        assert half_written(output) == []
        finished = {str(output / name): place for name, place in journal_files(output).items()}
        stages_reached |= {stage for stage in ("scan", "embed", "pair", "shard") for name in finished if f"/.work/{stage}" in name}
        tasks_done.clear()
        done = pagepairs(*command(output))
        assert done.code == 0, done.err
        assert set(tasks_done) & set(finished) == set(), moment
        assert len(tasks_done) == len(set(tasks_done))
        assert data_hashes(output) == whole, moment
        assert_sound(output)
    assert killed >= count  # the last random moment may come too late
    assert {"scan", "embed", "pair", "shard"} == stages_reached
