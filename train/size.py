"""What a network costs: parameters, arithmetic and memory, computed without allocating it."""

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from train.network import Conditioning, NetworkConfig, build

TRAINING = 3
"""Forward plus backward, in forward passes: what model FLOP utilisation counts, whether or not activations are computed twice."""


def parameters_of(network: nn.Module) -> int:
    """Returns the number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def forward_flop(config: NetworkConfig, *, conditioning: Conditioning, condition_shape: tuple[int, ...]) -> int:
    """Returns the FLOP of a forward pass of one image, two for each multiply and add, of matrix products, convolutions and attention.

    Args:
      config: shape of the network.
      conditioning: how it is conditioned.
      condition_shape: (N, C) of tokens, or (D,) of the global vector.
    """
    # Fake tensors have shapes and no memory; unlike those of the meta device they know autocast. The math kernel of attention is two matrix
    # products, which the counter sees on every device.
    with FakeTensorMode(), FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        network = build(config, conditioning=conditioning, condition_width=condition_shape[-1]).eval()
        network(torch.empty(1, 3, config.image_px, config.image_px), torch.empty(1), torch.empty(1, *condition_shape))
    return int(counter.get_total_flops())
