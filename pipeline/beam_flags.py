"""The names of Apache Beam's own flags."""

from typing import Any

from apache_beam.options import pipeline_options as options


def beam_flags() -> set[str]:
    """Returns every flag that Beam's option groups define."""
    groups: list[Any] = [kind for kind in vars(options).values() if isinstance(kind, type) and issubclass(kind, options.PipelineOptions)]
    parser = options._BeamArgumentParser()
    for group in groups:
        if "_add_argparse_args" in vars(group):
            group._add_argparse_args(parser)
    return {flag for action in parser._actions for flag in action.option_strings if flag.startswith("--")}
