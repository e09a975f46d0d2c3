"""The copy descriptor, with a stand-in: a small random network in the format that Meta publishes; its own files were not at hand."""

import hashlib
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from encoders import band_of, encoder_folder, load_encoder


class _StandIn(torch.nn.Module):
    """As SSCD's: RGB images to vectors of unit norm."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = torch.nn.Conv2d(3, 24, 32, 32)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(self.patches(pixels).relu().mean((2, 3)))


def save_script(module: torch.nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.trace(module, torch.zeros(2, 3, 320, 320)).save(str(path))
    return path


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, _StandIn]:
    torch.manual_seed(3)
    module = _StandIn().eval()
    return save_script(module, tmp_path_factory.mktemp("sscd") / "sscd_disc_mixup.torchscript.pt"), module


def test_vectors_equal_the_published_recipe(script: tuple[Path, _StandIn], pictures: list[np.ndarray]) -> None:
    path, module = script
    encoder = load_encoder(f"sscd:{path}", device="cpu")
    batch = np.stack([encoder.preprocess(rgb) for rgb in pictures])
    vectors = encoder.embed(batch)
    published = transforms.Compose(
        [transforms.Resize([320, 320]), transforms.ToTensor(), transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    )
    with torch.no_grad():
        expected = module(torch.stack([published(Image.fromarray(rgb)) for rgb in pictures])).numpy()
    assert (vectors.shape, vectors.dtype) == ((12, 24), np.float32)
    assert (vectors * expected).sum(1).min() > 0.99999  # PIL's bilinear rounds to 8 bits twice, ours once
    np.testing.assert_allclose(encoder.tokens(batch)[:, 0], vectors, atol=1e-6)


def test_digest_name_and_sizes(script: tuple[Path, _StandIn]) -> None:
    path, _ = script
    encoder = load_encoder(f"sscd:{path}", device="cpu")
    assert (encoder.name, encoder.width, encoder.input_size) == ("sscd-sscd_disc_mixup.torchscript", 24, 320)
    assert encoder.name == encoder_folder(f"sscd:{path}")
    assert encoder.digest["weights"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert encoder.digest["preprocessing"] == "squash-bilinear-v1"
    assert band_of(f"sscd:{path}") is None


def test_what_cannot_be_used_is_refused(script: tuple[Path, _StandIn], tmp_path: Path) -> None:
    path, _ = script
    with pytest.raises(ValueError, match="there is no file"):
        load_encoder(f"sscd:{tmp_path}/none.pt")
    (tmp_path / "text.pt").write_text("no network")
    with pytest.raises(ValueError, match=r"text.pt is no TorchScript file"):
        load_encoder(f"sscd:{tmp_path}/text.pt")
    with pytest.raises(ValueError, match="one vector each"):
        load_encoder(f"sscd:{save_script(torch.nn.Flatten(2), tmp_path / 'flat.pt')}", device="cpu")
    with pytest.raises(ValueError, match="--encoder-weights x: the weights of"):
        load_encoder(f"sscd:{path}", weights="x")
    with pytest.raises(ValueError, match="no such encoder, the nearest is sscd:PATH"):
        load_encoder("sscd:")
    with pytest.raises(ValueError, match="a finished program"):
        load_encoder(f"sscd:{path}", engine="openvino")
