"""The jobs that Dataflow would be sent, stage by stage, as far as they can be built without Google: what is in their graphs."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.internal.gcp import auth
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2
from stage_jobs import IMAGE, STAGES, dataflow_flags

from pipeline.runners import open_job, pipeline_options

FLAGS = (*dataflow_flags("gs://bucket/tmp"), "--dry_run=True")


@dataclass(frozen=True, kw_only=True)
class Sent:
    """One job as it would be sent."""

    job: Any
    options: dict[str, Any]

    @property
    def proto(self) -> beam_runner_api_pb2.Pipeline:
        return self.job.proto_pipeline

    @property
    def steps(self) -> list[str]:
        """Names of the steps that the code names, without those inside Beam's own transforms."""
        roots = [self.proto.components.transforms[root] for root in self.proto.root_transform_ids]
        names = [self.proto.components.transforms[child].unique_name for root in roots for child in root.subtransforms]
        return sorted(names)

    @property
    def hints(self) -> set[str]:
        return {urn for env in self.proto.components.environments.values() for urn in env.resource_hints}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Sent]]:
    """The jobs that are built, in order; nothing looks for credentials, which would ask the network."""
    monkeypatch.setattr(auth._Credentials, "_credentials_init", True)
    jobs: list[Sent] = []
    run = beam.Pipeline.run

    def noted(pipeline: beam.Pipeline, *args: Any) -> Any:
        result = run(pipeline, *args)
        if not args:  # Beam runs what it read back from the graph's message inside the first call
            jobs.append(Sent(job=result.job, options=pipeline.options.get_all_options()))
        return result

    monkeypatch.setattr(beam.Pipeline, "run", noted)
    yield jobs
    assert jobs


@pytest.fixture
def options() -> PipelineOptions:
    return pipeline_options([*FLAGS, f"--sdk_container_image={IMAGE}", "--labels=team=a", "--dataflow_service_options=enable_prime"], 1)


@pytest.mark.parametrize("stage", STAGES)
def test_the_jobs_of_a_stage(stage: str, site: Path, site_run: Path, tmp_path: Path, sent: list[Sent], options: PipelineOptions) -> None:
    build, steps = STAGES[stage]
    build(site, site_run, str(tmp_path), options)
    if steps:
        assert [job.steps for job in sent] == steps
    else:
        assert {"Files", "Candidates", "Units", "Thumbnails", "Write"} <= set(sent[0].steps)
    for job in sent:
        environments = [env for env in job.proto.components.environments.values() if env.urn == "beam:env:docker:v1"]
        for environment in environments:
            assert beam_runner_api_pb2.DockerPayload.FromString(environment.payload).container_image == IMAGE
            assert "pickled_main_session" not in staged_names(environment)
        assert len(environments) == (2 if stage == "embed" else 1)
        # Only embed asked for a GPU, so every other stage runs without.
        assert job.hints == ({"beam:resources:accelerator:v1", "beam:resources:min_ram_bytes:v1"} if stage == "embed" else set())
        assert (job.options["save_main_session"], job.options["sdk_location"]) == (False, "container")
        assert job.options["dataflow_service_options"] == ["enable_prime"]
        labels = dict(label.split("=") for label in job.options["labels"])
        assert (labels["team"], labels["pagepairs"]) == ("a", "0-1-0")
        assert job.options["job_name"].startswith(f"pagepairs-{labels['job']}-")
        assert job.job.proto.name == job.options["job_name"]


def staged_names(environment: beam_runner_api_pb2.Environment) -> set[str]:
    roles = (dependency.role_payload for dependency in environment.dependencies)
    return {beam_runner_api_pb2.ArtifactStagingToRolePayload.FromString(role).staged_name for role in roles}


def test_setup_py_is_staged_as_a_package(sent: list[Sent], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    with open_job("x", pipeline_options([*FLAGS, "--setup_file=./setup.py"], 1), tasks=2) as pipeline:
        pipeline | beam.Create([1])
    [environment] = [env for env in sent[0].proto.components.environments.values() if env.urn == "beam:env:docker:v1"]
    assert "workflow.tar.gz" in staged_names(environment)
    image = beam_runner_api_pb2.DockerPayload.FromString(environment.payload).container_image
    assert image.endswith(f"beam_python3.11_sdk:{beam.__version__}")


class _Accelerated(beam.PTransform):
    def expand(self, numbers: beam.PCollection) -> beam.PCollection:
        return numbers | "Inside" >> beam.Map(str)


def test_only_a_step_that_asks_for_an_accelerator_gets_one(sent: list[Sent], options: PipelineOptions) -> None:
    with open_job("embed", options, tasks=2) as pipeline:
        numbers = pipeline | "Create" >> beam.Create([1])
        numbers | "Embed" >> _Accelerated().with_resource_hints(accelerator="type:nvidia-l4;count:1;install-nvidia-driver")
    components = sent[0].proto.components
    environments = {name: env for name, env in components.environments.items() if any("accelerator" in urn for urn in env.resource_hints)}
    assert len(environments) == 1
    steps = {
        step.unique_name
        for step in components.transforms.values()
        if step.environment_id in environments and step.spec.urn.endswith("pardo:v1")
    }
    assert steps == {"Embed/Inside"}


def test_a_hint_and_a_worker_accelerator_are_refused_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth._Credentials, "_credentials_init", True)
    service = "--dataflow_service_options=worker_accelerator=type:nvidia-l4;count:1;install-nvidia-driver"
    options = pipeline_options([*FLAGS, f"--sdk_container_image={IMAGE}", service], 1)
    with pytest.raises(ValueError, match="Dataflow refuses together: leave one out"), open_job("embed", options, tasks=2) as pipeline:
        _ = pipeline | beam.Create([1]) | _Accelerated().with_resource_hints(accelerator="type:nvidia-l4;count:1")
