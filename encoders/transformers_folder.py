"""Checkpoints as transformers saves them: a folder with config.json and model.safetensors, in one file or several."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import transformers

from encoders import weights

_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
LIBRARY = f"transformers {transformers.__version__}"


def load_folder(name: str, kind: Any, config: Any, folder: str, *, unused: Sequence[str] = ()) -> tuple[Any, str]:
    """Loads a checkpoint into a network of `kind`; an empty `folder` takes the published weights.

    Args:
      name: of the encoder.
      kind: a class of transformers with `from_pretrained`.
      config: the network that the name stands for; the folder's own config.json must agree with it.
      folder: where the checkpoint is.
      unused: beginnings of keys that may be left over.

    Returns:
      The network on the CPU, in eval mode, and the sha256 of its weights.

    Raises:
      ValueError: if there is no checkpoint, it is broken, or a tensor is missing, left over or of another size than in `config`.
    """
    local, folder = bool(folder), folder or _published(name)
    if os.path.isfile(folder):
        raise ValueError(f"--encoder-weights {folder}: {name} takes the folder as transformers saves it; give {os.path.dirname(folder)}")
    path = weights.find(folder, _FILES)
    paths = _parts(path)
    model, report = _read(folder, path, kind, config)
    differences = [f"{key} is {list(found)} there and {list(wanted)} in {name}" for key, found, wanted in sorted(report["mismatched_keys"])]
    differences += [f"{key} is missing" for key in sorted(report["missing_keys"])]
    differences += [f"{key} is left over" for key in sorted(report["unexpected_keys"]) if not key.startswith(tuple(unused))]
    if local and not differences:  # what the hub holds is what the table was made from
        differences = _config_differences(folder, name, config)
    weights.refuse_differences(folder, name, differences)
    return model, weights.sha256_of(paths)


def _published(name: str) -> str:
    """Returns the folder of the published weights: safetensors, or what there is if there are none."""
    folder = weights.download(name, ["config.json", "model*.safetensors", "model.safetensors.index.json"])
    has_one = any(os.path.isfile(os.path.join(folder, file)) for file in _FILES)
    return folder if has_one else weights.download(name, ["config.json", _FILES[-1]])


def _parts(path: str) -> list[str]:
    """Returns the files that hold the tensors; an index names several."""
    if not path.endswith(".json"):
        return [path]
    folder = os.path.dirname(path)
    with open(path, encoding="utf-8") as file:
        names = sorted(set(json.load(file)["weight_map"].values()))
    for name in names:
        weights.find(folder, [name])
    return [os.path.join(folder, name) for name in names]


def _config_differences(folder: str, name: str, config: Any) -> list[str]:
    """Returns how the folder's config.json differs where the sizes of tensors would not show it."""
    path = os.path.join(folder, "config.json")
    if not os.path.isfile(path):
        return []
    with open(path, encoding="utf-8") as file:
        theirs = json.load(file)
    keys = ("num_attention_heads", "patch_size", "hidden_act", "num_register_tokens")
    ours = {key: getattr(config, key) for key in keys if hasattr(config, key)}
    return [f"{key} is {theirs[key]} there and {ours[key]} in {name}" for key in ours if theirs.get(key, ours[key]) != ours[key]]


def _read(folder: str, path: str, kind: Any, config: Any) -> Any:
    """Returns the network, on the CPU, and transformers' report on how the weights in `path` fitted."""
    try:
        with _quiet():
            return kind.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=not path.endswith(".bin"),
                weights_only=True,  # a pickle may hold tensors, nothing that runs
                ignore_mismatched_sizes=True,  # the report has them
                output_loading_info=True,
            )
    except Exception as error:  # a broken file raises anything from IndexError to the reader's own classes
        kind_of_error = type(error).__name__
        trouble = f"{path} is broken or holds more than tensors ({kind_of_error})"
        raise ValueError(f"--encoder-weights {folder}: {trouble}; fetch it again, as safetensors") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps transformers' table of differences and its progress bar off the screen: `load_folder` says what matters in one sentence."""
    logging: Any = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
