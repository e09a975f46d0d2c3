"""The whole way from folders to scores against torch-fidelity's own, with the Inception network on random weights as a stand-in."""

from pathlib import Path

import numpy as np
import pytest
import torch_fidelity
from PIL import Image

from train.evaluate import evaluate
from train.evaluate_config import EvaluateConfig
from train.features import encoder_space
from train.inception import load_inception


def write_folder(folder: Path, seed: int, spread: int) -> str:
    rng = np.random.Generator(np.random.Philox(key=seed))
    folder.mkdir()
    for number in range(8):
        coarse = Image.fromarray(rng.integers(0, spread, (4, 4, 3), np.uint8))
        coarse.resize((32, 32), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return str(folder)


@pytest.mark.slow  # their eigenvalues of a matrix of 2048 that is not symmetric take ten seconds of processor time
@pytest.mark.filterwarnings("ignore")  # of the library
def test_distance_precision_and_recall_of_two_folders_equal_torch_fidelitys(random_inception: Path, tmp_path: Path) -> None:
    generated, real = write_folder(tmp_path / "generated", 1, 200), write_folder(tmp_path / "real", 2, 256)
    theirs = torch_fidelity.calculate_metrics(
        input1=generated, input2=real, fid=True, prc=True, feature_extractor="inception-v3-compat", feature_layer_prc="2048",
        feature_extractor_weights_path=str(random_inception), prc_neighborhood=3, cuda=False, cache=False, verbose=False, batch_size=8,
        save_cpu_ram=True,
    )  # fmt: skip
    config = EvaluateConfig(generated=generated, real=real, output=str(tmp_path / "out"))
    spaces = [encoder_space("builtin", weights="", device="cpu"), load_inception(str(random_inception), device="cpu", stand_in=True)]
    found = evaluate(config, load_generator=lambda _: pytest.fail("no model"), load_spaces=lambda _: spaces).evaluation["spaces"][1]
    assert (found["label"], found["images"]) == ("FD(inception-stand-in)", 8)
    row = found["rows"]["generated"]
    # Their means and covariances are of float32 features, and 8 images leave 2 041 of 2 048 eigenvalues to rounding.
    assert row["frechet"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3)
    assert (row["precision"], row["recall"]) == pytest.approx((theirs["precision"], theirs["recall"]), abs=1e-6)
