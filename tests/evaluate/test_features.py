"""Feature spaces: names, batches, and the Inception network from a file, whose published weights alone are called FID."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from encoders import load_encoder
from train.features import BATCH, encoder_space, extract
from train.inception import load_inception


def pictures(count: int, side: int = 40) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=3)).integers(0, 256, (count, side, side, 3), np.uint8)


def test_an_encoder_gives_its_vectors_under_its_own_name_whatever_the_number_of_images() -> None:
    space, encoder = encoder_space("builtin", weights="", device="cpu"), load_encoder("builtin")
    assert (space.label, space.digest) == ("FD(builtin)", encoder.digest)
    images = pictures(BATCH + 3)
    (found,) = extract([space], iter(images))
    assert found.shape == (BATCH + 3, encoder.width)
    assert (found == encoder.embed(np.stack([encoder.preprocess(image) for image in images]))).all()
    assert extract([space], iter(()))[0].shape == (0, encoder.width)


def test_several_spaces_read_the_images_once() -> None:
    reads = []
    images = (reads.append(number) or image for number, image in enumerate(pictures(5)))
    first, second = extract([encoder_space("builtin", weights="", device="cpu")] * 2, images)
    assert reads == [0, 1, 2, 3, 4]
    assert (first == second).all()


def test_missing_inception_weights_are_named_with_what_to_download(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no such file") as caught:
        load_inception(str(tmp_path / "absent.pth"), device="cpu")
    assert "weights-inception-2015-12-05-6726825d.pth (sha256 begins with 6726825d), or leave the flag out" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_weights_than_the_published_are_refused_whatever_their_name(random_inception: Path) -> None:
    with pytest.raises(ValueError, match=r"its sha256 begins with [0-9a-f]{8}, not 6726825d; download "):
        load_inception(str(random_inception), device="cpu")


def test_a_stand_in_computes_what_torch_fidelity_computes_and_is_never_called_fid(random_inception: Path) -> None:
    space = load_inception(str(random_inception), device="cpu", stand_in=True)
    assert (space.label, space.digest["name"]) == ("FD(inception-stand-in)", "inception-stand-in")
    images = pictures(3)
    (found,) = extract([space], iter(images), batch_size=2)
    network = FeatureExtractorInceptionV3("theirs", ["2048"], feature_extractor_weights_path=str(random_inception))
    theirs = network(torch.from_numpy(images).permute(0, 3, 1, 2))[0].numpy()
    assert found.shape == (3, 2048)
    np.testing.assert_allclose(found, theirs, rtol=1e-4, atol=1e-5)
    assert len(np.unique(theirs[0])) > 100


def test_a_pickle_is_not_unpickled(tmp_path: Path) -> None:
    torch.save({"weights": Path("x")}, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match="no weights of the Inception network"):
        load_inception(str(tmp_path / "odd.pth"), device="cpu", stand_in=True)
