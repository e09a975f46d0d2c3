"""Networks compiled by OpenVINO against the same in torch. Compiling takes seconds a network: one family here, all with -m slow."""

import sys
from pathlib import Path

import numpy as np
import pytest
from small_networks import FAMILIES

from encoders import embed_all
from encoders.table import Settings

_CASES = [(family, dtype) for family in FAMILIES for dtype in ("float32", "bfloat16")]
_QUICK = ("siglip", "float32")
_COSINE = {"float32": 0.999999, "bfloat16": 0.999}


@pytest.mark.parametrize(
    ("family", "dtype"), [pytest.param(*case, marks=[] if case == _QUICK else pytest.mark.slow, id="-".join(case)) for case in _CASES]
)
def test_openvino_agrees_with_torch(family: str, dtype: str, tmp_path: Path, pictures: list[np.ndarray]) -> None:
    small = FAMILIES[family](tmp_path / "checkpoint")
    encoder = small.load(Settings(weights=str(small.folder), device="cpu"))
    compiled = small.load(Settings(weights=str(small.folder), engine="openvino", dtype=dtype, threads=1))
    images = [encoder.preprocess(rgb) for rgb in pictures[:6]]
    np.testing.assert_array_equal(compiled.preprocess(pictures[1]), images[1])
    expected_ND, found_ND = embed_all(encoder, images, batch_size=3), embed_all(compiled, images, batch_size=3)
    assert found_ND.dtype == np.float32
    assert (found_ND * expected_ND).sum(1).min() > _COSINE[dtype]
    np.testing.assert_allclose(np.linalg.norm(found_ND, axis=1), 1, atol=1e-6)
    tokens_BNC, wanted_BNC = compiled.tokens(np.stack(images[:3])), encoder.tokens(np.stack(images[:3]))
    assert tokens_BNC.shape == wanted_BNC.shape
    assert np.corrcoef(tokens_BNC.ravel(), wanted_BNC.ravel())[0, 1] > _COSINE[dtype]
    assert compiled.digest == encoder.digest | {"engine": "openvino", "dtype": dtype, "library": compiled.digest["library"]}
    assert ", openvino 2026" in compiled.digest["library"]


def test_absence_and_a_gpu_are_said_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = FAMILIES["siglip"](tmp_path / "checkpoint")
    with pytest.raises(ValueError, match="--engine openvino runs on the CPU only; leave --device cuda out, or give --engine torch"):
        small.load(Settings(weights=str(small.folder), engine="openvino", device="cuda"))
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ValueError, match=r"--engine openvino: OpenVINO is not installed; run pip install 'pagepairs\[openvino\]'"):
        small.load(Settings(weights=str(small.folder), engine="openvino"))
