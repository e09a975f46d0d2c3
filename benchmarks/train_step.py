"""A step of the training loop against a bare forward, backward and optimizer step of the same network and batch; the share of data wait.

    python benchmarks/train_step.py                 # preset tiny; --preset, --steps, --cores and --repeats change what is measured

The bare step gets tensors that are ready. The loop reads, decodes, draws noise, encodes conditions (builtin, remembered after the first
epoch), clips, averages and counts too. Both run in processes of their own, in turn; goal: 0.95, data wait below 2 %.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import torch
from processes import conditions, in_turn, measured, median, pin, ratio

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "train"))

from made_pairs import make_shards

from train.config import TrainConfig, resolve
from train.distributed import World
from train.loop import micro_batches, step
from train.meter import Meter
from train.network import build
from train.setup import make_reader, make_state, prepare
from train.state import BETAS, EPSILON

PAIRS = 64


def settings(folder: str, preset: str) -> TrainConfig:
    return TrainConfig(
        data=os.path.join(folder, "shards"), output=os.path.join(folder, "run"), preset=preset, encoder="builtin", device="cpu"
    )


def run_loop(config: TrainConfig, steps: int, out: Path) -> None:
    """Measures steps after one epoch of warm-up, and leaves the share of data wait in a file."""
    preset, world = resolve(config), World(rank=0, size=1, device=torch.device("cpu"))
    setup = prepare(config, preset, world)
    state, module = make_state(setup)
    meter = Meter(device=world.device, processes=1, forward_flop=0, peak_tflops=0, every_images=0)
    batches = make_reader(setup).batches(micro_batches(preset.batch, preset.micro_batch, 0, 0, 1))
    for _ in range(2 + PAIRS // preset.batch):
        sums, _ = step(setup, state, module, batches, meter, stop=False)
        meter.add(sums, preset.batch)
    meter.line(0, 0, 0)
    with measured():
        for _ in range(steps):
            sums, _ = step(setup, state, module, batches, meter, stop=False)
            meter.add(sums, preset.batch)
    with out.open("a") as file:
        file.write(json.dumps(meter.line(0, 0, 0)["data_wait"]) + "\n")


def run_bare(config: TrainConfig, steps: int) -> None:
    preset = resolve(config)
    network = build(preset.network, conditioning="cross_attention", condition_width=12).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=preset.lr, betas=BETAS, eps=EPSILON, fused=True)
    side, count = preset.network.image_px, preset.micro_batch
    inputs = torch.randn(count, 3, side, side), torch.randn(count), torch.randn(count, 64, 12), torch.zeros(count, dtype=torch.bool)
    target = torch.randn(count, 3, side, side)

    def once() -> None:
        for _ in range(preset.batch // count):
            (network(*inputs) - target).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    for _ in range(2 + PAIRS // preset.batch):
        once()
    with measured():
        for _ in range(steps):
            once()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--side", help="measures one side and prints it as JSON")
    args = parser.parse_args()
    if args.side:
        pin(args.cores)
        torch.set_num_threads(args.cores)
        config = settings(args.folder, args.preset)
        if args.side == "loop":
            run_loop(config, args.steps, Path(args.folder) / "waits")
        else:
            run_bare(config, args.steps)
        return
    with tempfile.TemporaryDirectory() as folder:
        make_shards(Path(folder) / "shards", PAIRS, size=max(64, resolve(TrainConfig(preset=args.preset)).network.image_px))
        flags = [folder, "--preset", args.preset, "--steps", str(args.steps), "--cores", str(args.cores)]
        runs = in_turn(__file__, ["bare", "loop"], flags, args.repeats)
        waits = sorted(json.loads(line) for line in (Path(folder) / "waits").read_text().splitlines())
    batch = resolve(TrainConfig(preset=args.preset)).batch
    print(conditions(args.repeats), f"; {args.preset}, {args.cores} cores, {args.steps} steps of {batch}, {time.strftime('%Y-%m')}")
    for side, found in runs.items():
        wall, cpu = (args.steps * batch / median(found, name) for name in ("wall_s", "cpu_s"))
        print(f"{side:6}{wall:9.1f} images/s, {cpu:9.1f} a CPU second")
    print(f"loop / bare: wall {ratio(runs['bare'], runs['loop'], 'wall_s')}, CPU {ratio(runs['bare'], runs['loop'], 'cpu_s')}")
    print(f"data wait: {waits[len(waits) // 2]:.1%} ({waits[0]:.1%}-{waits[-1]:.1%})")


if __name__ == "__main__":
    main()
