"""From `pagepairs train` to `sample` and `evaluate`: the same run, shards and classes, through the command line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pagepairs.cli import main


def test_a_model_that_was_trained_for_a_few_steps_is_sampled_and_scored(
    shards: Path, draw_classes: Callable[[int], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, grid, out = tmp_path / "run", tmp_path / "grid", tmp_path / "evaluation"
    sizes = ["--total-images", "16", "--batch", "8", "--micro-batch", "8", "--grid-steps", "1"]
    assert main(["train", "--data", str(shards), "--preset", "tiny", "--encoder", "builtin", "--output", str(run), *sizes]) == 0
    flags = ["--num-samples", "1", "--num-conditions", "3", "--steps", "2"]
    assert main(["sample", "--checkpoint", str(run), "--images", str(shards), "--output", str(grid), *flags]) == 0
    record = json.loads((grid / "samples.json").read_text())
    assert record["model"]["images_seen"] == 16
    assert len(record["samples"]) == len(list((grid / "samples").glob("*.png"))) == 3
    assert all(one["condition"] == one["condition_id"] for one in record["samples"])
    flags = ["--samples-per-condition", "4", "--guidance", "0.5", "--steps", "2", "--encoder", "builtin", "--training", str(shards)]
    assert main(["evaluate", "--checkpoint", str(run), "--images", str(draw_classes(8)), "--output", str(out), *flags]) == 0
    found = json.loads((out / "evaluation.json").read_text())
    assert found["protocol"]["size_px"] == 32
    assert found["spaces"][0]["rows"]["w0.5"]["frechet"] > found["spaces"][0]["floor"]["frechet"] > 0
    assert found["memorisation"]["training_images"] == 12
    capsys.readouterr()
