"""The table of encoders and what it says of unknown names."""

import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Dinov2Model, Dinov2WithRegistersModel, DINOv3ViTModel, ViTMAEModel

from encoders import (
    Band,
    band_note,
    band_of,
    clip,
    dinov2,
    dinov3,
    embed_all,
    encoder_folder,
    encoder_list,
    load_encoder,
    mae,
    siglip,
)
from encoders.table import ENCODERS


@pytest.mark.parametrize(
    ("spec", "nearest"),
    [("dinov2-bse", "dinov2-base"), ("buildin", "builtin"), ("tflite:", "tflite:PATH"), ("tflite:PATH", "tflite:PATH")],
)
def test_unknown_name_says_the_nearest_and_all(spec: str, nearest: str) -> None:
    for call in (load_encoder, encoder_folder, band_of):
        with pytest.raises(ValueError, match=r"there are builtin, dinov2-small, .*, mae-large, tflite:PATH, sscd:PATH$") as error:
            call(spec)
        assert str(error.value).startswith(f"--encoder {spec}: no such encoder, the nearest is {nearest};")


def test_folder_of_each_encoder() -> None:
    specs = ["builtin", "dinov2-small", "dinov2-base", "dinov2-large", "tflite:/some/where/net.v2.tflite"]
    assert [encoder_folder(spec) for spec in specs] == ["builtin", "dinov2-small", "dinov2-base", "dinov2-large", "tflite-net.v2"]


def test_band_of_each_encoder() -> None:
    paper = Band(low=0.3, high=0.9, source="paper: arXiv 2405.14857, DINOv2 CLS tokens")
    assert [band_of(f"dinov2-{size}") for size in ("small", "base", "large")] == [paper] * 3
    assert band_of("builtin") == Band(low=0.3, high=0.9, source="measured on 154 photos of 40 recipe pages")
    assert band_of("tflite:net.tflite") is None


def test_wrong_settings_name_their_flag() -> None:
    with pytest.raises(ValueError, match="--device tpu: give auto, cpu or cuda"):
        load_encoder("builtin", device="tpu")
    with pytest.raises(ValueError, match="--device cuda: builtin runs on the CPU only"):
        load_encoder("builtin", device="cuda")
    with pytest.raises(ValueError, match="--encoder-weights somewhere: builtin has no weights"):
        load_encoder("builtin", weights="somewhere")


def test_builtin_loads_without_any_network_library() -> None:
    program = (
        "import sys; from encoders import load_encoder; load_encoder('builtin');"
        "print(sorted({'torch', 'transformers', 'tensorflow', 'ai_edge_litert', 'apache_beam'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


class _Sums:
    """Returns each image's sum, and keeps the batches that it was given."""

    name, width, input_size, digest = "sums", 1, 2, {"name": "sums"}

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def preprocess(self, rgb_HW3: np.ndarray) -> np.ndarray:
        return rgb_HW3

    def embed(self, batch_BHW3: np.ndarray) -> np.ndarray:
        self.batches.append(batch_BHW3[:, 0, 0, 0].tolist())
        return batch_BHW3.sum((1, 2, 3), dtype=np.float32)[:, None]

    def tokens(self, batch_BHW3: np.ndarray) -> np.ndarray:
        return batch_BHW3.astype(np.float32).reshape(len(batch_BHW3), 4, 3)


def test_embed_all_runs_full_batches_in_order() -> None:
    encoder = _Sums()
    images = [np.full((2, 2, 3), value, np.uint8) for value in range(7)]
    vector_ND = embed_all(encoder, images, batch_size=3)
    assert vector_ND.dtype == np.float32
    assert vector_ND.tolist() == [[12.0 * value] for value in range(7)]
    assert encoder.batches == [[0, 1, 2], [3, 4, 5], [6, 6, 6]]
    assert embed_all(encoder, [], batch_size=3).shape == (0, 1)


def test_help_lists_the_table_without_any_network_library() -> None:
    program = (
        "import sys; from pagepairs.cli import main\n"
        "try:\n main(['embed', '--help'])\n"
        "except SystemExit: print(sorted({'torch', 'transformers', 'open_clip', 'apache_beam'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert encoder_list() in shown
    assert shown.endswith("[]\n")
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in encoder_list().splitlines()}
    assert lines["encoder"] == "width pixels parameters band licence"
    assert lines["dinov2-giant"] == "1536 224 1136.5 M 0.3 to 0.9, paper Apache-2.0"
    assert lines["siglip-so400m"] == "1152 224 427.7 M low 0.65, the paper's; no high cut is published Apache-2.0"
    assert lines["builtin"] == "338 64 - 0.3 to 0.9, measured Apache-2.0"
    assert lines["dinov3-base"] == "768 224 85.7 M none DINOv3 License, gated: accept it on the hub first"
    assert lines["tflite:PATH"] == "file's file's - none the file's"
    assert lines.keys() == {"encoder", *ENCODERS}


@pytest.mark.parametrize("name", [name for name, entry in ENCODERS.items() if entry.patch])
def test_the_table_tells_the_networks_size(name: str) -> None:
    entry = ENCODERS[name]
    with torch.device("meta"):
        network = _network(name)
    assert sum(weights.numel() for weights in network.parameters()) == entry.parameters
    side = entry.input_size
    vector_BD, _ = network(torch.empty((1, 3, side, side), device="meta"))
    assert vector_BD.shape == (1, entry.width)
    assert side % entry.patch == 0


def _network(name: str) -> torch.nn.Module:
    """The network of a name, as its family builds it, before it has weights."""
    if name.startswith("dinov2"):
        config = dinov2.SHAPES[name].config()
        kind = Dinov2WithRegistersModel if name.endswith("-reg") else Dinov2Model
        return dinov2.ClsFirst(kind(config), registers=getattr(config, "num_register_tokens", 0))
    if name.startswith("dinov3"):
        return dinov2.ClsFirst(DINOv3ViTModel(dinov3.SHAPES[name].config()), registers=4)
    if name.startswith("mae"):
        return mae.Unmasked(ViTMAEModel(mae.SHAPES[name].config()))
    if name.startswith("clip"):
        return clip.tower_of(clip.config_of(name))
    return siglip.AttentionPooled(siglip.tower_of(siglip.config_of(name)))


def test_bands_are_never_a_silent_default() -> None:
    with_band = {name for name in ENCODERS if not name.endswith(":PATH") and band_of(name)}
    assert with_band == {"builtin", "dinov2-small", "dinov2-base", "dinov2-large", "dinov2-giant"}
    noted = {name for name, entry in ENCODERS.items() if entry.note}
    assert noted == {"siglip-base", "siglip-base-256", "siglip-large", "siglip-so400m"}
    assert band_note("siglip-base") == "low 0.65, the paper's; no high cut is published"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"device": "tpu"}, "--device tpu: give auto, cpu or cuda"),
        ({"dtype": "float16"}, "--dtype float16: give auto, float32 or bfloat16"),
        ({"engine": "onnx"}, "--engine onnx: give torch or openvino"),
        ({"input_size": -14}, "--input-size -14: give 0 (the encoder's own) or a number of pixels"),
        ({"input_size": 230}, "--input-size 230: dinov2-base takes multiples of its patch of 14 pixels, such as 224"),
        (
            {"engine": "openvino", "compile": True},
            "--compile True: OpenVINO compiles by itself; leave the flag out, or give --engine torch",
        ),
    ],
)
def test_wrong_settings_are_refused_before_weights_are_read(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        load_encoder("dinov2-base", weights="nowhere", **settings)


@pytest.mark.parametrize("setting", [{"dtype": "bfloat16"}, {"compile": True}, {"input_size": 128}, {"engine": "openvino"}])
def test_builtin_refuses_what_only_networks_have(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="builtin has no such choice; leave the flag out"):
        load_encoder("builtin", **setting)
