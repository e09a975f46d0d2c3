"""One process or many: joining those that torchrun started, and how a network's work is shared (DDP or FSDP2)."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from train.network import Network


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Who this process is among those that train together."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0


def device_of(name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """Returns the device of this process; raises ValueError where there is no such device."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: there is no GPU that torch can use; leave the flag out to use the CPU")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


@contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """Joins the processes that torchrun started; alone where it did not."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if size == 1:
        yield World(rank=0, size=1, device=device)
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(rank=dist.get_rank(), size=size, device=device)
    finally:
        dist.destroy_process_group()


def share(network: Network, parallel: Literal["ddp", "fsdp2"], world: World) -> nn.Module:
    """Returns the module whose backward pass leaves the mean gradient of all processes.

    FSDP2 shards float32 weights and gathers a block at a time; bfloat16 comes from autocast, as in DDP, so both compute the same.
    """
    if world.size == 1:
        return network
    if parallel == "ddp":
        return DistributedDataParallel(
            network, device_ids=None if world.device.type == "cpu" else [world.device], gradient_as_bucket_view=True
        )
    for block in network.all_blocks():
        fully_shard(block)
    fully_shard(network)
    return network


def unsynced(module: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Returns the context of a micro-batch: DDP exchanges gradients in the last one of a step, FSDP2 in each, to keep them sharded."""
    if isinstance(module, DistributedDataParallel) and not last:
        context: AbstractContextManager[None] = module.no_sync()
        return context
    return nullcontext()


def total(values: Tensor, world: World) -> Tensor:
    """Returns the sum over all processes."""
    if world.size > 1:
        dist.all_reduce(values)
    return values


def whole(tensor: Tensor) -> Tensor:
    """Returns a tensor of which each process may hold a part; all processes must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def put(target: Tensor, value: Tensor) -> None:
    """Copies a whole tensor into one of which each process may hold a part."""
    with torch.no_grad():
        if isinstance(target, DTensor):
            value = distribute_tensor(value.to(target.device), target.device_mesh, target.placements, src_data_rank=None)
        target.copy_(value)
