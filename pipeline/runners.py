"""Which runner does a job, and how: the defaults of every runner, and what is refused before any work begins."""

import copy
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import apache_beam as beam
import grpc
from apache_beam.options.pipeline_options import DirectOptions, GoogleCloudOptions, PipelineOptions, StandardOptions
from apache_beam.runners.runner import PipelineState, create_runner

from pagepairs import __version__
from pipeline.local_workers import WorkerLost, watch_workers
from pipeline.runner_checks import LOCAL, PORTABLE, TWO_ACCELERATORS, check_flags, has_worker_accelerator, runner_name

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
    check_flags(asked, workers)
    if asked["runner"]:
        create_runner(asked["runner"])  # an unknown name fails here, before anything is written
    runner = runner_name(asked["runner"])
    more: list[str] = []
    if runner in LOCAL:  # Beam's DirectRunner would first try to download Prism and then behave differently
        mode = "multi_processing" if workers > 1 else "in_memory"
        more = ["--runner=FnApiRunner", f"--direct_num_workers={workers}", f"--direct_running_mode={mode}"]
    elif runner in PORTABLE and workers > 1:
        more = [f"--parallelism={workers}"]
    elif runner == "dataflowrunner" and asked["sdk_container_image"] and asked["sdk_location"] == "default":
        more = ["--sdk_location=container"]
    if runner not in LOCAL:  # Beam would run `pip freeze` for each of the jobs; run.json has the versions
        more.append("--experiments=disable_logging_submission_environment")
    return PipelineOptions([*beam_args, "--no_save_main_session", *more])


def _runner(options: PipelineOptions) -> str:
    return runner_name(options.view_as(StandardOptions).runner)  # options parse all their flags again for each set that one asks for


def is_local(options: PipelineOptions) -> bool:
    """Whether the runner keeps its shuffles in this machine's memory."""
    return _runner(options) in LOCAL


def is_alone(options: PipelineOptions) -> bool:
    """Whether this process does the whole job: there is no other to spread elements over, which takes more time than small tasks do."""
    return is_local(options) and options.view_as(DirectOptions).direct_num_workers == 1


def promises_gpu(options: PipelineOptions) -> bool:
    """Whether the workers of stage embed have a GPU by the service's options."""
    return not is_local(options) and has_worker_accelerator(options.view_as(GoogleCloudOptions).dataflow_service_options)


def describe(options: PipelineOptions) -> dict[str, Any]:
    """Returns what a job is started with: every option that differs from Beam's default."""
    return dict(sorted(options.get_all_options(drop_default=True).items()))


def default_threads(options: PipelineOptions, workers: int) -> int:
    """Returns the decode threads of a process: its share of this machine's cores; one on a cluster, which starts a process a core."""
    on_cluster = _runner(options) in ("dataflowrunner", *PORTABLE)
    return 1 if on_cluster else max(1, (os.cpu_count() or 1) // workers)


@contextmanager
def open_job(label: str, options: PipelineOptions, *, tasks: int) -> Iterator[beam.Pipeline]:
    """Opens a pipeline that runs when the block ends; `label` is the job's name in the runner's own display.

    A single task of the local runner is done by this process: others would take seconds to start. Where the job can outlive this
    process, its whole name is printed before it is sent: it must be cancelled by that name then.

    Raises:
      JobFailed: if a worker process or the runner failed.
    """
    watch_workers()
    built, named = False, _of_job(label, tasks, options)
    try:
        with _quiet_threads(), beam.Pipeline(options=named) as pipeline:
            # Beam keeps jars of other languages there; a killed run would leave it behind.
            shutil.rmtree(pipeline.local_tempdir, ignore_errors=True)
            yield pipeline
            _check_accelerators(pipeline, options.view_as(GoogleCloudOptions).dataflow_service_options)
            built = True
            if not is_local(options):
                print(f"{label}: sending job {named.view_as(GoogleCloudOptions).job_name}", file=sys.stderr, flush=True)
        state = getattr(pipeline.result, "state", PipelineState.DONE)
        if state != PipelineState.DONE:  # of a job that somebody cancelled, portable runners say no more than this
            raise RuntimeError(f"it ended as {state}")
    except WorkerLost as error:
        raise JobFailed(f"job {label}: {error}", error) from error
    except Exception as error:  # runners and their clients raise what they like: grpc's, Google's, Dataflow's own are no RuntimeError
        if is_local(options) or not built:
            raise
        runner = options.view_as(StandardOptions).runner
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


def _of_job(label: str, tasks: int, options: PipelineOptions) -> PipelineOptions:
    """Returns the options of one job of the run: Beam knows one name, one set of labels, one choice of GPUs and of processes for all."""
    options = copy.deepcopy(options)
    if tasks == 1 and is_local(options):
        direct = options.view_as(DirectOptions)
        direct.direct_num_workers, direct.direct_running_mode = 1, "in_memory"
    cloud = options.view_as(GoogleCloudOptions)
    if label != "embed" and cloud.dataflow_service_options:
        cloud.dataflow_service_options = [option for option in cloud.dataflow_service_options if "worker_accelerator" not in option]
    cloud.job_name = f"{cloud.job_name or 'pagepairs'}-{label}-{time.strftime('%m%d%H%M%S')}"
    if _runner(options) == "dataflowrunner":
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


def _check_accelerators(pipeline: beam.Pipeline, service_options: list[str] | None) -> None:
    if not has_worker_accelerator(service_options):
        return
    visitor = _FindAccelerators()
    pipeline.visit(visitor)
    if visitor.found:
        raise ValueError(TWO_ACCELERATORS)


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
