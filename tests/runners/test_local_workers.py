"""Worker processes of this machine: one that is killed fails the run, and none outlives a driver that is killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from killed_workers import copy_before, kill_once
from launch import ROOT, Call, environment, start
from outputs import assert_sound, data_hashes, journal_files

WAIT_S = 60


def command(name: str, site: Path, output: Path) -> list[object]:
    return [name, "--input", site, "--output", output, *(["--encoder", "builtin"] if name == "run" else []), "--workers", 2, "--threads", 1]


def workers_of(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    """Returns the worker processes of a driver."""
    return [child for child in psutil.Process(process.pid).children() if "pipeline.local_workers" in child.cmdline()]


def until(found: Callable[[], object]) -> None:
    end = time.monotonic() + WAIT_S
    while not found():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.002)


@pytest.mark.parametrize("name", ["scan", pytest.param("run", marks=pytest.mark.slow)])
def test_a_killed_worker_fails_the_run_and_the_same_command_finishes_it(
    site: Path, site_run: Path, tmp_path: Path, shell, name: str
) -> None:
    """Both workers are killed as soon as the first of four units is scanned: in the middle of a bundle, or before its end is told."""
    output = tmp_path / "out"
    with start(*command(name, site, output)) as run:
        until(lambda: list((output / ".work" / "scan").glob("*.json")))
        for worker in workers_of(run):
            worker.kill()
        _, err = run.communicate(timeout=WAIT_S)
    assert run.returncode == 6, err
    last = err.splitlines()[-1]
    assert last.startswith("pagepairs: job scan: a worker process died")
    assert last.endswith("finished work is kept, the same command goes on from it")
    assert "Traceback" not in err
    finished = journal_files(output)
    assert finished
    done = shell(*command(name, site, output))
    assert done.code == 0, done.err
    assert {name: place for name, place in journal_files(output).items() if name in finished} == finished
    assert_sound(output)
    found, wanted = data_hashes(output), data_hashes(site_run)
    assert found == (wanted if name == "run" else {path: wanted[path] for path in found})
    assert {path.split("/")[0] for path in found} >= {"images", "links", "pages", "units"}


@pytest.fixture(scope="module")
def parted_run(site: Path, tmp_path_factory: pytest.TempPathFactory, shell: Call) -> Path:
    """A run over the small site, by one process, of several parts and shards: a stage of one has no workers of its own."""
    output = tmp_path_factory.mktemp("parted") / "out"
    done = shell("run", "--input", site, "--output", output, "--encoder", "builtin", "--pairs-per-shard", 5, small_parts=True)
    assert done.code == 0, done.err
    return output


@pytest.mark.parametrize(
    ("stage", "sign"),
    [
        ("shard", "/done/shard/"),
        pytest.param("embed", "/.work/embed-", marks=pytest.mark.slow),
        pytest.param("pair", "/done/canonical/", marks=pytest.mark.slow),
        pytest.param("pair", "/done/pairs/", marks=pytest.mark.slow),
    ],
)
def test_a_stage_whose_worker_is_killed_is_finished_by_the_same_command(
    stage: str, sign: str, parted_run: Path, tmp_path: Path, shell: Call
) -> None:
    """A worker ends as soon as it noted its first finished task of the stage, or of one job of it, in the journal."""
    output = copy_before(stage, parted_run, tmp_path / "out")
    args = [stage, "--output", output, "--workers", 2, "--threads", 1]
    hooks = kill_once(sign, tmp_path)
    killed = shell(*args, small_parts=True, **hooks)
    assert killed.code == 6, killed.err
    assert (tmp_path / "killed").exists()
    assert "a worker process died" in killed.err.splitlines()[-1]
    done = shell(*args, small_parts=True, **hooks)
    assert done.code == 0, done.err
    tasks = (tmp_path / "notes").read_text().splitlines()
    assert any(sign in task for task in tasks)
    assert len(tasks) == len(set(tasks))  # nothing that was finished was done twice
    assert data_hashes(output) == data_hashes(parted_run)
    assert_sound(output)


def test_a_killed_driver_leaves_no_process_and_no_folder(site: Path, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    with start(*command("scan", site, tmp_path / "out"), TMPDIR=str(tmp_path / "tmp")) as run:
        until(lambda: len(workers_of(run)) == 2)
        workers = workers_of(run)
        run.kill()
    _, alive = psutil.wait_procs(workers, timeout=WAIT_S)
    assert alive == []
    assert list((tmp_path / "tmp").iterdir()) == []


TASKS = """
import os, signal, sys
from pathlib import Path
from pipeline.jobs import run_tasks
from pipeline.journal import Journal, Outcome
from pipeline.runners import JobFailed, pipeline_options
import tasks

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    try:
        todo = {f"t{n}": (str(folder), n) for n in range(20)}
        run_tasks("work", todo, tasks.work, Journal(str(folder / "done")), pipeline_options((), 2))
    except JobFailed as error:
        print(error.sentence)

def work(task):
    folder, number = Path(task[0]), task[1]
    with (folder / f"calls-{number}").open("a") as file:
        file.write("x")
    if number == 7 and not (folder / "killed").exists():
        (folder / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return Outcome(counters={"in": number})
"""


def test_a_worker_that_dies_in_its_bundle_costs_the_task_that_it_was_at(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(TASKS)
    env = environment(PYTHONPATH=f"{ROOT}:{tmp_path}")

    def run() -> str:
        code = [sys.executable, str(tmp_path / "tasks.py"), str(tmp_path)]
        return subprocess.run(code, check=True, capture_output=True, text=True, env=env, timeout=WAIT_S).stdout

    assert run().startswith("job work: a worker process died (Worker subprocess exited with return code -9)")
    finished = {path.stem for path in (tmp_path / "done").iterdir()}
    assert "t7" not in finished
    assert run() == ""
    assert {path.stem for path in (tmp_path / "done").iterdir()} == {f"t{n}" for n in range(20)}
    calls = {path.name.removeprefix("calls-"): len(path.read_text()) for path in tmp_path.glob("calls-*")}
    assert calls == {str(n): 2 if n == 7 else 1 for n in range(20)}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_ended_driver_ends_its_workers(site: Path, tmp_path: Path, number: signal.Signals) -> None:
    with start(*command("scan", site, tmp_path / "out")) as run:
        until(lambda: len(workers_of(run)) == 2)
        workers = workers_of(run)
        os.kill(run.pid, number)
    _, alive = psutil.wait_procs(workers, timeout=WAIT_S)
    assert alive == []
