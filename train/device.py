"""Where networks run."""

import torch


def pick_device(name: str) -> torch.device:
    """Returns the device that --device names: auto (a GPU where there is one), cpu or cuda.

    Raises:
      ValueError: for cuda where there is no GPU.
    """
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise ValueError("--device cuda: torch sees no GPU; leave the flag out")
    return torch.device("cuda" if found and name != "cpu" else "cpu")
