"""The loop: a function of (configuration, seed, images seen), whatever stops it and however many processes share it."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_pairs import make_classes, make_shards
from PIL import Image

from train import checkpoint, loop, presets
from train.commands import main
from train.config import TrainConfig
from train.groups import DataError
from train.keyed import stream
from train.loop import DivergedError, micro_batches, train
from train.network import NetworkConfig, build
from train.presets import Preset

ROOT = Path(__file__).resolve().parents[2]
TOY = Preset(
    name="tiny",
    network=NetworkConfig(image_px=16, channels=(8, 16), blocks=(1, 1), transformer_from=1, embedding=16, head_width=8, dropout=0.2),
    batch=8, micro_batch=2, total_images=160, lr=1e-2, warmup_steps=5, ema=0.9, precision="float32", compile=False, channels_last=False,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The preset tiny is a smaller one here: these tests are about steps, not about pictures."""
    monkeypatch.setitem(presets.PRESETS, "tiny", lambda: TOY)  # type: ignore[arg-type]


def config(data: Path, output: Path, **settings: Any) -> TrainConfig:
    return TrainConfig(
        data=str(data), output=str(output), **{"encoder": "builtin", "grid_images": 10**6, "threads": 1, "augment": "flip"} | settings
    )


def tensors(run: Path) -> dict[str, torch.Tensor]:
    folder = checkpoint.find_checkpoint(str(run))
    return {
        f"{name}.{key}": value for name in ("weights", "ema", "optimizer") for key, value in checkpoint.read_tensors(folder, name).items()
    }


def assert_equal(first: Path, second: Path) -> None:
    one, other = tensors(first), tensors(second)
    assert one.keys() == other.keys()
    assert [name for name, value in one.items() if not torch.equal(value, other[name])] == []


def log_lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def learned(run: Path) -> list[tuple[Any, ...]]:
    """What the log says that is no measurement of time or memory."""
    return [
        tuple(line[name] for name in ("images", "loss", "loss_by_log_snr", "gradient_norm", "lr", "skipped")) for line in log_lines(run)
    ]


def test_twenty_steps_are_ten_and_ten_more_to_the_bit(pair_shards: Path, tmp_path: Path) -> None:
    straight, parts = tmp_path / "straight", tmp_path / "parts"
    assert train(config(pair_shards, straight), str) == 160
    said: list[str] = []
    assert train(config(pair_shards, parts, total_images=80), said.append) == 80
    assert train(config(pair_shards, parts), said.append) == 160
    assert said[0].startswith("begins: tiny, ")
    assert said[1].startswith(f"goes on from {parts}/checkpoints/images-000000000080: tiny, ")
    assert_equal(straight, parts)
    assert learned(straight) == learned(parts)
    assert [line["images"] for line in log_lines(parts)] == list(range(8, 161, 8))
    states = [checkpoint.read_state(checkpoint.find_checkpoint(str(run))) for run in (straight, parts)]
    assert states[0] == states[1]


def test_the_next_samples_are_those_of_an_unbroken_run() -> None:
    straight = micro_batches(8, 2, 0, rank=0, size=1)
    assert [next(straight) for _ in range(12)] == list(range(12))
    resumed = micro_batches(8, 2, 16, rank=0, size=1)
    assert next(resumed) == 8
    ranks = [micro_batches(8, 2, 16, rank, size=2) for rank in (0, 1)]
    assert [[next(rank) for _ in range(4)] for rank in ranks] == [[8, 10, 12, 14], [9, 11, 13, 15]]


def test_a_finished_run_stays_as_it_is(pair_shards: Path, tmp_path: Path) -> None:
    train(config(pair_shards, tmp_path / "run", total_images=16), str)
    before = tensors(tmp_path / "run")
    assert train(config(pair_shards, tmp_path / "run", total_images=16), str) == 16
    after = tensors(tmp_path / "run")
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_accumulation_is_the_big_batch(pair_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    still = dataclasses.replace(TOY, network=dataclasses.replace(TOY.network, dropout=0.0))  # dropout is seeded by micro-batch
    monkeypatch.setitem(presets.PRESETS, "tiny", lambda: still)  # type: ignore[arg-type]
    for micro_batch in (1, 2, 8):
        train(config(pair_shards, tmp_path / str(micro_batch), micro_batch=micro_batch, total_images=24), str)
    big = tensors(tmp_path / "8")
    for micro_batch in (1, 2):
        for name, value in tensors(tmp_path / str(micro_batch)).items():
            torch.testing.assert_close(value, big[name], rtol=1e-3, atol=2e-5, msg=name)


def test_the_average_follows_each_step_from_the_initial_weights(pair_shards: Path, tmp_path: Path) -> None:
    torch.manual_seed(stream(0, "weights"))
    network = build(TOY.network, conditioning="cross_attention", condition_width=12)
    averages = {name: value.detach().clone() for name, value in network.state_dict().items()}
    for images in (8, 16):
        train(config(pair_shards, tmp_path / "run", total_images=images), str)
        found = tensors(tmp_path / "run")
        for name, value in averages.items():
            value.lerp_(found[f"weights.{name}"], 0.1)
            torch.testing.assert_close(found[f"ema.{name}"], value, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"lr": 0.5}, r"--lr 0\.5: .* began with 0\.01; give that, or a new --output"),
        ({"seed": 3}, r"--seed 3: .* began with 0; give that, or a new --output"),
        ({"preset": "small"}, r"--preset small: .* began with tiny; give that, or a new --output"),
        ({"conditioning": "film"}, r"--conditioning film: .* began with cross_attention"),
        ({"data": "other"}, r"--data: these are not the shards that .* began with; give those, or a new --output"),
    ],
)
def test_a_run_goes_on_with_its_own_settings_only(
    pair_shards: Path, tmp_path: Path, settings: dict[str, Any], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(presets.PRESETS, "small", lambda: dataclasses.replace(TOY, name="small", lr=1e-3))  # type: ignore[arg-type]
    train(config(pair_shards, tmp_path / "run", total_images=8), str)
    data = make_shards(tmp_path / "shards", 5) if settings.pop("data", None) else pair_shards
    before = tensors(tmp_path / "run")
    with pytest.raises(ValueError, match=sentence):
        train(config(data, tmp_path / "run", total_images=16, **settings), str)
    assert all(torch.equal(value, tensors(tmp_path / "run")[name]) for name, value in before.items())


def test_another_encoder_than_the_checkpoint_s_is_refused(pair_shards: Path, tmp_path: Path) -> None:
    train(config(pair_shards, tmp_path / "run", total_images=8), str)
    path = Path(checkpoint.find_checkpoint(str(tmp_path / "run"))) / "state.json"
    state = json.loads(path.read_text())
    state["settings"]["encoder_digest"]["name"] = "dinov2-base"
    path.write_text(json.dumps(state))
    with pytest.raises(
        ValueError, match=r"--encoder builtin: the checkpoint was trained with another one \(name 'dinov2-base', now 'builtin'\)"
    ):
        train(config(pair_shards, tmp_path / "run", total_images=16), str)


def test_a_loss_that_is_no_number_stops_the_run(pair_shards: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DivergedError, match=r"is (nan|inf) between step \d+ and step \d+; the newest checkpoint is .*; start a new run with a lower --lr"
    ):
        train(config(pair_shards, tmp_path / "run", lr=1e30, warmup_steps=0, checkpoint_images=8), str)
    assert all(value.isfinite().all() for value in tensors(tmp_path / "run").values())


def test_every_mode_and_conditioning_trains(pair_shards: Path, tmp_path: Path) -> None:
    classes = make_classes(tmp_path / "set", {"a": 3, "b": 4})
    losses = {}
    for mode in ("pairs", "label", "reconstruction"):
        for conditioning in ("cross_attention", "film"):
            output = tmp_path / f"{mode}-{conditioning}"
            train(config(classes if mode == "label" else pair_shards, output, mode=mode, conditioning=conditioning, total_images=48), str)
            trained = checkpoint.load_model(str(output), "cpu")
            assert (trained.settings["mode"], trained.network.conditioning, trained.images_seen) == (mode, conditioning, 48)
            losses[mode, conditioning] = log_lines(output)[-1]["loss"]
    assert len(set(losses.values())) == 6


def test_what_a_run_leaves_behind(pair_shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(
        config(pair_shards, run, total_images=32, checkpoint_images=8, keep_checkpoints=2, grid_images=16, grid_steps=2, peak_tflops=0.1),
        str,
    )
    assert sorted(path.name for path in run.iterdir()) == ["checkpoints", "config.json", "grids", "log.jsonl", "tensorboard"]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["images-000000000024", "images-000000000032"]
    grids = sorted((run / "grids").iterdir())
    assert [path.name for path in grids] == ["images-000000000016.png", "images-000000000032.png"]
    first, second = (np.asarray(Image.open(path)) for path in grids)
    assert first.shape == (6 * 16, 6 * 16, 3)
    np.testing.assert_array_equal(first[:, :32], second[:, :32])  # the same conditions and targets
    assert (first[:, 32:] != second[:, 32:]).any()
    line = log_lines(run)[-1]
    assert (line["images"], line["skipped"], line["peak_tflops"]) == (32, 0, 0.1)
    assert line["mfu"] == pytest.approx(line["tflops"] / 0.1)
    assert line["lr"] == pytest.approx(1e-2 * 4 / 5)
    assert len(line["loss_by_log_snr"]) == 8
    assert 0 <= line["data_wait"] <= 1
    assert line["memory_mib"] > 10
    assert json.loads((run / "config.json").read_text())["total_images"] == 32
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard")).Reload()
    assert [(event.step, pytest.approx(event.value)) for event in events.Scalars("loss")] == [
        (entry["images"], entry["loss"]) for entry in log_lines(run)
    ]
    assert {"gradient_norm", "lr", "images_per_s", "mfu", "data_wait", "memory_mib"} <= set(events.Tags()["scalars"])


def test_wrong_data_ends_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty, small = tmp_path / "empty", make_shards(tmp_path / "small", 4, size=12)
    empty.mkdir()
    for data, sentence in ((empty, "no pair shards there"), (small, "4 of 4 images are smaller than the network's 16 pixels")):
        assert main("train", ["--data", str(data), "--output", str(tmp_path / "run"), "--encoder", "builtin"]) == 3
        err = capsys.readouterr().err
        assert err.startswith("pagepairs: --data ")
        assert sentence in err
        assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()
    with pytest.raises(DataError):
        train(config(empty, tmp_path / "run"), str)


# --- in processes of their own ---

PROGRAM = """
import sys
sys.path.insert(0, {tests!r})
import torch; torch.set_num_threads(1)
import test_loop
from train import presets
presets.PRESETS["tiny"] = lambda: {preset}
from train.commands import main
sys.exit(main("train", sys.argv[1:]))
"""


def command(data: Path, output: Path, *flags: str, preset: str = "test_loop.TOY", processes: int = 1, tmp: Path) -> list[str]:
    program = tmp / "program.py"
    program.write_text(PROGRAM.format(tests=str(Path(__file__).parent), preset=preset))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else []
    base = [
        "--data",
        str(data),
        "--output",
        str(output),
        "--encoder",
        "builtin",
        "--grid-images",
        "1000000",
        "--threads",
        "1",
        "--augment",
        "flip",
    ]
    return [sys.executable, *launcher, str(program), *base, *flags]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("parallel", ["ddp", pytest.param("fsdp2", marks=pytest.mark.slow)])
def test_two_processes_are_one(pair_shards: Path, tmp_path: Path, parallel: str) -> None:
    train(config(pair_shards, tmp_path / "one", total_images=24), str)
    two = command(pair_shards, tmp_path / "two", "--total-images", "16", "--parallel", parallel, processes=2, tmp=tmp_path)
    subprocess.run(two, env=environment(), check=True, capture_output=True, text=True, timeout=300)
    # One process goes on from what two have left: the sharded state is whole in the checkpoint.
    train(config(pair_shards, tmp_path / "two", total_images=24), str)
    one = tensors(tmp_path / "one")
    for name, value in tensors(tmp_path / "two").items():
        torch.testing.assert_close(value, one[name], rtol=1e-3, atol=2e-5, msg=name)
    np.testing.assert_allclose(
        [line["loss"] for line in log_lines(tmp_path / "two")], [line["loss"] for line in log_lines(tmp_path / "one")], rtol=1e-4
    )


def test_processes_that_do_not_share_a_step_evenly_are_refused(pair_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from contextlib import contextmanager

    from train.distributed import World

    @contextmanager
    def three(device: torch.device) -> Any:
        yield World(rank=0, size=3, device=device)

    monkeypatch.setattr(loop, "joined", three)
    with pytest.raises(ValueError, match="--batch 8: its 4 micro-batches do not divide among 3 processes; give a multiple of 6"):
        train(config(pair_shards, tmp_path / "run"), str)


def wait_for(path: Path, pattern: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not list(path.glob(pattern)):
        assert process.poll() is None, "it ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_stop_signal_saves_and_the_run_goes_on_to_the_same_bits(pair_shards: Path, tmp_path: Path, number: signal.Signals) -> None:
    run = tmp_path / "run"
    endless = command(pair_shards, run, "--total-images", "8000000", tmp=tmp_path)
    with subprocess.Popen(endless, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        wait_for(run, "log.jsonl", process)
        time.sleep(0.3)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    seen = checkpoint.read_state(checkpoint.find_checkpoint(str(run)))["images_seen"]
    assert err.splitlines()[-1].startswith(f"{seen} images seen;")
    assert [line["images"] for line in log_lines(run)] == list(range(8, seen + 1, 8))
    train(config(pair_shards, run, total_images=seen + 16), str)
    train(config(pair_shards, tmp_path / "straight", total_images=seen + 16), str)
    assert_equal(run, tmp_path / "straight")


def test_a_kill_during_a_checkpoint_leaves_the_one_before(pair_shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    endless = command(pair_shards, run, "--total-images", "8000000", "--checkpoint-images", "8", tmp=tmp_path)
    with subprocess.Popen(endless, env=environment(), stderr=subprocess.DEVNULL, text=True) as process:
        wait_for(run, "checkpoints/images-*", process)
        wait_for(run, "checkpoints/.tmp-*", process)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    seen = checkpoint.load_model(str(run), "cpu").images_seen
    assert seen >= 8
    train(config(pair_shards, run, total_images=seen + 16), str)
    train(config(pair_shards, tmp_path / "straight", total_images=seen + 16), str)
    assert_equal(run, tmp_path / "straight")
    assert learned(run) == learned(tmp_path / "straight")
    assert not list((run / "checkpoints").glob(".tmp-*"))


@pytest.mark.parametrize(
    ("settings", "relative"),
    [
        ({"checkpoint_levels": (0, 1)}, 0.0),
        ({"channels_last": "on"}, 1e-4),
        ({"precision": "bf16"}, 0.02),
        pytest.param({"compile": "on"}, 1e-4, marks=pytest.mark.slow),
    ],
)
def test_switches_change_speed_and_memory_not_what_is_learned(
    pair_shards: Path, tmp_path: Path, settings: dict[str, Any], relative: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    still = dataclasses.replace(TOY, network=dataclasses.replace(TOY.network, dropout=0.0))  # compiled dropout draws other numbers
    monkeypatch.setitem(presets.PRESETS, "tiny", lambda: still)  # type: ignore[arg-type]
    for name, given in (("base", {}), ("switched", settings)):
        train(config(pair_shards, tmp_path / name, total_images=48, **given), str)
    base, switched = ([line["loss"] for line in log_lines(tmp_path / name)] for name in ("base", "switched"))
    np.testing.assert_allclose(switched, base, rtol=relative)
    assert all(value.dtype == torch.float32 for value in tensors(tmp_path / "switched").values())
