"""Which runner does a job, and how: the defaults of every runner, and what is refused before any work begins."""

import copy
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import apache_beam as beam
import grpc
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions
from apache_beam.runners.runner import create_runner

from pagepairs import __version__
from pipeline.local_workers import WorkerLost, watch_workers

_LOCAL = ("fnapirunner", "directrunner", "switchingdirectrunner")
_PORTABLE = ("flinkrunner", "sparkrunner", "portablerunner")
_GOES_ON = "finished work is kept, the same command goes on from it"


class JobFailed(RuntimeError):
    """A job ended in an error that lies with the runner or its workers; the text of the runner's error follows the sentence."""

    def __init__(self, sentence: str, error: BaseException) -> None:
        super().__init__(f"{sentence}\n{error}")
        self.sentence = sentence


def pipeline_options(beam_args: Sequence[str], workers: int) -> PipelineOptions:
    """Returns Beam's options for a runner, with what it needs and the user did not say.

    Raises:
      ValueError: for a runner or mode that is known to lose elements, and for a flag that the runner needs.
    """
    asked = PipelineOptions(list(beam_args)).get_all_options()
    runner = _runner_name(asked["runner"])
    if runner == "daskrunner":
        raise ValueError(
            "--runner DaskRunner runs only part of a pipeline and reports success: use FlinkRunner, SparkRunner or DataflowRunner"
        )
    if asked["direct_running_mode"] == "multi_threading":
        raise ValueError("--direct_running_mode multi_threading loses elements in Beam 2.77: use --workers N, which runs processes")
    if asked["runner"]:
        create_runner(asked["runner"])  # an unknown name fails here, before anything is written
    _check_versions(asked)
    defaults: Callable[[dict[str, Any], int], list[str]] = _no_defaults
    if runner in _LOCAL:
        defaults = _local_defaults
    elif runner in _PORTABLE:
        defaults = _portable_defaults
    elif runner == "dataflowrunner":
        defaults = _dataflow_defaults
    return PipelineOptions([*beam_args, "--no_save_main_session", *defaults(asked, workers)])


def _no_defaults(asked: dict[str, Any], workers: int) -> list[str]:
    return []


def _local_defaults(asked: dict[str, Any], workers: int) -> list[str]:
    """Beam's DirectRunner would first try to download Prism and then behave differently."""
    mode = "multi_processing" if workers > 1 else "in_memory"
    return ["--runner=FnApiRunner", f"--direct_num_workers={workers}", f"--direct_running_mode={mode}"]


def _portable_defaults(asked: dict[str, Any], workers: int) -> list[str]:
    """On a cluster of its own Beam would start workers from an image without pagepairs."""
    master = asked["flink_master"] if asked["runner"].lower().startswith("flink") else ""
    if master and master not in ("[local]", "[auto]") and not asked["environment_type"]:
        raise ValueError(
            f"--flink_master {master}: name where its workers are too: --environment_type=EXTERNAL --environment_config=HOST:PORT "
            "(a worker pool beside each task manager) or --environment_type=DOCKER --environment_config=IMAGE (of the Dockerfile here)"
        )
    return [f"--parallelism={workers}"] if workers > 1 and asked["parallelism"] < 0 else []


def _dataflow_defaults(asked: dict[str, Any], workers: int) -> list[str]:
    """Checks what a job on Dataflow needs; the service's own autoscaling stays as it is unless it is asked for otherwise."""
    needed = {"project": "the project that pays", "region": "where the workers run", "temp_location": "a folder as gs://bucket/tmp"}
    for flag, what in needed.items():
        if not asked[flag]:
            raise ValueError(f"--runner DataflowRunner: --{flag} is missing: name {what}")
    if not asked["temp_location"].startswith("gs://"):
        raise ValueError(f"--temp_location {asked['temp_location']}: Dataflow's workers reach gs:// only; name a folder in a bucket")
    if workers > 1:
        raise ValueError(f"--workers {workers}: is for this machine; on Dataflow give --num_workers and --max_num_workers, or neither")
    if not (asked["sdk_container_image"] or asked["setup_file"]):
        raise ValueError(
            "--runner DataflowRunner: its workers need pagepairs: give --sdk_container_image IMAGE (of the Dockerfile here), "
            "or --setup_file ./setup.py, which installs it on every worker as it starts"
        )
    if _asks_for_accelerator(asked["resource_hints"]) and _has_worker_accelerator(asked):
        raise ValueError(_TWO_ACCELERATORS)
    return ["--sdk_location=container"] if asked["sdk_container_image"] and asked["sdk_location"] == "default" else []


_TWO_ACCELERATORS = (
    "--dataflow_service_options worker_accelerator puts a GPU on every worker, and a resource hint asks for workers of their own "
    "(right fitting), which Dataflow refuses together: leave one out"
)


def _has_worker_accelerator(asked: dict[str, Any]) -> bool:
    return any("worker_accelerator" in option for option in asked["dataflow_service_options"] or [])


def _asks_for_accelerator(hints: Sequence[str] | None) -> bool:
    return any(hint.startswith("accelerator") for hint in hints or [])


def _check_versions(asked: dict[str, Any]) -> None:
    """Refuses what names another Beam than this one, which starts the job: they must be one.

    Raises:
      ValueError: naming both versions.
    """
    launcher = beam.__version__
    image = re.search(r"beam_python([\d.]+)_sdk:(\d+\.\d+\.\d+)", asked["sdk_container_image"] or "")
    if image and image[2] != launcher:
        raise ValueError(f"--sdk_container_image {image[0]}: has Beam {image[2]}, the job is started by {launcher}: they must be one")
    if asked["requirements_file"]:
        with open(asked["requirements_file"], encoding="utf-8") as file:
            pinned = re.findall(r"^apache[-_.]beam(?:\[.*?\])?\s*==\s*([\w.]+)", file.read(), re.MULTILINE | re.IGNORECASE)
        if set(pinned) - {launcher}:
            file_name, found = asked["requirements_file"], ", ".join(pinned)
            raise ValueError(f"--requirements_file {file_name}: has Beam {found}, the job is started by {launcher}: they must be one")


def is_local(options: PipelineOptions) -> bool:
    """Whether the runner keeps its shuffles in this machine's memory."""
    return _runner_name(options.get_all_options()["runner"]) in _LOCAL


def check_reach(options: PipelineOptions, output: str, inputs: Sequence[str]) -> None:
    """Refuses folders of this machine where the workers are others.

    Raises:
      ValueError: naming the folder.
    """
    if _runner_name(options.get_all_options()["runner"]) == "dataflowrunner":
        for flag, path in [("output", output), *(("input", path) for path in inputs)]:
            if not path.startswith("gs://"):
                raise ValueError(
                    f"--{flag} {path}: Dataflow's workers do not see this machine; name a folder in a bucket, gs://bucket/folder"
                )


def describe(options: PipelineOptions) -> dict[str, Any]:
    """Returns what a job is started with: every option that differs from Beam's default."""
    return dict(sorted(options.get_all_options(drop_default=True).items()))


def default_threads(options: PipelineOptions, workers: int) -> int:
    """Returns the decode threads of a process: its share of this machine's cores; Dataflow starts one process a core."""
    on_dataflow = _runner_name(options.get_all_options()["runner"]) == "dataflowrunner"
    return 1 if on_dataflow else max(1, (os.cpu_count() or 1) // workers)


def _runner_name(runner: str | None) -> str:
    """Names a runner as Beam looks it up: in lower case, with `runner` at its end, without its module."""
    name = (runner or "FnApiRunner").rpartition(".")[2].lower()
    return name if name.endswith("runner") else f"{name}runner"


@contextmanager
def open_job(label: str, options: PipelineOptions) -> Iterator[beam.Pipeline]:
    """Opens a pipeline that runs when the block ends; `label` is the job's name in the runner's own display.

    Raises:
      JobFailed: if a worker process or the runner failed.
    """
    watch_workers()
    built = False
    try:
        with _quiet_threads(), beam.Pipeline(options=_named(label, options)) as pipeline:
            # Beam keeps jars of other languages there; a killed run would leave it behind.
            shutil.rmtree(pipeline.local_tempdir, ignore_errors=True)
            yield pipeline
            _check_accelerators(pipeline, options.get_all_options())
            built = True
    except WorkerLost as error:
        raise JobFailed(f"job {label}: {error}", error) from error
    except Exception as error:  # runners and their clients raise what they like: grpc's, Google's, Dataflow's own are no RuntimeError
        if is_local(options) or not built:
            raise
        runner = options.get_all_options()["runner"]
        raise JobFailed(f"job {label} failed on {runner}: {_reason(error, options)}; {_GOES_ON}", error) from error


def _reason(error: BaseException, options: PipelineOptions) -> str:
    """Returns the line of a runner's error that says what happened: what gRPC or Google call the details, or else the last."""
    asked = options.get_all_options()
    if isinstance(error, grpc.FutureTimeoutError):
        return f"--job_endpoint {asked['job_endpoint']} did not answer within --job_server_timeout {asked['job_server_timeout']} s"
    text = str(error)
    named = re.findall(r'(?:details = |"message": )"([^"\n]+)"', text)
    lines = named or [line.strip() for line in text.splitlines() if re.search(r"\w", line)]
    return lines[-1][:300] if lines else type(error).__name__


def _named(label: str, options: PipelineOptions) -> PipelineOptions:
    """Returns the options of one job of the run: Beam knows one name and one set of labels for all."""
    options = copy.deepcopy(options)
    cloud = options.view_as(GoogleCloudOptions)
    cloud.job_name = f"{cloud.job_name or 'pagepairs'}-{label}-{time.strftime('%m%d%H%M%S')}"
    if _runner_name(options.get_all_options()["runner"]) == "dataflowrunner":
        cloud.labels = [*(cloud.labels or []), f"pagepairs={__version__.replace('.', '-')}", f"job={label}"]
    return options


@contextmanager
def _quiet_threads() -> Iterator[None]:
    """Keeps threads of Beam from printing a traceback for a connection that its other end closed: the job says what failed."""
    before = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        if not isinstance(args.exc_value, grpc.RpcError):
            before(args)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


class _FindAccelerators(beam.pipeline.PipelineVisitor):  # type: ignore[misc]
    """Looks for a step that asks for workers with an accelerator."""

    found = False

    def visit_transform(self, transform_node: Any) -> None:
        self.found |= any("accelerator" in urn for urn in transform_node.resource_hints)

    def enter_composite_transform(self, transform_node: Any) -> None:
        self.visit_transform(transform_node)


def _check_accelerators(pipeline: beam.Pipeline, asked: dict[str, Any]) -> None:
    visitor = _FindAccelerators()
    pipeline.visit(visitor)
    if visitor.found and _has_worker_accelerator(asked):
        raise ValueError(_TWO_ACCELERATORS)


class CheckedDoFn(beam.DoFn):  # type: ignore[misc]
    """A step that refuses workers whose packages are not those of the process that started the job."""

    def __init__(self) -> None:
        self._launcher = installed()

    def setup(self) -> None:
        """Compares the versions, once a worker.

        Raises:
          RuntimeError: naming both.
        """
        if self._launcher != installed():
            raise RuntimeError(
                f"this worker has {installed()}, the job was started with {self._launcher}: "
                "build the image or package again from one checkout"
            )


def installed() -> str:
    """Returns the versions that must be one on all machines."""
    return f"apache-beam {beam.__version__} and pagepairs {__version__}"
