"""What every runner is started with, and what is refused before any work begins."""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import apache_beam as beam
import grpc
import pytest
from apache_beam.runners.dataflow.dataflow_runner import DataflowRuntimeException
from launch import environment

from pagepairs.cli import main
from pagepairs.config import Config, EmbedConfig, PairConfig, ReportConfig, RunConfig, ScanConfig
from pipeline.runner_checks import IMAGE_WEIGHTS, check_reach
from pipeline.runners import CheckedDoFn, JobFailed, default_threads, is_local, open_job, pipeline_options

DATAFLOW = ["--runner=DataflowRunner", "--project=proj-x", "--region=europe-west4", "--temp_location=gs://bucket/tmp"]
VERSION = beam.__version__
IMAGE = "--sdk_container_image=registry.example/pagepairs-worker:1"


def options_of(*args: str, workers: int = 1) -> dict[str, Any]:
    return dict(pipeline_options(args, workers).get_all_options())


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["--runner=DirectRunner"],
        ["--runner", "DirectRunner"],
        ["--runner", "FnApiRunner"],
        ["--runner", "directrunner"],
        ["--runner", "direct"],
        ["--runner", "SwitchingDirectRunner"],
    ],
)
def test_the_direct_runner_is_beams_in_process_runner(args: list[str]) -> None:
    options = options_of(*args)
    assert (options["runner"], options["direct_num_workers"], options["direct_running_mode"]) == ("FnApiRunner", 1, "in_memory")
    assert is_local(pipeline_options(args, 1))


def test_workers_are_processes() -> None:
    options = options_of(workers=2)
    assert (options["direct_num_workers"], options["direct_running_mode"]) == (2, "multi_processing")


@pytest.mark.parametrize("runner", ["PrismRunner", "FlinkRunner", "SparkRunner"])
def test_another_runner_is_used_by_its_name(runner: str) -> None:
    options = pipeline_options([f"--runner={runner}"], 1)
    assert options.get_all_options()["runner"] == runner
    assert not is_local(options)


@pytest.mark.parametrize("save", [[], ["--save_main_session"]])
def test_the_main_session_is_never_pickled(save: list[str]) -> None:
    assert options_of(*save)["save_main_session"] is False


@pytest.mark.parametrize(
    "args", [["--runner", "DaskRunner"], ["--runner=apache_beam.runners.dask.dask_runner.DaskRunner"], ["--runner", "daskrunner"]]
)
def test_dask_is_refused_with_what_to_use(args: list[str]) -> None:
    with pytest.raises(ValueError, match=r"--runner DaskRunner .*: use FlinkRunner"):
        pipeline_options(args, 1)


@pytest.mark.parametrize(
    ("args", "workers", "message"),
    [
        (["--direct_running_mode", "multi_threading"], 1, "--direct_running_mode multi_threading loses elements .*use --workers N"),
        (["--direct_running_mode=multi_processing"], 1, "--direct_running_mode multi_processing: use --workers N"),
        (["--direct_num_workers=4"], 1, "--direct_num_workers 4: use --workers N"),
        (["--runner=PrismRunner"], 2, "--workers 2: PrismRunner does not take it; leave it out"),
        (["--runner=SparkRunner"], 2, "--workers 2: SparkRunner does not take it"),
        (["--runner=FlinkRunner", "--no_wait_until_finish"], 1, "--no_wait_until_finish: leave it out; every job of a run reads"),
        (["--runner=FlinkRunner", "--parallelism=7"], 2, "--workers 2 and --parallelism 7 are one setting: leave one out"),
    ],
)
def test_a_flag_that_would_be_dropped_without_a_word_is_refused(args: list[str], workers: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pipeline_options(args, workers)


def test_the_direct_runner_never_downloads(tmp_path: Path) -> None:
    """In a process that may not open a connection to another machine."""
    code = """
import socket, sys
import apache_beam as beam
from pipeline.runners import open_job, pipeline_options
connect = socket.socket.connect
def refuse(self, address):
    if address[0] not in ("localhost", "127.0.0.1", "::1"):
        raise SystemExit(f"connects to {address}")
    return connect(self, address)
socket.socket.connect = refuse
with open_job("x", pipeline_options(["--runner=DirectRunner"], 1), tasks=2) as pipeline:
    pipeline | beam.Create([1]) | beam.Map(print)
"""
    env = environment(HOME=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, env=env)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    assert list(tmp_path.rglob("*prism*")) == []


def test_workers_are_the_parallelism_of_flink() -> None:
    assert options_of("--runner=FlinkRunner", workers=3)["parallelism"] == 3
    assert options_of("--runner=FlinkRunner", "--parallelism=7")["parallelism"] == 7
    assert options_of("--runner=FlinkRunner")["parallelism"] == -1


FLINK, SPARK, PORTABLE = "--runner=FlinkRunner", "--runner=SparkRunner", "--runner=PortableRunner"
EXTERNAL, DOCKER = "--environment_type=EXTERNAL", "--environment_type=DOCKER"


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ([FLINK, "--flink_master=flink:8081"], "--flink_master flink:8081: name where its workers are too: --environment_type=EXTERNAL"),
        ([FLINK, "--flink_master=localhost:8081"], "--flink_master localhost:8081: name"),
        ([SPARK, "--spark_master_url=spark://h:7077"], "--spark_master_url spark://h:7077: name where its workers are too"),
        ([SPARK, "--spark_submit_uber_jar", "--spark_rest_url=http://h:6066"], "--spark_master_url local"),
        ([PORTABLE, "--job_endpoint=h:8099"], "--job_endpoint h:8099: name where its workers are too"),
        ([PORTABLE, "--job_endpoint=localhost:8099"], "--job_endpoint localhost:8099: name"),
        (
            [FLINK, "--flink_master=h:8081", "--environment_type=LOOPBACK"],
            "--flink_master h:8081: --environment_type LOOPBACK runs workers",
        ),
        ([FLINK, "--flink_master=[local]", "--job_endpoint=h:8099"], "--job_endpoint h:8099: --environment_type LOOPBACK runs workers"),
        ([PORTABLE, "--job_endpoint=h:8099", "--environment_type=LOOPBACK"], "--job_endpoint h:8099: --environment_type LOOPBACK"),
        ([FLINK, "--flink_master=h:8081", DOCKER], "--environment_type DOCKER: its image is missing"),
    ],
)
def test_a_cluster_must_be_told_where_its_workers_are(args: list[str], named: str) -> None:
    with pytest.raises(ValueError, match=re.escape(named)):
        options_of(*args)


@pytest.mark.parametrize(
    "args",
    [
        [FLINK, "--flink_master=[local]", "--job_endpoint=localhost:8099"],
        [FLINK, "--flink_master=flink:8081", DOCKER, "--environment_config=image:1"],
        [FLINK, "--flink_master=flink:8081", DOCKER, "--environment_options=docker_container_image=image:1"],
        [FLINK, "--flink_master=http://localhost:8081", "--environment_type=LOOPBACK"],
        [SPARK, "--spark_master_url=local[2]"],
        [SPARK, "--spark_master_url=spark://h:7077", EXTERNAL, "--environment_config=localhost:5"],
        [PORTABLE, "--job_endpoint=localhost:8099", "--environment_type=LOOPBACK"],
        [PORTABLE, "--job_endpoint=embed"],
    ],
)
def test_a_cluster_that_was_told_is_taken(args: list[str]) -> None:
    assert options_of(*args)["runner"] == args[0].split("=")[1]


@pytest.mark.parametrize("missing", range(1, 4))
def test_dataflow_needs_project_region_and_bucket(missing: int) -> None:
    args = [arg for number, arg in enumerate(DATAFLOW) if number != missing]
    flag = DATAFLOW[missing].split("=")[0]
    with pytest.raises(ValueError, match=f"--runner DataflowRunner: {flag} is missing: name"):
        options_of(*args, IMAGE)


@pytest.mark.parametrize(
    ("args", "workers", "message"),
    [
        ([], 1, "its workers need pagepairs: give --sdk_container_image IMAGE .* or --setup_file ./setup.py"),
        ([IMAGE, "--temp_location=/tmp"], 1, "--temp_location /tmp: Dataflow's workers reach gs:// only"),
        ([IMAGE], 2, "--workers 2: is for this machine; on Dataflow give --num_workers and --max_num_workers"),
        (["--sdk_container_image=apache/beam_python3.11_sdk:2.60.0"], 1, r"has Beam 2\.60\.0, the job is started by .*: they must be one"),
        (
            [IMAGE, "--resource_hints=accelerator=type:nvidia-l4", "--dataflow_service_options=worker_accelerator=type:nvidia-l4;count:1"],
            1,
            "Dataflow refuses together: leave one out",
        ),
    ],
)
def test_what_dataflow_would_refuse_or_do_without_a_word_is_refused_here(args: list[str], workers: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        options_of(*DATAFLOW, *args, workers=workers)


@pytest.mark.parametrize("wanted", ["== 2.60.0", "~=2.60", ">=2.60", "", "==2.77.*", ">=2.60,<3", f">={VERSION}"])
def test_requirements_that_could_bring_another_beam_are_refused(wanted: str, tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text(f"# the worker's\n--extra-index-url https://x\nnumpy\nApache_Beam[gcp] {wanted}  # ours\n")
    with pytest.raises(ValueError, match=rf"{path}: has Apache_Beam\[gcp\].*, the job is started by .*, pin apache-beam=={VERSION}"):
        options_of(f"--requirements_file={path}")


@pytest.mark.parametrize("line", [f"apache-beam == {VERSION} # pinned", f"apache.beam[gcp]=={VERSION} \\", "torch>=2", "./here"])
def test_requirements_of_this_beam_or_of_none_are_taken(line: str, tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text(f"numpy\n{line}\n  --hash=sha256:00\n")
    assert options_of(f"--requirements_file={path}")["requirements_file"] == str(path)


def test_dataflows_own_autoscaling_stays() -> None:
    options = options_of(*DATAFLOW, IMAGE)
    assert {name: options[name] for name in ("num_workers", "max_num_workers", "autoscaling_algorithm", "machine_type")} == dict.fromkeys(
        ("num_workers", "max_num_workers", "autoscaling_algorithm", "machine_type")
    )
    assert (options["sdk_location"], options["save_main_session"]) == ("container", False)
    given = options_of(*DATAFLOW, "--setup_file=./setup.py", "--max_num_workers=9", "--dataflow_service_options=enable_prime")
    assert (given["sdk_location"], given["max_num_workers"], given["dataflow_service_options"]) == ("default", 9, ["enable_prime"])


REACHED: dict[str, Any] = {"run": RunConfig(output="gs://b/out"), "scan": ScanConfig(input=("gs://b/crawl/*.warc.gz",))}


@pytest.mark.parametrize(
    ("settings", "stage", "named"),
    [
        ({"run": RunConfig(output="/out")}, "report", "--output /out"),
        ({"scan": ScanConfig(input=("gs://b/c", "/c.warc"))}, "report", "--input /c.warc"),
        ({"scan": ScanConfig(input=("gs://b/c",), block_list="/blocked")}, "scan", "--block-list /blocked"),
        ({"embed": EmbedConfig(embeddings_from="/earlier")}, "embed", "--embeddings-from /earlier"),
        ({"embed": EmbedConfig(encoder_weights="/w")}, "embed", "--encoder-weights /w"),
        ({"embed": EmbedConfig(encoder="builtin,tflite:/n.tflite")}, "embed", "--encoder /n.tflite"),
        ({"pair": PairConfig(benchmark=("gs://b/index", "/index"))}, "pair", "--benchmark /index"),
        ({"report": ReportConfig(compare="/other")}, "report", "--compare /other"),
    ],
)
def test_files_of_this_machine_are_refused_on_dataflow(settings: dict[str, Any], stage: str, named: str) -> None:
    asked, config = options_of(*DATAFLOW, IMAGE), Config(**REACHED | settings)
    with pytest.raises(ValueError, match=re.escape(named) + ": Dataflow's workers do not see this machine"):
        check_reach(asked, config, (stage,))
    check_reach(options_of(), config, (stage,))
    if stage in ("scan", "embed", "pair"):  # another stage does not read it
        check_reach(asked, config, ("shard",))


def test_what_dataflow_reaches_is_taken() -> None:
    """In a bucket, or where the image holds weights; --band is read by the launcher."""
    embed = EmbedConfig(encoder="dinov2-base,tflite:/opt/weights/n.tflite", encoder_weights="gs://b/w,", embeddings_from="gs://b/earlier")
    pair = PairConfig(benchmark=("gs://b/index",), band="/calibration.json")
    check_reach(options_of(*DATAFLOW, IMAGE), Config(**REACHED, embed=embed, pair=pair), ("scan", "embed", "pair", "shard", "report"))


def test_the_image_holds_weights_where_flags_may_name_them() -> None:
    text = (Path(__file__).resolve().parents[2] / "Dockerfile").read_text()
    assert f"ENV HF_HOME={IMAGE_WEIGHTS}\n" in text


def test_a_dry_run_checks_the_runner_and_prints_its_options(site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["run", "--input", str(site), "--output", str(tmp_path / "out"), "--encoder", "builtin", "--dry-run"]
    assert main([*command, *DATAFLOW, IMAGE]) == 2
    assert f"--output {tmp_path / 'out'}: Dataflow's workers do not see this machine" in capsys.readouterr().err
    assert main([*command, "--workers", "2"]) == 0
    jobs = json.loads(capsys.readouterr().out)["plan"]["jobs"]
    assert jobs == {"runner": "FnApiRunner", "direct_num_workers": 2, "direct_running_mode": "multi_processing", "save_main_session": False}
    assert not (tmp_path / "out").exists()


def test_threads_of_a_process_are_its_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert [default_threads(pipeline_options((), 1), workers) for workers in (1, 2, 16)] == [8, 4, 1]
    for args in ([*DATAFLOW, IMAGE], [FLINK, "--parallelism=32"], [SPARK]):
        assert default_threads(pipeline_options(args, 1), 1) == 1


class _Other(CheckedDoFn):
    """Stands for a step that was pickled by another version."""

    def __init__(self) -> None:
        super().__init__()
        self._launcher = "apache-beam 2.1.0 and pagepairs 0.0.1"

    def process(self, element: int) -> None:
        raise AssertionError


def test_a_worker_with_other_packages_says_so() -> None:
    with pytest.raises(RuntimeError, match=r"this worker has apache-beam 2\..*, the job was started with apache-beam 2\.1\.0 and"):  # noqa: SIM117
        with open_job("x", pipeline_options((), 1), tasks=2) as pipeline:
            pipeline | beam.Create([1]) | beam.ParDo(_Other())


def fail(element: int) -> None:
    raise ValueError(f"bad {element}")


def test_an_error_of_our_own_code_keeps_its_traceback_here_and_is_a_sentence_on_another_runner(prism: Path) -> None:
    flags = ["--runner=PrismRunner", f"--prism_location={prism}"]
    for args, kind in [((), ValueError), (flags, JobFailed)]:
        with pytest.raises(kind, match="bad 1") as caught:  # noqa: SIM117
            with open_job("x", pipeline_options(args, 1), tasks=2) as pipeline:
                pipeline | beam.Create([1]) | beam.Map(fail)
        assert isinstance(caught.value, JobFailed) == bool(args)
    assert str(caught.value).startswith("job x failed on PrismRunner: ")


def test_a_job_server_that_does_not_answer_is_a_sentence_and_exit_code_6(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--runner=PortableRunner", "--job_endpoint=localhost:1", "--environment_type=LOOPBACK", "--job_server_timeout=1"]
    assert main(["scan", "--input", str(site), "--output", str(tmp_path / "out"), *flags]) == 6
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("pagepairs: job scan failed on PortableRunner: --job_endpoint localhost:1 did not answer within")


class _OfGrpc(grpc.RpcError):
    def __str__(self) -> str:
        return '<_InactiveRpcError of RPC that terminated with:\n\tstatus = UNAVAILABLE\n\tdetails = "no route"\n\tdebug = "{}"\n>'


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            DataflowRuntimeException("Dataflow pipeline failed. State: FAILED, Error:\nworkers ran out of disk", None),
            "workers ran out of disk",
        ),
        (_OfGrpc(), "no route"),
        (Exception('HttpError accessing <u>: response: <{}>, content <{\n "message": "no such project"\n}\n>'), "no such project"),
        (KeyError(), "KeyError"),
    ],
)
def test_whatever_a_runner_raises_fails_the_job(error: Exception, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pipeline: beam.Pipeline, *args: Any) -> None:
        raise error

    monkeypatch.setattr(beam.Pipeline, "run", refuse)
    with pytest.raises(JobFailed) as caught, open_job("x", pipeline_options(["--runner=FlinkRunner"], 1), tasks=2) as pipeline:
        pipeline | beam.Create([1])
    assert caught.value.sentence == f"job x failed on FlinkRunner: {said}; finished work is kept, the same command goes on from it"


def test_a_job_that_somebody_cancelled_is_not_taken_for_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Portable runners return from it without an error."""
    ended = argparse.Namespace(wait_until_finish=lambda: "CANCELLED", state="CANCELLED")
    monkeypatch.setattr(beam.Pipeline, "run", lambda pipeline: ended)
    with pytest.raises(JobFailed, match="job x failed on FlinkRunner: it ended as CANCELLED; finished work is kept"):  # noqa: SIM117
        with open_job("x", pipeline_options([FLINK], 1), tasks=2) as pipeline:
            pipeline | beam.Create([1])


def test_an_error_before_a_job_is_sent_stays_what_it_is() -> None:
    with pytest.raises(FileNotFoundError, match="mine"), open_job("x", pipeline_options(["--runner=FlinkRunner"], 1), tasks=2):
        raise FileNotFoundError("mine")


def test_a_job_is_named_before_it_is_sent_where_it_can_outlive_the_driver(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names: list[str] = []

    def noted(pipeline: beam.Pipeline, *args: Any) -> Any:
        names.append(pipeline.options.get_all_options()["job_name"])
        return argparse.Namespace(wait_until_finish=lambda: None)

    monkeypatch.setattr(beam.Pipeline, "run", noted)
    for args in ((), (FLINK,)):
        with open_job("scan", pipeline_options(args, 1), tasks=2) as pipeline:
            pipeline | beam.Create([1])
    assert capsys.readouterr().err == f"scan: sending job {names[1]}\n"
