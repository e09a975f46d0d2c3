"""The table of encoders and what it says of unknown names."""

import subprocess
import sys

import numpy as np
import pytest

from encoders import Band, band_of, embed_all, encoder_folder, load_encoder


@pytest.mark.parametrize(
    ("spec", "nearest"),
    [("dinov2-bse", "dinov2-base"), ("buildin", "builtin"), ("tflite:", "tflite:PATH"), ("tflite:PATH", "tflite:PATH")],
)
def test_unknown_name_says_the_nearest_and_all(spec: str, nearest: str) -> None:
    for call in (load_encoder, encoder_folder, band_of):
        with pytest.raises(ValueError, match=r"there are builtin, dinov2-small, .*, mae-large, tflite:PATH$") as error:
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
