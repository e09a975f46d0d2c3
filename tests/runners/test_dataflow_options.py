"""What a job says to Dataflow besides its graph: labels, service options, GPUs; read from the message that would be sent."""

from typing import Any

import apache_beam as beam
import pytest
from apache_beam.internal.gcp import auth
from apache_beam.runners.dataflow.internal.apiclient import Environment

from pipeline.runners import open_job, pipeline_options

FLAGS = ("--runner=DataflowRunner", "--project=proj-x", "--region=europe-west4", "--temp_location=gs://bucket/tmp", "--dry_run=True")
IMAGE = "--sdk_container_image=registry.example/pagepairs-worker:1"
GPU = "worker_accelerator=type:nvidia-l4;count:1;install-nvidia-driver"


def sent(monkeypatch: pytest.MonkeyPatch, label: str, *flags: str) -> Any:
    """The message of a job, which is built and not sent; nothing looks for credentials, which would ask the network."""
    monkeypatch.setattr(auth._Credentials, "_credentials_init", True)
    with open_job(label, pipeline_options([*FLAGS, IMAGE, *flags], 1), tasks=2) as pipeline:
        pipeline | beam.Create([1])
    message = pipeline.result.job.proto
    # A dry run stops before this part of the message, which Beam's client adds as it sends it.
    graph = pipeline.result.job.proto_pipeline
    message.environment = Environment([], pipeline.options, "2.0", "gs://bucket/tmp/pipeline.pb", graph).proto
    return message


def test_labels_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    message = sent(monkeypatch, "scan", "--labels=team=a")
    assert dict(message.labels) == {"team": "a", "pagepairs": "0-1-0", "job": "scan"}
    assert message.name.startswith("pagepairs-scan-")


@pytest.mark.parametrize(("label", "expected"), [("scan", ["enable_prime"]), ("embed", ["enable_prime", GPU])])
def test_a_gpu_of_the_services_options_is_sent_with_the_job_that_embeds(
    label: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    message = sent(monkeypatch, label, "--dataflow_service_options=enable_prime", f"--dataflow_service_options={GPU}")
    assert list(message.environment.service_options) == expected
