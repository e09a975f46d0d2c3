"""The jobs of every stage as templates of Dataflow in an object store: what a launcher stages there, with no Google at the other end."""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.internal.gcp import auth
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2
from object_store import Door
from stage_jobs import IMAGE, STAGES, dataflow_flags

from pagepairs import __version__
from pagepairs.files import read_bytes
from pagepairs.stores import store_of
from pipeline import runners
from pipeline.runners import open_job, pipeline_options

TESTS = Path(__file__).resolve().parents[1]
GPU = {"beam:resources:accelerator:v1", "beam:resources:min_ram_bytes:v1"}


@pytest.fixture
def templates(remote_folder: str, door: Door, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Turns every job into a template of its own; gives their places, in order. Nothing looks for credentials, which takes 20 s."""
    monkeypatch.setattr(auth._Credentials, "_credentials_init", True)
    made: list[str] = []
    of_job = runners._of_job

    def as_template(label: str, tasks: int, options: PipelineOptions) -> PipelineOptions:
        made.append(f"{remote_folder}/templates/{len(made):02d}-{label}.json")
        options = of_job(label, tasks, options)
        options.view_as(GoogleCloudOptions).template_location = made[-1]
        return options

    monkeypatch.setattr(runners, "_of_job", as_template)
    yield made
    assert made
    assert store_of(remote_folder).files(f"{remote_folder}/templates") == made


def environments_of(template: dict[str, Any]) -> list[beam_runner_api_pb2.Environment]:
    """The environments of the graph that the template names, as the service would fetch it, after those that it lists itself."""
    options = template["environment"]["sdkPipelineOptions"]["options"]
    graph = read_bytes(options["pipelineUrl"])
    assert hashlib.sha256(graph).hexdigest() == options["pipelineProtoHash"]
    components = beam_runner_api_pb2.Pipeline.FromString(graph).components
    [pool] = template["environment"]["workerPools"]
    assert {image["environmentId"] for image in pool["sdkHarnessContainerImages"]} <= set(components.environments)
    return [env for env in components.environments.values() if env.urn == "beam:env:docker:v1"]


@pytest.mark.parametrize("stage", STAGES)
def test_every_job_of_a_stage_is_staged_as_a_template(
    stage: str, site: Path, site_run: Path, tmp_path: Path, templates: list[str], remote_folder: str
) -> None:
    build, steps = STAGES[stage]
    options = pipeline_options([*dataflow_flags(f"{remote_folder}/tmp"), f"--sdk_container_image={IMAGE}", "--labels=team=a"], 1)
    build(site, site_run, str(tmp_path), options)
    labels = [job[0].split("/")[0] for job in steps] or ["report"]
    assert [Path(path).stem[3:] for path in templates] == labels
    for label, path in zip(labels, templates, strict=True):
        template = json.loads(read_bytes(path))
        assert template["name"].startswith(f"pagepairs-{label}-")
        assert template["type"] == "JOB_TYPE_BATCH"
        assert template["labels"] == {"team": "a", "job": label, "pagepairs": __version__.replace(".", "-")}
        [pool] = template["environment"]["workerPools"]
        images = [image["containerImage"] for image in pool["sdkHarnessContainerImages"]]
        environments = environments_of(template)
        assert images == [IMAGE] * len(environments) == [IMAGE] * (2 if stage == "embed" else 1)
        hints = {urn: value.decode() for env in environments for urn, value in env.resource_hints.items()}
        assert set(hints) == (GPU if stage == "embed" else set())
        assert "type:nvidia-l4" in hints.get("beam:resources:accelerator:v1", "type:nvidia-l4")
        folder = template["environment"]["sdkPipelineOptions"]["options"]["staging_location"]
        assert store_of(folder).files(folder) == [f"{folder}/pipeline.pb"]  # the image brings the code


def test_setup_py_is_staged_beside_the_template(templates: list[str], monkeypatch: pytest.MonkeyPatch, remote_folder: str) -> None:
    monkeypatch.chdir(TESTS.parent)
    with open_job("x", pipeline_options([*dataflow_flags(f"{remote_folder}/tmp"), "--setup_file=./setup.py"], 1), tasks=2) as pipeline:
        pipeline | beam.Create([1])
    [environment] = environments_of(json.loads(read_bytes(templates[0])))
    [dependency] = environment.dependencies
    assert beam_runner_api_pb2.ArtifactStagingToRolePayload.FromString(dependency.role_payload).staged_name == "workflow.tar.gz"
    place = beam_runner_api_pb2.ArtifactFilePayload.FromString(dependency.type_payload)
    package = read_bytes(place.path)
    assert hashlib.sha256(package).hexdigest() == place.sha256
    with tarfile.open(fileobj=io.BytesIO(package)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"setup.py", "pyproject.toml", "pipeline/run.py", "pipeline/templates/report.html", "pagepairs/gcs.py"} <= names


def test_a_run_as_a_template_is_refused() -> None:
    flags = [*dataflow_flags("gs://bucket/tmp"), f"--sdk_container_image={IMAGE}", "--template_location=gs://bucket/template.json"]
    with pytest.raises(ValueError, match=r"^--template_location gs://bucket/template.json: a template is a job that is not run, and every"):
        pipeline_options(flags, 1)
