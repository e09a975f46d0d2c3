"""Local checkpoints: what loads, and the sentence for what does not."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_networks import FAMILIES, Small

from encoders import load_encoder, transformers_folder
from encoders.table import Settings
from encoders.torch_encoder import TorchEncoder

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123456789abcdef\nsize 346345912\n"


@pytest.fixture(scope="module", params=["dinov2", "clip", "siglip"])
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Small:
    """A checkpoint of transformers, of open_clip's own network, and of timm's in open_clip."""
    return FAMILIES[request.param](tmp_path_factory.mktemp(request.param) / "checkpoint")


@pytest.fixture(scope="module")
def of_open_clip(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """CLIP in open_clip's format."""
    return FAMILIES["clip"](tmp_path_factory.mktemp("clip") / "checkpoint")


def load(small: Small, path: Path, **settings: object) -> TorchEncoder:
    return small.load(Settings(weights=str(path), device="cpu", **settings))


def weights_file(folder: Path) -> Path:
    (path,) = folder.glob("*.safetensors")
    return path


def image(encoder: TorchEncoder, pictures: list[np.ndarray]) -> np.ndarray:
    return encoder.preprocess(pictures[3])[None]


def copy_of(small: Small, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small.folder, tmp_path / "copy"))


def test_broken_files_are_said_in_a_sentence(small: Small, tmp_path: Path) -> None:
    folder = copy_of(small, tmp_path)
    path = weights_file(folder)
    whole = path.read_bytes()
    for body, sentence in (
        (POINTER, "is a pointer of Git LFS, not the weights; run 'git lfs pull' in its repository"),
        (b"", "is empty; fetch it again"),
        (whole[: len(whole) // 2], rf"is broken, {len(whole) // 2} bytes where its header says {len(whole)}; fetch it again"),
        (b"<html>not found</html>", "is broken, 22 bytes where its header says 0; fetch it again"),
    ):
        path.write_bytes(body)
        with pytest.raises(ValueError, match=f"^--encoder-weights: {path} {sentence}$"):
            load(small, folder)
    with pytest.raises(ValueError, match=f"^--encoder-weights {tmp_path / 'absent'}: there is no such folder or file$"):
        load(small, tmp_path / "absent")
    path.unlink()
    with pytest.raises(ValueError, match=rf"^--encoder-weights {folder}: there is no \S+\.safetensors or .+\.bin in that folder$"):
        load(small, folder)


def test_the_first_two_differing_keys_are_named(small: Small, tmp_path: Path) -> None:
    folder = copy_of(small, tmp_path)
    path = weights_file(folder)
    tensors = load_file(path)
    visual = sorted([key for key in tensors if key.startswith("visual.")] or tensors)
    shorter = {key: torch.zeros(7) if key in visual[:2] else tensor for key, tensor in tensors.items()}
    save_file(shorter, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"does not fit --encoder {small.name}: ") as error:
        load(small, folder)
    told = str(error.value).split(small.name + ": ")[1]
    assert re.sub(r"\[[\d, ]+\] in", "SHAPE in", told) == (
        f"{visual[0]} is [7] there and SHAPE in {small.name}; {visual[1]} is [7] there and SHAPE in {small.name} (2 differences in all)"
    )
    save_file({key: tensor for key, tensor in tensors.items() if key != visual[0]}, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"does not fit --encoder {small.name}: \S+ is missing \(1 differences in all\)"):
        load(small, folder)
    extra = "visual.left_over" if any(key.startswith("visual.") for key in tensors) else "left_over"
    save_file(tensors | {extra: torch.zeros(1)}, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"does not fit --encoder {small.name}: {extra} is left over \(1 differences in all\)"):
        load(small, folder)


def test_open_clip_takes_a_file_a_folder_and_a_checkpoint_of_a_training_run(
    of_open_clip: Small, tmp_path: Path, pictures: list[np.ndarray]
) -> None:
    path = weights_file(of_open_clip.folder)
    encoder = load(of_open_clip, of_open_clip.folder)
    expected = encoder.embed(image(encoder, pictures))
    assert encoder.digest["weights"] == hashlib.sha256(path.read_bytes()).hexdigest()
    tensors = load_file(path)
    trained = {"epoch": 3, "name": "run", "state_dict": {f"module.{key}": tensor for key, tensor in tensors.items()}}
    for name, state in (("epoch_3.pt", trained), ("plain.bin", tensors)):
        torch.save(state, tmp_path / name)
        np.testing.assert_array_equal(load(of_open_clip, tmp_path / name).embed(image(encoder, pictures)), expected)
    shutil.copy(path, tmp_path / "alone.safetensors")
    np.testing.assert_array_equal(load(of_open_clip, tmp_path / "alone.safetensors").embed(image(encoder, pictures)), expected)


class _Harmful:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_pickles_of_open_clip_run_nothing(of_open_clip: Small, tmp_path: Path) -> None:
    torch.save({"visual.proj": _Harmful(tmp_path / "ran")}, tmp_path / "harmful.pt")
    sentence = rf"{tmp_path}/harmful\.pt is broken or holds more than tensors \(UnpicklingError\); fetch it again, as safetensors"
    with pytest.raises(ValueError, match=sentence):
        load(of_open_clip, tmp_path / "harmful.pt")
    assert not (tmp_path / "ran").exists()


def test_a_folder_whose_settings_differ_is_refused(tmp_path: Path) -> None:
    """Preprocessing and activation change every vector and no tensor's size."""
    small = FAMILIES["siglip"](tmp_path / "siglip")
    path = small.folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    clips = {"mean": [0.48145466, 0.4578275, 0.40821073], "resize_mode": "shortest"}
    path.write_text(json.dumps(config | {"preprocess_cfg": config["preprocess_cfg"] | clips}))
    sentence = (
        r"mean is \[0\.48.*\] there and \[0\.5, 0\.5, 0\.5\] in .*; resize_mode is shortest there and squash in .* \(2 differences in all\)"
    )
    with pytest.raises(ValueError, match=sentence):
        load(small, small.folder)
    other = FAMILIES["clip"](tmp_path / "clip")
    path = other.folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"model_cfg": config["model_cfg"] | {"quick_gelu": False}}))
    with pytest.raises(ValueError, match=r"quick_gelu is False there and True in clip-small-for-tests \(1 differences in all\)"):
        load(other, other.folder)


def test_a_network_with_other_heads_is_refused(tmp_path: Path) -> None:
    small = FAMILIES["dinov2"](tmp_path / "dinov2")
    path = small.folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_attention_heads": 6}))
    with pytest.raises(ValueError, match=rf"num_attention_heads is 6 there and 3 in {small.name} \(1 differences in all\)"):
        load(small, small.folder)


def test_transformers_takes_several_files_and_no_single_one(tmp_path: Path, pictures: list[np.ndarray]) -> None:
    small = FAMILIES["dinov2"](tmp_path / "whole")
    encoder = load(small, small.folder)
    parts = tmp_path / "parts"
    with transformers_folder._quiet():
        encoder.network.body.model.save_pretrained(parts, max_shard_size="100KB")
    # The positions were resampled for 224 pixels; the published table is larger.
    config = json.loads((parts / "config.json").read_text())
    assert config["image_size"] == 518
    for path in sorted(parts.glob("*.safetensors")):
        tensors = load_file(path)
        key = "embeddings.position_embeddings"
        save_file(tensors | ({key: load_file(weights_file(small.folder))[key]} if key in tensors else {}), path, metadata={"format": "pt"})
    assert len(list(parts.glob("*.safetensors"))) > 1
    split = load(small, parts)
    np.testing.assert_array_equal(split.embed(image(encoder, pictures)), encoder.embed(image(encoder, pictures)))
    assert split.digest["weights"] != encoder.digest["weights"]
    sorted(parts.glob("*.safetensors"))[-1].unlink()
    with pytest.raises(ValueError, match=r"there is no model-\S+\.safetensors in that folder"):
        load(small, parts)
    with pytest.raises(ValueError, match=f"takes the folder as transformers saves it; give {small.folder}$"):
        load(small, weights_file(small.folder))


def test_names_of_the_table_refuse_small_networks(of_open_clip: Small) -> None:
    with pytest.raises(ValueError, match=r"embed_dim is 32 there and 512 in clip-b32; layers is 2 there and 12 in clip-b32"):
        load_encoder("clip-b32", weights=str(of_open_clip.folder), device="cpu")
    sentence = r"visual\.class_embedding is \[128\] there and \[768\] in clip-b32; visual\.conv1\.weight is \[128, 3, 32, 32\] there"
    with pytest.raises(ValueError, match=sentence):
        load_encoder("clip-b32", weights=str(weights_file(of_open_clip.folder).rename(of_open_clip.folder.parent / "x.safetensors")))
