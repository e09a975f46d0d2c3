"""Image towers of open_clip: checkpoints as open_clip saves them, in a file, or in a folder with open_clip_config.json.

Only the tensors of the image tower are read; the text tower is never built. The architecture and the preprocessing come from the table,
and a folder's own configuration must agree: a SigLIP without its tag would otherwise take CLIP's mean, deviation and crop.
"""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import open_clip
import torch
from safetensors import safe_open

from encoders import weights
from encoders.preprocessing import Recipe

LIBRARY = f"open_clip {open_clip.__version__}"
_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_CONFIG = "open_clip_config.json"


def find_checkpoint(name: str, where: str) -> str:
    """Returns the file of weights in a folder, or the file itself; an empty `where` takes the published weights."""
    if not where:
        where = weights.download(name, [_CONFIG, _FILES[0]])
    if not os.path.isfile(where):
        return weights.find(where, _FILES)
    weights.check(where)
    return where


def check_config(name: str, path: str, model: Mapping[str, Any], recipe: Recipe) -> None:
    """Compares open_clip_config.json beside the weights, if there is one, with the table.

    Raises:
      ValueError: naming the first two settings that differ.
    """
    file_path = os.path.join(os.path.dirname(path), _CONFIG)
    if not os.path.isfile(file_path):
        return
    with open(file_path, encoding="utf-8") as file:
        found = json.load(file)
    theirs = found.get("model_cfg", {})
    ours = {"embed_dim": model["embed_dim"], "quick_gelu": model.get("quick_gelu", False)}
    pairs = [(key, theirs.get(key, False), value) for key, value in ours.items()]
    vision = theirs.get("vision_cfg", {})
    pairs += [(key, vision.get(key, value), value) for key, value in model["vision_cfg"].items()]
    channels = recipe.channels
    fit = {
        "mean": list(channels.mean),
        "std": list(channels.deviation),
        "interpolation": recipe.interpolation,
        "resize_mode": recipe.fit,
    }
    preprocess = found.get("preprocess_cfg", {})
    pairs += [(key, preprocess.get(key, value), value) for key, value in fit.items()]
    differences = [f"{key} is {there} there and {here} in {name}" for key, there, here in pairs if there != here]
    weights.refuse_differences(os.path.dirname(path), name, differences)


def fill(name: str, tower: torch.nn.Module, path: str) -> None:
    """Loads the tensors `visual.*` of a checkpoint into the tower.

    Raises:
      ValueError: if the file is broken, or a tensor is missing, left over or of another size.
    """
    found = _read(path)
    wanted = tower.state_dict()
    differences = [
        f"visual.{key} is {list(found[key].shape)} there and {list(wanted[key].shape)} in {name}"
        for key in sorted(found.keys() & wanted.keys())
        if found[key].shape != wanted[key].shape
    ]
    differences += [f"visual.{key} is missing" for key in sorted(wanted.keys() - found.keys())]
    differences += [f"visual.{key} is left over" for key in sorted(found.keys() - wanted.keys())]
    weights.refuse_differences(path, name, differences)
    tower.load_state_dict({key: tensor.float() for key, tensor in found.items()}, strict=True)


def _read(path: str) -> dict[str, torch.Tensor]:
    """Returns the tensors of the image tower, without their prefix."""
    try:
        if path.endswith(".safetensors"):
            with safe_open(path, framework="pt") as file:
                return {_short(key): file.get_tensor(key) for key in file.keys() if _is_visual(key)}  # noqa: SIM118
        # A pickle may hold tensors, nothing that runs.
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)  # a checkpoint of a training run
        return {_short(key): tensor for key, tensor in state.items() if _is_visual(key)}
    except Exception as error:  # a broken file raises anything
        kind = type(error).__name__
        trouble = f"{path} is broken or holds more than tensors ({kind})"
        raise ValueError(f"--encoder-weights: {trouble}; fetch it again, as safetensors") from error


def _is_visual(key: str) -> bool:
    return key.removeprefix("module.").startswith("visual.")


def _short(key: str) -> str:
    return key.removeprefix("module.").removeprefix("visual.")


def model_config(model: str, keys: Sequence[str]) -> dict[str, Any]:
    """Returns the named model's configuration in open_clip, of its image tower only the given keys."""
    config: dict[str, Any] = open_clip.get_model_config(model)
    vision = {key: config["vision_cfg"][key] for key in keys}
    return {"embed_dim": config["embed_dim"], "vision_cfg": vision}
