"""Settings: presets with what was given in place of theirs, wrong values in one sentence, what a run must keep."""

from typing import Any

import pytest

from train.commands import main, parse
from train.config import TrainConfig, identity, resolve
from train.presets import PRESETS


def test_given_settings_take_the_place_of_the_preset_s() -> None:
    assert resolve(TrainConfig(preset="semantica-256")) == PRESETS["semantica-256"]()
    found = resolve(TrainConfig(preset="small", lr=1e-3, batch=64, dropout=0.0, checkpoint_levels=(0,), compile="off"))
    assert (found.lr, found.batch, found.micro_batch, found.compile, found.ema) == (1e-3, 64, 64, False, 0.999)
    assert (found.network.dropout, found.network.checkpoint_levels) == (0.0, (0,))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"preset": "smal"}, "--preset smal: no such preset, the nearest is small; there are tiny, small, semantica-256"),
        ({"batch": 0}, "--batch 0: give at least 1"),
        ({"lr": -1.0}, "--lr -1.0: give a positive number"),
        ({"condition_dropout": 1.0}, "--condition-dropout 1.0: give a number from 0 to below 1"),
        ({"seed": -1}, "--seed -1: give a number from 0"),
        ({"threads": -1}, "--threads -1: give 0 or more"),
    ],
)
def test_a_value_out_of_range_is_one_sentence(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match="^" + sentence.replace("(", r"\(")):
        TrainConfig(**settings)


def test_sizes_that_do_not_fit_together_are_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"--batch 30: must be a multiple of --micro-batch 16"):
        resolve(TrainConfig(batch=30))
    with pytest.raises(ValueError, match=r"--checkpoint-levels \(3,\): levels are 0 to 2"):
        resolve(TrainConfig(checkpoint_levels=(3,)))


def test_only_what_is_learned_is_kept() -> None:
    first = identity(TrainConfig(output="a", total_images=64, device="cpu", compile="on", checkpoint_levels=(1,)))
    assert first == identity(TrainConfig(output="b", total_images=128, threads=3))
    for change in (
        {"seed": 1},
        {"lr": 0.5},
        {"preset": "small"},
        {"mode": "label"},
        {"micro_batch": 8},
        {"augment": "flip"},
        {"dropout": 0.5},
    ):
        assert identity(TrainConfig(**change)) != first  # type: ignore[arg-type]


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    config = parse(
        "train", ["--data", "D", "--output", "O", "--preset", "small", "--compile", "off", "--checkpoint-levels", "0", "1", "--lr", "3e-4"]
    )
    assert (config.data, config.output, config.preset, config.compile) == ("D", "O", "small", "off")
    assert (config.checkpoint_levels, config.lr, config.channels_last) == ((0, 1), 3e-4, None)
    for argv, sentence in (
        (["--output", "O"], "pagepairs: --data is missing: name the shards/ folder of a run"),
        (["--data", "D"], "pagepairs: --output is missing: name the folder that the run writes to"),
    ):
        assert main("train", argv) == 2
        assert capsys.readouterr().err.startswith(sentence)
    with pytest.raises(SystemExit, match="2"):
        main("train", ["--data", "D", "--output", "O", "--preset", "tinny"])
    assert "--preset tinny: no such preset, the nearest is" in capsys.readouterr().err


def test_a_dry_run_needs_no_data(capsys: pytest.CaptureFixture[str]) -> None:
    import json

    assert main("train", ["--dry-run", "--preset", "semantica-256", "--images-per-s", "1160"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["parameters"] == 458_627_331
    assert plan["flop_per_training_image"] == pytest.approx(1.634e12, rel=1e-3)
    assert (plan["steps"], plan["images"]) == (300_000, 614_400_000)
    assert plan["hours"] == pytest.approx(614_400_000 / 1160 / 3600, abs=0.1)
    assert plan["memory_gib_per_device"]["state"] == pytest.approx(458_627_331 * 20 / 2**30, abs=0.01)
    assert 30 < plan["memory_gib_per_device"]["activations"] < 80
    assert main("train", ["--dry-run", "--preset", "semantica-512", "--encoder", "dinov2-large"]) == 0
    checkpointed = json.loads(capsys.readouterr().out)
    assert checkpointed["parameters"] == 3_888_341_516
    assert checkpointed["memory_gib_per_device"]["activations"] < 5


def test_switches_turn_on_and_off_what_the_preset_says() -> None:
    for preset in ("tiny", "small"):
        assert [resolve(TrainConfig(preset=preset, compile=value)).compile for value in ("on", "off")] == [True, False]
        assert [resolve(TrainConfig(preset=preset, channels_last=value)).channels_last for value in ("on", "off")] == [True, False]
