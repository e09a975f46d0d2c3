"""What is refused before any work begins: flags of Beam that a runner would drop, or that would fail after hours of work."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from pagepairs.config import Config
from pagepairs.stores import absolute, is_remote

LOCAL = ("fnapirunner", "directrunner", "switchingdirectrunner")
PORTABLE = ("flinkrunner", "sparkrunner", "portablerunner")
IMAGE_WEIGHTS = "/opt/weights"
"""Where the Dockerfile's worker image holds weights."""
TWO_ACCELERATORS = (
    "--dataflow_service_options worker_accelerator puts a GPU on every worker, and a resource hint asks for workers of their own "
    "(right fitting), which Dataflow refuses together: leave one out"
)
_HERE = ("localhost", "127.0.0.1", "[::1]", "::1")
_WORKERS_TOO = (
    "name where its workers are too: --environment_type=EXTERNAL --environment_config=HOST:PORT (a worker pool beside each task manager) "
    "or --environment_type=DOCKER --environment_config=IMAGE (of the Dockerfile here)"
)


def runner_name(runner: str | None) -> str:
    """Names a runner as Beam looks it up: in lower case, with `runner` at its end, without its module."""
    name = (runner or "FnApiRunner").rpartition(".")[2].lower()
    return name if name.endswith("runner") else f"{name}runner"


def check_flags(asked: dict[str, Any], workers: int) -> None:
    """Refuses what Beam would drop without a word, lose elements by, or fail with only when workers start.

    Args:
      asked: all of Beam's options.
      workers: of --workers.

    Raises:
      ValueError: naming the flag, its value and what to give instead.
    """
    runner = runner_name(asked["runner"])
    if runner == "daskrunner":
        raise ValueError(
            "--runner DaskRunner runs only part of a pipeline and reports success: use FlinkRunner, SparkRunner or DataflowRunner"
        )
    _check_direct_flags(asked)
    _check_versions(asked)
    if runner == "dataflowrunner":
        _check_dataflow(asked, workers)
    elif runner in PORTABLE:
        _check_cluster(asked)
    if asked["no_wait_until_finish"]:
        raise ValueError("--no_wait_until_finish: leave it out; every job of a run reads what the one before left")
    if workers > 1 and runner not in (*LOCAL, "flinkrunner", "portablerunner"):
        raise ValueError(
            f"--workers {workers}: {asked['runner']} does not take it; leave it out, and see docs/clusters.md for its own flags"
        )
    if workers > 1 and asked["parallelism"] >= 0:
        raise ValueError(f"--workers {workers} and --parallelism {asked['parallelism']} are one setting: leave one out")


def _check_direct_flags(asked: dict[str, Any]) -> None:
    mode, workers = asked["direct_running_mode"], asked["direct_num_workers"]
    instead = "use --workers N, which runs processes"
    if mode == "multi_threading":
        raise ValueError(f"--direct_running_mode multi_threading loses elements in Beam 2.77: {instead}")
    if mode != "in_memory":
        raise ValueError(f"--direct_running_mode {mode}: {instead}")
    if workers != 1:
        raise ValueError(f"--direct_num_workers {workers}: {instead}")


def _check_cluster(asked: dict[str, Any]) -> None:
    """On a cluster that somebody else started, Beam would start workers from an image without pagepairs."""
    kind = asked["environment_type"]
    own_master = {
        "flinkrunner": asked["flink_master"] in ("[local]", "[auto]"),
        "sparkrunner": bool(re.fullmatch(r"local(\[.+\])?", asked["spark_master_url"])) and not asked["spark_submit_uber_jar"],
    }.get(runner_name(asked["runner"]), False)
    for flag, address in _addresses(asked, own_master=own_master):
        if not (kind or own_master):
            raise ValueError(f"--{flag} {address}: {_WORKERS_TOO}")
        if (kind or "LOOPBACK") == "LOOPBACK" and not _is_here(address):
            raise ValueError(f"--{flag} {address}: --environment_type LOOPBACK runs workers in this process alone; {_WORKERS_TOO}")
        if kind == "DOCKER" and not (asked["environment_config"] or asked["environment_options"] or asked["setup_file"]):
            raise ValueError(f"--environment_type DOCKER: its image is missing, and Beam's own is without pagepairs; {_WORKERS_TOO}")


def _addresses(asked: dict[str, Any], *, own_master: bool) -> Iterator[tuple[str, str]]:
    """Yields the flags that name a cluster or its job server, and their values."""
    flags = {"flinkrunner": ("flink_master",), "sparkrunner": ("spark_master_url", "spark_rest_url")}
    for flag in () if own_master else flags.get(runner_name(asked["runner"]), ()):
        if asked[flag]:
            yield flag, asked[flag]
    if asked["job_endpoint"] not in (None, "embed"):
        yield "job_endpoint", asked["job_endpoint"]


def _is_here(address: str) -> bool:
    return re.sub(r"^\w+://", "", address).rpartition(":")[0] in _HERE


def _check_dataflow(asked: dict[str, Any], workers: int) -> None:
    needed = {"project": "the project that pays", "region": "where the workers run", "temp_location": "a folder as gs://bucket/tmp"}
    for flag, what in needed.items():
        if not asked[flag]:
            raise ValueError(f"--runner DataflowRunner: --{flag} is missing: name {what}")
    if asked["template_location"]:
        raise ValueError(
            f"--template_location {asked['template_location']}: a template is a job that is not run, and every stage here is several jobs "
            "and what the launcher does between them: leave it out; to start runs from elsewhere, start this command there"
        )
    if not asked["temp_location"].startswith("gs://"):
        raise ValueError(f"--temp_location {asked['temp_location']}: Dataflow's workers reach gs:// only; name a folder in a bucket")
    if workers > 1:
        raise ValueError(f"--workers {workers}: is for this machine; on Dataflow give --num_workers and --max_num_workers, or neither")
    if not (asked["sdk_container_image"] or asked["setup_file"]):
        raise ValueError(
            "--runner DataflowRunner: its workers need pagepairs: give --sdk_container_image IMAGE (of the Dockerfile here), "
            "or --setup_file ./setup.py, which installs it on every worker as it starts"
        )
    hinted = any(hint.startswith("accelerator") for hint in asked["resource_hints"] or [])
    if hinted and has_worker_accelerator(asked["dataflow_service_options"]):
        raise ValueError(TWO_ACCELERATORS)


def has_worker_accelerator(service_options: list[str] | None) -> bool:
    """Whether the service is asked for a GPU on every worker of a job."""
    return any("worker_accelerator" in option for option in service_options or [])


def _check_versions(asked: dict[str, Any]) -> None:
    """Refuses what names another Beam than this one, which starts the job: they must be one."""
    launcher = beam.__version__
    image = re.search(r"beam_python([\d.]+)_sdk:(\d+\.\d+\.\d+)", asked["sdk_container_image"] or "")
    if image and image[2] != launcher:
        raise ValueError(f"--sdk_container_image {image[0]}: has Beam {image[2]}, the job is started by {launcher}: they must be one")
    if asked["requirements_file"]:
        with open(asked["requirements_file"], encoding="utf-8") as file:
            wanted = [requirement for line in file if (requirement := _requirement(line)) and _is_beam(requirement)]
        for requirement in wanted:
            pins = list(requirement.specifier)
            if not (len(pins) == 1 and pins[0].operator == "==" and "*" not in pins[0].version and launcher in requirement.specifier):
                raise ValueError(
                    f"--requirements_file {asked['requirements_file']}: has {requirement}, the job is started by {launcher}: "
                    f"they must be one, pin apache-beam=={launcher}"
                )


def _is_beam(requirement: Requirement) -> bool:
    return canonicalize_name(requirement.name) == "apache-beam"


def _requirement(line: str) -> Requirement | None:
    """Returns the requirement of a line of a requirements file; None for comments, options, paths and addresses."""
    try:
        return Requirement(re.split(r"(?:^|\s)(?:#|--)|\s*\\$", line.strip())[0])
    except InvalidRequirement:
        return None


def check_reach(asked: dict[str, Any], config: Config, stages: Sequence[str]) -> None:
    """Refuses files of this machine where the workers are others.

    Raises:
      ValueError: naming the flag and the file.
    """
    if runner_name(asked["runner"]) != "dataflowrunner":
        return
    for flag, path in _read_by_workers(config, stages):
        in_image = flag.startswith("encoder") and path.startswith(f"{IMAGE_WEIGHTS}/")
        if path and not is_remote(path) and not in_image:
            baked = (
                f", or a place below {IMAGE_WEIGHTS} that the image holds (the Dockerfile says how)" if flag.startswith("encoder") else ""
            )
            raise ValueError(
                f"--{flag} {path}: Dataflow's workers do not see this machine; name a place in a bucket, gs://bucket/name{baked}"
            )


def _read_by_workers(config: Config, stages: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yields flag and value of everything that the jobs of the stages open; "" for what is not given."""
    yield "output", absolute(config.run.output)
    yield from (("input", path) for path in config.scan.input)
    if "scan" in stages:
        yield "block-list", config.scan.block_list
    if "embed" in stages:
        yield "embeddings-from", config.embed.embeddings_from
        yield from (("encoder-weights", path) for path in config.embed.weights)
        yield from (("encoder", path) for _, _, path in (spec.partition(":") for spec in config.embed.encoders))
    if "pair" in stages:
        yield from (("benchmark", path) for path in config.pair.benchmark)
    if "report" in stages:
        yield "compare", config.report.compare
