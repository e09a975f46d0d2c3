"""The subcommands sample and evaluate."""

import os
import sys
from collections.abc import Sequence

from pagepairs.files import write_bytes
from train.command_line import run_command
from train.evaluate import Scored, evaluate
from train.evaluate_config import EvaluateConfig
from train.generate import ModelGenerator, load_generator
from train.sample import SampleConfig, draw_samples


def main(command: str, argv: Sequence[str]) -> int:
    """Runs a subcommand; returns 0, or 2 for a setting, 3 for an input, 4 for an output that cannot be used."""
    if command == "sample":
        return run_command(command, argv, SampleConfig, _sample)
    return run_command(command, argv, EvaluateConfig, _evaluate)


def _load(config: SampleConfig | EvaluateConfig) -> ModelGenerator:
    return load_generator(
        config.checkpoint,
        condition_encoder=config.condition_encoder,
        condition_weights=config.condition_weights,
        steps=config.steps,
        interpolation=config.interpolation,
        batch=config.batch_size,
        device=config.device,
    )


def _sample(config: SampleConfig) -> None:
    drawn = draw_samples(config, _load)
    for note in drawn.notes:
        print(f"pagepairs: {note}", file=sys.stderr)
    for path in drawn.paths:
        print(path)


def _evaluate(config: EvaluateConfig) -> None:
    from train.evaluation_page import render

    scored = evaluate(config, load_generator=_load)
    page = os.path.join(config.output, "evaluation.html")
    write_bytes(page, render(scored, config).encode())
    for warning in scored.evaluation["warnings"]:
        print(f"pagepairs: {warning}", file=sys.stderr)
    print(as_text(scored))
    print(page)


def as_text(scored: Scored) -> str:
    """Returns the scores as a table for the terminal."""
    lines = []
    for space in scored.evaluation["spaces"]:
        lines.append(f"{space['label']:<24}{'distance':>10}{'precision':>11}{'recall':>9}   {space['images']:,} images")
        rows = {(f"w = {name[1:]}" if name.startswith("w") else name): row for name, row in space["rows"].items()}
        if space["floor"]:
            rows[f"real against real ({space['floor']['images']:,})"] = space["floor"]
        lines += [f"{name:<24}{row['frechet']:>10.4g}{row['precision']:>11.3f}{row['recall']:>9.3f}" for name, row in rows.items()]
    for name, row in scored.evaluation.get("cosines", {"rows": {}})["rows"].items():
        between = "-" if row["diversity"] is None else f"{row['diversity']:.3f}"
        lines.append(f"w = {name[1:]:<20}cosine between samples {between}, to the condition {row['alignment']:.3f}")
    return "\n".join(lines)
