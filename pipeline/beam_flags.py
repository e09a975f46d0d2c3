"""The names of Apache Beam's own flags, and of those that only a job server knows."""

from collections.abc import Sequence
from typing import Any

import grpc
from apache_beam.options import pipeline_options as options
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc

_ANSWER_S = 20.0


def beam_flags() -> set[str]:
    """Returns every flag that Beam's option groups define."""
    groups: list[Any] = [kind for kind in vars(options).values() if isinstance(kind, type) and issubclass(kind, options.PipelineOptions)]
    parser = options._BeamArgumentParser()
    for group in groups:
        if "_add_argparse_args" in vars(group):
            group._add_argparse_args(parser)
    return {flag for action in parser._actions for flag in action.option_strings if flag.startswith("--")}


def server_flags(beam_args: Sequence[str]) -> set[str]:
    """Returns the flags of the job server that --job_endpoint names: what Flink or Spark take beyond Beam's. Without one there are none.

    Raises:
      ValueError: if the server does not answer.
    """
    endpoint = options.PipelineOptions(list(beam_args)).view_as(options.PortableOptions).job_endpoint
    if not endpoint:
        return set()
    with grpc.insecure_channel(endpoint) as channel:
        try:
            answer = beam_job_api_pb2_grpc.JobServiceStub(channel).DescribePipelineOptions(
                beam_job_api_pb2.DescribePipelineOptionsRequest(), timeout=_ANSWER_S, wait_for_ready=True
            )
        except grpc.RpcError as error:
            raise ValueError(
                f"--job_endpoint {endpoint} did not answer within {_ANSWER_S:.0f} s: which flags it has is not known"
            ) from error
    return {f"--{option.name}" for option in answer.options}
