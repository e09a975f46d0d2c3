"""`pagepairs sample` through the command line: files, record, grid, and any sample made again to the bit."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from encoders import load_encoder
from pagepairs.cli import main
from train.checkpoint import load_model
from train.condition import Conditioner
from train.condition_grid import GAP_PX, MARGIN_PX, draw_grid
from train.sample import SampleConfig
from train.sampler import denoiser, keyed_noise, sample

STEPS = ["--steps", "3"]


def sample_command(run: Path, images: Path, output: Path, *flags: str) -> int:
    return main(["sample", "--checkpoint", str(run), "--images", str(images), "--output", str(output), *STEPS, *flags])


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def record(output: Path) -> dict:
    return json.loads((output / "samples.json").read_text())


def test_samples_are_made_recorded_and_laid_out_beside_their_condition(
    run: Path, draw_classes: Callable[[int], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, output = draw_classes(2), tmp_path / "grid"
    assert sample_command(run, images, output, "--num-samples", "2", "--num-conditions", "3") == 0
    assert capsys.readouterr().out == f"{output}/grid-000.png\n"
    found = record(output)
    assert [(one["condition"], one["index"]) for one in found["samples"]] == [
        (name, index) for name in ("discs/000.png", "discs/001.png", "squares/000.png") for index in (0, 1)
    ]
    assert found["guidance"] == 0.5
    assert found["model"]["steps"] == 3
    assert found["model"]["condition_encoder"]["name"] == "builtin"
    for one in found["samples"]:
        assert one["id"] == f"{one['condition_id'][:16]}-{one['seed']:016x}"
        assert pixels(output / one["file"]).shape == (16, 16, 3)
    grid = pixels(output / "grid-000.png")
    assert grid.shape == (2 * MARGIN_PX + 3 * 16 + 2 * GAP_PX, 3 * MARGIN_PX + 3 * 16 + GAP_PX, 3)
    left, top = 2 * MARGIN_PX + 16 + 16 + GAP_PX, MARGIN_PX + 16 + GAP_PX
    assert (grid[top : top + 16, left : left + 16] == pixels(output / found["samples"][3]["file"])).all()


def test_a_sample_is_what_the_sampler_gives_for_its_recorded_seed(run: Path, draw_classes: Callable[[int], Path], tmp_path: Path) -> None:
    images, output = draw_classes(2), tmp_path / "grid"
    assert sample_command(run, images, output, "--num-samples", "2", "--num-conditions", "1", "--guidance", "0.3") == 0
    one = record(output)["samples"][1]
    trained, conditioner = load_model(str(run), "cpu"), Conditioner(load_encoder("builtin"), "cross_attention")
    condition = pixels(images / one["condition"])
    side = min(condition.shape[:2])
    top, left = ((length - side) // 2 for length in condition.shape[:2])
    tokens = conditioner.of_image(conditioner.encoder.preprocess(condition[top : top + side, left : left + side]))[None]
    x = sample(
        denoiser(trained.network, torch.from_numpy(tokens)), keyed_noise([one["seed"]], (3, 16, 16)),
        schedule=trained.schedule, steps=3, guidance=0.3,
    )  # fmt: skip
    expected = ((x[0].permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255).numpy()
    assert np.abs(pixels(output / one["file"]) - expected).max() <= 1  # threads may move the last bit here


@pytest.mark.parametrize("guidance", ["0", "0.5"])
def test_any_sample_is_made_again_by_its_id_to_the_bit(
    guidance: str, run: Path, draw_classes: Callable[[int], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, first = draw_classes(3), tmp_path / "first"
    assert sample_command(run, images, first, "--num-samples", "3", "--guidance", guidance) == 0
    chosen = record(first)["samples"][13]
    again, threads = tmp_path / "again", torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        only = ["--only", chosen["id"], "--seed", "9", "--guidance", guidance]  # the id says the seed
        assert sample_command(run, images / chosen["condition"], again, *only) == 0
    finally:
        torch.set_num_threads(threads)
    assert capsys.readouterr().out.splitlines()[-1] == str(again / chosen["file"])
    assert (again / chosen["file"]).read_bytes() == (first / chosen["file"]).read_bytes()
    assert [one["id"] for one in record(again)["samples"]] == [chosen["id"]]
    assert len({path.read_bytes() for path in (first / "samples").iterdir()}) == 27


def test_the_same_command_goes_on_and_more_samples_join(run: Path, draw_classes: Callable[[int], Path], tmp_path: Path) -> None:
    images, output = draw_classes(1), tmp_path / "grid"
    assert sample_command(run, images, output, "--num-samples", "1") == 0
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (output / "samples").iterdir()}
    gone = min(before)
    gone.unlink()
    assert sample_command(run, images, output, "--num-samples", "2") == 0
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (output / "samples").iterdir()}
    assert len(after) == 2 * len(before) == len(record(output)["samples"])
    assert after[gone][0] == before.pop(gone)[0]
    assert {path: after[path] for path in before} == before


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        (["--images", "ABSENT"], 3, "--images ABSENT: there is no such folder"),
        (["--checkpoint", "ABSENT"], 2, "--checkpoint ABSENT: no complete checkpoint there"),
        (["--checkpoint", ""], 2, "--checkpoint is missing: name a run of `pagepairs train`"),
        (["--images", ""], 2, "--images is missing: name a folder of images"),
        (["--condition-encoder", "tflite:ABSENT"], 2, "tflite:ABSENT: there is no file ABSENT"),
        (["--only", "xyz"], 2, "--only xyz: no id of a sample"),
        (["--only", "0" * 16 + "-" + "0" * 16], 2, "conditions has an id that begins with 0000000000000000; give its image to --images"),
    ],
)
def test_wrong_input_is_one_sentence_before_any_work(
    flags: list[str], code: int, says: str, run: Path, draw_classes: Callable[[int], Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    output = tmp_path / "grid"
    assert sample_command(run, draw_classes(1), output, *flags) == code
    said = capsys.readouterr().err
    assert says in said
    assert said.startswith("pagepairs: ")
    assert said.count("\n") == 1
    assert not output.exists()


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("guidance", -1.0, "--guidance -1.0: give 0 or more"),
        ("num_samples", 0, "--num-samples 0: give at least 1"),
        ("num_conditions", -1, "--num-conditions -1: give 0"),
        ("steps", 0, "--steps 0: give at least 1"),
        ("interpolation", 1.5, "--interpolation 1.5: give 0"),
        ("seed", -1, "--seed -1: give a number from 0"),
        ("batch_size", 0, "--batch-size 0: give at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(setting: str, value: float, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        SampleConfig(**{setting: value})


def test_conditions_that_were_left_out_are_said(
    run: Path, draw_classes: Callable[[int], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = draw_classes(2)
    (images / "discs" / "000.png").write_bytes(b"")
    assert sample_command(run, images, tmp_path / "a", "--num-samples", "1", "--num-conditions", "4") == 0
    assert capsys.readouterr().err.splitlines() == [
        "pagepairs: not usable: empty_body 1 (discs/000.png)",
        "pagepairs: only the first 4 conditions were used; --num-conditions 0 takes all",
    ]
    assert record(tmp_path / "a")["dropped"] == {"empty_body": {"count": 1, "examples": ["discs/000.png"]}}
    assert sample_command(run, images, tmp_path / "b", "--num-samples", "1", "--num-conditions", "0") == 0
    assert len(record(tmp_path / "b")["samples"]) == 5
    assert capsys.readouterr().err.splitlines() == ["pagepairs: not usable: empty_body 1 (discs/000.png)"]


def test_a_folder_of_other_samples_is_not_mixed(
    run: Path, draw_classes: Callable[[int], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, output = draw_classes(1), tmp_path / "grid"
    assert sample_command(run, images, output, "--num-samples", "1") == 0
    before = record(output)
    assert sample_command(run, images, output, "--num-samples", "1", "--guidance", "0.7") == 2
    assert f"--output {output}: it holds samples of another --guidance; name another folder" in capsys.readouterr().err
    assert sample_command(run, images, output, "--num-samples", "1", "--steps", "2") == 2
    assert "another model or other sampling settings" in capsys.readouterr().err
    assert record(output) == before


def test_an_encoder_of_other_weights_than_in_training_is_refused(
    run: Path, draw_classes: Callable[[int], Path], tmp_path: Path, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = next((shared_data / "encoder_mobilenet").rglob("*.tflite"))
    assert sample_command(run, draw_classes(1), tmp_path / "grid", "--condition-encoder", f"tflite:{network}") == 2
    assert "the checkpoint was trained with another one (dtype 'float64', now" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_has_its_own_code(
    run: Path, draw_classes: Callable[[int], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert sample_command(run, draw_classes(1), tmp_path / "file" / "grid") == 4
    assert capsys.readouterr().err.startswith(f"pagepairs: --output {tmp_path}/file/grid: ")


def test_conditions_of_other_shapes_are_shown_as_their_middle_square() -> None:
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200
    grid = draw_grid([wide], [[np.full((20, 20, 3), 7, np.uint8)]], side_px=20)
    assert (grid[MARGIN_PX : MARGIN_PX + 20, MARGIN_PX : MARGIN_PX + 20] == 200).all()
    assert (grid[MARGIN_PX : MARGIN_PX + 20, 2 * MARGIN_PX + 20 : 2 * MARGIN_PX + 40] == 7).all()
