"""A real Flink, with Python workers in the driver (LOOPBACK) and in processes beside it (EXTERNAL): the same bytes, also after a kill."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from killed_workers import copy_before, kill_once
from launch import ROOT, environment, start
from outputs import assert_conserved, assert_sound, data_hashes, journal_files

from pipeline.beam_flags import beam_flags, server_flags


def test_the_real_crawl_on_flink_gives_the_bytes_of_the_local_runner(shared_data: Path, flink: list[str], tmp_path: Path, shell) -> None:
    command = ["run", "--input", shared_data / "howtocook.warc.gz", "--encoder", "builtin", "--output"]
    local = shell(*command, tmp_path / "local")
    assert local.code == 0, local.err
    done = shell(*command, tmp_path / "flink", *flink)
    assert done.code == 0, done.err
    assert "Traceback" not in done.err
    assert data_hashes(tmp_path / "flink") == data_hashes(tmp_path / "local")
    assert_conserved(tmp_path / "flink")
    assert_sound(tmp_path / "flink")


def test_flags_that_only_the_job_server_knows_are_asked_of_it(flink: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--object_reuse" in server_flags(flink) - beam_flags()
    assert server_flags(["--runner=FlinkRunner"]) == set()
    monkeypatch.setattr("pipeline.beam_flags._ANSWER_S", 0.2)
    with pytest.raises(ValueError, match="--job_endpoint localhost:9 did not answer"):
        server_flags(["--job_endpoint=localhost:9"])


@contextmanager
def worker_pool(**more: str) -> Iterator[tuple[psutil.Process, list[str]]]:
    """Starts a pool that starts worker processes as Flink asks for them; yields it and the flags that name it."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main", f"--service_port={port}"]
    with subprocess.Popen(command, env=environment(**more), stderr=subprocess.DEVNULL) as process:
        try:
            yield psutil.Process(process.pid), ["--environment_type=EXTERNAL", f"--environment_config=localhost:{port}"]
        finally:
            process.terminate()


@pytest.fixture
def pool() -> Iterator[tuple[psutil.Process, list[str]]]:
    with worker_pool() as found:
        yield found


@pytest.mark.slow
@pytest.mark.parametrize("attempts", [0, 2])
def test_a_worker_of_flink_that_is_killed_in_shard_costs_what_it_was_at(
    site_run: Path, flink: list[str], tmp_path: Path, shell, attempts: int
) -> None:
    """Flink tries a job again if its configuration says so; else the run fails and the same command goes on."""
    strategy = f"fixed-delay\nrestart-strategy.fixed-delay.attempts: {attempts}\nrestart-strategy.fixed-delay.delay: 1 s"
    (tmp_path / "flink-conf.yaml").write_text(f"restart-strategy: {strategy if attempts else 'none'}\n")
    output = copy_before("shard", site_run, tmp_path / "out")
    with worker_pool(**kill_once("/done/shard/", tmp_path)) as (_, flags):
        command = ["shard", "--output", output, *flink, *flags, f"--flink_conf_dir={tmp_path}"]
        done = shell(*command)
        assert (done.code, (tmp_path / "killed").exists()) == (0 if attempts else 6, True), done.err
        if not attempts:
            done = shell(*command)
    assert done.code == 0, done.err
    tasks = (tmp_path / "notes").read_text().splitlines()
    assert len(tasks) == len(set(tasks)) > 0
    assert data_hashes(output) == data_hashes(site_run)


@pytest.mark.parametrize("name", ["scan", pytest.param("run", marks=pytest.mark.slow)])
def test_a_killed_worker_of_flink_fails_the_run_and_the_same_command_finishes_it(
    site: Path, site_run: Path, flink: list[str], pool: tuple[psutil.Process, list[str]], tmp_path: Path, shell, name: str
) -> None:
    """The worker is killed as soon as the first unit of stage scan is finished, in the middle of a bundle."""
    workers, flags = pool
    output = tmp_path / "out"
    encoder = ["--encoder", "builtin"] if name == "run" else []
    command = [name, "--input", str(site), "--output", str(output), *encoder, *flink, *flags]
    with start(*command) as run:
        while run.poll() is None and not list((output / ".work" / "scan").glob("*.json")):
            time.sleep(0.002)
        for worker in workers.children():
            os.kill(worker.pid, signal.SIGKILL)
        _, err = run.communicate()
    assert run.returncode == 6, err
    assert (err.count("pagepairs: job scan failed on FlinkRunner: "), err.count("the same command goes on from it")) == (1, 1)
    assert "Traceback" not in err
    finished = journal_files(output)
    assert finished
    done = shell(*command)
    assert done.code == 0, done.err
    assert {name: place for name, place in journal_files(output).items() if name in finished} == finished
    assert_sound(output)
    found, wanted = data_hashes(output), data_hashes(site_run)
    assert found == (wanted if name == "run" else {path: wanted[path] for path in found})
    assert {path.split("/")[0] for path in found} >= {"images", "links", "pages", "units"}


MAVEN = """#!/bin/sh
for argument; do case $argument in -DoutputDirectory=*) folder=${argument#*=} ;; esac; done
mkdir -p $folder && echo "$@" > $folder/a.jar && [ ! -e interrupted ]
"""


def test_jars_count_when_they_are_whole_and_other_versions_are_other_jars(tmp_path: Path) -> None:
    """With a Maven that leaves a jar, and fails while there is a file `interrupted`."""
    if not shutil.which("make"):
        pytest.skip("no make here")
    (tmp_path / "examples").mkdir()
    for name in ("Makefile", "examples/flink.pom.xml"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "mvn").write_text(MAVEN)
    (tmp_path / "mvn").chmod(0o755)

    def make(target: str, *variables: str) -> int:
        env = environment(PATH=f"{tmp_path}:{os.environ['PATH']}")
        return subprocess.run(["make", "-s", target, *variables], cwd=tmp_path, env=env, check=False, capture_output=True).returncode

    (tmp_path / "interrupted").touch()
    assert make("demo/flink-jars") != 0
    assert not (tmp_path / "demo" / "flink-jars").exists()
    (tmp_path / "interrupted").unlink()
    assert make("demo/flink-jars") == 0
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == ["flink-jars"]
    (tmp_path / "interrupted").touch()  # what is there is not fetched again
    assert make("demo/flink-jars") == 0
    (tmp_path / "interrupted").unlink()
    assert make("demo/flink-jars-Dbeam-2.77.0-Dflink-1.20", "FLINK=-Dbeam=2.77.0 -Dflink=1.20") == 0
    assert "-Dbeam=2.77.0 -Dflink=1.20" in (tmp_path / "demo" / "flink-jars-Dbeam-2.77.0-Dflink-1.20" / "a.jar").read_text()
