"""The Inception network of the Fréchet Inception Distance, from a local file. Only its published weights may be called FID.

Network and TensorFlow-1 resize come from torch-fidelity; its weights, converted from the original graph, are a file of its release. The
name of that file ends in the first hex characters of its sha256, which is how torch.hub checks it, and so do we.
"""

import hashlib
import os
import pickle
import re
from typing import Literal

import numpy as np
import torch
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

from train.distributed import device_of
from train.features import FeatureSpace

LAYER, WIDTH = "2048", 2048
FILE = URL_INCEPTION_V3.rpartition("/")[2]
SHA256_PREFIX = re.search(r"-([0-9a-f]{8,})\.", FILE)[1]  # type: ignore[index]  # a release without it must fail here


def load_inception(path: str, *, device: Literal["auto", "cpu", "cuda"], stand_in: bool = False) -> FeatureSpace:
    """Loads the network, 2048 features before the classifier, float32.

    Args:
      path: `weights-inception-2015-12-05-6726825d.pth` of torch-fidelity.
      device: auto, cpu or cuda.
      stand_in: for tests of the arithmetic: takes other weights of the same shapes, and never says FID.

    Raises:
      ValueError: if the file is absent or another.
    """
    if not os.path.isfile(path):
        raise ValueError(f"--inception-weights {path}: there is no such file; {_remedy()}")
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if not stand_in and not sha256.startswith(SHA256_PREFIX):
        raise ValueError(f"--inception-weights {path}: its sha256 begins with {sha256[:8]}, not {SHA256_PREFIX}; {_remedy()}")
    try:
        torch.load(path, weights_only=True)  # the library would unpickle whatever stands there
        network = FeatureExtractorInceptionV3("inception-v3-compat", [LAYER], feature_extractor_weights_path=path)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise ValueError(f"--inception-weights {path}: no weights of the Inception network ({str(error).splitlines()[0]})") from error
    where = device_of(device)
    network = network.to(where)

    @torch.no_grad()
    def embed(batch_BHW3: np.ndarray) -> np.ndarray:
        features: np.ndarray = network(torch.from_numpy(batch_BHW3).to(where).permute(0, 3, 1, 2))[0].cpu().numpy()
        return features

    name = "inception-stand-in" if stand_in else "inception-v3-2048"
    return FeatureSpace(
        label=f"FD({name})" if stand_in else "FID",
        digest={"name": name, "weights": sha256, "preprocessing": "uint8, TensorFlow-1 bilinear to 299", "library": "torch-fidelity"},
        width=WIDTH,
        preprocess=np.ascontiguousarray,
        embed=embed,
    )


def _remedy() -> str:
    return f"download {URL_INCEPTION_V3} (sha256 begins with {SHA256_PREFIX}), or leave the flag out: FD(encoder) needs no such file"
